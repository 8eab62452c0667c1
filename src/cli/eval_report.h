#pragma once
// What an evaluation found: sums per task and over tasks, as a table and as JSON.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/eval_setup.h"
#include "speculate/calibration.h"
#include "speculate/stats.h"

namespace dspark::cli {

/// An answer loops when more than this share of its n-grams of kLoopNgram tokens occurred in it before.
inline constexpr int32_t kLoopNgram = 12;
inline constexpr double kLoopShare = 0.2;

/// Sums over a set of answers.
struct EvalGroup {
  int64_t answers = 0;
  int64_t tokens = 0;
  SpeculationStats stats;
  CalibrationStats calibration;

  void add(const EvalAnswer& answer);
  /// Predictions were collected, and every draft was verified: a policy that trims hides labels.
  bool is_calibrated() const { return calibration.n_positions() > 0 && stats.trimmed == 0; }
};

struct EvalTaskReport {
  std::string name;
  EvalGroup all;
  EvalGroup fresh;  // without looping answers
  std::optional<SpeculationStats> baseline_all, baseline_fresh;
  int64_t n_looping() const { return all.answers - fresh.answers; }
};

/// How the numbers came about.
struct EvalHead {
  std::string model;
  std::string drafter;  // path or name
  std::string kind;     // what the drafter calls itself
  std::string policy;
  std::string accept_rule;
  double temperature = 0.0;
  int32_t max_tokens = 0;
  uint64_t seed = 0;
  int32_t batch = 0;
  double seconds = 0.0;
  std::string baseline;  // empty: none
};

struct EvalReport {
  EvalHead head;
  std::vector<EvalTaskReport> tasks;

  /// All answers of all tasks in one sum (micro average).
  EvalGroup total() const;
  /// Mean over tasks of a number; tasks where it is negative (undefined) are left out, -1 without any.
  template <typename Number>
  double macro(Number&& number) const {
    double sum = 0.0;
    int n = 0;
    for (const EvalTaskReport& task : tasks) {
      const double value = number(task);
      if (value < 0.0) continue;
      sum += value;
      ++n;
    }
    return n > 0 ? sum / n : -1.0;
  }
};

/// baseline: answers of the same prompts with another drafter, empty: none.
EvalReport make_report(EvalHead head, const std::vector<TaskAnswers>& answers,
                       const std::vector<TaskAnswers>& baseline);

/// The tables, with line breaks.
std::string report_text(const EvalReport& report);
nlohmann::ordered_json report_json(const EvalReport& report);

}  // namespace dspark::cli
