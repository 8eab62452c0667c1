// What adaptive policies add to a step: whether and how much to draft for their sequences, how many drafts to
// verify, and what the step teaches about it. Sequences with other policies are neighbours: their rows count,
// their rounds are no verdict.

#include <algorithm>

#include "engine/engine.h"

namespace dspark {
namespace {

/// Tokens that a round with these verified drafts commits in the mean.
double expected_tokens(std::span<const float> confidence) {
  double tokens = 1.0, survival = 1.0;
  for (const float c : confidence) {
    survival *= static_cast<double>(c);
    tokens += survival;
  }
  return tokens;
}

}  // namespace

/// Sequences that started without rows for the drafter give them from the step on where drafting pays.
void Engine::begin_draft_rows() {
  int32_t n = 0, n_without = 0;
  for (const auto& sequence : running_) {
    if (!sequence->goes_on() || !sequence->is_planned()) continue;
    ++n;
    n_without += sequence->gives_rows ? 0 : 1;
  }
  if (n_without == 0 || !planner_->drafting_pays(n)) return;
  for (auto& sequence : running_) sequence->gives_rows = true;
}

/// Cached positions, as far as they cost something.
int64_t Engine::counted_positions(int64_t n_cached) const {
  return planner_ != nullptr ? planner_->costs().counted_positions(n_cached) : n_cached;
}

/// What the step costs at least: anchors, and the prompt rows that batch() will add.
StepShape Engine::shape_without_drafts() const {
  StepShape shape;
  int32_t prompt_rows = 0;
  for (const auto& sequence : running_) {
    if (!sequence->goes_on()) continue;
    const int64_t context = counted_positions(sequence->n_cached);
    shape.context += context;
    if (sequence->prefilling()) {
      prompt_rows += sequence->n_prefill - sequence->n_cached;
      shape.prompt_context += context;
    } else {
      ++shape.rows;
      shape.row_context += context;
    }
  }
  shape.prompt_rows = std::min(prompt_rows, options_.prefill_rows);
  shape.rows += shape.prompt_rows;
  return shape;
}

/// Drafts to ask for per sequence with an adaptive policy; 0 when there is none or drafting does not pay.
int32_t Engine::adaptive_draft_length() {
  if (planner_ == nullptr) return 0;
  PlanLoad load;
  int32_t prompt_rows = 0;
  for (const auto& sequence : running_) {
    if (!sequence->goes_on()) continue;
    if (sequence->prefilling()) {
      prompt_rows += sequence->n_prefill - sequence->n_cached;
    } else if (!sequence->is_planned()) {
      const int32_t most = sequence->drafts ? draft_limit(*sequence, sequence->policy.draft_tokens()) : 0;
      load.neighbours.add(most, most, counted_positions(sequence->n_cached), 0.0);
    } else {
      ++load.n_sequences;
      const bool is_ready =
          !drafter_->works_without_rows() ||
          (sequence->gives_rows && drafter_->first_row(sequence->slot) < sequence->n_cached);
      load.n_ready += is_ready ? 1 : 0;
    }
  }
  return planner_->draft_length(load, drafter_->max_block(), std::min(prompt_rows, options_.prefill_rows));
}

/// Drafts that were asked for of a sequence in this step.
int32_t Engine::n_asked(const Sequence& sequence) const {
  const int32_t idx = sequence.step.draft_idx;
  return idx < 0 ? 0 : draft_requests_[static_cast<size_t>(idx)].max_tokens;
}

/// Verify lengths of the sequences with an adaptive policy, planned together; those of others stay.
void Engine::plan_adaptive() {
  if (planner_ == nullptr) return;
  plan_sequences_.clear();
  PlanNeighbours neighbours;
  StepShape shape = shape_without_drafts();
  shape.draft_sequences = draft_requests_.empty() ? 0 : draft_block_.model_sequences;
  size_t next = 0;
  for (auto& sequence : running_) {
    if (!decodes(*sequence)) continue;
    const int32_t length = verify_lengths_[next++];
    const std::span<const float> confidence = confidences(*sequence);
    if (!sequence->is_planned()) {
      const int64_t context = counted_positions(sequence->n_cached);
      neighbours.add(length, n_asked(*sequence), context,
                     expected_tokens(confidence.first(static_cast<size_t>(length))));
      shape.rows += length;
      shape.row_context += length * context;
      continue;
    }
    plan_sequences_.push_back({sequence->step.n_drafted, n_asked(*sequence), confidence,
                               sequence->rule == AcceptRule::kCoupled, &sequence->survivals,
                               sequence->policy.kind});
  }
  if (plan_sequences_.empty()) return;
  plan_lengths_.resize(plan_sequences_.size());
  planner_->verify_lengths(shape, plan_sequences_, plan_lengths_, neighbours);
  next = 0;
  size_t next_planned = 0;
  for (auto& sequence : running_) {
    if (!decodes(*sequence)) continue;
    if (sequence->is_planned()) verify_lengths_[next] = plan_lengths_[next_planned++];
    ++next;
  }
}

/// The step's shape and times into the cost model, its gain into the account of drafting; what estimates were
/// told in this step begins to count.
void Engine::learn_costs() {
  for (AcceptanceEstimator& learned : estimators_) learned.end_step();
  StepShape& shape = step_stats_.shape;
  shape.rows = static_cast<int32_t>(batch_.n_rows());
  shape.prompt_rows = step_stats_.prefill_rows;
  shape.draft_sequences = draft_requests_.empty() ? 0 : draft_block_.model_sequences;
  for (const DraftRequest& request : draft_requests_) {
    shape.draft_length = std::max(shape.draft_length, request.max_tokens);
  }
  for (const KvRun& run : batch_.runs) {
    const int64_t context = counted_positions(run.pos_begin);
    shape.context += context;
    shape.row_context += run.n_rows * context;
  }
  if (planner_ != nullptr) {
    PlanNeighbours& neighbours = step_stats_.neighbours;
    // A hybrid's model may have computed fewer sequences than were asked for; whose is not known.
    if (!draft_requests_.empty()) {
      neighbours.draft_sequences =
          shape.draft_sequences * neighbours.draft_sequences / static_cast<int32_t>(draft_requests_.size());
    }
    step_stats_.predicted_s = planner_->costs().step_seconds(shape);
    planner_->observe_gain(shape, step_stats_.planned_rounds, step_stats_.planned_tokens, neighbours);
    planner_->observe_step(shape, step_stats_.forward_s, step_stats_.draft_s, step_stats_.commit_s);
    stats_.scheduler = planner_->stats();
  }
  stats_.scheduler.n_positions = drift_.n_positions();
  stats_.scheduler.bins = drift_.bins();
  for (int32_t j = 0; j < drift_.n_positions(); ++j) {
    stats_.scheduler.drift[static_cast<size_t>(j)] = drift_.at(j);
  }
}

}  // namespace dspark
