// DeepSeek V3 (GGUF architecture deepseek2): config.json and GGUF metadata -> ModelConfig.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "models/config_readers.h"
#include "models/rope_scaling.h"

namespace dspark {
namespace {

// What follows from the sizes: one shared head of latent and rotary key, and the softmax scale.
void complete_mla(const RopeParams& rope, double scale_factor, ModelConfig& config) {
  const MlaConfig& mla = config.mla;
  config.n_kv_heads = 1;
  config.head_dim = mla.kv_rank + mla.rope_dim;
  config.attention_scale =
      static_cast<float>(scale_factor / std::sqrt(static_cast<double>(mla.nope_dim + mla.rope_dim)));
  config.ropes.push_back(make_rope_table(rope, mla.rope_dim));
}

Status check_mla(const MlaConfig& mla, const std::string& where) {
  if (mla.rope_dim % 2 == 0) return ok_status();
  return invalid_argument(fmt::format(
      "{}: the rotary part of a head has {} elements, expected an even number", where, mla.rope_dim));
}

void read_hf_sizes(JsonReader& in, ModelConfig& config) {
  config.n_layers = in.size("num_hidden_layers", ConfigLimits::kLayers);
  config.dim = in.size("hidden_size", ConfigLimits::kDim);
  config.ffn_dim = in.size("intermediate_size", ConfigLimits::kDim);
  config.n_heads = in.size("num_attention_heads", ConfigLimits::kHeads);
  config.vocab_size = in.size("vocab_size", ConfigLimits::kVocab);
  config.context_length = in.size("max_position_embeddings", ConfigLimits::kContext);
  config.norm_eps = static_cast<float>(in.number("rms_norm_eps", 1e-6));
  config.tied_head = in.flag("tie_word_embeddings", false);
  config.qk_interleaved = in.flag("rope_interleave", true);
  MlaConfig& mla = config.mla;
  mla.q_rank = in.has("q_lora_rank") ? in.size("q_lora_rank", ConfigLimits::kDim) : 0;
  mla.kv_rank = in.size("kv_lora_rank", ConfigLimits::kHeadDim);
  mla.nope_dim = in.size("qk_nope_head_dim", ConfigLimits::kHeadDim);
  mla.rope_dim = in.size("qk_rope_head_dim", ConfigLimits::kHeadDim);
  mla.v_dim = in.size("v_head_dim", ConfigLimits::kHeadDim);
  if (in.flag("attention_bias", false)) in.fail(unsupported(in.where() + ": 'attention_bias'"));
  if (const std::string act = in.text("hidden_act", "silu"); act != "silu") {
    in.fail(unsupported(fmt::format("{}: 'hidden_act' is '{}' (supported: silu)", in.where(), act)));
  }
}

void read_hf_experts(JsonReader& in, ModelConfig& config) {
  MoeConfig& moe = config.moe;
  const int32_t n_dense = in.count("first_k_dense_replace", ConfigLimits::kLayers, 0);
  if (in.has("n_routed_experts") && n_dense < config.n_layers) {
    moe.n_experts = in.size("n_routed_experts", ConfigLimits::kExperts);
    moe.n_used = in.size("num_experts_per_tok", ConfigLimits::kExperts);
    moe.expert_dim = in.size("moe_intermediate_size", ConfigLimits::kDim);
    const int64_t shared = int64_t{in.count("n_shared_experts", 64, 0)} * moe.expert_dim;
    moe.shared_dim = static_cast<int32_t>(std::min<int64_t>(shared, ConfigLimits::kDim));
    moe.n_groups = in.size("n_group", ConfigLimits::kExperts, 1);
    moe.n_groups_used = in.size("topk_group", ConfigLimits::kExperts, 1);
    moe.renormalise = in.flag("norm_topk_prob", true);
    moe.weight_scale = static_cast<float>(in.number("routed_scaling_factor", 1.0));
    moe.gating = ExpertGating::kSigmoid;
    moe.choice_bias = true;
  }
  if (const std::string score = in.text("scoring_func", "sigmoid"); score != "sigmoid") {
    in.fail(unsupported(fmt::format("{}: 'scoring_func' is '{}' (supported: sigmoid)", in.where(), score)));
  }
  if (in.size("moe_layer_freq", ConfigLimits::kLayers, 1) != 1) {
    in.fail(unsupported(in.where() + ": 'moe_layer_freq' other than 1"));
  }
  if (!in.status().ok()) return;
  config.layers.resize(static_cast<size_t>(config.n_layers));
  for (int32_t i = n_dense; i < config.n_layers && moe.n_experts > 0; ++i) {
    config.layers[static_cast<size_t>(i)].moe = true;
  }
}

// m of the softmax scale (m squared): yarn with mscale_all_dim makes scores larger beside what cos and sin
// do.
double yarn_scale(const RopeParams& rope) {
  if (rope.scaling != RopeScaling::kYarn || rope.mscale_all_dim.value_or(0.0) == 0.0) return 1.0;
  const double m = rope.factor <= 1.0 ? 1.0 : 0.1 * *rope.mscale_all_dim * std::log(rope.factor) + 1.0;
  return m * m;
}

void read_gguf_sizes(const Checkpoint& checkpoint, MetaReader& meta, ModelConfig& config) {
  config.n_layers = meta.size("block_count", ConfigLimits::kLayers);
  config.dim = meta.size("embedding_length", ConfigLimits::kDim);
  config.context_length = meta.size("context_length", ConfigLimits::kContext);
  config.n_heads = meta.size("attention.head_count", ConfigLimits::kHeads);
  config.ffn_dim = meta.size("feed_forward_length", ConfigLimits::kDim);
  config.norm_eps = static_cast<float>(meta.number("attention.layer_norm_rms_epsilon"));
  const TensorView* embedding = checkpoint.find("token_embd.weight");
  std::optional<int32_t> rows;
  if (embedding != nullptr && embedding->shape.size() == 2 && embedding->shape[0] >= 1 &&
      embedding->shape[0] <= ConfigLimits::kVocab) {
    rows = static_cast<int32_t>(embedding->shape[0]);
  }
  config.vocab_size = meta.size("vocab_size", ConfigLimits::kVocab, rows);
  config.tied_head = checkpoint.find("output.weight") == nullptr;
  config.qk_interleaved = true;
  MlaConfig& mla = config.mla;
  mla.q_rank = meta.count("attention.q_lora_rank", ConfigLimits::kDim, 0);
  mla.kv_rank = meta.size("attention.kv_lora_rank", ConfigLimits::kHeadDim);
  mla.rope_dim = meta.size("rope.dimension_count", ConfigLimits::kHeadDim);
  const int32_t key = meta.size("attention.key_length_mla", ConfigLimits::kHeadDim);
  mla.v_dim = meta.size("attention.value_length_mla", ConfigLimits::kHeadDim);
  mla.nope_dim = key - mla.rope_dim;
  if (mla.nope_dim < 1) {
    meta.fail(invalid_argument(fmt::format("{}: {} is {}, expected more than the {} rotary elements",
                                           checkpoint.path(), meta.key_name("attention.key_length_mla"), key,
                                           mla.rope_dim)));
  }
}

void read_gguf_experts(const Checkpoint& checkpoint, MetaReader& meta, ModelConfig& config) {
  config.layers.resize(static_cast<size_t>(config.n_layers));
  MoeConfig& moe = config.moe;
  if (meta.count("expert_count", ConfigLimits::kExperts, 0) == 0) return;
  moe.n_experts = meta.size("expert_count", ConfigLimits::kExperts);
  moe.n_used = meta.size("expert_used_count", ConfigLimits::kExperts);
  moe.expert_dim = meta.size("expert_feed_forward_length", ConfigLimits::kDim);
  const int64_t shared = int64_t{meta.count("expert_shared_count", 64, 0)} * moe.expert_dim;
  moe.shared_dim = static_cast<int32_t>(std::min<int64_t>(shared, ConfigLimits::kDim));
  moe.n_groups = meta.size("expert_group_count", ConfigLimits::kExperts, 1);
  moe.n_groups_used = meta.size("expert_group_used_count", ConfigLimits::kExperts, 1);
  moe.renormalise = checkpoint.meta_bool(meta.key_name("expert_weights_norm")).value_or(false);
  moe.weight_scale = static_cast<float>(meta.number("expert_weights_scale", 1.0));
  const int32_t gating = meta.size("expert_gating_func", 16, 1);
  if (gating != 1 && gating != 2) {
    meta.fail(unsupported(fmt::format("{}: {} {} (supported: 1 softmax, 2 sigmoid)", checkpoint.path(),
                                      meta.key_name("expert_gating_func"), gating)));
  }
  moe.gating = gating == 2 ? ExpertGating::kSigmoid : ExpertGating::kSoftmax;
  if (gating == 1 && moe.n_groups > 1) {
    meta.fail(unsupported(
        fmt::format("{}: {} with a softmax router", checkpoint.path(), meta.key_name("expert_group_count"))));
  }
  const int32_t n_dense = meta.count("leading_dense_block_count", ConfigLimits::kLayers, 0);
  for (int32_t i = n_dense; i < config.n_layers; ++i) config.layers[static_cast<size_t>(i)].moe = true;
  moe.choice_bias = checkpoint.find(fmt::format("blk.{}.exp_probs_b.bias", config.n_layers - 1)) != nullptr;
}

}  // namespace

Result<ModelConfig> read_hf_deepseek3(const Checkpoint& checkpoint, const std::string& where) {
  JsonReader in(checkpoint.config(), where);
  ModelConfig config;
  config.arch = "deepseek2";
  config.name = std::filesystem::path(checkpoint.folder()).filename().string();
  read_hf_sizes(in, config);
  read_hf_experts(in, config);
  const RopeParams rope = read_hf_rope(in, 10000.0, config.context_length);
  if (!in.status().ok()) return in.status();
  DSPARK_RETURN_IF_ERROR(check_mla(config.mla, where));
  complete_mla(rope, yarn_scale(rope), config);
  config.eos_ids = read_hf_eos(checkpoint, config.vocab_size);
  return config;
}

Result<ModelConfig> read_gguf_deepseek2(const Checkpoint& checkpoint, MetaReader& meta) {
  ModelConfig config;
  config.arch = "deepseek2";
  config.name = checkpoint.meta_string("general.name").value_or("");
  read_gguf_sizes(checkpoint, meta, config);
  read_gguf_experts(checkpoint, meta, config);
  RopeParams rope = read_gguf_rope(checkpoint, meta, config.context_length);
  double scale = 1.0;
  if (rope.scaling == RopeScaling::kYarn) {  // files write 0.1 * mscale_all_dim; mscale is the same
    rope.attention_factor = 1.0;
    const double m =
        meta.number("rope.scaling.yarn_log_multiplier", 0.0) * std::log(std::max(1.0, rope.factor)) + 1.0;
    scale = m * m;
  }
  if (!meta.status().ok()) return meta.status();
  DSPARK_RETURN_IF_ERROR(check_rope_params(rope, checkpoint.path()));
  DSPARK_RETURN_IF_ERROR(check_mla(config.mla, checkpoint.path()));
  complete_mla(rope, scale, config);
  config.eos_ids = read_gguf_eos(checkpoint, config.vocab_size);
  return config;
}

}  // namespace dspark
