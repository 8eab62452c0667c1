// What a step does for constraints and log-probabilities.

#include <algorithm>
#include <limits>

#include "engine/engine.h"
#include "speculate/token_logprobs.h"

namespace dspark {

/// How many drafts are worth judging under the sequence's constraint; sets step.n_allowed. A forbidden draft
/// ends them. Where drafts are judged by their probability it is judged too, without a row of its own: to
/// drop it would be a decision by what was drafted, and that changes the distribution of texts.
int32_t Engine::n_drafts_allowed(Sequence& sequence, std::span<const int32_t> drafts) {
  ConstraintState& state = *sequence.constraint;
  const auto n_drafts = static_cast<int32_t>(drafts.size());
  int32_t n = 0;
  while (n < n_drafts && !state.finished() && state.advance(drafts[static_cast<size_t>(n)])) ++n;
  bool judge_one_more = n < n_drafts && sequence.rule != AcceptRule::kCoupled && !state.finished();
  if (judge_one_more) {
    judge_one_more = std::ranges::any_of(state.allowed(), [](uint32_t word) { return word != 0; });
  }
  if (n > 0) state.rollback(n);
  sequence.step.n_allowed = n;
  return judge_one_more ? n + 1 : n;
}

/// A row of logits without the tokens that the constraint forbids now; the row itself without a constraint.
/// Empty when no token is allowed, or none is needed.
std::span<const float> Engine::masked_row(Sequence& sequence, std::span<const float> row) {
  if (sequence.constraint == nullptr) return row;
  if (sequence.constraint->finished()) return {};
  const TokenMask mask = sequence.constraint->allowed();
  masked_.assign(row.size(), -std::numeric_limits<float>::infinity());
  bool any = false;
  for (size_t first = 0; first < row.size(); first += 32) {
    const uint32_t word = mask[first / 32];
    if (word == 0) continue;
    const size_t n = std::min<size_t>(32, row.size() - first);
    for (size_t i = 0; i < n; ++i) {
      if ((word >> i & 1u) == 0) continue;
      masked_[first + i] = row[first + i];
      any = true;
    }
  }
  return any ? std::span<const float>(masked_) : std::span<const float>();
}

/// Moves the constraint behind a pick. returns: the pick; the lowest allowed id when a row of nothing but
/// infinities led to a forbidden one; -1 when nothing is allowed or the text is complete.
int32_t Engine::allowed_pick(Sequence& sequence, int32_t pick) {
  ConstraintState* state = sequence.constraint.get();
  if (state == nullptr) return pick;
  const auto n_before = static_cast<int32_t>(sequence.picks.size());
  if (state->finished()) {
    if (sequence.step.constraint_end < 0) sequence.step.constraint_end = n_before - 1;
    return -1;
  }
  if (!state->advance(pick)) {
    const TokenMask mask = state->allowed();
    const int32_t vocab_size = model_.config().vocab_size;
    for (pick = 0; pick < vocab_size && !mask_allows(mask, pick);) ++pick;
    if (pick == vocab_size || !state->advance(pick)) return -1;
  }
  if (state->finished()) sequence.step.constraint_end = n_before;
  return pick;
}

/// The log-probabilities of the step's i-th pick, which was just committed.
void Engine::add_logprobs(Sequence& sequence, int32_t i) {
  const std::span<const float> row = logits_row(sequence, i);
  const auto n = static_cast<size_t>(sequence.request.n_logprobs);
  sequence.top_logprobs.resize(sequence.events.size() * n);
  const std::span<TokenLogprob> top(sequence.top_logprobs.data() + (sequence.events.size() - 1) * n, n);
  TokenEvent& event = sequence.events.back();
  const RowLogprob found = token_logprobs(row, event.token, top);
  event.logprob = found.logprob;
  event.log_sum_exp = found.log_sum_exp;
}

}  // namespace dspark
