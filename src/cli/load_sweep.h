#pragma once
// `dspark bench load`: one model under several loads, policies in turn.

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/interrupt.h"
#include "cli/load_flags.h"
#include "cli/progress.h"
#include "engine/loader.h"
#include "load/load_run.h"
#include "load/load_summary.h"
#include "load/round_trace.h"

namespace dspark::cli {

/// One policy at one load.
struct LoadCell {
  double load = 0.0;  // clients, or requests per second
  std::string policy;
  int64_t n_requests = 0;
  std::vector<LoadSummary> rounds;
  std::vector<double> inter_token_s;  // of all rounds, ascending, thinned to kCurvePoints

  static constexpr size_t kCurvePoints = 101;
  double median(double LoadSummary::*value) const;
  double least(double LoadSummary::*value) const;
  double most(double LoadSummary::*value) const;
};

/// One policy through all phases of a burst.
struct BurstCell {
  std::string policy;
  std::vector<std::vector<PhaseSummary>> rounds;
  std::vector<LoadStep> steps;        // of the last round
  std::vector<double> first_waits_s;  // submission to first token, of all rounds
  double longest_wait_s = 0.0;        // for any token
  int64_t unanswered = 0;             // requests without a token although a later one was answered in full

  /// Adds the waits of one round.
  void add_waits(const LoadResult& result);
};

/// How the adaptive policy compares at one load: medians over rounds of ratios within a round.
struct LoadVerdict {
  double load = 0.0;
  std::string best_fixed;  // the fixed length, or off, with the highest median
  double vs_best_fixed = 0.0, vs_off = 0.0;
  bool some_fixed_wins = false;  // a fixed length above 0 beats off
  bool pass = false;
};

struct LoadReport {
  std::string model, drafter, kind, isa, arrivals, accept_rule;
  bool random_drafter = false;
  int threads = 0;
  int32_t rounds = 0, max_sequences = 0, context_length = 0, least_tokens = 0, most_tokens = 0;
  double temperature = 0.0;
  uint64_t seed = 0;
  std::vector<std::string> policies;
  std::vector<std::string> sources;
  std::vector<int32_t> burst;
  CostTable costs;  // measured at the start; empty without a drafter
  std::vector<LoadCell> cells;
  std::vector<BurstCell> bursts;
  std::vector<LoadVerdict> verdicts;  // empty unless off and adaptive were run
  double margin = 0.98;               // what verdicts ask for
  bool texts_comparable = true;
  TextCheck texts;
  double seconds = 0.0;
};

/// "adaptive" against "off" and the fixed lengths at every load: total tokens/s for closed loops, tokens/s of
/// one user for open ones. `margin`: least ratio that passes.
std::vector<LoadVerdict> judge_cells(const std::vector<LoadCell>& cells, bool closed, double margin);

/// A loaded model with its requests.
class LoadSweep {
 public:
  /// errors: flags, model, prompts, a request that does not fit the model's context.
  static Result<LoadSweep> open(const LoadFlags& flags);

  /// Everything --burst or the sweep asks for. errors: an engine that fails, cancelled.
  Result<LoadReport> run();
  /// What the drafter proposes at every token of the first requests.
  Result<RoundTrace> record();

 private:
  Result<std::unique_ptr<Engine>> make_engine(const std::string& policy, bool* recorded_confidence = nullptr);
  Status measure_costs_once(LoadReport& report);
  Status read_sources();
  LoadPlan plan_of(double load) const;
  int64_t n_requests(double load) const;
  Status run_cells(LoadReport& report, std::span<LoadCell* const> cells);
  Status run_burst(LoadReport& report, BurstCell& cell);
  Status run_sweep(LoadReport& report);
  Status run_bursts(LoadReport& report);
  double run_cost(double load) const;
  void show_run(const std::string& what);
  LoadReport head() const;

  LoadFlags flags_;
  LoadChoice choice_;
  KvDType kv_dtype_ = KvDType::kBF16;
  std::unique_ptr<LoadedModel> loaded_;
  std::vector<PromptSource> sources_;
  std::vector<LoadRequest> workload_;
  int32_t context_length_ = 0;
  std::optional<CostTable> costs_;
  std::unique_ptr<InterruptGuard> interrupt_;
  std::unique_ptr<ProgressLine> progress_;
  std::chrono::steady_clock::time_point start_;
  double done_cost_ = 0.0, total_cost_ = 0.0;  // in units of run_cost()
};

}  // namespace dspark::cli
