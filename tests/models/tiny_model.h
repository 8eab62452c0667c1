#pragma once
// Writes small models with random weights, so that tests can bend one thing at a time.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>
#include <vector>

#include "tensor/dtype.h"

namespace dspark::test {

/// A folder that disappears with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// A tensor to write. The values follow from the name: norms lie near 1, all else near 0. Quantised types
/// that encode_row cannot write get random blocks.
struct TinyTensor {
  std::string name;
  std::vector<int64_t> shape;  // row-major
  DType dtype = DType::kF32;
  bool near_one = false;  // values near 1 whatever the name
};

using TinyMeta = std::variant<uint32_t, float, std::string, bool, std::vector<int32_t>>;

/// A Hugging Face folder to write.
struct TinyHf {
  nlohmann::json config;
  std::vector<TinyTensor> tensors;

  /// Llama: 2 layers, width 32, 4 heads of 8 over 2 key/value heads, MLP 48, vocabulary 40, untied.
  static TinyHf llama();
  /// Writes config.json and model.safetensors (F32 only). returns: the folder.
  std::filesystem::path write(const TemporaryFolder& folder) const;
  TinyTensor& tensor(const std::string& name);
  void remove(const std::string& name);
};

/// A GGUF file to write.
struct TinyGguf {
  std::vector<std::pair<std::string, TinyMeta>> meta;
  std::vector<TinyTensor> tensors;

  /// The same llama; `matrices` is the type of all matrices, `dim` a multiple of its block.
  static TinyGguf llama(DType matrices = DType::kF32, int32_t dim = 32);
  /// qwen3moe of the same sizes; layer 0 is dense, layer 1 has 8 experts of width `dim`, 3 of them per row.
  static TinyGguf qwen3moe(DType matrices = DType::kF32, int32_t dim = 32);
  std::filesystem::path write(const TemporaryFolder& folder) const;
  /// Replaces or adds a key.
  void set(const std::string& key, TinyMeta value);
  void remove_key(const std::string& key);
  TinyTensor& tensor(const std::string& name);
  void remove(const std::string& name);
};

}  // namespace dspark::test
