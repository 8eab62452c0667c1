// GGUF metadata -> ModelConfig. The keys and their defaults are listed in docs/models.md.

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "models/config_readers.h"
#include "models/rope_scaling.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

constexpr int32_t kGemmaPattern = 6;      // files without a pattern: every sixth layer is full
constexpr int32_t kGemma3Layers27B = 62;  // the one Gemma 3 whose softmax scale is not 1/sqrt(head_dim)
constexpr double kDefaultFreqBase = 10000.0;
constexpr float kNoRotation = 1e20f;  // a divisor of this size (files write 1e30) says "do not rotate"

bool is_supported(const std::string& arch) {
  return arch == "llama" || arch == "qwen2" || arch == "qwen3" || arch == "qwen3moe" || arch == "gemma3" ||
         arch == "gemma4";
}

void read_sizes(const Checkpoint& checkpoint, MetaReader& meta, ModelConfig& config) {
  config.n_layers = meta.size("block_count", ConfigLimits::kLayers);
  config.dim = meta.size("embedding_length", ConfigLimits::kDim);
  config.context_length = meta.size("context_length", ConfigLimits::kContext);
  config.n_heads = meta.size("attention.head_count", ConfigLimits::kHeads);
  config.norm_eps = static_cast<float>(meta.number("attention.layer_norm_rms_epsilon"));

  const TensorView* embedding = checkpoint.find("token_embd.weight");
  std::optional<int32_t> rows;
  if (embedding != nullptr && embedding->shape.size() == 2 && embedding->shape[0] >= 1 &&
      embedding->shape[0] <= ConfigLimits::kVocab) {
    rows = static_cast<int32_t>(embedding->shape[0]);
  }
  config.vocab_size = meta.size("vocab_size", ConfigLimits::kVocab, rows);
}

// Heads and MLP of a model whose layers are all alike.
void read_layer_sizes(const Checkpoint& checkpoint, MetaReader& meta, ModelConfig& config) {
  config.ffn_dim = meta.size("feed_forward_length", ConfigLimits::kDim);
  config.n_kv_heads = meta.size("attention.head_count_kv", ConfigLimits::kHeads, config.n_heads);
  if (!meta.has("attention.key_length") && config.dim % config.n_heads != 0) {
    meta.fail(invalid_argument(
        fmt::format("{}: {} is missing and embedding_length {} is no multiple of {} heads", checkpoint.path(),
                    meta.key_name("attention.key_length"), config.dim, config.n_heads)));
  }
  const int32_t default_head_dim = std::max(1, config.dim / config.n_heads);
  config.head_dim = meta.size("attention.key_length", ConfigLimits::kHeadDim, default_head_dim);
  const int32_t value_dim = meta.size("attention.value_length", ConfigLimits::kHeadDim, config.head_dim);
  const int32_t rotated = meta.size("rope.dimension_count", ConfigLimits::kHeadDim, config.head_dim);
  if (value_dim != config.head_dim) {
    meta.fail(unsupported(fmt::format("{}: {} is {}, but key heads have {} elements", checkpoint.path(),
                                      meta.key_name("attention.value_length"), value_dim, config.head_dim)));
  }
  if (rotated != config.head_dim) {
    meta.fail(
        unsupported(fmt::format("{}: {} is {}, only {} (all of the head) is supported", checkpoint.path(),
                                meta.key_name("rope.dimension_count"), rotated, config.head_dim)));
  }
}

// llama-architecture files carry llama3 scaling as divisors of the inverse frequencies, not as metadata;
// gemma4 files tell by them which pairs of a full layer do not rotate.
Status apply_rope_divisors(const Checkpoint& checkpoint, RopeTable& table) {
  const TensorView* divisors = checkpoint.find("rope_freqs.weight");
  if (divisors == nullptr) return ok_status();
  const auto n = static_cast<int64_t>(table.inv_freq.size());
  if (divisors->dtype != DType::kF32 || divisors->shape != std::vector<int64_t>{n}) {
    return invalid_argument(
        fmt::format("{}: rope_freqs.weight: expected {} F32 numbers", checkpoint.path(), n));
  }
  std::vector<float> values(table.inv_freq.size());
  decode_row(DType::kF32, divisors->data, values.data(), n);
  for (size_t j = 0; j < values.size(); ++j) {
    if (!(values[j] > 0.0f)) {
      return invalid_argument(fmt::format("{}: rope_freqs.weight[{}] is {}, expected a positive number",
                                          checkpoint.path(), j, values[j]));
    }
    table.inv_freq[j] = values[j] < kNoRotation ? table.inv_freq[j] / values[j] : 0.0f;
  }
  return ok_status();
}

