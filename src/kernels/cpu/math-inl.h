// exp, sigmoid and tanh of vectors, the same bits for an element wherever it stands in a row.
// Coefficients: minimax fits of (exp(r) - 1 - r) / r^2 on |r| <= ln(2)/2, of (2^r - 1) / r on |r| <= 1/2, and
// of (tanh(x) - x) / x^3 in x^2 on |x| <= 0.625 (Remez exchange in 40-digit arithmetic).
#pragma once

#include "kernels/cpu/simd-inl.h"

namespace dspark {
namespace {

/// exp(x) for x <= 88, about 1 ulp; exactly 0 below -87.33 (where results would be denormal) and for NaN.
DSPARK_INLINE VecF exp_or_zero(VecF x) {
  const VecF magic = set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const VecF shifted = fma(x, set1(1.44269504f), magic);
  const VecF n = shifted - magic;
  VecF r = fnma(n, set1(0.693145752f), x);  // ln 2 in two parts; the first has 16 bits, n times it is exact
  r = fnma(n, set1(1.42860682e-6f), r);
  VecF q = fma(r, set1(0.00139412183f), set1(0.00836323507f));
  q = fma(q, r, set1(0.0416663741f));
  q = fma(q, r, set1(0.166665766f));
  q = fma(q, r, set1(0.5f));
  const VecF p = fma(q * r, r, r) + set1(1.0f);
  const VecF power = float_of(shift_left<23>(addi(bits_of(shifted), seti(127))));
  return select_or_zero(less(set1(-87.33f), x), p * power);
}

/// 2^y for y <= 0; exactly 1 at 0, exactly 0 below -126 and for NaN. Error about 1 ulp, or 5e-6 of the value
/// for results that are rounded to bf16 anyway.
template <bool kForBf16>
DSPARK_INLINE VecF exp2_or_zero(VecF y) {
  const VecF magic = set1(12582912.0f);
  const VecF shifted = y + magic;
  const VecF r = y - (shifted - magic);
  VecF g;
  if constexpr (kForBf16) {
    g = fma(r, set1(0.00967615886f), set1(0.0558390034f));
    g = fma(g, r, set1(0.240221657f));
    g = fma(g, r, set1(0.693136686f));
  } else {
    g = fma(r, set1(0.000154698679f), set1(0.00133909818f));
    g = fma(g, r, set1(0.00961803038f));
    g = fma(g, r, set1(0.0555035689f));
    g = fma(g, r, set1(0.240226511f));
    g = fma(g, r, set1(0.693147188f));
  }
  const VecF p = fma(g, r, set1(1.0f));
  return select_or_zero(less(set1(-126.0f), y), float_of(addi(bits_of(p), shift_left<23>(bits_of(shifted)))));
}

/// 1 / (1 + exp(-x)).
DSPARK_INLINE VecF sigmoid(VecF x) {
  const VecF t = exp_or_zero(min(set1(0.0f) - x, set1(88.0f)));
  return set1(1.0f) / (set1(1.0f) + t);
}

DSPARK_INLINE VecF tanh_of(VecF x) {
  const VecF a = abs(x);
  const VecF t = exp_or_zero(a * set1(-2.0f));
  const VecF large = (set1(1.0f) - t) / (set1(1.0f) + t);
  const VecF u = x * x;
  VecF q = fma(u, set1(-0.00611319288f), set1(0.0210100825f));
  q = fma(q, u, set1(-0.0538540701f));
  q = fma(q, u, set1(0.1333279455f));
  q = fma(q, u, set1(-0.3333332925f));
  const VecF small = fma(x * u, q, x);
  const VecF signed_large = select(less(x, set1(0.0f)), set1(0.0f) - large, large);
  return select(less(a, set1(0.625f)), small, signed_large);
}

}  // namespace
}  // namespace dspark
