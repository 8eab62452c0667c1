#pragma once
// Hyper-parameters of a target, read from GGUF metadata or a Hugging Face config.json.

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"
#include "kernels/rows.h"

namespace dspark {

/// One decoder layer's choices.
struct LayerConfig {
  int32_t window = 0;    // sliding window, 0: full attention
  int32_t rope_idx = 0;  // index into ModelConfig::ropes
};

/// Everything the generic decoder (llama, qwen2, qwen3, gemma3) needs. See docs/models.md for sources per
/// family.
struct ModelConfig {
  std::string arch;  // "llama", "qwen2", "qwen3", "gemma3"
  std::string name;
  int32_t n_layers = 0;
  int32_t dim = 0;
  int32_t n_heads = 0;
  int32_t n_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t ffn_dim = 0;
  int32_t vocab_size = 0;
  int32_t context_length = 0;
  float norm_eps = 1e-5f;
  bool sandwich_norms = false;  // gemma: norms after attention and MLP too
  bool norm_plus_one = false;   // stored norm weights are w with x * (1 + w) (safetensors gemma)
  bool qk_norm = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool tied_head = false;
  bool qk_interleaved = false;  // stored q/k rows pair (2j, 2j+1): GGUF arch llama; undone at load
  GateActivation activation = GateActivation::kSilu;
  float embedding_scale = 1.0f;
  float attention_scale = 0.0f;  // softmax scale
  float attention_softcap = 0.0f;
  float final_softcap = 0.0f;
  std::vector<LayerConfig> layers;
  std::vector<RopeTable> ropes;
  std::vector<int32_t> eos_ids;  // ids that end generation, from the file
};

/// errors: unsupported arch, missing or contradictory keys (named with the file).
Result<ModelConfig> read_model_config(const Checkpoint& checkpoint);

}  // namespace dspark
