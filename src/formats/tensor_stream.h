#pragma once
// Private to the room: the tensor data of a file being written, in declared order, in pieces of any size.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/status.h"
#include "formats/atomic_file.h"
#include "tensor/dtype.h"

namespace dspark {

/// What a writer knows about a tensor before its bytes arrive. Shape row-major.
struct TensorDeclaration {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t n_bytes = 0;
};

/// First the declarations, then the bytes, counted against them.
class TensorStream {
 public:
  /// errors: invalid_argument for a name declared before, an unknown type, a negative dimension, rows that
  /// are not whole blocks, a size above 63 bits.
  Status declare(std::string_view name, DType dtype, const std::vector<int64_t>& shape);
  const std::vector<TensorDeclaration>& tensors() const { return tensors_; }

  /// Appends to tensor `name`, which must be the first one still lacking bytes; pads the file to `alignment`
  /// once it is full. errors: invalid_argument for another tensor or too many bytes; those of AtomicFile.
  Status append(AtomicFile& file, std::string_view name, std::span<const uint8_t> bytes, uint64_t alignment);
  /// errors: invalid_argument naming the first tensor whose bytes are missing.
  Status check_complete() const;

 private:
  /// Index of the first tensor from `current_` on that has bytes to come.
  size_t next_incomplete() const;

  std::vector<TensorDeclaration> tensors_;
  std::unordered_set<std::string> names_;
  size_t current_ = 0;   // index of the tensor being filled
  uint64_t filled_ = 0;  // bytes of it
};

}  // namespace dspark
