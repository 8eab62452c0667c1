#pragma once
// How many drafts of every sequence a step verifies, when all sequences share one pass whose cost depends on
// its size: DSpark's Algorithm 1 (schedule_causal) and the variant of its section 5.2, a budget from recorded
// confidences that live ones are ranked into (history_budget, allot_budget).
//
// Both admit drafts one by one, the likeliest to survive first. Neither anticipates: whether draft k of a
// sequence is admitted does not depend on draft k itself or later ones of that sequence, so any accept rule
// keeps the target's distribution (docs/speculation.md). That holds because a draft comes before everything
// that survives less and because equal survivals are ordered, not left to chance; and it needs confidences in
// which draft k's does not look at draft k.

#include <cstdint>
#include <span>
#include <vector>

namespace dspark {

/// Survival probabilities (speculate/confidence.h) of a batch.
struct SurvivalRows {
  std::span<const double> values;     // (n_sequences, stride), each row non-increasing
  std::span<const int32_t> n_drafts;  // (n_sequences) entries of a row that count, 0 .. stride
  int32_t stride = 0;
};

/// What a pass costs.
struct PassCosts {
  /// seconds[b]: a pass over b rows, for any b the step may have; > 0, staircases and dents welcome. Sizes
  /// behind the end are never chosen.
  std::span<const double> seconds;
  int32_t extra_rows = 0;  // rows of the step beside anchors and drafts (pieces of prompts)
  /// Tokens that the step brings beside those of its sequences: of others whose rows are in `seconds`.
  double given_tokens = 0.0;
};

/// Buffers reused from step to step.
struct ScheduleScratch {
  /// The next draft of a sequence that could be admitted.
  struct Head {
    double survival;
    int32_t draft_idx;
    int32_t sequence;
  };
  std::vector<Head> heads;
};

/// Algorithm 1: admits drafts as long as each raises the expected tokens per second, and stops for good at
/// the first that does not. Order: higher survival, then earlier draft, then lower sequence; drafts with
/// survival 0 are never admitted. lengths: (n_sequences) verify lengths.
/// returns: expected tokens per second of the step.
double schedule_causal(const SurvivalRows& live, const PassCosts& costs, ScheduleScratch& scratch,
                       std::span<int32_t> lengths);

/// The number of drafts with the highest expected tokens per second under survivals recorded in an earlier
/// step, over all numbers, so that steps in the costs do no harm; the least one on ties. Rows are those of
/// the sequences that are active now; one without a record takes a prior (all 1: hopeful).
int32_t history_budget(const SurvivalRows& recorded, const PassCosts& costs, ScheduleScratch& scratch);

/// Gives `budget` places to drafts in the order of schedule_causal. lengths: (n_sequences) verify lengths.
/// The sum of survivals is the largest that prefixes with so many drafts can have.
void allot_budget(const SurvivalRows& live, int32_t budget, ScheduleScratch& scratch,
                  std::span<int32_t> lengths);

}  // namespace dspark
