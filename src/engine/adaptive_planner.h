#pragma once
// Verify lengths for a whole batch from confidences, history and what steps cost: the policies "causal" and
// "adaptive" (DSpark, sections 4.6 and 5.2). Decides also how much to draft, and when not to draft at all.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "speculate/batch_scheduler.h"
#include "speculate/cost_model.h"
#include "speculate/scheduler.h"

namespace dspark {

/// Survival probabilities of a sequence's drafts in the last step that drafted for it; entries behind `n`
/// are not known.
struct SurvivalRecord {
  std::array<double, kMaxDraftTokens> values{};
  int32_t n = 0;
};

/// One decoding sequence, as a plan sees it.
struct PlanSequence {
  int32_t n_drafts = 0;               // usable drafts
  int32_t n_asked = 0;                // drafts asked for; a drafter that stops early anticipates its drafts
  std::span<const float> confidence;  // of them; empty: the drafter says nothing
  /// The accept rule keeps the target's distribution under any schedule (greedy, coupled). If one sequence's
  /// does not, the whole batch is planned from records, which were made before its drafts were.
  bool any_schedule = true;
  SurvivalRecord* record = nullptr;  // read, then rewritten with this step's
};

/// thread: the engine thread. No allocation in steady state.
class AdaptivePlanner {
 public:
  /// requires: table.validate().ok().
  explicit AdaptivePlanner(CostTable table);

  /// How many tokens to draft for each of `n_sequences`, at most `max_block`; 0: do not draft in this step.
  /// Zero when the steps that drafted of late, at this number of sequences, were slower per token than steps
  /// without drafts would have been; then a few steps draft all the same every now and then (farther and
  /// farther apart), to see.
  int32_t draft_length(int32_t n_sequences, int32_t max_block);

  /// The verify length of every sequence. `shape`: the step without drafts, all its anchors and prompt rows
  /// included; draft_sequences > 0 when this step drafted. lengths: same size as sequences.
  void verify_lengths(VerifyPolicy::Kind kind, const StepShape& shape,
                      std::span<const PlanSequence> sequences, std::span<int32_t> lengths);

  /// One round's outcome: what a drafter without confidences is judged by.
  void observe_round(int32_t n_verified, int32_t n_accepted);
  /// What the step's passes really took.
  void observe_step(const StepShape& shape, double verify_s, double draft_s) {
    costs_.observe(shape, verify_s, draft_s);
  }
  /// Whether drafting paid in a step without prompt rows: `n_tokens` committed by `n_sequences` sequences in
  /// a step of `shape`. Steps that did not draft are ignored.
  void observe_gain(const StepShape& shape, int32_t n_sequences, int32_t n_tokens);

  const CostModel& costs() const { return costs_; }

 private:
  /// Conditional acceptance by draft position, forgetting slowly.
  struct Acceptance {
    double tries = 0.0;
    double hits = 0.0;
  };

  double acceptance_at(size_t draft_idx, double before) const;
  void fill_prior(std::span<double> out) const;
  void fill_live(const PlanSequence& sequence, std::span<double> out) const;
  void remember(std::span<const PlanSequence> sequences);

  CostModel costs_;
  ScheduleScratch scratch_;
  std::array<Acceptance, kMaxDraftTokens> acceptance_{};
  SurvivalRecord prior_;  // running mean of recent survivals
  int32_t reach_ = 0;     // longest verify length of late, falling slowly
  int32_t steps_since_reach_ = 0;
  // Drafting steps of late: predicted seconds, and those their tokens would have taken without drafts.
  double drafting_seconds_ = 0.0;
  double plain_seconds_ = 0.0;
  int32_t steps_to_judge_ = 0;  // drafting steps until they are compared
  int32_t last_sequences_ = 0;
  int32_t skips_left_ = 0;               // steps without drafting before the next look
  int32_t skip_length_ = 0;              // of the last pause
  std::vector<double> live_, recorded_;  // (sequences, stride)
  std::vector<int32_t> n_drafts_, n_asked_;
  std::vector<double> step_seconds_;
};

}  // namespace dspark
