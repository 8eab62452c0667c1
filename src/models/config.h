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
  int32_t window = 0;    // sliding window: query t sees keys t-window+1 .. t; 0: full attention
  int32_t rope_idx = 0;  // index into ModelConfig::ropes
};

/// Everything the generic decoder (llama, qwen2, qwen3, gemma3) needs. See docs/models.md for sources per
/// family.
struct ModelConfig {
  std::string arch;  // "llama", "qwen2", "qwen3", "gemma3"
  std::string name;  // general.name of a GGUF, folder name of a Hugging Face model; may be empty
  int32_t n_layers = 0;
  int32_t dim = 0;  // width of the residual stream
  int32_t n_heads = 0;
  int32_t n_kv_heads = 0;
  int32_t head_dim = 0;  // n_heads * head_dim may differ from dim
  int32_t ffn_dim = 0;
  int32_t vocab_size = 0;      // rows of the embedding and of the head
  int32_t context_length = 0;  // positions the model was trained for
  float norm_eps = 1e-5f;
  bool sandwich_norms = false;  // gemma: norms after attention and MLP too
  bool norm_plus_one = false;   // stored norm weights are w with x * (1 + w) (safetensors gemma)
  bool qk_norm = false;         // RMSNorm of every q and k head before RoPE
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool tied_head = false;       // the head is the embedding matrix
  bool qk_interleaved = false;  // stored q/k rows pair (2j, 2j+1): GGUF arch llama; undone at load
  GateActivation activation = GateActivation::kSilu;
  float embedding_scale = 1.0f;    // multiplies embedding rows, not the head
  float attention_scale = 0.0f;    // multiplies q . k
  float attention_softcap = 0.0f;  // 0: none
  float final_softcap = 0.0f;      // 0: none
  std::vector<LayerConfig> layers;
  std::vector<RopeTable> ropes;
  std::vector<int32_t> eos_ids;  // ids that end generation, from the file
};

/// errors: unsupported (architecture or option, named), invalid_argument (missing or contradictory keys, with
/// the file and the key).
Result<ModelConfig> read_model_config(const Checkpoint& checkpoint);

}  // namespace dspark
