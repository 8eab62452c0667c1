// Row operations, written once for all instruction sets. Element-wise ones compute an element the same way
// wherever it stands; sums run over a fixed number of lanes in a fixed order.
#pragma once

#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/row_kernels.h"

namespace dspark {
namespace {

// y[i] = fn(x[i]) in vectors; the rest as one partly filled vector.
template <typename F>
DSPARK_INLINE void for_vectors(int64_t n, F&& fn) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    fn(
        [i](const float* p) __attribute__((always_inline)) { return load(p + i); },
        [i](float* p, VecF x) __attribute__((always_inline)) { store(p + i, x); });
  }
  if (i < n) {
    const int rest = static_cast<int>(n - i);
    fn(
        [ i, rest ](const float* p) __attribute__((always_inline)) { return load_n(p + i, rest); },
        [ i, rest ](float* p, VecF x) __attribute__((always_inline)) { store_n(p + i, x, rest); });
  }
}

float dot(const float* a, const float* b, int64_t n) {
  VecF sum[4] = {set1(0.0f), set1(0.0f), set1(0.0f), set1(0.0f)};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) sum[j] = fma(load(a + i + j * kLanes), load(b + i + j * kLanes), sum[j]);
  }
  for (; i + kLanes <= n; i += kLanes) sum[0] = fma(load(a + i), load(b + i), sum[0]);
  if (i < n) {
    const int rest = static_cast<int>(n - i);
    sum[1] = fma(load_n(a + i, rest), load_n(b + i, rest), sum[1]);
  }
  return reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

void rms_norm(float* y, const float* x, const float* weight, float eps, int64_t n) {
  const float mean = dot(x, x, n) / static_cast<float>(n);
  const VecF factor = set1(1.0f / __builtin_sqrtf(mean + eps));
  if (weight == nullptr) {
    for_vectors(n, [&](auto get, auto put) { put(y, get(x) * factor); });
  } else {
    for_vectors(n, [&](auto get, auto put) { put(y, get(x) * factor * get(weight)); });
  }
}

void rotate(float* x, const float* cos, const float* sin, int32_t n_heads, int32_t half) {
  for (int32_t h = 0; h < n_heads; ++h) {
    float* low = x + static_cast<int64_t>(h) * 2 * half;
    float* high = low + half;
    for_vectors(half, [&](auto get, auto put) {
      const VecF a = get(low), b = get(high), c = get(cos), s = get(sin);
      put(low, fnma(b, s, a * c));
      put(high, fma(a, s, b * c));
    });
  }
}

void silu_gate(float* out, const float* gate, const float* up, int64_t n) {
  for_vectors(n, [&](auto get, auto put) {
    const VecF x = get(gate);
    put(out, x * sigmoid(x) * get(up));
  });
}

// x / 2 * (1 + tanh(u)) = x * sigmoid(2 u), u = sqrt(2 / pi) * (x + 0.044715 x^3).
void gelu_tanh_gate(float* out, const float* gate, const float* up, int64_t n) {
  for_vectors(n, [&](auto get, auto put) {
    const VecF x = get(gate);
    const VecF cubic = fma(x * x, set1(0.0713548163f), set1(1.59576912f));
    put(out, x * sigmoid(x * cubic) * get(up));
  });
}

void add(float* x, const float* y, int64_t n) {
  for_vectors(n, [&](auto get, auto put) { put(x, get(x) + get(y)); });
}

void softcap(float* x, int64_t n, float cap) {
  const VecF limit = set1(cap);
  for_vectors(n, [&](auto get, auto put) { put(x, tanh_of(get(x) / limit) * limit); });
}

float max_of(const float* x, int64_t n) {
  float largest = x[0];
  int64_t i = 0;
  if (n >= kLanes) {
    VecF lanes = load(x);
    for (i = kLanes; i + kLanes <= n; i += kLanes) lanes = max(lanes, load(x + i));
    largest = reduce_max(lanes);
  }
  for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

// x = exp(x - shift) over n elements, n a multiple of 4 * kLanes; returns the sum.
float exp_sum_of_block(float* x, int64_t n, float shift) {
  const VecF by = set1(shift);
  VecF sum[4] = {set1(0.0f), set1(0.0f), set1(0.0f), set1(0.0f)};
  for (int64_t i = 0; i < n; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const VecF e = exp_or_zero(load(x + i + j * kLanes) - by);
      store(x + i + j * kLanes, e);
      sum[j] = sum[j] + e;
    }
  }
  return reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// Blocks are added in double: a vocabulary of 262144 would lose bits in one float sum.
float exp_sum(float* x, int64_t n, float shift) {
  constexpr int64_t kBlockElements = 1024;
  double total = 0.0;
  int64_t i = 0;
  for (; i + kBlockElements <= n; i += kBlockElements)
    total += exp_sum_of_block(x + i, kBlockElements, shift);
  const int64_t rest = (n - i) / (4 * kLanes) * (4 * kLanes);
  total += exp_sum_of_block(x + i, rest, shift);
  for (i += rest; i < n; i += kLanes) {
    const int m = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    float lanes[kLanes];
    store(lanes, exp_or_zero(load_n(x + i, m) - set1(shift)));
    for (int j = 0; j < m; ++j) total += x[i + j] = lanes[j];
  }
  return static_cast<float>(total);
}

void scale(float* x, int64_t n, float factor) {
  const VecF by = set1(factor);
  for_vectors(n, [&](auto get, auto put) { put(x, get(x) * by); });
}

constexpr RowKernels kRowKernels = {rms_norm, rotate, silu_gate, gelu_tanh_gate, add,
                                    softcap,  dot,    max_of,    exp_sum,        scale};

}  // namespace
}  // namespace dspark
