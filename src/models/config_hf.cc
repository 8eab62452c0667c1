// Hugging Face config.json -> ModelConfig: the key names of released files and those of transformers 5.

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "models/config_readers.h"
#include "models/rope_scaling.h"

namespace dspark {
namespace {

using nlohmann::json;

/// What a family's config class assumes when a key is absent (released Gemma 3 files rely on it heavily).
struct FamilyDefaults {
  const char* model_type;
  const char* arch;
  std::optional<int32_t> head_dim;  // nothing: hidden_size / num_attention_heads
  double rope_theta;
  bool tied_head;
  // Gemma only: the nested text_config of released files leaves these out.
  std::optional<int32_t> vocab_size;
  std::optional<int32_t> window;
};

constexpr FamilyDefaults kFamilies[] = {
    {"llama", "llama", std::nullopt, 10000.0, false, {}, {}},
    {"qwen2", "qwen2", std::nullopt, 10000.0, false, {}, {}},
    {"qwen3", "qwen3", 128, 10000.0, false, {}, {}},
    {"qwen3_moe", "qwen3moe", 128, 10000.0, false, {}, {}},
    {"gemma3_text", "gemma3", 256, 1000000.0, true, 262208, 4096},
    {"gemma3", "gemma3", 256, 1000000.0, true, 262208, 4096},
    {"gemma4_text", "gemma4", 256, 1000000.0, true, 262144, 512},
    {"gemma4", "gemma4", 256, 1000000.0, true, 262144, 512},
    {"gemma4_unified_text", "gemma4", 256, 1000000.0, true, 262144, 512},
    {"gemma4_unified", "gemma4", 256, 1000000.0, true, 262144, 512},
};

// The config classes of Gemma 3 and 4 agree on these.
constexpr int32_t kGemmaHeads = 8;
constexpr int32_t kGemmaKvHeads = 4;
constexpr int32_t kGemmaContext = 131072;
constexpr int32_t kGemmaPattern = 6;
constexpr int32_t kGemma4FullHeadDim = 512;
constexpr int32_t kGemma4PerLayerDim = 256;
constexpr int32_t kGemma4Vocab = 262144;
constexpr double kGemma4RotatedShare = 0.25;
constexpr double kGemma3QueryScalar = 256.0;
constexpr double kGemmaLocalTheta = 10000.0;

bool is_gemma(const ModelConfig& config) {
  return config.arch == "gemma3" || config.arch == "gemma4";
}

void read_sizes(JsonReader& in, const FamilyDefaults& family, ModelConfig& config) {
  const bool gemma = is_gemma(config);
  const auto gemma_default = [&](int32_t value) {
    return gemma ? std::optional<int32_t>(value) : std::nullopt;
  };
  config.n_layers = in.size("num_hidden_layers", ConfigLimits::kLayers);
  config.dim = in.size("hidden_size", ConfigLimits::kDim);
  config.ffn_dim = in.size("intermediate_size", ConfigLimits::kDim);
  config.n_heads = in.size("num_attention_heads", ConfigLimits::kHeads, gemma_default(kGemmaHeads));
  config.n_kv_heads =
      in.size("num_key_value_heads", ConfigLimits::kHeads, gemma ? kGemmaKvHeads : config.n_heads);
  config.vocab_size = in.size("vocab_size", ConfigLimits::kVocab, family.vocab_size);
  config.context_length =
      in.size("max_position_embeddings", ConfigLimits::kContext, gemma_default(kGemmaContext));
  config.norm_eps = static_cast<float>(in.number("rms_norm_eps", 1e-6));
  if (!in.has("head_dim") && !family.head_dim && config.dim % config.n_heads != 0) {
    in.fail(invalid_argument(
        fmt::format("{}: 'head_dim' is missing and hidden_size {} is no multiple of {} heads", in.where(),
                    config.dim, config.n_heads)));
  }
  config.head_dim = in.size("head_dim", ConfigLimits::kHeadDim,
                            family.head_dim.value_or(std::max(1, config.dim / config.n_heads)));
}

void read_activation(JsonReader& in, ModelConfig& config) {
  const bool gemma = is_gemma(config);
  const char* key = in.has("hidden_activation") ? "hidden_activation" : "hidden_act";
  const std::string name = in.text(key, gemma ? "gelu_pytorch_tanh" : "silu");
  if (name == "silu" || name == "swish") {
    config.activation = GateActivation::kSilu;
  } else if (name == "gelu_pytorch_tanh") {
    config.activation = GateActivation::kGeluTanh;
  } else {
    in.fail(unsupported(
        fmt::format("{}: '{}' is '{}' (supported: silu, gelu_pytorch_tanh)", in.where(), key, name)));
  }
}

RopeParams read_nested_rope(JsonReader& in, const json& object, const std::string& name, double theta,
                            int32_t context_length) {
  if (!object.is_object()) {
    in.fail(invalid_argument(fmt::format("{}: '{}' is not an object", in.where(), name)));
    return {};
  }
  JsonReader nested(object, fmt::format("{}: {}", in.where(), name));
  RopeParams rope = read_hf_rope_object(nested, theta, context_length);
  if (nested.status().ok()) {
    if (Status st = check_rope_params(rope, nested.where()); !st.ok()) nested.fail(st);
  }
  if (!nested.status().ok()) {
    in.fail(nested.status());
    return {};
  }
  return rope;
}

// The rotary embedding of full layers [0] and of sliding layers [1]; equal where a model has one.
struct RopePair {
  RopeParams full;
  RopeParams sliding;
};

RopePair read_ropes(JsonReader& in, const FamilyDefaults& family, int32_t context_length) {
  const std::string arch = family.arch;
  const bool gemma = arch == "gemma3" || arch == "gemma4";
  const double theta = in.number("rope_theta", family.rope_theta);
  RopePair ropes;
  ropes.full.theta = theta;
  if (arch == "gemma4") {
    ropes.full.scaling = RopeScaling::kProportional;
    ropes.full.rotated_share = kGemma4RotatedShare;
  }
  if (in.has("rope_parameters")) {
    const json& object = in.object().at("rope_parameters");
    if (object.is_object() && object.contains("full_attention")) {  // one object per layer type
      ropes.full = read_nested_rope(in, object.at("full_attention"), "rope_parameters.full_attention", theta,
                                    context_length);
      if (object.contains("sliding_attention")) {
        ropes.sliding =
            read_nested_rope(in, object.at("sliding_attention"), "rope_parameters.sliding_attention",
                             kGemmaLocalTheta, context_length);
        return ropes;
      }
    } else {
      ropes.full = read_nested_rope(in, object, "rope_parameters", theta, context_length);
    }
  } else if (in.has("rope_scaling")) {
    ropes.full = read_nested_rope(in, in.object().at("rope_scaling"), "rope_scaling", theta, context_length);
  } else if (Status st = check_rope_params(ropes.full, in.where()); !st.ok()) {
    in.fail(st);
  }
  ropes.sliding = ropes.full;
  if (gemma) {  // sliding layers have their own base and are never scaled
    ropes.sliding = RopeParams{};
    ropes.sliding.theta = in.number("rope_local_base_freq", kGemmaLocalTheta);
    if (Status st = check_rope_params(ropes.sliding, in.where() + ": rope_local_base_freq"); !st.ok())
      in.fail(st);
  }
  return ropes;
}

std::vector<bool> read_layer_types(JsonReader& in, int32_t n_layers) {
  const json& types = in.object().at("layer_types");
  std::vector<bool> sliding(static_cast<size_t>(n_layers));
  if (!types.is_array() || types.size() != sliding.size()) {
    in.fail(invalid_argument(fmt::format("{}: 'layer_types' is not a list of {} (num_hidden_layers) names",
                                         in.where(), n_layers)));
    return sliding;
  }
  for (size_t i = 0; i < sliding.size(); ++i) {
    sliding[i] = types[i] == "sliding_attention";
    if (!sliding[i] && types[i] != "full_attention") {
      in.fail(
          unsupported(fmt::format("{}: layer_types[{}] is {} (supported: full_attention, sliding_attention)",
                                  in.where(), i, types[i].dump().substr(0, 60))));
      break;
    }
  }
  return sliding;
}

// Which layers slide. gemma3, gemma4: a period; qwen2/qwen3: from max_window_layers on, if
// use_sliding_window.
std::vector<bool> read_sliding(JsonReader& in, const ModelConfig& config) {
  if (in.has("layer_types")) return read_layer_types(in, config.n_layers);
  std::vector<bool> sliding(static_cast<size_t>(config.n_layers));
  if (is_gemma(config)) {
    const char* key = in.has("sliding_window_pattern") ? "sliding_window_pattern" : "_sliding_window_pattern";
    const int32_t period = in.size(key, ConfigLimits::kLayers, kGemmaPattern);
    for (int32_t i = 0; i < config.n_layers; ++i) sliding[static_cast<size_t>(i)] = (i + 1) % period != 0;
  } else if (config.arch != "llama" && in.flag("use_sliding_window", false)) {
    const double first = in.number("max_window_layers");
    for (int32_t i = 0; i < config.n_layers; ++i) sliding[static_cast<size_t>(i)] = i >= first;
  }
  return sliding;
}

// transformers 5 lists, by layer number, what a layer has other than the rest.
void read_per_layer_config(JsonReader& in, ModelConfig& config) {
  const json& entries = in.object().at("per_layer_config");
  const std::string where = in.where() + ": 'per_layer_config'";
  if (!entries.is_object()) return in.fail(invalid_argument(where + " is not an object"));
  for (const auto& [name, entry] : entries.items()) {
    int32_t layer_idx = -1;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer_idx);
    if (error != std::errc() || end != name.data() + name.size() || layer_idx < 0 ||
        layer_idx >= config.n_layers || !entry.is_object()) {
      return in.fail(invalid_argument(fmt::format("{}: '{}' is not a layer of {} with an object of settings",
                                                  where, name.substr(0, 60), config.n_layers)));
    }
    JsonReader one(entry, fmt::format("{}: '{}'", where, name));
    LayerConfig& layer = config.layers[static_cast<size_t>(layer_idx)];
    for (const auto& setting : entry.items()) {
      if (setting.key() == "head_dim") {
        layer.head_dim = one.size("head_dim", ConfigLimits::kHeadDim);
      } else if (setting.key() == "num_key_value_heads") {
        layer.n_kv_heads = one.size("num_key_value_heads", ConfigLimits::kHeads);
      } else if (setting.key() == "intermediate_size") {
        layer.ffn_dim = one.size("intermediate_size", ConfigLimits::kDim);
      } else {
        one.fail(unsupported(fmt::format("{}: '{}'", one.where(), setting.key().substr(0, 60))));
      }
    }
    if (!one.status().ok()) return in.fail(one.status());
  }
}

// The two kinds of heads: full layers have their own size and number of key/value heads, as two keys
// (released files) or layer by layer (transformers 5). returns: the head size of full layers.
int32_t read_gemma4_heads(JsonReader& in, ModelConfig& config) {
  const bool k_eq_v = in.flag("attention_k_eq_v", false);
  const bool per_layer = in.has("per_layer_config");
  const int32_t full_head_dim =
      in.size("global_head_dim", ConfigLimits::kHeadDim, per_layer ? config.head_dim : kGemma4FullHeadDim);
  const int32_t full_kv_heads =
      in.size("num_global_key_value_heads", ConfigLimits::kHeads, config.n_kv_heads);
  for (LayerConfig& layer : config.layers) {
    if (layer.window > 0) continue;
    layer.head_dim = full_head_dim;
    layer.k_eq_v = k_eq_v;
    if (k_eq_v) layer.n_kv_heads = full_kv_heads;
  }
  if (per_layer) read_per_layer_config(in, config);
  for (int32_t i = 0; i < config.n_layers; ++i) {
    LayerConfig& layer = config.layers[static_cast<size_t>(i)];
    const int32_t expected = layer.window > 0 ? config.head_dim : config.layers.back().head_dim;
    if (layer.head_dim == 0) layer.head_dim = config.head_dim;
    if (layer.head_dim == expected) continue;
    in.fail(unsupported(fmt::format("{}: heads of layer {} have {} elements, others of its kind {}",
                                    in.where(), i, layer.head_dim, expected)));
  }
  return config.layers.back().head_dim;
}

// Fills config.layers; the windows are set. returns: the head size of full layers.
int32_t read_gemma4_layers(JsonReader& in, ModelConfig& config) {
  const int32_t full_head_dim = read_gemma4_heads(in, config);
  const int32_t n_shared = in.count("num_kv_shared_layers", config.n_layers - 1, 0);
  if (!in.status().ok()) return full_head_dim;
  if (Status st = share_last_layers(config, n_shared, in.where() + ": 'num_kv_shared_layers'"); !st.ok()) {
    in.fail(st);
  }
  if (in.flag("use_double_wide_mlp", false)) {
    for (size_t i = config.layers.size() - static_cast<size_t>(n_shared); i < config.layers.size(); ++i) {
      config.layers[i].ffn_dim = 2 * config.ffn_dim;
    }
  }
  return full_head_dim;
}

void read_layers(JsonReader& in, const FamilyDefaults& family, ModelConfig& config) {
  const RopePair ropes = read_ropes(in, family, config.context_length);
  std::vector<bool> sliding = read_sliding(in, config);
  if (config.arch == "gemma4") sliding.back() = false;  // whatever the list says
  int32_t window = 0;
  for (bool slides : sliding) {
    if (!slides) continue;
    window = in.size("sliding_window", ConfigLimits::kContext, family.window);
    break;
  }
  if (!in.status().ok()) return;
  for (bool slides : sliding) {
    LayerConfig& layer = config.layers.emplace_back();
    layer.window = slides ? window : 0;
    layer.rope_idx = slides ? 1 : 0;
  }
  int32_t full_head_dim = config.head_dim;
  if (config.arch == "gemma4") full_head_dim = read_gemma4_layers(in, config);
  if (!in.status().ok()) return;
  config.ropes.push_back(make_rope_table(ropes.full, full_head_dim));
  config.ropes.push_back(make_rope_table(ropes.sliding, config.head_dim));
}

void read_biases(JsonReader& in, ModelConfig& config) {
  const bool attention_bias = in.flag("attention_bias", false);
  config.qkv_bias = attention_bias || config.arch == "qwen2";
  config.o_bias = attention_bias && config.arch != "qwen2";
  config.mlp_bias = config.arch == "llama" && in.flag("mlp_bias", false);
}

void read_gemma3(JsonReader& in, ModelConfig& config) {
  config.sandwich_norms = true;
  config.norm_plus_one = true;
  config.embedding_scale = std::sqrt(static_cast<float>(config.dim));
  const double query_scalar = in.number("query_pre_attn_scalar", kGemma3QueryScalar);
  config.attention_scale = query_scalar > 0.0 ? static_cast<float>(1.0 / std::sqrt(query_scalar)) : 0.0f;
  config.attention_softcap = static_cast<float>(in.number("attn_logit_softcapping", 0.0));
  config.final_softcap = static_cast<float>(in.number("final_logit_softcapping", 0.0));
  if (in.flag("use_bidirectional_attention", false)) {
    in.fail(unsupported(in.where() + ": 'use_bidirectional_attention' (not a causal language model)"));
  }
}

void read_gemma4(JsonReader& in, const FamilyDefaults& family, const Checkpoint& checkpoint,
                 ModelConfig& config) {
  config.sandwich_norms = true;
  config.v_norm = true;
  config.layer_scalar = true;
  config.attention_scale = 1.0f;
  config.final_softcap = static_cast<float>(in.number("final_logit_softcapping", 0.0));
  if (in.has("use_bidirectional_attention")) {  // "vision": among image tokens only
    const json& kind = in.object().at("use_bidirectional_attention");
    if (kind != false && kind != "vision") {
      in.fail(unsupported(fmt::format("{}: 'use_bidirectional_attention' {} (not a causal language model)",
                                      in.where(), kind.dump().substr(0, 60))));
    }
  }
  // The unified text part (12B) has no per-layer inputs and does not say so.
  const bool unified = std::string(family.model_type).starts_with("gemma4_unified");
  config.per_layer_dim =
      in.count("hidden_size_per_layer_input", ConfigLimits::kDim, unified ? 0 : kGemma4PerLayerDim);
  const int32_t per_layer_vocab = in.size("vocab_size_per_layer_input", ConfigLimits::kVocab, kGemma4Vocab);
  if (config.per_layer_dim > 0 && per_layer_vocab != config.vocab_size) {
    in.fail(unsupported(fmt::format("{}: 'vocab_size_per_layer_input' is {}, 'vocab_size' {}", in.where(),
                                    per_layer_vocab, config.vocab_size)));
  }
  DType dtype = DType::kBF16;
  for (const char* name : {"model.embed_tokens.weight", "model.language_model.embed_tokens.weight"}) {
    if (const TensorView* embedding = checkpoint.find(name)) dtype = embedding->dtype;
  }
  config.embedding_scale = gemma4_embedding_scale(config.dim, dtype);
  config.per_layer_scale = gemma4_embedding_scale(config.per_layer_dim, dtype);
}

// Which layers have experts. Qwen3: each decoder_sparse_step-th, less those of mlp_only_layers.
void mark_moe_layers(JsonReader& in, ModelConfig& config) {
  if (config.arch == "gemma4") {
    for (LayerConfig& layer : config.layers) layer.moe = true;
    return;
  }
  const int32_t step = in.size("decoder_sparse_step", ConfigLimits::kLayers, 1);
  for (int32_t i = 0; i < config.n_layers; ++i) {
    config.layers[static_cast<size_t>(i)].moe = (i + 1) % step == 0;
  }
  if (!in.has("mlp_only_layers")) return;
  const json& dense = in.object().at("mlp_only_layers");
  if (!dense.is_array()) return in.fail(invalid_argument(in.where() + ": 'mlp_only_layers' is not a list"));
  for (const json& id : dense) {
    if (!id.is_number_integer() || id < 0 || id >= config.n_layers) {
      return in.fail(invalid_argument(fmt::format("{}: 'mlp_only_layers' holds {}, expected layers of {}",
                                                  in.where(), id.dump().substr(0, 60), config.n_layers)));
    }
    config.layers[id.get<size_t>()].moe = false;
  }
}

void read_moe(JsonReader& in, ModelConfig& config) {
  MoeConfig& moe = config.moe;
  const bool gemma = config.arch == "gemma4";
  if (gemma ? !in.flag("enable_moe_block", false) : config.arch != "qwen3moe") return;
  const char* count = in.has("num_experts") ? "num_experts" : "num_local_experts";
  if (!gemma && in.has(count) && in.count(count, ConfigLimits::kExperts, 0) == 0) return;  // all layers dense
  moe.n_experts = in.size(count, ConfigLimits::kExperts);
  moe.n_used = in.size(gemma ? "top_k_experts" : "num_experts_per_tok", ConfigLimits::kExperts);
  moe.expert_dim = in.size("moe_intermediate_size", ConfigLimits::kDim);
  moe.renormalise = gemma || in.flag("norm_topk_prob", false);
  moe.beside_mlp = gemma;
  mark_moe_layers(in, config);
}

const FamilyDefaults* find_family(const std::string& model_type) {
  for (const FamilyDefaults& family : kFamilies) {
    if (model_type == family.model_type) return &family;
  }
  return nullptr;
}

}  // namespace

