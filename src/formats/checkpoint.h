#pragma once
// One view of a model on disk, whatever the format: named tensors and typed metadata.

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/mapped_file.h"
#include "base/status.h"
#include "tensor/tensor.h"

namespace dspark {

/// A metadata value. Integers of all widths become int64 and floats double; uint64 and vector<uint64_t>
/// appear only where a GGUF uint64 (or one element of an array of them) is above the range of int64. Strings
/// are the bytes of the file, UTF-8 or not.
using MetaValue =
    std::variant<bool, int64_t, double, std::string, std::vector<bool>, std::vector<int64_t>,
                 std::vector<double>, std::vector<std::string>, uint64_t, std::vector<uint64_t>>;

/// One GGUF key as the file spells it, so that a rewrite keeps every width and type. Views into the mapped
/// file.
struct RawMeta {
  std::string_view key;
  uint32_t type = 0;               // GGUF value type id (gguf_reader.h)
  std::span<const uint8_t> value;  // the encoded value, without the type id
};

/// A model file or folder, memory-mapped. Opening reads headers only; tensor bytes are views into the maps,
/// valid while the Checkpoint lives (moving it keeps them). GGUF data is aligned as the file promises (32
/// bytes or general.alignment); safetensors promises nothing: the data of a tensor may start at any byte, so
/// read elements through memcpy or decode_row. Movable. thread: const members from any thread.
class Checkpoint {
 public:
  enum class Format { kGguf, kSafetensors };

  /// `path`: a .gguf file (version 2 or 3, not split), a .safetensors file, or a Hugging Face model folder
  /// (config.json + model.safetensors, or shards with model.safetensors.index.json). The format is told by
  /// content, not by name. Tensors keep the order of the file (safetensors: of the data; shards: by name).
  /// errors: not_found, corrupt_data, unsupported; messages name the file and the field or tensor.
  static Result<Checkpoint> open(const std::string& path);

  /// As open; a folder with config.json but without weights is fine too and has no tensors.
  static Result<Checkpoint> open_config(const std::string& path);

  Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  Format format() const { return format_; }
  const std::string& path() const { return path_; }

  /// GGUF metadata sorted by key; for safetensors the strings of `__metadata__` (of the first shard that has
  /// the key).
  const std::map<std::string, MetaValue, std::less<>>& metadata() const { return metadata_; }
  /// nullptr when absent.
  const MetaValue* meta(std::string_view key) const;
  /// GGUF keys in the order of the file, undecoded; empty for safetensors.
  const std::vector<RawMeta>& raw_metadata() const { return raw_metadata_; }
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
  void drop_resident(const TensorView& tensor) const { drop_resident({tensor.data, tensor.n_bytes}); }
  /// The same for a part of a tensor's bytes.
  void drop_resident(std::span<const uint8_t> bytes) const;

 private:
  friend struct CheckpointBuilder;
  Format format_ = Format::kGguf;
  std::string path_;
  std::string folder_;
  std::map<std::string, MetaValue, std::less<>> metadata_;
  std::vector<RawMeta> raw_metadata_;
  std::unique_ptr<nlohmann::json> config_;
  std::unique_ptr<nlohmann::json> generation_config_;
  std::vector<TensorView> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
  std::vector<MappedFile> files_;
};

}  // namespace dspark
