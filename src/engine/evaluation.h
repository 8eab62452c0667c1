#pragma once
// Runs prompts as the DSpark evaluation does and records every round.

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "speculate/calibration.h"

namespace dspark {

/// One prompt to be answered.
struct EvalPrompt {
  std::vector<int32_t> tokens;
  uint64_t seed = 0;
};

/// One answer with its rounds.
struct EvalAnswer {
  std::vector<int32_t> tokens;  // at most EvalOptions::max_tokens, a closing stop token included
  /// Rounds whose anchor lies before prompt + max_tokens. The last one is whole, though the answer may be cut
  /// inside it: its full acceptance counts.
  std::vector<RoundRecord> rounds;
  /// Of drafters with a confidence head: for each round its proposal_length first drafts, one round behind
  /// the other; else empty.
  std::vector<float> confidence;         // after calibration
  std::vector<float> confidence_logits;  // before it
  FinishReason finish_reason = FinishReason::kNone;

  bool has_confidence() const { return !confidence.empty(); }
};

struct EvalOptions {
  SamplingParams sampling;  // the seed is each prompt's own
  int32_t max_tokens = 256;

  /// Positions of one sequence that a prompt of n_prompt tokens needs under a policy that drafts n_drafts.
  int32_t context_length(int32_t n_prompt, int32_t n_drafts) const {
    return n_prompt + max_tokens + n_drafts + 2;
  }
};

/// What evaluate() has done so far.
struct EvalProgress {
  int64_t answers = 0;
  int64_t tokens = 0;
};

/// Answers all prompts, as many at a time as the engine runs sequences; answers in the order of the prompts.
/// With greedy and coupled acceptance they do not depend on drafter, policy or batch. `cancel` true ends the
/// run early. requires: the engine is idle; its context has room for context_length().
/// errors: invalid_argument (a prompt that does not fit), cancelled, out_of_memory.
Result<std::vector<EvalAnswer>> evaluate(Engine& engine, std::span<const EvalPrompt> prompts,
                                         const EvalOptions& options,
                                         const std::function<void(const EvalProgress&)>& on_step = {},
                                         const std::atomic<bool>* cancel = nullptr);

/// Adds the counters of an answer's rounds.
void add_rounds(const EvalAnswer& answer, SpeculationStats& stats);
/// Adds predictions (the survival of each round's proposed drafts) and labels.
void add_calibration(const EvalAnswer& answer, CalibrationStats& stats);
/// Adds rounds for a fit, with the logits before calibration.
void add_calibration(const EvalAnswer& answer, CalibrationData& data);

}  // namespace dspark
