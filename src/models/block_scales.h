#pragma once
// Where the scales of FP8 and FP4 matrices are (weight_reader.h tells the forms).

#include <cstdint>
#include <string>

#include "formats/checkpoint.h"

namespace dspark {

/// Rows and columns of an FP8 matrix that share a scale.
inline constexpr int64_t kFp8Block = 128;

/// The scales of the quantised matrix `name`; nullptr when the file has none under either name.
const TensorView* find_scale(const Checkpoint& checkpoint, const std::string& name);

}  // namespace dspark
