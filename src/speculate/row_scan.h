#pragma once
// Skips the parts of a row in which nothing is large enough: of a whole vocabulary few tokens are.

#include <cstddef>
#include <cstdint>
#include <span>

namespace dspark {

inline constexpr size_t kScanBlock = 256;

/// How many of kScanBlock values are at least `threshold`; NaN never is. Comparisons alone, so the same on
/// every instruction set.
using CountFn = uint32_t (*)(const float* values, float threshold);
/// The count for this CPU.
CountFn count_reaching_fn();
/// The same without vector instructions beyond the compiler's baseline; for tests.
uint32_t count_reaching_baseline(const float* values, float threshold);

/// The first index whose value is at least `threshold`; row.size() when none is.
size_t first_reaching(std::span<const float> row, float threshold);

/// The largest value of a row and the first place that has it.
struct RowPeak {
  float value = 0.0f;
  size_t index = 0;
};

/// NaN is ignored. An empty row or one of NaN only: value -infinity, index row.size(). Reads the row once.
RowPeak row_peak(std::span<const float> row);

/// The smallest float that is not below `lowest` and above -infinity: comparing floats with it gives what
/// comparing them with `lowest` in float64 gives. +infinity when no finite float is; NaN for NaN.
float scan_threshold(double lowest);

/// Calls visit(index, value) for every value that is at least `threshold`, indices ascending.
template <typename Visit>
void for_each_reaching(std::span<const float> row, float threshold, Visit&& visit) {
  const CountFn count = count_reaching_fn();
  size_t begin = 0;
  for (; begin + kScanBlock <= row.size(); begin += kScanBlock) {
    uint32_t n_left = count(row.data() + begin, threshold);
    for (size_t i = begin; n_left > 0; ++i) {
      if (!(row[i] >= threshold)) continue;
      visit(i, row[i]);
      --n_left;
    }
  }
  for (size_t i = begin; i < row.size(); ++i) {
    if (row[i] >= threshold) visit(i, row[i]);
  }
}

}  // namespace dspark
