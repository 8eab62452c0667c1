#pragma once
// Inside of read_model_config: one reader per format, and key look-ups that remember the first error.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"
#include "models/config.h"
#include "models/rope_scaling.h"

namespace dspark {

/// From GGUF metadata (and rope_freqs.weight).
Result<ModelConfig> read_gguf_config(const Checkpoint& checkpoint);
/// From config.json: the key names of released files and those that transformers 5 writes.
Result<ModelConfig> read_hf_config(const Checkpoint& checkpoint);

/// Gemma 4: the last `n_shared` layers attend to the keys and values of the last layer before them that has
/// the same kind of attention. requires: windows set. errors: invalid_argument starting with `where`.
Status share_last_layers(ModelConfig& config, int32_t n_shared, const std::string& where);
/// sqrt(width) as Gemma 4 multiplies embeddings with it: the reference holds the factor in the type of the
/// weights, which were trained in bf16; only float32 weights keep it unrounded.
float gemma4_embedding_scale(int32_t width, DType embedding_dtype);

/// Limits that keep every later size computation and allocation sane. Real models stay far below.
struct ConfigLimits {
  static constexpr int32_t kLayers = 1024;
  static constexpr int32_t kHeads = 4096;
  static constexpr int32_t kHeadDim = 4096;
  static constexpr int32_t kDim = 1 << 20;
  static constexpr int32_t kExperts = 1 << 14;
  static constexpr int32_t kVocab = 1 << 24;
  static constexpr int32_t kContext = 1 << 30;
};

/// GGUF metadata under "<arch>.". Every look-up either succeeds, takes the fallback because the key is
/// absent, or leaves an error in status() (the first one stays) and returns a harmless value.
class MetaReader {
 public:
  MetaReader(const Checkpoint& checkpoint, std::string arch);
  bool has(std::string_view key) const;
  /// In [1, max]. An array counts when all its elements agree (some writers repeat a number per layer).
  int32_t size(std::string_view key, int32_t max, std::optional<int32_t> fallback = std::nullopt);
  /// A number for each of `n` layers: an array of that length, or one number for all.
  std::vector<int32_t> sizes(std::string_view key, int32_t n, int32_t max, int32_t fallback);
  /// In [0, max], as a plain number.
  int32_t count(std::string_view key, int32_t max, int32_t fallback);
  double number(std::string_view key, std::optional<double> fallback = std::nullopt);
  std::string text(std::string_view key, const std::string& fallback);
  void fail(Status error);
  const Status& status() const { return status_; }
  std::string key_name(std::string_view key) const;

 private:
  const Checkpoint& checkpoint_;
  std::string arch_;
  Status status_;
};

/// One JSON object of a config.json, with the same manners. Null counts as absent.
class JsonReader {
 public:
  /// `where`: file and path of the object, starts every message.
  JsonReader(const nlohmann::json& object, std::string where);
  bool has(const char* key) const;
  int32_t size(const char* key, int32_t max, std::optional<int32_t> fallback = std::nullopt);
  /// The same, with 0 allowed.
  int32_t count(const char* key, int32_t max, int32_t fallback);
  double number(const char* key, std::optional<double> fallback = std::nullopt);
  bool flag(const char* key, bool fallback);
  std::string text(const char* key, const std::string& fallback);
  void fail(Status error);
  const Status& status() const { return status_; }
  const std::string& where() const { return where_; }
  const nlohmann::json& object() const { return object_; }

 private:
  const nlohmann::json& object_;
  std::string where_;
  Status status_;
};

// Shared by the readers of several families.

/// The rotary embedding of config.json: rope_parameters, or rope_theta and rope_scaling.
RopeParams read_hf_rope(JsonReader& in, double default_theta, int32_t context_length);
/// One object of that kind. `theta` applies where the object names no rope_theta.
RopeParams read_hf_rope_object(JsonReader& in, double theta, int32_t context_length);
/// rope.freq_base and rope.scaling.* of a GGUF.
RopeParams read_gguf_rope(const Checkpoint& checkpoint, MetaReader& meta, int32_t context_length);
/// Ids that end a text; those outside of the vocabulary are left out.
std::vector<int32_t> read_hf_eos(const Checkpoint& checkpoint, int32_t vocab_size);
std::vector<int32_t> read_gguf_eos(const Checkpoint& checkpoint, int32_t vocab_size);

/// Quantised Hugging Face weights: FP8 in blocks of 128 x 128 is fine (models/weight_reader.h).
/// errors: unsupported for everything else.
Status check_hf_quantisation(JsonReader& in);

/// DeepSeek V3. `where`: file, starts every message.
Result<ModelConfig> read_hf_deepseek3(const Checkpoint& checkpoint, const std::string& where);
Result<ModelConfig> read_gguf_deepseek2(const Checkpoint& checkpoint, MetaReader& meta);
/// DeepSeek V4.
Result<ModelConfig> read_hf_deepseek4(const Checkpoint& checkpoint, const std::string& where);
Result<ModelConfig> read_gguf_deepseek4(const Checkpoint& checkpoint, MetaReader& meta);

}  // namespace dspark
