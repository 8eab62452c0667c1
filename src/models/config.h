#pragma once
// Hyper-parameters of a target, read from GGUF metadata or a Hugging Face config.json.

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"
#include "kernels/rows.h"

namespace dspark {

/// How a router turns its logits into scores: over all experts (softmax) or each by itself.
enum class ExpertGating : uint8_t { kSoftmax, kSigmoid, kSqrtSoftplus };

/// A mixture of experts. All its layers are alike.
struct MoeConfig {
  int32_t n_experts = 0;   // 0: the model has none
  int32_t n_used = 0;      // experts of one row
  int32_t expert_dim = 0;  // MLP width of one expert
  int32_t shared_dim = 0;  // MLP width of the expert that every row uses; 0: none
  ExpertGating gating = ExpertGating::kSoftmax;
  bool renormalise = false;   // weights of the chosen experts are divided by their sum
  float weight_scale = 1.0f;  // multiplies the weights after that
  bool choice_bias = false;   // a bias joins the scores for choosing, not for weighting (DeepSeek)
  int32_t n_groups = 1;       // experts form groups; only the best n_groups_used are looked at (DeepSeek V3)
  int32_t n_groups_used = 1;
  float clamp = 0.0f;       // gate <= clamp, |up| <= clamp before the activation (DeepSeek V4); 0: none
  bool beside_mlp = false;  // dense MLP and experts in parallel, norms of their own (Gemma 4)
};

/// Multi-head latent attention (DeepSeek V3): keys and values of all heads follow from one latent vector.
/// A head of q and k is [nope | rope]; the cache holds [latent | rotated part of the key] per position.
struct MlaConfig {
  int32_t kv_rank = 0;  // width of the latent; 0: the model has ordinary heads
  int32_t q_rank = 0;   // width of the query's latent; 0: q is one product
  int32_t nope_dim = 0;
  int32_t rope_dim = 0;
  int32_t v_dim = 0;
};

/// What a DeepSeek V4 layer attends to beside the window: nothing, chosen entries, all entries.
enum class V4Attention : uint8_t { kSliding, kSparse, kHeavy };

/// DeepSeek V4: hyper-connections, attention over compressed entries, hash routing. See docs/deepseek_v4.md.
struct V4Config {
  int32_t n_streams = 0;  // residual streams; 0: not a DeepSeek V4
  int32_t sinkhorn_iters = 0;
  float hc_eps = 1e-6f;
  int32_t q_rank = 0;
  int32_t rope_dim = 0;  // last channels of a head
  int32_t window = 0;    // keys of the window, the own one included
  int32_t o_groups = 0;
  int32_t o_rank = 0;
  int32_t sparse_rate = 0;  // tokens of one entry
  int32_t heavy_rate = 0;
  int32_t index_heads = 0;
  int32_t index_dim = 0;
  int32_t index_topk = 0;
  std::vector<V4Attention> attention;  // (n_layers)
  std::vector<bool> hash_routed;       // (n_layers) experts follow from the token
  int32_t rate(int32_t layer_idx) const {
    const V4Attention kind = attention[static_cast<size_t>(layer_idx)];
    if (kind == V4Attention::kSliding) return 0;
    return kind == V4Attention::kSparse ? sparse_rate : heavy_rate;
  }
};

/// One decoder layer's choices. read_model_config fills every field.
struct LayerConfig {
  int32_t window = 0;      // sliding window: query t sees keys t-window+1 .. t; 0: full attention
  int32_t rope_idx = 0;    // index into ModelConfig::ropes
  int32_t n_kv_heads = 0;  // 0 in a reader: ModelConfig's
  int32_t head_dim = 0;    // 0 in a reader: ModelConfig's
  int32_t ffn_dim = 0;     // 0 in a reader: ModelConfig's
  int32_t kv_layer = -1;   // layer whose K and V this one attends to; -1 in a reader: its own
  bool k_eq_v = false;     // no v projection: V starts from the k projection (Gemma 4)
  bool moe = false;        // experts instead of the MLP (Gemma 4: beside it)
};

/// Everything the generic decoder (llama, qwen2, qwen3, qwen3moe, gemma3, gemma4) needs. See docs/models.md
/// for sources per family.
struct ModelConfig {
  std::string arch;  // "llama", "qwen2", "qwen3", "qwen3moe", "gemma3", "gemma4"
  std::string name;  // general.name of a GGUF, folder name of a Hugging Face model; may be empty
  int32_t n_layers = 0;
  int32_t dim = 0;  // width of the residual stream
  int32_t n_heads = 0;
  int32_t n_kv_heads = 0;      // Gemma 4: of sliding layers; each LayerConfig has its own
  int32_t head_dim = 0;        // n_heads * head_dim may differ from dim; Gemma 4: of sliding layers
  int32_t ffn_dim = 0;         // a LayerConfig may have another
  int32_t vocab_size = 0;      // rows of the embedding and of the head
  int32_t context_length = 0;  // positions the model was trained for
  float norm_eps = 1e-5f;
  bool sandwich_norms = false;  // gemma: norms after attention and MLP too
  bool norm_plus_one = false;   // stored norm weights are w with x * (1 + w) (safetensors gemma)
  bool qk_norm = false;         // RMSNorm of every q and k head before RoPE
  bool v_norm = false;          // RMSNorm without weight of every v head (Gemma 4)
  bool layer_scalar = false;    // every layer ends by scaling the residual stream (Gemma 4)
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;
  bool tied_head = false;       // the head is the embedding matrix
  bool qk_interleaved = false;  // stored q/k rows pair (2j, 2j+1): GGUF arch llama; undone at load
  GateActivation activation = GateActivation::kSilu;
  float embedding_scale = 1.0f;    // multiplies embedding rows, not the head
  int32_t per_layer_dim = 0;       // width of per-layer inputs (Gemma 4 E2B, E4B); 0: none
  float per_layer_scale = 1.0f;    // multiplies rows of the per-layer embedding
  float attention_scale = 0.0f;    // multiplies q . k
  float attention_softcap = 0.0f;  // 0: none
  float final_softcap = 0.0f;      // 0: none
  MoeConfig moe;
  MlaConfig mla;
  V4Config v4;
  std::vector<LayerConfig> layers;
  std::vector<RopeTable> ropes;
  std::vector<int32_t> eos_ids;  // ids that end generation, from the file

  const LayerConfig& layer(int32_t layer_idx) const { return layers[static_cast<size_t>(layer_idx)]; }
  /// A layer without keys and values of its own: it attends to those of an earlier one.
  bool shares_kv(int32_t layer_idx) const { return layer(layer_idx).kv_layer != layer_idx; }
};

/// errors: unsupported (architecture or option, named), invalid_argument (missing or contradictory keys, with
/// the file and the key).
Result<ModelConfig> read_model_config(const Checkpoint& checkpoint);

}  // namespace dspark
