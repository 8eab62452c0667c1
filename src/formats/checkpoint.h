#pragma once
// One view of a model on disk, whatever the format: named tensors and typed metadata.

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/mapped_file.h"
#include "base/status.h"
#include "tensor/tensor.h"

namespace dspark {

/// A GGUF metadata value. Integers of all widths become int64 (uint64 values above its range: corrupt data
/// unless they are stored as kept-as-is arrays nobody reads); floats become double.
using MetaValue = std::variant<bool, int64_t, double, std::string, std::vector<bool>, std::vector<int64_t>,
                               std::vector<double>, std::vector<std::string>>;

/// A model file or folder, memory-mapped. Opening reads headers only; tensor bytes are views into the maps,
/// valid while the Checkpoint lives. Movable. thread: const members from any thread.
class Checkpoint {
 public:
  enum class Format { kGguf, kSafetensors };

  /// `path`: a .gguf file, a .safetensors file, or a Hugging Face model folder (config.json +
  /// model.safetensors, or shards with model.safetensors.index.json). The format is told by content, not by
  /// name. errors: not_found, corrupt_data, unsupported; messages name the file and the field or tensor.
  static Result<Checkpoint> open(const std::string& path);

  Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  Format format() const { return format_; }
  const std::string& path() const { return path_; }

  /// GGUF metadata in file order of keys; empty for safetensors.
  const std::map<std::string, MetaValue, std::less<>>& metadata() const { return metadata_; }
  const MetaValue* meta(std::string_view key) const;
  /// Typed look-ups: nothing when the key is absent or has another kind of value (an int is accepted as
  /// float).
  std::optional<bool> meta_bool(std::string_view key) const;
  std::optional<int64_t> meta_int(std::string_view key) const;
  std::optional<double> meta_float(std::string_view key) const;
  std::optional<std::string> meta_string(std::string_view key) const;

  /// Hugging Face config.json / generation_config.json; json null when absent or for GGUF.
  const nlohmann::json& config() const { return *config_; }
  const nlohmann::json& generation_config() const { return *generation_config_; }
  /// Folder of a Hugging Face model ("" for a single file): tokenizer.json, chat_template.jinja live there.
  const std::string& folder() const { return folder_; }

  const std::vector<TensorView>& tensors() const { return tensors_; }
  /// nullptr when absent.
  const TensorView* find(std::string_view name) const;
  /// Bytes of all tensors.
  size_t tensor_bytes() const;
  /// After a tensor was copied elsewhere (packed): stop counting its file pages as resident.
  void drop_resident(const TensorView& tensor) const;

 private:
  friend struct CheckpointBuilder;
  Format format_ = Format::kGguf;
  std::string path_;
  std::string folder_;
  std::map<std::string, MetaValue, std::less<>> metadata_;
  std::unique_ptr<nlohmann::json> config_;
  std::unique_ptr<nlohmann::json> generation_config_;
  std::vector<TensorView> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
  std::vector<MappedFile> files_;
};

}  // namespace dspark
