#include "draft/draft_constraint.h"

#include <limits>

namespace dspark {

bool mask_columns(std::span<float> logits, std::span<const int32_t> vocab_ids, TokenMask mask) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  bool any = false;
  for (size_t column = 0; column < logits.size(); ++column) {
    const int32_t id = vocab_ids.empty() ? static_cast<int32_t>(column) : vocab_ids[column];
    if (!mask_allows(mask, id)) logits[column] = kNever;
    any |= logits[column] > kNever;
  }
  return any;
}

bool DraftConstraints::mask(size_t i, const DraftRequest& request, std::span<float> logits,
                            std::span<const int32_t> vocab_ids) const {
  if (request.constraint == nullptr) return true;
  if (request.constraint->finished() || n_advanced_[i] >= kMaxConstraintRollback) return false;
  return mask_columns(logits, vocab_ids, request.constraint->allowed());
}

bool DraftConstraints::advance(size_t i, const DraftRequest& request, int32_t token) {
  if (request.constraint == nullptr) return true;
  if (!request.constraint->advance(token)) return false;
  ++n_advanced_[i];
  return true;
}

void DraftConstraints::end(size_t i, const DraftRequest& request) {
  if (n_advanced_[i] > 0) request.constraint->rollback(n_advanced_[i]);
  n_advanced_[i] = 0;
}

}  // namespace dspark
