#pragma once
// How the adaptive policy compares with the others, at every load and in every phase of a burst.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "load/load_run.h"
#include "load/load_summary.h"

namespace dspark {

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
  int64_t unanswered = 0;             // requests without a token although a later one was answered in full

  /// Adds one round. requires: the phases that the result was made with.
  void add(const LoadResult& result, std::span<const int32_t> phases, double phase_s);
  /// Medians over rounds of one phase; 0 where no round has it.
  double median(size_t phase, double PhaseSummary::*value) const;
  /// The median over rounds of PhaseSummary::steps_to_follow, "never" counted as more than any number;
  /// negative: never.
  double steps_to_follow(size_t phase) const;
  /// In any round.
  double longest_wait_s(size_t phase) const;
  double longest_wait_s() const;
};

/// How much a ratio varies.
struct RatioSpread {
  double error = -1.0;                           // one standard error (compare_turns); negative: unknown
  int64_t n_pieces = 0;                          // pairs of turns behind it
  double median = 0.0, least = 0.0, most = 0.0;  // of the ratios of single rounds
};

/// How the adaptive policy compares at one load. Ratios are those of compare_turns over all rounds; without
/// turns enough for a standard error, and with open arrivals, medians over rounds of ratios within a round.
struct LoadVerdict {
  double load = 0.0;
  std::string best_fixed;  // the fixed length, or off, with the highest median
  double vs_best_fixed = 0.0, vs_off = 0.0;
  bool some_fixed_wins = false;  // a fixed length above 0 beats off
  bool pass = false;
  RatioSpread vs_best_fixed_spread, vs_off_spread;
};

/// "adaptive" against "off" and the fixed lengths at every load: total tokens/s for closed loops, tokens/s of
/// one user for open ones. `margin`: least ratio that passes.
std::vector<LoadVerdict> judge_cells(const std::vector<LoadCell>& cells, bool closed, double margin);

/// How the adaptive policy fares in one phase of a burst. Ratios of tokens/s, as in LoadVerdict.
struct PhaseVerdict {
  int32_t clients = 0;
  std::string best_fixed;  // the fixed length, or off, with the highest median in this phase
  double vs_best_fixed = 0.0, vs_off = 0.0;
  RatioSpread vs_best_fixed_spread, vs_off_spread;
  double steps_to_follow = -1.0;  // see BurstCell
  double longest_wait_s = 0.0;
};

/// Empty unless "off" and "adaptive" are there.
std::vector<PhaseVerdict> judge_phases(const std::vector<BurstCell>& cells);

}  // namespace dspark
