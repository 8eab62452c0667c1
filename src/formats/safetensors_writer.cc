#include "formats/safetensors_writer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "formats/error_text.h"
#include "formats/safetensors_reader.h"

namespace dspark {
namespace {

constexpr const char* kMetadataKey = "__metadata__";
constexpr size_t kDataAlignment = 8;

/// Appends `text` as a JSON string. returns: false when it is not UTF-8.
bool put_json_string(std::string& out, const std::string& text) {
  try {
    out += nlohmann::json(text).dump();
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

}  // namespace

Result<SafetensorsWriter> SafetensorsWriter::create(const std::string& path) {
  SafetensorsWriter writer;
  DSPARK_ASSIGN_OR_RETURN(writer.file_, AtomicFile::create(path));
  return writer;
}

void SafetensorsWriter::set_metadata(std::string_view key, std::string_view value) {
  metadata_.insert_or_assign(std::string(key), std::string(value));
}

Status SafetensorsWriter::declare(std::string_view name, DType dtype, const std::vector<int64_t>& shape) {
  const std::string place = file_.path() + ": tensor " + in_quotes(name);
  if (header_written_) return invalid_argument(place + " is declared after the header was written");
  if (name == kMetadataKey) return invalid_argument(place + ": the name is reserved");
  if (safetensors_dtype_name(dtype) == nullptr) {
    return invalid_argument(place + ": safetensors has no type " + dtype_name(dtype));
  }
  return tensors_.declare(name, dtype, shape);
}

Status SafetensorsWriter::write_header() {
  if (header_written_) return invalid_argument(file_.path() + ": header written twice");
  const auto not_utf8 = [&](const std::string& text) {
    return invalid_argument(file_.path() + ": " + in_quotes(text) + " is not UTF-8");
  };
  std::string header = "{";
  if (!metadata_.empty()) {
    header += fmt::format("\"{}\":{{", kMetadataKey);
    for (const auto& [key, value] : metadata_) {
      if (header.back() != '{') header += ',';
      if (!put_json_string(header, key)) return not_utf8(key);
      header += ':';
      if (!put_json_string(header, value)) return not_utf8(value);
    }
    header += '}';
  }
  uint64_t offset = 0;
  for (const TensorDeclaration& tensor : tensors_.tensors()) {
    if (header.size() > 1) header += ',';
    if (!put_json_string(header, tensor.name)) return not_utf8(tensor.name);
    header += fmt::format(R"(:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                          safetensors_dtype_name(tensor.dtype), fmt::join(tensor.shape, ","), offset,
                          offset + tensor.n_bytes);
    offset += tensor.n_bytes;
  }
  header += '}';
  header.append((kDataAlignment - header.size() % kDataAlignment) % kDataAlignment, ' ');
  header_written_ = true;
  const uint64_t length = header.size();
  DSPARK_RETURN_IF_ERROR(file_.write({reinterpret_cast<const uint8_t*>(&length), sizeof(length)}));
  return file_.write({reinterpret_cast<const uint8_t*>(header.data()), header.size()});
}

Status SafetensorsWriter::append(std::string_view name, std::span<const uint8_t> bytes) {
  if (!header_written_) return invalid_argument(file_.path() + ": tensor bytes before the header");
  return tensors_.append(file_, name, bytes, 1);
}

Status SafetensorsWriter::finish() {
  if (!header_written_) return invalid_argument(file_.path() + ": finished without a header");
  if (Status status = tensors_.check_complete(); !status.ok()) {
    return {status.code(), file_.path() + ": " + status.message()};
  }
  return file_.commit();
}

}  // namespace dspark
