#include "train/vocab_rows.h"

#include <bit>
#include <cmath>
#include <limits>

// The loops are plain; the compiler makes one version of each function per instruction set and the loader
// picks one. Sums of a row differ in their last bits between machines, as those of the tensor library do.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define DSPARK_ROW_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define DSPARK_ROW_CLONES
#endif

namespace dspark {
namespace {

/// e^x for x <= 0 to two units in the last place; e^-87 and below become 1e-38. The range is reduced to half
/// a power of two on both sides, where a polynomial (Cephes, expf) does.
inline __attribute__((always_inline)) float exp_of(float x) {
  x = x < -87.0f ? -87.0f : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves no digits behind the point
  const float n = (x * 1.44269504f + kRound) - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * (r * r) + r + 1.0f;
  return y * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

inline __attribute__((always_inline)) float largest(const float* z, int64_t width) {
  float top = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : top)
  for (int64_t i = 0; i < width; ++i) top = z[i] > top ? z[i] : top;
  return top;
}

/// z becomes exp(z - shift); returns the sum.
inline __attribute__((always_inline)) float exponentials(float* z, int64_t width, float shift) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < width; ++i) {
    const float e = exp_of(z[i] - shift);
    z[i] = e;
    sum += e;
  }
  return sum;
}

inline __attribute__((always_inline)) void scale(float* z, int64_t width, float factor) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) z[i] *= factor;
}

}  // namespace

DSPARK_ROW_CLONES void distribution_row(float* z, int64_t width, float log_sum) {
  // exp_of wants numbers up to zero: another rounding of log_sum may be a little below the largest logit.
  const float shift = std::fmax(log_sum, largest(z, width));
  const float sum = exponentials(z, width, shift);
  if (sum > 1.0f) scale(z, width, 1.0f / sum);
}

DSPARK_ROW_CLONES void whole_distribution_row(float* z, int64_t width) {
  scale(z, width, 1.0f / exponentials(z, width, largest(z, width)));
}

DSPARK_ROW_CLONES RowTerms loss_row(float* z, const float* q, int64_t width, int64_t label,
                                    const RowFactors& factors) {
  const float top = largest(z, width);
  const float label_logit = label >= 0 ? z[label] - top : 0.0f;
  float sum = 0;
  float mass = 0;
  float dot = 0;  // of q and z - top
#pragma omp simd reduction(+ : sum, mass, dot)
  for (int64_t i = 0; i < width; ++i) {
    const float shifted = z[i] - top;
    const float e = exp_of(shifted);
    dot += q[i] * shifted;
    mass += q[i];
    sum += e;
    z[i] = e;
  }
  const float inverse = 1.0f / sum;
  float distance = 0;
  float p_sign = 0;
#pragma omp simd reduction(+ : distance, p_sign)
  for (int64_t i = 0; i < width; ++i) {
    const float p = z[i] * inverse;
    const float gap = p - q[i];
    z[i] = p;
    distance += gap < 0 ? -gap : gap;
    p_sign += gap < 0 ? -p : gap > 0 ? p : 0.0f;
  }
  const float log_sum = std::log(sum);
  RowTerms terms;
  terms.ce = label >= 0 ? log_sum - label_logit : 0.0f;
  terms.soft_ce = mass * log_sum - dot;
  terms.l1 = distance + (1.0f - mass);

  const float ce = label >= 0 ? factors.ce : 0.0f;
  const float up = factors.weight * factors.l1;
  const float straight = factors.weight * (factors.soft_ce * mass + ce - factors.l1 * p_sign);
  const float soft = factors.weight * factors.soft_ce;
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const float p = z[i];
    const float sign = p < q[i] ? -up : p > q[i] ? up : 0.0f;
    z[i] = p * (straight + sign) - soft * q[i];
  }
  if (label >= 0) z[label] -= factors.weight * ce;
  return terms;
}

}  // namespace dspark
