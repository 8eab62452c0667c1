#pragma once
// A handful of tensors on their way into a safetensors file.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "tensor/dtype.h"

namespace dspark::cli {

/// Tensors kept in memory until write(): for small dumps.
class TensorFile {
 public:
  /// requires: the shape's product is values.size().
  void add(const std::string& name, std::span<const float> values, std::vector<int64_t> shape);
  void add(const std::string& name, std::span<const int32_t> values, std::vector<int64_t> shape);
  void set_metadata(const std::string& key, const std::string& value) { metadata_.emplace_back(key, value); }
  /// errors: those of SafetensorsWriter.
  Status write(const std::string& path) const;

 private:
  struct Entry {
    std::string name;
    DType dtype;
    std::vector<int64_t> shape;
    std::vector<uint8_t> bytes;
  };
  void add_bytes(const std::string& name, DType dtype, const void* data, size_t n_bytes,
                 std::vector<int64_t> shape);

  std::vector<Entry> entries_;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

}  // namespace dspark::cli
