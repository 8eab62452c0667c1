#pragma once
// Writes GGUF version 3 files, tensor bytes streamed.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "formats/atomic_file.h"
#include "formats/checkpoint.h"
#include "formats/gguf_reader.h"
#include "formats/tensor_stream.h"

namespace dspark {

/// Use: create, copy or set metadata, declare every tensor, write_header, append all bytes in declared order,
/// finish. The file appears under its name only in finish(); dropping the writer earlier leaves nothing
/// behind.
class GgufWriter {
 public:
  static Result<GgufWriter> create(const std::string& path);

  /// Takes one key with its exact type and width. A key set again keeps its place and gets the new value.
  void copy(const RawMeta& raw);
  /// Every key of a GGUF checkpoint in its order.
  void copy_all(const Checkpoint& source);
  void set_bool(std::string_view key, bool value);
  void set_u32(std::string_view key, uint32_t value);
  void set_i32(std::string_view key, int32_t value);
  void set_u64(std::string_view key, uint64_t value);
  void set_f32(std::string_view key, float value);
  void set_string(std::string_view key, std::string_view value);
  void set_strings(std::string_view key, std::span<const std::string> values);
  void set_f32s(std::string_view key, std::span<const float> values);
  void set_i32s(std::string_view key, std::span<const int32_t> values);
  void set_u32s(std::string_view key, std::span<const uint32_t> values);
  void set_bools(std::string_view key, const std::vector<bool>& values);
  void remove(std::string_view key);

  /// `shape` is row-major ([out, in]) as everywhere; the file lists it the other way round.
  /// errors: invalid_argument for an empty or too long or repeated name, more than 4 dimensions, a type GGUF
  /// does not have, rows that are not whole blocks.
  Status declare(std::string_view name, DType dtype, const std::vector<int64_t>& shape);
  /// Bytes of the tensors declared so far, without padding.
  uint64_t tensor_bytes() const;

  /// After the last declare. errors: invalid_argument for an empty key or a bad general.alignment.
  Status write_header();
  /// Appends to tensor `name`, which must be the first one still lacking bytes; pieces of any size.
  Status append(std::string_view name, std::span<const uint8_t> bytes);
  /// errors: invalid_argument naming a tensor whose bytes are missing; write errors.
  Status finish();

 private:
  struct Pair {
    std::string key;
    uint32_t type = 0;
    std::string value;
  };
  void set(std::string_view key, GgufType type, std::string value);
  template <typename T>
  void set_array(std::string_view key, GgufType type, std::span<const T> values);
  Status find_alignment();

  AtomicFile file_;
  std::vector<Pair> pairs_;
  TensorStream tensors_;
  uint64_t alignment_ = kGgufDefaultAlignment;
  bool header_written_ = false;
};

}  // namespace dspark
