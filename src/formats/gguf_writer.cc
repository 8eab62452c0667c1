#include "formats/gguf_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "formats/error_text.h"

namespace dspark {
namespace {

constexpr uint32_t kVersionWritten = 3;

template <typename T>
void put(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void put_string(std::string& out, std::string_view text) {
  put<uint64_t>(out, text.size());
  out += text;
}

template <typename T>
std::string encoded(T value) {
  std::string out;
  put(out, value);
  return out;
}

std::string array_header(GgufType type, size_t count) {
  std::string out;
  put(out, static_cast<uint32_t>(type));
  put<uint64_t>(out, count);
  return out;
}

uint64_t align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

}  // namespace

Result<GgufWriter> GgufWriter::create(const std::string& path) {
  GgufWriter writer;
  DSPARK_ASSIGN_OR_RETURN(writer.file_, AtomicFile::create(path));
  return writer;
}

void GgufWriter::set(std::string_view key, GgufType type, std::string value) {
  const auto type_id = static_cast<uint32_t>(type);
  for (Pair& pair : pairs_) {
    if (pair.key != key) continue;
    pair.type = type_id;
    pair.value = std::move(value);
    return;
  }
  pairs_.push_back({std::string(key), type_id, std::move(value)});
}

void GgufWriter::copy(const RawMeta& raw) {
  set(raw.key, static_cast<GgufType>(raw.type),
      std::string(reinterpret_cast<const char*>(raw.value.data()), raw.value.size()));
}

void GgufWriter::copy_all(const Checkpoint& source) {
  for (const RawMeta& raw : source.raw_metadata()) copy(raw);
}

void GgufWriter::set_bool(std::string_view key, bool value) {
  set(key, GgufType::kBool, encoded<uint8_t>(value ? 1 : 0));
}
void GgufWriter::set_u32(std::string_view key, uint32_t value) {
  set(key, GgufType::kUint32, encoded(value));
}
void GgufWriter::set_i32(std::string_view key, int32_t value) {
  set(key, GgufType::kInt32, encoded(value));
}
void GgufWriter::set_u64(std::string_view key, uint64_t value) {
  set(key, GgufType::kUint64, encoded(value));
}
void GgufWriter::set_f32(std::string_view key, float value) {
  set(key, GgufType::kFloat32, encoded(value));
}
void GgufWriter::set_string(std::string_view key, std::string_view value) {
  std::string out;
  put_string(out, value);
  set(key, GgufType::kString, std::move(out));
}
void GgufWriter::set_strings(std::string_view key, std::span<const std::string> values) {
  std::string out = array_header(GgufType::kString, values.size());
  for (const std::string& value : values) put_string(out, value);
  set(key, GgufType::kArray, std::move(out));
}

template <typename T>
void GgufWriter::set_array(std::string_view key, GgufType type, std::span<const T> values) {
  std::string out = array_header(type, values.size());
  out.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  set(key, GgufType::kArray, std::move(out));
}

void GgufWriter::set_f32s(std::string_view key, std::span<const float> values) {
  set_array(key, GgufType::kFloat32, values);
}
void GgufWriter::set_i32s(std::string_view key, std::span<const int32_t> values) {
  set_array(key, GgufType::kInt32, values);
}
void GgufWriter::set_u32s(std::string_view key, std::span<const uint32_t> values) {
  set_array(key, GgufType::kUint32, values);
}
void GgufWriter::set_bools(std::string_view key, const std::vector<bool>& values) {
  std::string out = array_header(GgufType::kBool, values.size());
  for (const bool value : values) put<uint8_t>(out, value ? 1 : 0);
  set(key, GgufType::kArray, std::move(out));
}

void GgufWriter::remove(std::string_view key) {
  std::erase_if(pairs_, [&](const Pair& pair) { return pair.key == key; });
}

Status GgufWriter::declare(std::string_view name, DType dtype, const std::vector<int64_t>& shape) {
  const std::string place = file_.path() + ": tensor " + in_quotes(name);
  if (header_written_) return invalid_argument(place + " is declared after the header was written");
  if (name.empty() || name.size() >= kGgufMaxNameBytes) {
    return invalid_argument(fmt::format("{} has a name of {} bytes, GGUF readers take 1 to {}", place,
                                        name.size(), kGgufMaxNameBytes - 1));
  }
  if (shape.size() > kGgufMaxDims) {
    return invalid_argument(
        fmt::format("{} has {} dimensions, GGUF allows {}", place, shape.size(), kGgufMaxDims));
  }
  if (!dtype_from_ggml_id(static_cast<uint32_t>(dtype))) {
    return invalid_argument(place + ": GGUF has no type " + dtype_name(dtype));
  }
  return tensors_.declare(name, dtype, shape);
}

uint64_t GgufWriter::tensor_bytes() const {
  uint64_t total = 0;
  for (const TensorDeclaration& tensor : tensors_.tensors()) total += tensor.n_bytes;
  return total;
}

Status GgufWriter::find_alignment() {
  for (const Pair& pair : pairs_) {
    if (pair.key.empty()) return invalid_argument(file_.path() + ": empty metadata key");
    if (pair.key != "general.alignment") continue;
    uint32_t value = 0;
    if (pair.type == static_cast<uint32_t>(GgufType::kUint32))
      std::memcpy(&value, pair.value.data(), sizeof(value));
    if (value == 0 || (value & (value - 1)) != 0) {
      return invalid_argument(file_.path() + ": general.alignment is not a u32 power of two");
    }
    alignment_ = value;
  }
  return {};
}

Status GgufWriter::write_header() {
  if (header_written_) return invalid_argument(file_.path() + ": header written twice");
  DSPARK_RETURN_IF_ERROR(find_alignment());
  std::string out = "GGUF";
  put(out, kVersionWritten);
  put<uint64_t>(out, tensors_.tensors().size());
  put<uint64_t>(out, pairs_.size());
  for (const Pair& pair : pairs_) {
    put_string(out, pair.key);
    put(out, pair.type);
    out += pair.value;
  }
  uint64_t offset = 0;
  for (const TensorDeclaration& tensor : tensors_.tensors()) {
    put_string(out, tensor.name);
    put<uint32_t>(out, static_cast<uint32_t>(tensor.shape.size()));
    for (auto dim = tensor.shape.rbegin(); dim != tensor.shape.rend(); ++dim) put<uint64_t>(out, *dim);
    put(out, static_cast<uint32_t>(tensor.dtype));
    put(out, offset);
    offset = align_up(offset + tensor.n_bytes, alignment_);
  }
  header_written_ = true;
  pairs_.clear();
  DSPARK_RETURN_IF_ERROR(file_.write({reinterpret_cast<const uint8_t*>(out.data()), out.size()}));
  return file_.pad_to(alignment_);
}

Status GgufWriter::append(std::string_view name, std::span<const uint8_t> bytes) {
  if (!header_written_) return invalid_argument(file_.path() + ": tensor bytes before the header");
  return tensors_.append(file_, name, bytes, alignment_);
}

Status GgufWriter::finish() {
  if (!header_written_) return invalid_argument(file_.path() + ": finished without a header");
  if (Status status = tensors_.check_complete(); !status.ok()) {
    return {status.code(), file_.path() + ": " + status.message()};
  }
  return file_.commit();
}

}  // namespace dspark
