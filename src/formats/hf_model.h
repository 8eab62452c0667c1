#pragma once
// Private to the room: what a Hugging Face config.json says, as far as a GGUF file can repeat it.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"

namespace dspark {

/// Rotary embedding of the full-attention layers.
struct HfRope {
  std::string type = "default";  // "default", "linear", "llama3", "yarn"
  double theta = 10000.0;
  double factor = 1.0;
  int64_t original_context = 0;  // llama3, yarn
  double low_freq_factor = 1.0;  // llama3
  double high_freq_factor = 4.0;
  double beta_fast = 32.0;  // yarn
  double beta_slow = 1.0;
  double attention_factor = 0.0;  // yarn: 0 = the default 0.1 ln(factor) + 1
};

/// Sizes and options, checked to be positive and sane.
struct HfModel {
  std::string arch;  // GGUF spelling: llama, qwen2, qwen3, qwen3moe, gemma3
  std::string name;  // folder name
  int64_t n_layers = 0;
  int64_t dim = 0;
  int64_t ffn_dim = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t context_length = 0;
  double norm_eps = 1e-6;
  bool tied_head = false;
  HfRope rope;
  // gemma3
  double local_theta = 10000.0;
  int64_t window = 0;
  std::vector<bool> sliding;  // per layer
  double attention_softcap = 0.0;
  double final_softcap = 0.0;
  // qwen3moe
  int64_t n_experts = 0;
  int64_t n_experts_used = 0;
  int64_t expert_ffn_dim = 0;

  bool is_gemma() const { return arch == "gemma3"; }
};

/// errors: not_found (no config.json), invalid_argument (missing or contradictory keys), unsupported: what
/// the engine or the GGUF format has no word for, always naming the key.
Result<HfModel> read_hf_model(const Checkpoint& checkpoint);

/// What the inverse frequencies of dimension pair j are divided by under llama3 scaling, j < head_dim / 2.
std::vector<float> llama3_rope_divisors(const HfRope& rope, int64_t head_dim);

}  // namespace dspark
