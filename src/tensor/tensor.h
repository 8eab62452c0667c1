#pragma once
// Non-owning view of a stored tensor.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace dspark {

/// A named tensor inside a checkpoint. `shape` is row-major, outermost dimension first: a matrix is
/// [out, in] whatever the file format (GGUF lists dims the other way round; its reader turns them).
/// Rows of the last dimension are contiguous blocks of `dtype`. The bytes belong to the checkpoint.
struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  const uint8_t* data = nullptr;
  size_t n_bytes = 0;

  int64_t n_elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
  /// Elements of the last dimension; 1 for a scalar.
  int64_t row_elements() const { return shape.empty() ? 1 : shape.back(); }
  /// Product of all dimensions but the last.
  int64_t n_rows() const {
    int64_t n = 1;
    for (size_t i = 0; i + 1 < shape.size(); ++i) n *= shape[i];
    return n;
  }
  size_t row_bytes() const { return dtype_row_bytes(dtype, row_elements()); }
};

}  // namespace dspark
