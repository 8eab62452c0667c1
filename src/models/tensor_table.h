#pragma once
// Which tensors a decoder has, and what they are called in a file.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoint.h"
#include "models/config.h"
#include "models/weights.h"

namespace dspark {

/// A dimension of a layer tensor, resolved against the config.
enum class Extent : uint8_t { kModel, kQuery, kKeyValue, kFeedForward, kHead, kPerLayer, kOne, kAttended };
/// How the rows of a stored tensor relate to ours: q and k rows of GGUF arch llama are interleaved.
enum class RowOrder : uint8_t { kPlain, kQueryHeads, kKeyHeads };

/// One logical tensor of a layer. Exactly one of `matrix` and `vector` is set.
struct LayerTensor {
  PackedMatrix LayerWeights::*matrix;
  std::vector<float> LayerWeights::*vector;
  Extent out;  // rows of a matrix, length of a vector
  Extent in;   // columns of a matrix
  const char* gguf;
  const char* hf;
  bool is_norm;  // Gemma stores w for 1 + w
  RowOrder rows;
  bool (*present)(const ModelConfig&, const LayerConfig&);  // does this layer have it
  bool of_keys = false;  // K and V: a layer that shares those of another does without
};

/// The tensors layer `layer_idx` asks for, in the order of the computation.
std::vector<LayerTensor> layer_tensors(const ModelConfig& config, int32_t layer_idx);
/// Tensors that some files keep although the layer shares keys and values and never reads them.
std::vector<LayerTensor> unread_layer_tensors(const ModelConfig& config, int32_t layer_idx);
int64_t extent_of(const ModelConfig& config, const LayerConfig& layer, Extent extent);

/// Full names in one file: "blk.3.attn_q.weight" or "model.layers.3.self_attn.q_proj.weight".
class TensorNames {
 public:
  explicit TensorNames(const Checkpoint& checkpoint);
  std::string layer(const LayerTensor& tensor, int32_t layer_idx) const;
  /// What stands before the names of a layer's tensors: "blk.3.", "model.layers.3.".
  std::string layer_prefix(int32_t layer_idx) const;
  std::string embedding() const;
  std::string final_norm() const;
  std::string head() const;
  // Gemma 4 with per-layer inputs.
  std::string per_layer_embedding() const;
  std::string per_layer_projection() const;
  std::string per_layer_norm() const;
  /// Tensors that may be there without being weights of this decoder.
  bool is_ignorable(std::string_view name, const ModelConfig& config) const;

 private:
  bool gguf_;
  std::string prefix_;       // safetensors: "model." or where a multimodal file keeps the language model
  std::string head_prefix_;  // safetensors: what stands before "lm_head.weight"
};

}  // namespace dspark
