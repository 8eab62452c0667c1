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

  constexpr int kSteps = 9;  // candidates within +-9, a tenth of a level apart
  constexpr int kLanes = 8;  // fixed partial sums: vectorisable and still one defined order
  float best_gain = 0.0f;
  float best_scale = peak / lowest;
  for (int candidate = 0; candidate <= 2 * kSteps; ++candidate) {
    // 0, -1, 1, -2, 2, ...: of equally good scales the obvious one is kept (exact for constant groups).
    const int step = candidate % 2 == 0 ? candidate / 2 : -(candidate + 1) / 2;
    const float inverse = (lowest - 0.1f * static_cast<float>(step)) / peak;
    float xq[kLanes] = {};
    float qq[kLanes] = {};
    for (int i = 0; i < kN; i += kLanes) {
      for (int l = 0; l < kLanes; ++l) {
        const auto q = static_cast<float>(round_to_level(x[i + l] * inverse, lowest, highest));
        xq[l] += x[i + l] * q;
        qq[l] += q * q;
      }
    }
    float sum_xq = 0.0f;
    float sum_qq = 0.0f;
    for (int l = 0; l < kLanes; ++l) {
      sum_xq += xq[l];
      sum_qq += qq[l];
    }
    // With the best d = sum_xq / sum_qq the squared error is sum_xx - sum_xq^2 / sum_qq.
    const float gain = sum_qq > 0.0f ? sum_xq * sum_xq / sum_qq : 0.0f;
    if (gain > best_gain * 1.000001f) {
      best_gain = gain;
      best_scale = sum_xq / sum_qq;
    }
  }
  return best_scale;
}

/// x ~ scale * q + offset, scale >= 0.
struct AffineFit {
  float scale = 0.0f;
  float offset = 0.0f;
};

/// Sums over a group of y = x - base with its levels q.
struct AffineSums {
  double y = 0, q = 0, yq = 0, qq = 0;
};

template <int kN>
AffineSums affine_sums(const float* y, float inverse, float levels) {
  constexpr int kLanes = 8;
  float sq[kLanes] = {};
  float syq[kLanes] = {};
  float sqq[kLanes] = {};
  for (int i = 0; i < kN; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const auto q = static_cast<float>(round_to_level(y[i + l] * inverse, 0.0f, levels));
      sq[l] += q;
      syq[l] += y[i + l] * q;
      sqq[l] += q * q;
    }
  }
  AffineSums sums;
  for (int l = 0; l < kLanes; ++l) {
    sums.q += sq[l];
    sums.yq += syq[l];
    sums.qq += sqq[l];
  }
  return sums;
}

/// Fits levels 0..levels. With `offset_not_positive` (types that store a minimum to subtract) the offset
/// stays
/// <= 0, so a group of positive numbers is fitted from 0 up.
template <int kN>
AffineFit fit_affine(const float* x, int levels, bool offset_not_positive) {
  const float low =
      offset_not_positive ? std::min(0.0f, *std::min_element(x, x + kN)) : *std::min_element(x, x + kN);
  const float high = std::max(low, *std::max_element(x, x + kN));
  const float range = std::min(high - low, 3.0e38f);
  const auto top = static_cast<float>(levels);
  AffineFit best{range / top, low};
  if (range < kTinyGroup) return {0.0f, low};
  if (range > kHugeGroup) return best;

  float y[kN];  // relative to `low`, so that a large common offset does not drown the errors
  double sum_y = 0.0;
  for (int i = 0; i < kN; ++i) {
    y[i] = x[i] - low;
    sum_y += y[i];
  }
  constexpr int kSteps = 10;
  double best_error = HUGE_VAL;
  for (int step = -kSteps; step <= kSteps; ++step) {
    AffineSums s = affine_sums<kN>(y, (top + 0.1f * static_cast<float>(step)) / range, top);
    const double determinant = kN * s.qq - s.q * s.q;
    if (determinant <= 0.0) continue;
    double scale = (kN * s.yq - sum_y * s.q) / determinant;
    double offset = (s.qq * sum_y - s.q * s.yq) / determinant;
    if (offset_not_positive && low + offset > 0.0) {
      offset = -static_cast<double>(low);
      scale = (s.yq - offset * s.q) / s.qq;
    }
    // Squared error without the constant sum of y^2.
    const double error =
        scale * (scale * s.qq - 2.0 * s.yq + 2.0 * offset * s.q) + offset * (kN * offset - 2.0 * sum_y);
    if (error < best_error && scale > 0.0) {
      best_error = error;
      best = {static_cast<float>(scale), static_cast<float>(low + offset)};
    }
  }
  return best;
}

}  // namespace dspark
