// Confidences where the drafter has none, and what rounds teach about them.

#include <algorithm>

#include "engine/engine.h"

namespace dspark {

AcceptanceEstimator& Engine::estimator(const Sequence& sequence) {
  if (sequence.request.sampling.greedy()) return estimators_[0];
  return estimators_[sequence.rule == AcceptRule::kCoupled ? 1 : 2];
}

/// After a proposal without confidences: estimates from what the drafter knows about its drafts.
void Engine::estimate_confidences() {
  if (draft_block_.has_confidence) return;
  for (const auto& sequence : running_) {
    const SequenceStep& step = sequence->step;
    if (step.draft_idx < 0) continue;
    const AcceptanceEstimator& learned = estimator(*sequence);
    for (int32_t k = 0; k < step.n_drafted; ++k) {
      const size_t at = draft_block_.at(static_cast<size_t>(step.draft_idx), k);
      draft_block_.confidence[at] =
          static_cast<float>(learned.confidence(draft_block_.evidence_kind, k, draft_block_.evidence[at]));
    }
  }
}

/// What a round says about adaptive policies: those of sequences that the planner decides about judge it,
/// those of others are what its sequences run beside. A text that is computed again after a preemption ends
/// with a round too, but that is one of a prompt.
void Engine::learn_round(const Sequence& sequence) {
  if (planner_ == nullptr || sequence.prefilling()) return;
  const RoundRecord& round = sequence.step.round;
  if (!sequence.is_planned()) {
    step_stats_.neighbours.add(sequence.step.n_rows - 1, n_asked(sequence),
                               counted_positions(sequence.n_cached), round.acceptance_length);
    return;
  }
  planner_->observe_round(round.proposal_length, round.accepted);
  ++step_stats_.planned_rounds;
  step_stats_.planned_tokens += round.acceptance_length;
}

/// A round is over: its confidences are judged, whoever made them, and estimates learn. Drafts behind the
/// first that was rejected were not judged.
void Engine::learn_acceptance(const Sequence& sequence) {
  const SequenceStep& step = sequence.step;
  const int32_t n_judged = step.round.proposal_length, n_accepted = step.round.accepted;
  if (n_judged > 0) {
    drift_.add(confidences(sequence).first(static_cast<size_t>(n_judged)), n_accepted);
  }
  learn_round(sequence);
  if (draft_block_.has_confidence) return;
  for (int32_t k = 0; k < std::min(n_judged, n_accepted + 1); ++k) {
    const size_t at = draft_block_.at(static_cast<size_t>(step.draft_idx), k);
    estimator(sequence).observe(draft_block_.evidence_kind, k, draft_block_.evidence[at], k < n_accepted);
  }
}

}  // namespace dspark