// Which layers slide: a flag per layer, a period, or (absent) Gemma 3's own period.
std::vector<bool> read_sliding(const Checkpoint& checkpoint, MetaReader& meta, int32_t n_layers) {
  const std::string key = meta.key_name("attention.sliding_window_pattern");
  const MetaValue* value = checkpoint.meta(key);
  if (value != nullptr) {
    if (const auto* flags = std::get_if<std::vector<bool>>(value)) {
      if (flags->size() == static_cast<size_t>(n_layers)) return *flags;
      meta.fail(invalid_argument(fmt::format("{}: {} has {} entries for {} layers", checkpoint.path(), key,
                                             flags->size(), n_layers)));
      return std::vector<bool>(static_cast<size_t>(n_layers));
    }
  }
  const int32_t period = meta.size("attention.sliding_window_pattern", ConfigLimits::kLayers, kGemmaPattern);
  std::vector<bool> sliding(static_cast<size_t>(n_layers));
  for (int32_t i = 0; i < n_layers; ++i) sliding[static_cast<size_t>(i)] = (i + 1) % period != 0;
  return sliding;
}

// gemma3: full layers use rope 0 (scaled), sliding layers rope 1 (own base, never scaled).
void read_gemma3_layers(const Checkpoint& checkpoint, MetaReader& meta, ModelConfig& config) {
  RopeParams local;
  local.theta = meta.number("rope.freq_base_swa", kDefaultFreqBase);
  if (Status st = check_rope_params(local, checkpoint.path()); !st.ok()) return meta.fail(st);
  config.ropes.push_back(make_rope_table(local, config.head_dim));
  const int32_t window = meta.size("attention.sliding_window", ConfigLimits::kContext);
  const std::vector<bool> sliding = read_sliding(checkpoint, meta, config.n_layers);
  for (size_t i = 0; i < config.layers.size(); ++i) {
    if (sliding[i]) config.layers[i] = {window, 1};
  }
}

void read_gemma3(const Checkpoint& checkpoint, MetaReader& meta, ModelConfig& config) {
  config.sandwich_norms = true;
  config.activation = GateActivation::kGeluTanh;
  config.embedding_scale = std::sqrt(static_cast<float>(config.dim));
  if (config.n_layers == kGemma3Layers27B) {
    config.attention_scale =
        1.0f / std::sqrt(static_cast<float>(config.dim) / static_cast<float>(config.n_heads));
  }
  config.attention_softcap = static_cast<float>(meta.number("attn_logit_softcapping", 0.0));
  config.final_softcap = static_cast<float>(meta.number("final_logit_softcapping", 0.0));
  read_gemma3_layers(checkpoint, meta, config);
}

// Size of full heads (no suffix) or sliding heads ("_swa") of a gemma4 file.
int32_t read_gemma4_head_dim(const Checkpoint& checkpoint, MetaReader& meta, const std::string& suffix) {
  const int32_t head_dim = meta.size("attention.key_length" + suffix, ConfigLimits::kHeadDim);
  for (const std::string& key : {"attention.value_length" + suffix, "rope.dimension_count" + suffix}) {
    const int32_t other = meta.size(key, ConfigLimits::kHeadDim, head_dim);
    if (other == head_dim) continue;
    meta.fail(unsupported(fmt::format("{}: {} is {}, but key heads have {} elements", checkpoint.path(),
                                      meta.key_name(key), other, head_dim)));
  }
  return head_dim;
}

void read_gemma4_layers(const Checkpoint& checkpoint, MetaReader& meta, int32_t full_head_dim,
                        int32_t sliding_head_dim, ModelConfig& config) {
  const std::vector<int32_t> kv_heads =
      meta.sizes("attention.head_count_kv", config.n_layers, ConfigLimits::kHeads, config.n_heads);
  const std::vector<int32_t> ffn_dims =
      meta.sizes("feed_forward_length", config.n_layers, ConfigLimits::kDim, 1);
  if (!meta.has("feed_forward_length")) meta.size("feed_forward_length", ConfigLimits::kDim);  // says so
  const int32_t window = meta.size("attention.sliding_window", ConfigLimits::kContext);
  const std::vector<bool> sliding = read_sliding(checkpoint, meta, config.n_layers);
  if (!meta.status().ok()) return;
  for (size_t i = 0; i < config.layers.size(); ++i) {
    LayerConfig& layer = config.layers[i];
    if (sliding[i]) {
      layer.window = window;
      layer.rope_idx = 1;
    }
    layer.n_kv_heads = kv_heads[i];
    layer.head_dim = sliding[i] ? sliding_head_dim : full_head_dim;
    layer.ffn_dim = ffn_dims[i];
  }
  config.head_dim = sliding_head_dim;
  config.n_kv_heads = kv_heads.front();
  config.ffn_dim = ffn_dims.front();
  const int32_t n_shared = meta.count("attention.shared_kv_layers", config.n_layers - 1, 0);
  const std::string where = checkpoint.path() + ": " + meta.key_name("attention.shared_kv_layers");
  if (Status st = share_last_layers(config, n_shared, where); !st.ok()) return meta.fail(st);
  for (int32_t i = 0; i < config.n_layers - n_shared; ++i) {
    config.layers[static_cast<size_t>(i)].k_eq_v =
        checkpoint.find(fmt::format("blk.{}.attn_v.weight", i)) == nullptr;
  }
}

