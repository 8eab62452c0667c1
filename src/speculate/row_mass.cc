#include "speculate/row_mass.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "speculate/row_max.h"

namespace dspark {
namespace {

constexpr size_t kBlock = 256;
constexpr float kLowestExponent = -120.0f;  // 2^-120 of the maximum: nothing, and far from denormals

/// 2^x for x <= 0, by 2^floor and the exponential series around the middle of the unit interval.
inline __attribute__((always_inline)) float exp2_of(float x) {
  x = x > kLowestExponent ? x : kLowestExponent;
  const int32_t whole = static_cast<int32_t>(x) - 1;  // x - whole in (0, 1]
  const float t = (x - static_cast<float>(whole) - 0.5f) * 0.693147181f;
  float series = 1.0f / 5040.0f;
  series = series * t + 1.0f / 720.0f;
  series = series * t + 1.0f / 120.0f;
  series = series * t + 1.0f / 24.0f;
  series = series * t + 1.0f / 6.0f;
  series = series * t + 0.5f;
  series = series * t + 1.0f;
  series = series * t + 1.0f;
  return series * 1.41421356f * std::bit_cast<float>((whole + 127) << 23);
}

/// One block; the lanes fix the order of the sum whatever the width of a vector register.
inline __attribute__((always_inline)) double block_mass(const float* logits, float max_logit, float scale) {
  constexpr size_t kLanes = 32;
  float lanes[kLanes] = {};
  for (size_t i = 0; i < kBlock; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] += exp2_of((logits[i + j] - max_logit) * scale);
  }
  double sum = 0.0;
  for (float lane : lanes) sum += static_cast<double>(lane);
  return sum;
}

/// The same, keeping the weights; what falls under the exponent's range becomes 0.
inline __attribute__((always_inline)) double block_weights(const float* logits, float max_logit, float scale,
                                                           float* out) {
  constexpr size_t kLanes = 32;
  float lanes[kLanes] = {};
  for (size_t i = 0; i < kBlock; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      const float x = (logits[i + j] - max_logit) * scale;
      const float power = exp2_of(x);  // for every x, so that the choice below needs no branch
      const float weight = x > kLowestExponent ? power : 0.0f;
      out[i + j] = weight;
      lanes[j] += weight;
    }
  }
  double sum = 0.0;
  for (float lane : lanes) sum += static_cast<double>(lane);
  return sum;
}

using BlockFn = double (*)(const float*, float, float);
using WeightsFn = double (*)(const float*, float, float, float*);

double block_baseline(const float* logits, float max_logit, float scale) {
  return block_mass(logits, max_logit, scale);
}

double weights_baseline(const float* logits, float max_logit, float scale, float* out) {
  return block_weights(logits, max_logit, scale, out);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) double block_avx2(const float* logits, float max_logit, float scale) {
  return block_mass(logits, max_logit, scale);
}

__attribute__((target("avx2"))) double weights_avx2(const float* logits, float max_logit, float scale,
                                                    float* out) {
  return block_weights(logits, max_logit, scale, out);
}

#if defined(__clang__)  // which has no word for the width here
#define DSPARK_AVX512 __attribute__((target("avx512f,avx512dq")))
#else
#define DSPARK_AVX512 __attribute__((target("avx512f,avx512dq,prefer-vector-width=512")))
#endif
DSPARK_AVX512 double block_avx512(const float* logits, float max_logit, float scale) {
  return block_mass(logits, max_logit, scale);
}

DSPARK_AVX512 double weights_avx512(const float* logits, float max_logit, float scale, float* out) {
  return block_weights(logits, max_logit, scale, out);
}

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
}
#endif

BlockFn block_fn() {
#if defined(__x86_64__)
  if (has_avx512()) return block_avx512;
  if (__builtin_cpu_supports("avx2")) return block_avx2;
#endif
  return block_baseline;
}

WeightsFn weights_fn() {
#if defined(__x86_64__)
  if (has_avx512()) return weights_avx512;
  if (__builtin_cpu_supports("avx2")) return weights_avx2;
#endif
  return weights_baseline;
}

}  // namespace

double row_mass(std::span<const float> logits, float max_logit, float temperature) {
  const float scale = 1.44269504f / temperature;
  const BlockFn fn = block_fn();
  double mass = 0.0;
  size_t begin = 0;
  for (; begin + kBlock <= logits.size(); begin += kBlock)
    mass += fn(logits.data() + begin, max_logit, scale);
  if (begin < logits.size()) {
    float tail[kBlock];
    std::fill(std::copy(logits.begin() + static_cast<std::ptrdiff_t>(begin), logits.end(), tail),
              tail + kBlock, -std::numeric_limits<float>::infinity());
    mass += fn(tail, max_logit, scale);
  }
  return mass;
}

bool row_probabilities(std::span<const float> logits, float temperature, std::span<float> out) {
  const float max_logit = row_max(logits);
  if (!std::isfinite(max_logit)) return false;
  const float scale = 1.44269504f / temperature;
  const WeightsFn fn = weights_fn();
  double mass = 0.0;
  size_t begin = 0;
  for (; begin + kBlock <= logits.size(); begin += kBlock)
    mass += fn(logits.data() + begin, max_logit, scale, out.data() + begin);
  if (begin < logits.size()) {
    float tail[kBlock], weights[kBlock];
    std::fill(std::copy(logits.begin() + static_cast<std::ptrdiff_t>(begin), logits.end(), tail),
              tail + kBlock, -std::numeric_limits<float>::infinity());
    mass += fn(tail, max_logit, scale, weights);
    std::copy(weights, weights + (logits.size() - begin), out.begin() + static_cast<std::ptrdiff_t>(begin));
  }
  const float inverse = static_cast<float>(1.0 / mass);
  for (float& value : out) value *= inverse;
  return true;
}

}  // namespace dspark
