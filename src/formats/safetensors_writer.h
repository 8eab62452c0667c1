#pragma once
// Writes safetensors files, tensor bytes streamed.

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/atomic_file.h"
#include "formats/tensor_stream.h"

namespace dspark {

/// Use: create, set metadata, declare every tensor, write_header, append all bytes in declared order, finish.
/// The file appears under its name only in finish(); dropping the writer earlier leaves nothing behind.
/// The data section starts on an 8-byte boundary; declare wide types before narrow ones to keep all aligned.
class SafetensorsWriter {
 public:
  static Result<SafetensorsWriter> create(const std::string& path);

  /// One string of `__metadata__`.
  void set_metadata(std::string_view key, std::string_view value);
  /// errors: invalid_argument for a repeated or reserved name or a block-quantised type.
  Status declare(std::string_view name, DType dtype, const std::vector<int64_t>& shape);
  /// errors: invalid_argument when a name or metadata string is not UTF-8.
  Status write_header();
  /// Appends to tensor `name`, which must be the first one still lacking bytes; pieces of any size.
  Status append(std::string_view name, std::span<const uint8_t> bytes);
  /// errors: invalid_argument naming a tensor whose bytes are missing; write errors.
  Status finish();

 private:
  AtomicFile file_;
  std::map<std::string, std::string, std::less<>> metadata_;
  TensorStream tensors_;
  bool header_written_ = false;
};

}  // namespace dspark