// gemma4: full layers use rope 0 (part of the pairs turns), sliding layers rope 1.
Status read_gemma4(const Checkpoint& checkpoint, MetaReader& meta, const RopeParams& full_rope,
                   ModelConfig& config) {
  config.sandwich_norms = true;
  config.v_norm = true;
  config.activation = GateActivation::kGeluTanh;
  config.attention_scale = static_cast<float>(meta.number("attention.scale", 1.0));
  config.final_softcap = static_cast<float>(meta.number("final_logit_softcapping", 0.0));
  config.layer_scalar = checkpoint.find("blk.0.layer_output_scale.weight") != nullptr;
  config.per_layer_dim = meta.count("embedding_length_per_layer_input", ConfigLimits::kDim, 0);
  const TensorView* embedding = checkpoint.find("token_embd.weight");
  const DType dtype = embedding != nullptr ? embedding->dtype : DType::kBF16;
  config.embedding_scale = gemma4_embedding_scale(config.dim, dtype);
  config.per_layer_scale = gemma4_embedding_scale(config.per_layer_dim, dtype);

  RopeParams sliding_rope;
  sliding_rope.theta = meta.number("rope.freq_base_swa", kDefaultFreqBase);
  DSPARK_RETURN_IF_ERROR(check_rope_params(sliding_rope, checkpoint.path()));
  const int32_t full_head_dim = read_gemma4_head_dim(checkpoint, meta, "");
  const int32_t sliding_head_dim = read_gemma4_head_dim(checkpoint, meta, "_swa");
  read_gemma4_layers(checkpoint, meta, full_head_dim, sliding_head_dim, config);
  if (!meta.status().ok()) return meta.status();
  config.ropes = {make_rope_table(full_rope, full_head_dim), make_rope_table(sliding_rope, sliding_head_dim)};
  if (checkpoint.find("rope_freqs.weight") == nullptr) {
    return invalid_argument(checkpoint.path() +
                            ": rope_freqs.weight is missing (which pairs of a full layer rotate)");
  }
  return apply_rope_divisors(checkpoint, config.ropes[0]);
}

// Experts stand in the layers that have a router.
void read_moe(const Checkpoint& checkpoint, MetaReader& meta, ModelConfig& config) {
  if (meta.count("expert_count", ConfigLimits::kExperts, 0) == 0) return;
  MoeConfig& moe = config.moe;
  if (config.arch != "qwen3moe" && config.arch != "gemma4") {
    return meta.fail(unsupported(fmt::format("{}: {} (a mixture of experts of architecture {})",
                                             checkpoint.path(), meta.key_name("expert_count"), config.arch)));
  }
  moe.n_experts = meta.size("expert_count", ConfigLimits::kExperts);
  moe.n_used = meta.size("expert_used_count", ConfigLimits::kExperts);
  moe.expert_dim = meta.size("expert_feed_forward_length", ConfigLimits::kDim);
  moe.renormalise = true;  // both families; files do not say it
  moe.beside_mlp = config.arch == "gemma4";
  for (int32_t i = 0; i < config.n_layers; ++i) {
    config.layers[static_cast<size_t>(i)].moe =
        checkpoint.find(fmt::format("blk.{}.ffn_gate_inp.weight", i)) != nullptr;
  }
}

}  // namespace