Result<ModelConfig> read_hf_config(const Checkpoint& checkpoint) {
  const json& root = checkpoint.config();
  if (!root.is_object()) {
    return not_found(checkpoint.path() + ": no config.json beside the weights; pass the model's folder");
  }
  const std::string where = checkpoint.path() + ": config.json";
  JsonReader top(root, where);
  const std::string model_type = top.text("model_type", "");
  if (model_type == "deepseek_v3" || model_type == "deepseek_v4") {
    DSPARK_RETURN_IF_ERROR(check_hf_quantisation(top));
    return model_type == "deepseek_v3" ? read_hf_deepseek3(checkpoint, where)
                                       : read_hf_deepseek4(checkpoint, where);
  }
  const FamilyDefaults* family = find_family(model_type);
  if (family == nullptr) {
    return unsupported(
        fmt::format("{}: model_type '{}' (supported: llama, qwen2, qwen3, qwen3_moe, gemma3, gemma3_text, "
                    "gemma4, gemma4_text, "
                    "gemma4_unified, gemma4_unified_text, deepseek_v3, deepseek_v4)",
                    where, model_type));
  }
  // Multimodal Gemma keeps the language model's settings in a nested object.
  const bool nested = root.contains("text_config") && root.at("text_config").is_object();
  JsonReader in(nested ? root.at("text_config") : root, nested ? where + ": text_config" : where);
  DSPARK_RETURN_IF_ERROR(check_hf_quantisation(top));
  DSPARK_RETURN_IF_ERROR(check_hf_quantisation(in));

  ModelConfig config;
  config.arch = family->arch;
  config.name = std::filesystem::path(checkpoint.folder()).filename().string();
  read_sizes(in, *family, config);
  read_activation(in, config);
  if (!in.status().ok()) return in.status();
  if (config.head_dim % 2 != 0) {
    return invalid_argument(
        fmt::format("{}: 'head_dim' is {}, expected an even number", where, config.head_dim));
  }
  config.attention_scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  config.qk_norm = config.arch.starts_with("qwen3") || is_gemma(config);
  const bool tied_default = nested ? top.flag("tie_word_embeddings", family->tied_head) : family->tied_head;
  config.tied_head = in.flag("tie_word_embeddings", tied_default);
  read_biases(in, config);
  if (config.arch == "gemma3") read_gemma3(in, config);
  if (config.arch == "gemma4") read_gemma4(in, *family, checkpoint, config);
  read_layers(in, *family, config);
  read_moe(in, config);
  if (!in.status().ok()) return in.status();
  if (!top.status().ok()) return top.status();
  config.eos_ids = read_hf_eos(checkpoint, config.vocab_size);
  return config;
}

}  // namespace dspark
