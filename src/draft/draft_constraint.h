#pragma once
// Drafts under constraints (speculate/token_constraint.h): only what the target may pick is proposed. A draft
// that its constraint forbids would end the proposal there.

#include <cstdint>
#include <span>
#include <vector>

#include "draft/drafter.h"

namespace dspark {

/// Puts -infinity where the mask forbids the column's token. vocab_ids: column -> target id, empty: the same.
/// returns: whether a column is left that is more than that.
bool mask_columns(std::span<float> logits, std::span<const int32_t> vocab_ids, TokenMask mask);

/// Moves the constraints of one round's requests along their drafts, and back. Requests without a constraint
/// pass freely. thread: different requests may be used on different threads.
class DraftConstraints {
 public:
  /// Room for rounds of so many requests, so that they allocate nothing.
  void reserve(size_t n_requests) { n_advanced_.reserve(n_requests); }
  void begin(size_t n_requests) { n_advanced_.assign(n_requests, 0); }
  /// Masks the row of the next draft of request i. returns: false when nothing can be drafted there.
  bool mask(size_t i, const DraftRequest& request, std::span<float> logits,
            std::span<const int32_t> vocab_ids) const;
  /// The draft was picked. returns: false when it is forbidden.
  bool advance(size_t i, const DraftRequest& request, int32_t token);
  /// Request i is done: its constraint is where the committed text ends again.
  void end(size_t i, const DraftRequest& request);

 private:
  std::vector<int32_t> n_advanced_;  // by the round, per request
};

}  // namespace dspark
