// The part of the step that turns logits into committed tokens: accept rules, stops, limits.

#include <algorithm>
#include <utility>

#include "engine/engine.h"

namespace dspark {

/// Turns logits into committed tokens, sequence by sequence.
void Engine::accept() {
  judge_in_parallel();
  for (auto& sequence : running_) {
    if (sequence->finished() || sequence->step.n_rows == 0) continue;
    ++sequence->stats.steps;
    if (sequence->prefilling()) sequence->step.n_kept = sequence->step.n_rows;
    if (sequence->step.n_logits > 0 && sequence->embedding == nullptr) accept_sequence(*sequence);
  }
}

/// Whether a sequence may be judged beside others. One under a constraint may not: the row in hand without
/// what is forbidden lies in masked_, of which there is one for all, and constraints may take memory.
bool Engine::is_judged_alone(const Sequence& sequence) const {
  return !sequence.finished() && sequence.step.n_logits > 0 && sequence.constraint == nullptr &&
         sequence.embedding == nullptr;
}

/// Walks over whole vocabularies, sequence beside sequence, on the threads that the pass left idle. Every
/// sequence is judged by one thread as it would be alone.
void Engine::judge_in_parallel() {
  if (scratches_.size() == 1) return;
  judged_.clear();
  for (auto& sequence : running_) {
    if (is_judged_alone(*sequence)) judged_.push_back(sequence.get());
  }
  if (judged_.size() < 2) return;
  // All memory is taken here: tasks of the pool cannot fail, and any thread may meet a sequence.
  for (Sequence* sequence : judged_) {
    const SamplingParams& sampling = sequence->request.sampling;
    if (sampling.has_penalties()) sequence->counts.reserve(static_cast<size_t>(sequence->step.n_verify) + 1);
    if (std::exchange(sequence->has_scratches, true)) continue;
    for (AcceptScratch& scratch : scratches_) scratch.reserve(sequence->rule, sampling, n_vocab());
  }
  step_stats_.judged_in_parallel = static_cast<int32_t>(judged_.size());
  model_.pool()->parallel_for(static_cast<int64_t>(judged_.size()), [this](int64_t task, int thread) {
    judge(*judged_[static_cast<size_t>(task)], scratches_[static_cast<size_t>(thread)]);
  });
}

/// Judges the drafts of one sequence and commits what the rule lets through, token by token, until the text
/// ends.
void Engine::accept_sequence(Sequence& sequence) {
  const SequenceStep& step = sequence.step;
  const bool is_round = sequence.stats.output_tokens > 0;
  const int32_t first_position = sequence.n_tokens();
  if (!step.is_judged) {
    scratches_.front().reserve(sequence.rule, sequence.request.sampling, n_vocab());
    judge(sequence, scratches_.front());
  }
  const AcceptResult& run = step.verdict;
  for (int32_t i = 0; i <= run.accepted && !sequence.finished(); ++i) {
    TokenEvent event;
    event.token = sequence.picks[static_cast<size_t>(i)];
    if (event.token < 0) {  // an empty text may be all that a constraint allows
      const bool complete = sequence.constraint->finished();
      finish(sequence, complete ? FinishReason::kStop : FinishReason::kConstraint);
      break;
    }
    event.position = first_position + i;
    if (i < run.accepted) {
      event.origin = TokenOrigin::kAccepted;
      event.draft_idx = static_cast<int16_t>(i);
    } else if (step.n_verify > 0) {
      event.origin = run.is_bonus ? TokenOrigin::kBonus : TokenOrigin::kCorrection;
    }
    keep_token(sequence, event);
    if (sequence.request.n_logprobs >= 0) add_logprobs(sequence, i);
    if (i != step.constraint_end) continue;
    finish(sequence, FinishReason::kStop);
    sequence.finish_reason = FinishReason::kStop;  // whatever limit was reached at the same time
  }
  if (is_round) end_round(sequence, run);
}

std::span<const int32_t> Engine::verified_drafts(const Sequence& sequence) const {
  const SequenceStep& step = sequence.step;
  if (step.n_verify == 0) return {};
  const auto first = static_cast<size_t>(step.draft_idx) * static_cast<size_t>(draft_block_.stride);
  return std::span(draft_block_.tokens).subspan(first, static_cast<size_t>(step.n_verify));
}

std::span<const float> Engine::logits_row(const Sequence& sequence, int32_t i) const {
  return result_.logits.subspan(static_cast<size_t>(sequence.step.logit_begin + i) * n_vocab(), n_vocab());
}

/// What the sequence's rule makes of its verified drafts. Leaves accepted drafts and the token after them in
/// its picks, and counts them for the penalties. noexcept: a task of the pool has nobody to throw to. Its
/// memory was reserved before; masked rows and constraints, which take some, are for the engine's thread.
void Engine::judge(Sequence& sequence, AcceptScratch& scratch) noexcept {
  sequence.picks.clear();
  sequence.step.is_judged = true;
  sequence.step.verdict = sequence.rule == AcceptRule::kCoupled ? judge_by_equality(sequence, scratch)
                                                                : judge_by_probability(sequence, scratch);
}

/// The target's own picks, up to the first that differs from its draft. Every pick is text, so the counts
/// behind the penalties are always those of committed tokens.
AcceptResult Engine::judge_by_equality(Sequence& sequence, AcceptScratch& scratch) {
  const SamplingParams& sampling = sequence.request.sampling;
  const int32_t first_position = sequence.n_tokens();
  return accept_run(verified_drafts(sequence), [&](int32_t i) {
    const std::span<const float> row = masked_row(sequence, logits_row(sequence, i));
    int32_t pick = -1;
    if (!row.empty()) {
      pick = choose_token(row, sampling, &sequence.counts, first_position + i, scratch.sampler);
      pick = allowed_pick(sequence, pick);
    }
    if (pick >= 0 && sampling.has_penalties()) sequence.counts.push(pick);
    sequence.picks.push_back(pick);
    return pick;
  });
}

/// Rejection sampling or block verification with the probabilities of the target's rows. Row i is processed
/// as if the drafts before it were committed, whether or not they will be.
AcceptResult Engine::judge_by_probability(Sequence& sequence, AcceptScratch& scratch) {
  const std::span<const int32_t> drafts = verified_drafts(sequence);
  const SamplingParams& sampling = sequence.request.sampling;
  const bool counts = sampling.has_penalties();
  size_t n_counted = 0;
  std::vector<float>& probabilities = scratch.probabilities;
  probabilities.resize(n_vocab());
  const int32_t n_rows = sequence.step.n_logits;
  int32_t n_ahead = 0;  // drafts that the constraint's state has taken
  const auto target_row = [&](int32_t i) -> std::span<const float> {
    if (i >= n_rows) return probabilities;  // behind a forbidden draft; nobody looks at it
    for (; counts && n_counted < static_cast<size_t>(i); ++n_counted) sequence.counts.push(drafts[n_counted]);
    std::span<const float> row = logits_row(sequence, i);
    if (sequence.constraint != nullptr) {
      for (; n_ahead < i; ++n_ahead) sequence.constraint->advance(drafts[static_cast<size_t>(n_ahead)]);
      const std::span<const float> masked = masked_row(sequence, row);
      if (!masked.empty()) row = masked;  // else there is no draft and what is drawn does not count
    }
    target_probabilities(row, sampling, &sequence.counts, scratch.sampler, probabilities);
    return probabilities;
  };
  const auto draft_row = [&](int32_t i) {
    return draft_block_.distribution(static_cast<size_t>(sequence.step.draft_idx), i);
  };
  const RoundNoise noise{sampling.seed, static_cast<uint64_t>(sequence.n_tokens() - 1)};
  AcceptResult run = sequence.rule == AcceptRule::kBlock
                         ? accept_block(drafts, target_row, draft_row, noise, scratch.draws)
                         : accept_rejection(drafts, target_row, draft_row, noise, scratch.draws);
  const auto n_accepted = static_cast<size_t>(run.accepted);
  while (n_counted > n_accepted) sequence.counts.pop(drafts[--n_counted]);
  sequence.picks.assign(drafts.begin(), drafts.begin() + run.accepted);
  if (n_ahead > run.accepted) sequence.constraint->rollback(n_ahead - run.accepted);
  run.last_pick = allowed_pick(sequence, run.last_pick);
  if (counts && run.last_pick >= 0) sequence.counts.push(run.last_pick);
  sequence.picks.push_back(run.last_pick);
  return run;
}

/// Counts the round and keeps its cache rows. A stop inside the accepted run ends the round there: what lies
/// behind it was not proposed.
void Engine::end_round(Sequence& sequence, const AcceptResult& run) {
  SequenceStep& step = sequence.step;
  const auto n_new = static_cast<int32_t>(sequence.events.size());
  const bool stopped_inside = n_new <= run.accepted;
  const int32_t accepted = stopped_inside ? n_new : run.accepted;
  if (!sequence.prefilling()) step.n_kept = accepted + 1;  // else a preempted text was computed again
  step.has_round = true;
  step.anchor_position = sequence.n_tokens() - n_new - 1;
  step.round = {step.n_drafted, step.n_verify, stopped_inside ? n_new : step.n_verify, accepted, n_new};
  for (int32_t k = 0; k < step.round.proposal_length; ++k) {
    const size_t at = draft_block_.at(static_cast<size_t>(step.draft_idx), k);
    if (draft_block_.sources[at] != ProposalSource::kLookup) continue;
    ++step.round.lookup_proposed;
    step.round.lookup_accepted += k < accepted ? 1 : 0;
  }
  sequence.stats.speculation.add(step.round);
  ++step_stats_.rounds;
  step_stats_.round_tokens += n_new;
  learn_acceptance(sequence);
}

/// Commits one token and decides whether the text ends with it.
void Engine::keep_token(Sequence& sequence, const TokenEvent& event) {
  sequence.tokens.push_back(event.token);
  sequence.events.push_back(event);
  ++step_stats_.committed_tokens;
  if (sequence.stats.output_tokens++ == 0) sequence.first_token_at = now();
  if (std::find(sequence.stop_ids.begin(), sequence.stop_ids.end(), event.token) != sequence.stop_ids.end()) {
    sequence.events.back().is_stop = true;
    finish(sequence, FinishReason::kStop);
    return;
  }
  if (options_.token_bytes) {
    sequence.token_bytes.clear();
    options_.token_bytes(event.token, sequence.token_bytes);
    if (sequence.text.feed(sequence.token_bytes)) {
      sequence.finish_reason = FinishReason::kStop;  // the rest of the text is not held back but gone
      return;
    }
  }
  if (sequence.n_tokens() >= sequence.token_limit) finish(sequence, FinishReason::kLength);
}

void Engine::finish(Sequence& sequence, FinishReason reason) {
  if (sequence.finished()) return;
  sequence.finish_reason = reason;
  sequence.text.finish();
}

}  // namespace dspark
