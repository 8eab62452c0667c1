#pragma once
// Numbers of one run under load, and whether texts stayed what they were.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "load/load_pairs.h"
#include "load/load_run.h"
#include "load/quantiles.h"

namespace dspark {

/// What the cost model said before steps of one kind against what they took.
struct PredictionSummary {
  int64_t steps = 0;   // with a prediction
  double ratio = 0.0;  // median of measured / predicted
  double error = 0.0;  // median of |measured / predicted - 1|
};

/// The measured window of one run.
struct LoadSummary {
  double seconds = 0.0;  // length of the window
  bool cut = false;
  int64_t tokens = 0;              // committed in the window, by all requests
  double tokens_per_s = 0.0;       // of all users together
  double user_tokens_per_s = 0.0;  // of one user: median over answers of tokens behind the first / their time
  int64_t answers = 0;             // measured requests that ended
  double answers_per_s = 0.0;
  QuantileSummary ttft_s;         // submission to first token, measured requests
  QuantileSummary inter_token_s;  // per token: time between two updates / tokens of the second
  QuantileSummary gap_s;          // between two updates
  SpeculationStats speculation;
  int64_t steps = 0;
  int64_t prompt_tokens = 0;  // prompt rows computed
  // Over the whole run: tokens whose cache rows another request had computed, and sequences that went back
  // into the queue because pages ran out.
  int64_t prefix_tokens = 0;
  int64_t preemptions = 0;
  double mean_decode_sequences = 0.0;
  double verified_per_sequence = 0.0;  // per step and decoding sequence
  // Sums over the steps of the window; loop_s: of the steps, beside drafts, pass and commit. outside_s:
  // between steps (callers, this program's own bookkeeping, waiting for arrivals).
  double draft_s = 0.0, forward_s = 0.0, commit_s = 0.0, loop_s = 0.0, outside_s = 0.0;
  PredictionSummary decode_steps;  // without prompt rows
  PredictionSummary prompt_steps;  // with some
  TurnCurve turns;                 // seconds over tokens, see load/load_pairs.h
};
LoadSummary summarize_load(const LoadResult& result);

/// One phase of a kPhases run.
struct PhaseSummary {
  int32_t clients = 0;
  double seconds = 0.0;
  double tokens_per_s = 0.0;
  double verified_per_sequence = 0.0;  // median over the steps of the phase's second half
  /// Steps with all of the phase's clients until the mean of verified drafts per sequence over five steps
  /// came within half a draft or a quarter of that value; negative: never.
  int32_t steps_to_follow = -1;
  double longest_wait_s = 0.0;  // of any request for a token, see LoadResult::phase_longest_wait_s
  TurnCurve turns;              // tokens over seconds, see load/load_pairs.h
};
std::vector<PhaseSummary> summarize_phases(const LoadResult& result, std::span<const int32_t> phases,
                                           double phase_s);

/// Compares the texts of runs over one workload: the first text of a request is the reference of all others,
/// or the longest so far while that one was not whole. With run_alone() added first, all are compared with
/// what a request says by itself.
class TextCheck {
 public:
  /// requires: texts of one workload. `label` names the run in the message about the first difference.
  void add(const LoadResult& result, const std::string& label);
  int64_t compared() const { return compared_; }
  int64_t different() const { return different_; }
  int64_t compared_tokens() const { return compared_tokens_; }
  /// Which request differs, where and between which runs; empty when none does.
  const std::string& first_difference() const { return first_difference_; }

 private:
  struct Text {
    std::vector<int32_t> tokens;
    bool whole = false;
    std::string label;
  };
  std::vector<Text> texts_;  // by request
  int64_t compared_ = 0, different_ = 0, compared_tokens_ = 0;
  std::string first_difference_;
};

}  // namespace dspark
