#pragma once
// Largest value of a row, in a form compilers turn into vector code.

#include <cstddef>
#include <limits>
#include <span>

namespace dspark {

/// The largest value, NaN ignored; -infinity for an empty row or one of NaN only.
inline float row_max(std::span<const float> row) {
  constexpr size_t kLanes = 32;
  float lanes[kLanes];
  for (float& lane : lanes) lane = -std::numeric_limits<float>::infinity();
  const float* value = row.data();
  const size_t n_blocks = row.size() / kLanes;
  for (size_t i = 0; i < n_blocks; ++i, value += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] = value[j] > lanes[j] ? value[j] : lanes[j];
  }
  const size_t n_left = row.size() % kLanes;
  for (size_t j = 0; j < n_left; ++j) lanes[j] = value[j] > lanes[j] ? value[j] : lanes[j];
  float largest = lanes[0];
  for (float lane : lanes) largest = lane > largest ? lane : largest;
  return largest;
}

}  // namespace dspark
