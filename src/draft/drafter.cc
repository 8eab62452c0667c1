#include "draft/drafter.h"

namespace dspark {

void DraftBlock::reset(size_t n_requests, int32_t row_stride) {
  stride = row_stride;
  const size_t n = n_requests * static_cast<size_t>(row_stride);
  tokens.assign(n, 0);
  confidence.assign(n, 1.0f);
  n_tokens.assign(n_requests, 0);
}

}  // namespace dspark
