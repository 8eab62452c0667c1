#include "speculate/row_scan.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "speculate/row_max.h"

namespace dspark {
namespace {

// Compiled once per instruction set: an always-inline body takes the target of the function it is inlined
// into.
inline __attribute__((always_inline)) uint32_t count_block(const float* values, float threshold) {
  uint32_t n = 0;
  for (size_t i = 0; i < kScanBlock; ++i) n += values[i] >= threshold ? 1 : 0;
  return n;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) uint32_t count_avx2(const float* values, float threshold) {
  return count_block(values, threshold);
}

#if defined(__clang__)  // which has no word for the width here
#define DSPARK_AVX512 __attribute__((target("avx512f,avx512dq")))
#else
#define DSPARK_AVX512 __attribute__((target("avx512f,avx512dq,prefer-vector-width=512")))
#endif
DSPARK_AVX512 uint32_t count_avx512(const float* values, float threshold) {
  return count_block(values, threshold);
}
#endif

}  // namespace

uint32_t count_reaching_baseline(const float* values, float threshold) {
  return count_block(values, threshold);
}

CountFn count_reaching_fn() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return count_avx512;
  if (__builtin_cpu_supports("avx2")) return count_avx2;
#endif
  return count_reaching_baseline;
}

size_t first_reaching(std::span<const float> row, float threshold) {
  const CountFn count = count_reaching_fn();
  size_t at = 0;
  while (at + kScanBlock <= row.size() && count(row.data() + at, threshold) == 0) at += kScanBlock;
  while (at < row.size() && !(row[at] >= threshold)) ++at;
  return at;
}

RowPeak row_peak(std::span<const float> row) {
  constexpr size_t kPart = 2048;  // what is searched again for the place: in the nearest cache by then
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  float largest = kLowest;
  size_t part = 0;
  for (size_t begin = 0; begin < row.size(); begin += kPart) {
    const float value = row_max(row.subspan(begin, std::min(kPart, row.size() - begin)));
    if (!(value > largest)) continue;
    largest = value;
    part = begin;
  }
  return {largest, part + first_reaching(row.subspan(part), largest)};
}

float scan_threshold(double lowest) {
  constexpr float kMost = std::numeric_limits<float>::max();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (std::isnan(lowest)) return std::numeric_limits<float>::quiet_NaN();
  if (lowest > static_cast<double>(kMost)) return kInfinity;
  if (lowest <= static_cast<double>(-kMost)) return -kMost;
  const auto nearest = static_cast<float>(lowest);
  return static_cast<double>(nearest) < lowest ? std::nextafter(nearest, kInfinity) : nearest;
}

}  // namespace dspark
