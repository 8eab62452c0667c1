#pragma once
// The obviously right attention: one query vector, double precision, no cache layout. The judge of the
// kernels.

#include <cstdint>
#include <vector>

#include "kernels/kv_cache.h"

namespace dspark::reference {

struct AttentionResult {
  std::vector<double> out;  // (head_dim)
  std::vector<double>
      magnitude;                 // (head_dim): sum of weight * |v|, what rounding errors are measured against
  double score_magnitude = 0.0;  // largest sum |q * k| * scale over the visible positions
};

/// Attention of one query over keys and values at positions first..last. Position t of k and v starts at
/// t * stride.
AttentionResult attention(const float* q, const float* k, const float* v, int64_t stride, int32_t first,
                          int32_t last, int32_t head_dim, double scale, double softcap);

/// x as the cache hands it back: rounded to bf16, or to int8 with one bf16 scale per 32 elements.
/// requires: finite x.
std::vector<float> through_cache(KvDType dtype, const float* x, int64_t n);

}  // namespace dspark::reference
