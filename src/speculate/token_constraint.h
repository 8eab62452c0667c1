#pragma once
// Constrained decoding: which tokens may come next, decided token by token while a text grows. Grammars,
// JSON schemas and the like implement it; the engine asks it.
//
// The engine masks the target's rows before anything else looks at them (bias, penalties, samplers), so the
// text is a function of prompt, sampling, seed and constraint, with and without speculation. A row behind
// drafts is masked as if those drafts were committed; drafts that the mask forbids are never accepted.
// Learned drafters mask their rows in the same way (draft/draft_constraint.h).

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace dspark {

/// A set of token ids as bits: id t is bit t % 32 of word t / 32.
using TokenMask = std::span<const uint32_t>;

/// Words of a mask over `vocab_size` ids.
constexpr size_t token_mask_words(int32_t vocab_size) {
  return (static_cast<size_t>(vocab_size) + 31) / 32;
}
/// requires: the mask covers the token.
inline bool mask_allows(TokenMask mask, int32_t token) {
  const auto id = static_cast<size_t>(token);
  return (mask[id / 32] >> (id % 32) & 1u) != 0;
}

/// The longest rollback a state must be able to do: a step's drafts and the token behind them.
inline constexpr int32_t kMaxConstraintRollback = 65;

/// Where one text stands under a constraint.
/// thread: one at a time, not always the same one: the engine's own, and while drafts are made any of its
/// pool. There the states of several texts are used at the same time, so what they share (masks that a
/// constraint remembers, say) must bear that.
class ConstraintState {
 public:
  virtual ~ConstraintState() = default;

  /// Tokens that may come next, (token_mask_words(vocabulary)) words; bits behind the vocabulary are ignored.
  /// Contains an end id (TokenConstraint::start) exactly where the text may end. Valid until the next call
  /// of any method but allows() and finished(). Empty set: a dead end; the request then ends with
  /// FinishReason::kConstraint.
  virtual TokenMask allowed() = 0;
  /// Whether one token may come next; for states that know it without the whole mask.
  virtual bool allows(int32_t token) { return mask_allows(allowed(), token); }
  /// Appends a token. returns: false, and nothing changed, when it is not allowed.
  virtual bool advance(int32_t token) = 0;
  /// Takes the last n tokens back. The engine takes back only what it appended since the last committed
  /// token: n <= kMaxConstraintRollback.
  virtual void rollback(int32_t n) = 0;
  /// The text is complete and nothing can follow: the engine ends it here, without waiting for an end id.
  virtual bool finished() const = 0;
};

/// A compiled constraint, shared by any number of requests. thread: start() from any thread.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;

  /// Ids the masks speak about; the engine refuses a request whose model has another number.
  virtual int32_t vocab_size() const = 0;
  /// The state before the first output token. end_ids: tokens that end the text; the state allows them where
  /// the text may end, and nowhere else.
  virtual std::unique_ptr<ConstraintState> start(std::span<const int32_t> end_ids) const = 0;
};

}  // namespace dspark
