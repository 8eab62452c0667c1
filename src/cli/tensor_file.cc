#include "cli/tensor_file.h"

#include <utility>

#include "formats/safetensors_writer.h"

namespace dspark::cli {

void TensorFile::add(const std::string& name, std::span<const float> values, std::vector<int64_t> shape) {
  add_bytes(name, DType::kF32, values.data(), values.size_bytes(), std::move(shape));
}

void TensorFile::add(const std::string& name, std::span<const int32_t> values, std::vector<int64_t> shape) {
  add_bytes(name, DType::kI32, values.data(), values.size_bytes(), std::move(shape));
}

void TensorFile::add_bytes(const std::string& name, DType dtype, const void* data, size_t n_bytes,
                           std::vector<int64_t> shape) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  entries_.push_back({name, dtype, std::move(shape), {bytes, bytes + n_bytes}});
}

Status TensorFile::write(const std::string& path) const {
  DSPARK_ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::create(path));
  for (const auto& [key, value] : metadata_) writer.set_metadata(key, value);
  for (const Entry& entry : entries_) {
    DSPARK_RETURN_IF_ERROR(writer.declare(entry.name, entry.dtype, entry.shape));
  }
  DSPARK_RETURN_IF_ERROR(writer.write_header());
  for (const Entry& entry : entries_) DSPARK_RETURN_IF_ERROR(writer.append(entry.name, entry.bytes));
  return writer.finish();
}

}  // namespace dspark::cli
