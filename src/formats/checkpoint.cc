#include "formats/checkpoint.h"

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/checkpoint_builder.h"
#include "formats/error_text.h"
#include "formats/gguf_reader.h"
#include "formats/safetensors_reader.h"

namespace dspark {
namespace {

enum class Container { kGguf, kSafetensors, kUnknown };

/// Content decides; the name only chooses which parser explains what is wrong with a damaged file.
Container detect(std::span<const uint8_t> bytes, const std::filesystem::path& path) {
  const auto starts_with = [&](std::string_view magic) {
    return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
  };
  if (starts_with("GGUF") || starts_with("FUGG")) return Container::kGguf;
  constexpr size_t kHeaderLengthBytes = 8;
  if (bytes.size() > kHeaderLengthBytes && bytes[kHeaderLengthBytes] == '{') return Container::kSafetensors;
  if (path.extension() == ".gguf") return Container::kGguf;
  if (path.extension() == ".safetensors") return Container::kSafetensors;
  return Container::kUnknown;
}

/// Only the value of kind `T`, when the key holds one.
template <typename T>
const T* meta_as(const Checkpoint& checkpoint, std::string_view key) {
  const MetaValue* value = checkpoint.meta(key);
  return value == nullptr ? nullptr : std::get_if<T>(value);
}

}  // namespace

Checkpoint::Checkpoint()
    : config_(std::make_unique<nlohmann::json>()), generation_config_(std::make_unique<nlohmann::json>()) {}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

Result<Checkpoint> Checkpoint::open(const std::string& path) {
  CheckpointBuilder builder(path);
  std::error_code ec;
  if (std::filesystem::is_directory(path, ec)) {
    DSPARK_RETURN_IF_ERROR(builder.add_folder(path));
    return std::move(builder.checkpoint);
  }
  DSPARK_ASSIGN_OR_RETURN(MappedFile file, MappedFile::open(path));
  switch (detect(file.bytes(), path)) {
    case Container::kGguf:
      DSPARK_RETURN_IF_ERROR(builder.add_gguf(std::move(file)));
      break;
    case Container::kSafetensors:
      DSPARK_RETURN_IF_ERROR(builder.add_safetensors(std::move(file)));
      break;
    case Container::kUnknown:
      return corrupt_data(path +
                          ": neither GGUF (first bytes 'GGUF') nor safetensors (header length, then '{')");
  }
  return std::move(builder.checkpoint);
}

Result<Checkpoint> Checkpoint::open_config(const std::string& path) {
  Result<Checkpoint> whole = open(path);
  if (whole.ok() || whole.status().code() != StatusCode::kNotFound) return whole;
  CheckpointBuilder builder(path);
  if (!builder.add_config(path).ok() || builder.checkpoint.config().is_null()) return whole;
  builder.checkpoint.format_ = Format::kSafetensors;
  return std::move(builder.checkpoint);
}

const MetaValue* Checkpoint::meta(std::string_view key) const {
  const auto it = metadata_.find(key);
  return it == metadata_.end() ? nullptr : &it->second;
}

std::optional<bool> Checkpoint::meta_bool(std::string_view key) const {
  const bool* value = meta_as<bool>(*this, key);
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::optional<int64_t> Checkpoint::meta_int(std::string_view key) const {
  const int64_t* value = meta_as<int64_t>(*this, key);
  return value == nullptr ? std::nullopt : std::optional(*value);
}

std::optional<double> Checkpoint::meta_float(std::string_view key) const {
  if (const double* value = meta_as<double>(*this, key)) return *value;
  if (const int64_t* value = meta_as<int64_t>(*this, key)) return static_cast<double>(*value);
  if (const uint64_t* value = meta_as<uint64_t>(*this, key)) return static_cast<double>(*value);
  return std::nullopt;
}

std::optional<std::string> Checkpoint::meta_string(std::string_view key) const {
  const std::string* value = meta_as<std::string>(*this, key);
  return value == nullptr ? std::nullopt : std::optional(*value);
}

const TensorView* Checkpoint::find(std::string_view name) const {
  const auto it = by_name_.find(std::string(name));
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

size_t Checkpoint::tensor_bytes() const {
  size_t total = 0;
  for (const TensorView& tensor : tensors_) total += tensor.n_bytes;
  return total;
}

void Checkpoint::drop_resident(std::span<const uint8_t> bytes) const {
  for (const MappedFile& file : files_) {
    const auto whole = file.bytes();
    if (bytes.data() >= whole.data() && bytes.data() + bytes.size() <= whole.data() + whole.size()) {
      file.drop_resident(bytes.data(), bytes.size());
      return;
    }
  }
}

Status CheckpointBuilder::add_tensor(TensorView tensor, const std::string& where) {
  if (!checkpoint.by_name_.emplace(tensor.name, checkpoint.tensors_.size()).second) {
    return corrupt_data(where + ": tensor " + in_quotes(tensor.name) +
                        " was already in another file of this model");
  }
  checkpoint.tensors_.push_back(std::move(tensor));
  return {};
}

Status CheckpointBuilder::add_gguf(MappedFile file) {
  DSPARK_ASSIGN_OR_RETURN(GgufContents contents, parse_gguf(file.bytes(), file.path()));
  checkpoint.format_ = Checkpoint::Format::kGguf;
  checkpoint.metadata_ = std::move(contents.metadata);
  checkpoint.raw_metadata_ = std::move(contents.raw);
  if (const auto parts = checkpoint.meta_int("split.count"); parts && *parts > 1) {
    return unsupported(file.path() + ": one part of a GGUF split into " + std::to_string(*parts) +
                       " files (split.count); merge the parts into one file first");
  }
  for (TensorView& tensor : contents.tensors) {
    DSPARK_RETURN_IF_ERROR(add_tensor(std::move(tensor), file.path()));
  }
  checkpoint.files_.push_back(std::move(file));
  return {};
}

Status CheckpointBuilder::add_safetensors(MappedFile file) {
  DSPARK_ASSIGN_OR_RETURN(SafetensorsContents contents, parse_safetensors(file.bytes(), file.path()));
  checkpoint.format_ = Checkpoint::Format::kSafetensors;
  for (auto& [key, value] : contents.metadata) checkpoint.metadata_.emplace(key, std::move(value));
  for (TensorView& tensor : contents.tensors) {
    DSPARK_RETURN_IF_ERROR(add_tensor(std::move(tensor), file.path()));
  }
  checkpoint.files_.push_back(std::move(file));
  return {};
}

}  // namespace dspark