RopeParams read_gguf_rope(const Checkpoint& checkpoint, MetaReader& meta, int32_t context_length) {
  RopeParams rope;
  rope.theta = meta.number("rope.freq_base", kDefaultFreqBase);
  const std::string type = meta.text("rope.scaling.type", "none");
  const std::optional<RopeScaling> scaling = rope_scaling_from_name(type);
  if (!scaling || *scaling == RopeScaling::kLlama3 || *scaling == RopeScaling::kProportional) {
    meta.fail(unsupported(fmt::format("{}: {} '{}' (supported: none, linear, yarn)", checkpoint.path(),
                                      meta.key_name("rope.scaling.type"), type)));
    return rope;
  }
  rope.scaling = *scaling;
  if (rope.scaling == RopeScaling::kNone) return rope;
  rope.factor = meta.number("rope.scaling.factor");
  if (rope.scaling == RopeScaling::kLinear) return rope;
  if (meta.has("rope.scaling.yarn_log_multiplier") && !meta.key_name("").starts_with("deepseek")) {
    meta.fail(unsupported(
        fmt::format("{}: {}", checkpoint.path(), meta.key_name("rope.scaling.yarn_log_multiplier"))));
  }
  rope.original_context =
      meta.size("rope.scaling.original_context_length", ConfigLimits::kContext, context_length);
  rope.beta_fast = meta.number("rope.scaling.yarn_beta_fast", 32.0);
  rope.beta_slow = meta.number("rope.scaling.yarn_beta_slow", 1.0);
  // Unlike Hugging Face's attention_factor this key multiplies the default.
  if (meta.has("rope.scaling.attn_factor") && rope.factor > 0.0) {
    const double standard = rope.factor <= 1.0 ? 1.0 : 0.1 * std::log(rope.factor) + 1.0;
    rope.attention_factor = meta.number("rope.scaling.attn_factor") * standard;
  }
  return rope;
}

std::vector<int32_t> read_gguf_eos(const Checkpoint& checkpoint, int32_t vocab_size) {
  std::vector<int32_t> ids;
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    const std::optional<int64_t> id = checkpoint.meta_int(key);
    if (!id || *id < 0 || *id >= vocab_size) continue;
    if (!ids.empty() && ids.front() == *id) continue;
    ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

Result<ModelConfig> read_gguf_config(const Checkpoint& checkpoint) {
  ModelConfig config;
  const std::optional<std::string> arch = checkpoint.meta_string("general.architecture");
  if (!arch) return invalid_argument(checkpoint.path() + ": key 'general.architecture' is missing");
  config.arch = *arch;
  if (config.arch == "deepseek2" || config.arch == "deepseek4") {
    MetaReader deepseek(checkpoint, config.arch);
    return config.arch == "deepseek2" ? read_gguf_deepseek2(checkpoint, deepseek)
                                      : read_gguf_deepseek4(checkpoint, deepseek);
  }
  if (!is_supported(config.arch)) {
    return unsupported(
        fmt::format("{}: architecture '{}' (supported: llama, qwen2, qwen3, qwen3moe, gemma3, "
                    "gemma4)",
                    checkpoint.path(), config.arch));
  }
  config.name = checkpoint.meta_string("general.name").value_or("");
  MetaReader meta(checkpoint, config.arch);
  read_sizes(checkpoint, meta, config);
  if (config.arch != "gemma4") read_layer_sizes(checkpoint, meta, config);
  const RopeParams rope = read_gguf_rope(checkpoint, meta, config.context_length);
  if (!meta.status().ok()) return meta.status();
  DSPARK_RETURN_IF_ERROR(check_rope_params(rope, checkpoint.path()));

  config.layers.resize(static_cast<size_t>(config.n_layers));
  if (config.arch == "gemma4") {
    DSPARK_RETURN_IF_ERROR(read_gemma4(checkpoint, meta, rope, config));
  } else {
    config.attention_scale = static_cast<float>(
        meta.number("attention.scale", 1.0 / std::sqrt(static_cast<double>(config.head_dim))));
    config.ropes.push_back(make_rope_table(rope, config.head_dim));
  }
  read_moe(checkpoint, meta, config);
  config.qk_norm = config.arch.starts_with("qwen3") || config.arch == "gemma3" || config.arch == "gemma4";
  config.qk_interleaved = config.arch == "llama";
  // Optional biases are told by the first layer; the loader then asks for them in every layer.
  const auto present = [&](const char* name) { return checkpoint.find(name) != nullptr; };
  config.qkv_bias = config.arch == "qwen2" || present("blk.0.attn_q.bias");
  config.o_bias = present("blk.0.attn_output.bias");
  config.mlp_bias = present("blk.0.ffn_gate.bias");
  config.tied_head = !present("output.weight");
  if (config.arch == "llama") DSPARK_RETURN_IF_ERROR(apply_rope_divisors(checkpoint, config.ropes[0]));
  if (config.arch == "gemma3") read_gemma3(checkpoint, meta, config);
  if (!meta.status().ok()) return meta.status();
  config.eos_ids = read_gguf_eos(checkpoint, config.vocab_size);
  return config;
}

}  // namespace dspark
