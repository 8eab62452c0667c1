#pragma once
// A llama of some ten thousand random weights with a vocabulary of any size: small enough that all its short
// texts can be counted.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "draft/draft_fixture.h"

namespace dspark::test {

inline constexpr int32_t kSmallDim = 64;
inline constexpr int32_t kSmallLayers = 2;

struct SmallTarget {
  int32_t vocab_size = 6;
  float logit_spread = 1.0f;  // how far a row's logits lie from each other
  /// Factor on what attention and MLP add. Near 0 the newest token alone says nearly everything.
  float branches = 1.0f;
};

/// Writes a Hugging Face folder; the same bytes for the same shape.
inline void write_small_target(const std::filesystem::path& folder, const SmallTarget& shape) {
  constexpr int32_t kFfn = 96, kHeads = 4, kKvHeads = 2, kHeadDim = 16;
  const nlohmann::json config = {{"model_type", "llama"},          {"hidden_size", kSmallDim},
                                 {"intermediate_size", kFfn},      {"num_hidden_layers", kSmallLayers},
                                 {"num_attention_heads", kHeads},  {"num_key_value_heads", kKvHeads},
                                 {"head_dim", kHeadDim},           {"vocab_size", shape.vocab_size},
                                 {"max_position_embeddings", 512}, {"rms_norm_eps", 1e-5},
                                 {"rope_theta", 10000.0},          {"hidden_act", "silu"},
                                 {"tie_word_embeddings", false},   {"eos_token_id", shape.vocab_size - 1}};
  std::ofstream(folder / "config.json") << config.dump();
  std::mt19937 rng(21);
  std::vector<StoredTensor> tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> dims, float mean, float spread) {
    size_t n = 1;
    for (const int64_t d : dims) n *= static_cast<size_t>(d);
    std::normal_distribution<float> normal(mean, spread);
    std::vector<float> values(n);
    for (float& v : values) v = normal(rng);
    StoredTensor tensor{name, DType::kF32, std::move(dims), std::vector<uint8_t>(n * sizeof(float))};
    std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
    tensors.push_back(std::move(tensor));
  };
  const auto matrix = [&](const std::string& name, int64_t n_out, int64_t n_in, float factor) {
    add(name + ".weight", {n_out, n_in}, 0.0f, factor / std::sqrt(static_cast<float>(n_in)));
  };
  const auto norm = [&](const std::string& name) { add(name + ".weight", {kSmallDim}, 1.0f, 0.05f); };
  add("model.embed_tokens.weight", {shape.vocab_size, kSmallDim}, 0.0f, 1.0f);
  matrix("lm_head", shape.vocab_size, kSmallDim, shape.logit_spread);
  norm("model.norm");
  for (int32_t layer = 0; layer < kSmallLayers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    norm(prefix + "input_layernorm");
    norm(prefix + "post_attention_layernorm");
    matrix(prefix + "self_attn.q_proj", kHeads * kHeadDim, kSmallDim, 1.0f);
    matrix(prefix + "self_attn.k_proj", kKvHeads * kHeadDim, kSmallDim, 1.0f);
    matrix(prefix + "self_attn.v_proj", kKvHeads * kHeadDim, kSmallDim, 1.0f);
    matrix(prefix + "self_attn.o_proj", kSmallDim, kHeads * kHeadDim, shape.branches);
    matrix(prefix + "mlp.gate_proj", kFfn, kSmallDim, 1.0f);
    matrix(prefix + "mlp.up_proj", kFfn, kSmallDim, 1.0f);
    matrix(prefix + "mlp.down_proj", kSmallDim, kFfn, shape.branches);
  }
  write_safetensors(folder / "model.safetensors", tensors);
}

}  // namespace dspark::test
