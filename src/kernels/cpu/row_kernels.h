#pragma once
// Row operations written once per instruction set. Plain data only: see simd-inl.h.

#include <cstdint>

namespace dspark {

struct RowKernels {
  void (*rms_norm)(float* y, const float* x, const float* weight, float eps, int64_t n);
  /// Rotates n_heads heads of 2 * half floats; cos and sin hold half floats each.
  void (*rotate)(float* x, const float* cos, const float* sin, int32_t n_heads, int32_t half);
  void (*silu_gate)(float* out, const float* gate, const float* up, int64_t n);
  void (*gelu_tanh_gate)(float* out, const float* gate, const float* up, int64_t n);
  void (*add)(float* x, const float* y, int64_t n);
  void (*softcap)(float* x, int64_t n, float cap);
  float (*dot)(const float* a, const float* b, int64_t n);
  float (*max)(const float* x, int64_t n);
  /// x = exp(x - shift); returns the sum.
  float (*exp_sum)(float* x, int64_t n, float shift);
  void (*scale)(float* x, int64_t n, float factor);
};

const RowKernels& row_kernels_portable();
const RowKernels& row_kernels_avx2();
const RowKernels& row_kernels_avx512();

}  // namespace dspark
