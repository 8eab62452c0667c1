#pragma once
// Operations on single rows, run on the calling thread with the active instruction set. The same bits for the
// same row on the same instruction set.

#include <cstdint>

#include "kernels/rows.h"

namespace dspark {

/// sum of a[i] * b[i].
float dot_row(const float* a, const float* b, int64_t n);
/// Largest element. requires: n >= 1.
float max_row(const float* x, int64_t n);
/// x = exp(x - max(x)) / sum, in place. Elements more than 87.33 below the maximum (and -infinity) become
/// exactly 0. requires: n >= 1, a finite maximum.
void softmax_row(float* x, int64_t n);
/// y = x * rsqrt(mean(x^2) + eps) * weight; weight may be nullptr (all ones). In place allowed.
void rms_norm_row(float* y, const float* x, const float* weight, float eps, int64_t n);
/// out = act(gate) * up. out may be gate or up.
void gated_activation_row(float* out, const float* gate, const float* up, int64_t n, GateActivation act);
/// x += y.
void add_row(float* x, const float* y, int64_t n);
/// x *= factor.
void scale_row(float* x, int64_t n, float factor);
/// x = cap * tanh(x / cap).
void softcap_row(float* x, int64_t n, float cap);

}  // namespace dspark
