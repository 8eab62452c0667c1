#pragma once
// Private to the tensor room: least-squares fits of a group of floats by a few integer levels.
//
// A quantised group stores integers q and reads back as d*q (symmetric) or d*q + m (affine). For given q the
// best d and m are a linear least-squares problem; for given d and m the best q is rounding. The fits try a
// fixed list of scales around the obvious one (largest magnitude = last level), round, solve, and keep the
// smallest squared error. No randomness, no dependence on anything but the group: the same bytes every time.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "tensor/half.h"

namespace dspark {

/// Groups whose largest magnitude is below this become zero: no binary16 scale could express them.
constexpr float kTinyGroup = 1e-20f;
/// Above this the squares of a search would overflow; such groups get the obvious scale.
constexpr float kHugeGroup = 1e15f;

/// Nearest whole number in [low, high], ties to even. |low|, |high| < 2^22; value must not be NaN.
inline int round_to_level(float value, float low, float high) {
  // Adding 1.5 * 2^23 leaves the rounded integer in the low mantissa bits; unlike lrintf this vectorises
  // without SSE4.
  const float clamped = std::min(std::max(value, low), high);
  return std::bit_cast<int32_t>(clamped + 12582912.0f) - 0x4b400000;
}

/// The nearest binary16 number, never infinite.
inline uint16_t to_scale_bits(float value) {
  return f32_to_f16(std::min(std::max(value, -65504.0f), 65504.0f));
}

/// 1 / d, or 0 for d == 0 (then every level becomes 0).
inline float inverse_or_zero(float d) {
  return d != 0.0f ? 1.0f / d : 0.0f;
}

// The searches below run over all candidates of one element before the next element: the inner loops are then
// plain vertical loops over arrays, which the compiler vectorises, and every sum has one defined order.

/// Step k of 0, -1, 1, -2, 2, ...: of equally good scales the obvious one (step 0, exact for constant groups)
/// is met first and kept.
constexpr int alternating_step(int k) {
  return k % 2 == 0 ? k / 2 : -(k + 1) / 2;
}

/// Scale d of x ~ d * q with q in [low, high], low = -high - 1. May be negative: the side with the larger
/// magnitude gets the extra level. 0 for an all-zero group.
template <int kN>
float fit_symmetric(const float* x, int low, int high) {
  float peak = 0.0f;
  for (int i = 0; i < kN; ++i) peak = std::fabs(x[i]) > std::fabs(peak) ? x[i] : peak;
  if (std::fabs(peak) < kTinyGroup) return 0.0f;
  const auto lowest = static_cast<float>(low);
  const auto highest = static_cast<float>(high);
  if (std::fabs(peak) > kHugeGroup) return peak / lowest;

  constexpr int kCandidates = 20;  // a tenth of a level apart
  float inverse[kCandidates];
  float sum_xq[kCandidates] = {};
  float sum_qq[kCandidates] = {};
  for (int k = 0; k < kCandidates; ++k)
    inverse[k] = (lowest - 0.1f * static_cast<float>(alternating_step(k))) / peak;
  for (int i = 0; i < kN; ++i) {
    for (int k = 0; k < kCandidates; ++k) {
      const auto q = static_cast<float>(round_to_level(x[i] * inverse[k], lowest, highest));
      sum_xq[k] += x[i] * q;
      sum_qq[k] += q * q;
    }
  }
  float best_gain = 0.0f;
  float best_scale = peak / lowest;
  for (int k = 0; k < kCandidates; ++k) {
    // With the best d = sum_xq / sum_qq the squared error is sum_xx - sum_xq^2 / sum_qq.
    const float gain = sum_qq[k] > 0.0f ? sum_xq[k] * sum_xq[k] / sum_qq[k] : 0.0f;
    if (gain > best_gain * 1.000001f) {
      best_gain = gain;
      best_scale = sum_xq[k] / sum_qq[k];
    }
  }
  return best_scale;
}

/// x ~ scale * q + offset, scale >= 0.
struct AffineFit {
  float scale = 0.0f;
  float offset = 0.0f;
};

/// Fits levels 0..levels. With `offset_not_positive` (types that store a minimum to subtract) the offset
/// stays
/// <= 0, so a group of positive numbers is fitted from 0 up.
template <int kN>
AffineFit fit_affine(const float* x, int levels, bool offset_not_positive) {
  const float lowest = *std::min_element(x, x + kN);
  const float low = offset_not_positive ? std::min(0.0f, lowest) : lowest;
  const float high = std::max(low, *std::max_element(x, x + kN));
  const float range = std::min(high - low, 3.0e38f);
  const auto top = static_cast<float>(levels);
  AffineFit best{range / top, low};
  if (range < kTinyGroup) return {0.0f, low};
  if (range > kHugeGroup) return best;

  constexpr int kCandidates = 20;
  float inverse[kCandidates];
  float sum_q[kCandidates] = {};
  float sum_yq[kCandidates] = {};
  float sum_qq[kCandidates] = {};
  double sum_y = 0.0;
  for (int k = 0; k < kCandidates; ++k)
    inverse[k] = (top + 0.1f * static_cast<float>(alternating_step(k))) / range;
  for (int i = 0; i < kN; ++i) {
    const float y = x[i] - low;  // so that a large common offset does not drown the errors
    sum_y += y;
    for (int k = 0; k < kCandidates; ++k) {
      const auto q = static_cast<float>(round_to_level(y * inverse[k], 0.0f, top));
      sum_q[k] += q;
      sum_yq[k] += y * q;
      sum_qq[k] += q * q;
    }
  }
  double best_error = HUGE_VAL;
  for (int k = 0; k < kCandidates; ++k) {
    const double q = sum_q[k];
    const double yq = sum_yq[k];
    const double qq = sum_qq[k];
    const double determinant = kN * qq - q * q;
    if (determinant <= 0.0) continue;
    double scale = (kN * yq - sum_y * q) / determinant;
    double offset = (qq * sum_y - q * yq) / determinant;
    if (offset_not_positive && low + offset > 0.0) {
      offset = -static_cast<double>(low);
      scale = (yq - offset * q) / qq;
    }
    // Squared error without the constant sum of y^2.
    const double error =
        scale * (scale * qq - 2.0 * yq + 2.0 * offset * q) + offset * (kN * offset - 2.0 * sum_y);
    if (error < best_error && scale > 0.0) {
      best_error = error;
      best = {static_cast<float>(scale), static_cast<float>(low + offset)};
    }
  }
  return best;
}

/// Index of the first of `kCandidates` pairs (scale, min) for which x ~ scale * q - min, q in [low, high],
/// has the smallest squared error; 0 when the errors are not finite.
template <int kN, int kCandidates>
int best_affine(const float* x, const float* scale, const float* min, float low, float high) {
  float inverse[kCandidates];
  float sums[kCandidates] = {};
  for (int k = 0; k < kCandidates; ++k) inverse[k] = inverse_or_zero(scale[k]);
  for (int i = 0; i < kN; ++i) {
    for (int k = 0; k < kCandidates; ++k) {
      const auto q = static_cast<float>(round_to_level((x[i] + min[k]) * inverse[k], low, high));
      const float difference = scale[k] * q - min[k] - x[i];
      sums[k] += difference * difference;
    }
  }
  int best = 0;
  for (int k = 1; k < kCandidates; ++k) best = sums[k] < sums[best] ? k : best;
  return best;
}

}  // namespace dspark
