// What DeepSpec and speculators share: a Hugging Face config of the draft layers, and the heads.

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>

#include "draft/draft_readers.h"
#include "models/rope_scaling.h"

namespace dspark {
namespace {

using nlohmann::json;

std::string shown(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 60);
}

/// To the nearest BF16, as the reference does with Gemma's embedding scale.
float round_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
}

void read_activation(JsonReader& in, DraftConfig& config) {
  const bool gemma = config.backbone == DraftBackbone::kGemma4;
  const char* key = gemma ? "hidden_activation" : "hidden_act";
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

/// Gemma 4's "proportional": the first floor(factor * head_dim / 2) pairs rotate, the others stand still.
void make_proportional_rope(JsonReader& in, DraftConfig& config) {
  const double factor = in.number("partial_rotary_factor", 1.0);
  if (!(factor > 0.0 && factor <= 1.0)) {
    in.fail(invalid_argument(fmt::format("{}: 'partial_rotary_factor' is {}, expected more than 0, at most 1",
                                         in.where(), factor)));
    return;
  }
  RopeParams params;
  params.theta = config.rope_theta;
  config.rope = make_rope_table(params, config.head_dim);
  const size_t n_pairs = config.rope.inv_freq.size();
  const auto n_rotating = static_cast<size_t>(factor * static_cast<double>(n_pairs));
  for (size_t j = n_rotating; j < n_pairs; ++j) config.rope.inv_freq[j] = 0.0f;
}

/// Our own type "table": the inverse frequencies themselves, for rotary embeddings that no other type says.
void read_rope_table(JsonReader& in, DraftConfig& config) {
  const auto it = in.object().find("inv_freq");
  const auto n_pairs = static_cast<size_t>(config.head_dim / 2);
  if (it == in.object().end() || !it->is_array() || it->size() != n_pairs) {
    in.fail(invalid_argument(
        fmt::format("{}: 'inv_freq' is not a list of {} (head_dim / 2) numbers", in.where(), n_pairs)));
    return;
  }
  for (const json& value : *it) {
    const double number = value.is_number() ? value.get<double>() : -1.0;
    if (!(number >= 0.0 && number <= 1e6)) {
      in.fail(invalid_argument(
          fmt::format("{}: 'inv_freq' holds {}, expected a number from 0 up", in.where(), shown(value))));
      return;
    }
    config.rope.inv_freq.push_back(static_cast<float>(number));
  }
  config.rope.attention_factor = static_cast<float>(in.number("attention_factor", 1.0));
}

/// `in`: the object that holds rope_type and rope_theta.
void read_rope_object(JsonReader& in, double theta, DraftConfig& config) {
  RopeParams params;
  params.theta = config.rope_theta = in.number("rope_theta", theta);
  const std::string type = in.text(in.has("rope_type") ? "rope_type" : "type", "default");
  if (Status st = check_rope_params(params, in.where()); !st.ok()) return in.fail(st);
  if (type == "proportional") return make_proportional_rope(in, config);
  if (type == "table") return read_rope_table(in, config);
  const std::optional<RopeScaling> scaling = rope_scaling_from_name(type);
  if (!scaling) {
    return in.fail(unsupported(
        fmt::format("{}: 'rope_type' is '{}' (supported: default, linear, llama3, yarn, proportional)",
                    in.where(), type)));
  }
  if (in.number("partial_rotary_factor", 1.0) != 1.0) {
    return in.fail(unsupported(in.where() + ": 'partial_rotary_factor' other than 1"));
  }
  params.scaling = *scaling;
  if (params.scaling != RopeScaling::kNone) params.factor = in.number("factor");
  if (params.scaling == RopeScaling::kLlama3 || params.scaling == RopeScaling::kYarn) {
    params.original_context =
        in.size("original_max_position_embeddings", ConfigLimits::kContext, config.context_length);
  }
  if (params.scaling == RopeScaling::kLlama3) {
    params.low_freq_factor = in.number("low_freq_factor");
    params.high_freq_factor = in.number("high_freq_factor");
  }
  if (params.scaling == RopeScaling::kYarn) {
    params.beta_fast = in.number("beta_fast", 32.0);
    params.beta_slow = in.number("beta_slow", 1.0);
    params.truncate = in.flag("truncate", true);
    if (in.has("mscale")) params.mscale = in.number("mscale");
    if (in.has("mscale_all_dim")) params.mscale_all_dim = in.number("mscale_all_dim");
    if (in.has("attention_factor")) params.attention_factor = in.number("attention_factor");
  }
  if (!in.status().ok()) return;
  if (Status st = check_rope_params(params, in.where()); !st.ok()) return in.fail(st);
  config.rope = make_rope_table(params, config.head_dim);
}

/// Runs read_rope_object on a nested object and takes over its error.
void read_nested_rope(JsonReader& in, const json& object, const std::string& name, double theta,
                      DraftConfig& config) {
  if (!object.is_object()) {
    in.fail(
        invalid_argument(fmt::format("{}: '{}' is {}, expected an object", in.where(), name, shown(object))));
    return;
  }
  JsonReader nested(object, fmt::format("{}: {}", in.where(), name));
  read_rope_object(nested, theta, config);
  if (!nested.status().ok()) in.fail(nested.status());
}

void read_rope(JsonReader& in, bool sliding_rope, DraftConfig& config) {
  constexpr double kDefaultTheta = 10000.0;
  const double theta = in.number("rope_theta", kDefaultTheta);
  if (in.has("rope_parameters")) {
    const json& object = in.object().at("rope_parameters");
    for (const char* type : {"sliding_attention", "full_attention"}) {
      if (type == std::string_view("sliding_attention") && !sliding_rope) continue;
      if (!object.is_object() || !object.contains(type)) continue;
      return read_nested_rope(in, object.at(type), fmt::format("rope_parameters.{}", type), theta, config);
    }
    if (config.backbone == DraftBackbone::kGemma4) {
      return in.fail(invalid_argument(in.where() + ": 'rope_parameters' has no 'full_attention'"));
    }
    return read_nested_rope(in, object, "rope_parameters", theta, config);
  }
  if (config.backbone == DraftBackbone::kGemma4 || !in.has("rope_theta")) {
    return in.fail(invalid_argument(in.where() + ": 'rope_parameters' is missing"));
  }
  if (in.has("rope_scaling")) {
    return read_nested_rope(in, in.object().at("rope_scaling"), "rope_scaling", theta, config);
  }
  json plain = {{"rope_theta", theta}};
  read_nested_rope(in, plain, "rope_theta", theta, config);
}

/// Layers must all be of one type; sliding ones need a window.
void read_layer_types(JsonReader& in, DraftConfig& config) {
  if (!in.has("layer_types")) return;
  const json& types = in.object().at("layer_types");
  if (!types.is_array() || types.size() != static_cast<size_t>(config.n_layers)) {
    in.fail(invalid_argument(fmt::format("{}: 'layer_types' is not a list of {} (num_hidden_layers) names",
                                         in.where(), config.n_layers)));
    return;
  }
  for (const json& type : types) {
    if (type != "full_attention" && type != "sliding_attention") {
      return in.fail(
          unsupported(fmt::format("{}: 'layer_types' holds {} (supported: full_attention, sliding_attention)",
                                  in.where(), shown(type))));
    }
    if (type != types.front()) {
      return in.fail(unsupported(in.where() + ": 'layer_types' mixes sliding and full attention"));
    }
  }
  if (types.front() == "sliding_attention") {
    config.window = in.size("sliding_window", ConfigLimits::kContext);
  }
}

void read_qwen3_options(JsonReader& in, DraftConfig& config) {
  config.head_dim = in.size("head_dim", ConfigLimits::kHeadDim);
  config.n_kv_heads = in.size("num_key_value_heads", ConfigLimits::kHeads, config.n_heads);
  config.qk_norm = in.flag("qk_norm", true);
  config.attention_scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
}

void refuse_gemma_options(JsonReader& in) {
  for (const char* key : {"enable_moe_block", "use_double_wide_mlp", "use_bidirectional_attention"}) {
    if (in.has(key) && in.object().at(key) != false) {
      in.fail(unsupported(fmt::format("{}: '{}' is {}", in.where(), key, shown(in.object().at(key)))));
    }
  }
  for (const char* key : {"num_experts", "hidden_size_per_layer_input", "num_kv_shared_layers"}) {
    if (in.has(key) && in.object().at(key) != 0) {
      in.fail(unsupported(fmt::format("{}: '{}' is {}", in.where(), key, shown(in.object().at(key)))));
    }
  }
}

// head_dim and (with K = V) num_key_value_heads belong to the target's sliding layers.
void read_gemma4_options(JsonReader& in, DraftConfig& config) {
  refuse_gemma_options(in);
  config.sandwich_norms = true;
  config.head_dim = in.size("global_head_dim", ConfigLimits::kHeadDim);
  config.k_eq_v = in.flag("attention_k_eq_v", false);
  const bool global = config.k_eq_v && in.has("num_global_key_value_heads");
  config.n_kv_heads =
      in.size(global ? "num_global_key_value_heads" : "num_key_value_heads", ConfigLimits::kHeads);
  config.attention_scale = 1.0f;
  const std::string dtype = in.text(in.has("dtype") ? "dtype" : "torch_dtype", "bfloat16");
  config.embedding_scale = std::sqrt(static_cast<float>(config.dim));
  if (dtype != "float32") config.embedding_scale = round_to_bf16(config.embedding_scale);
}

}  // namespace

int32_t whole_number(JsonReader& in, const char* key, int32_t low, int32_t high,
                     std::optional<int32_t> fallback) {
  if (!in.has(key)) {
    if (!fallback) in.fail(invalid_argument(fmt::format("{}: '{}' is missing", in.where(), key)));
    return fallback.value_or(low);
  }
  const json& value = in.object().at(key);
  // nlohmann compares numbers by value, unsigned ones above the range of int64 included.
  if (value.is_number_integer() && value >= low && value <= high) return value.get<int32_t>();
  in.fail(invalid_argument(fmt::format("{}: '{}' is {}, expected a whole number from {} to {}", in.where(),
                                       key, shown(value), low, high)));
  return low;
}

void read_json_backbone(JsonReader& in, bool sliding_rope, DraftConfig& config) {
  if (in.has("quantization_config")) {
    in.fail(
        unsupported(in.where() + ": 'quantization_config' (give the unquantised weights or a GGUF file)"));
  }
  config.n_layers = in.size("num_hidden_layers", ConfigLimits::kLayers);
  config.dim = in.size("hidden_size", ConfigLimits::kDim);
  config.ffn_dim = in.size("intermediate_size", ConfigLimits::kDim);
  config.n_heads = in.size("num_attention_heads", ConfigLimits::kHeads);
  config.vocab_size = config.draft_vocab_size = in.size("vocab_size", ConfigLimits::kVocab);
  config.context_length = in.size("max_position_embeddings", ConfigLimits::kContext);
  config.norm_eps = static_cast<float>(in.number("rms_norm_eps"));
  config.attention_bias = in.flag("attention_bias", false);
  config.final_softcap = static_cast<float>(in.number("final_logit_softcapping", 0.0));
  if (!(config.norm_eps >= 0.0f) || !(config.final_softcap >= 0.0f)) {
    in.fail(invalid_argument(in.where() + ": 'rms_norm_eps' or 'final_logit_softcapping' is negative"));
  }
  if (config.backbone == DraftBackbone::kGemma4) {
    read_gemma4_options(in, config);
  } else {
    read_qwen3_options(in, config);
  }
  if (in.has("attention_scale")) config.attention_scale = static_cast<float>(in.number("attention_scale"));
  if (in.has("embedding_scale")) config.embedding_scale = static_cast<float>(in.number("embedding_scale"));
  read_activation(in, config);
  read_layer_types(in, config);
  if (!in.status().ok()) return;
  if (Status st = check_draft_sizes(config, in.where()); !st.ok()) return in.fail(st);
  read_rope(in, sliding_rope, config);
}

void read_json_heads(JsonReader& in, bool required, DraftConfig& config) {
  const auto need = [&](const char* key) {
    if (required && !in.has(key)) {
      in.fail(invalid_argument(fmt::format("{}: '{}' is missing", in.where(), key)));
    }
  };
  constexpr int32_t kDefaultRank = 256;  // of speculators
  config.markov_rank = whole_number(in, "markov_rank", 0, ConfigLimits::kDim,
                                    required ? std::nullopt : std::optional(kDefaultRank));
  if (config.markov_rank == 0) {
    if (required && in.has("markov_head_type")) {
      in.fail(invalid_argument(fmt::format("{}: 'markov_head_type' is {}, but 'markov_rank' is 0", in.where(),
                                           shown(in.object().at("markov_head_type")))));
    }
  } else {
    need("markov_head_type");
    std::string name = in.text("markov_head_type", "vanilla");
    for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    for (SequentialHead head : {SequentialHead::kVanilla, SequentialHead::kGated, SequentialHead::kRnn}) {
      if (name == sequential_head_name(head)) config.head = head;
    }
    if (config.head == SequentialHead::kNone) {
      in.fail(unsupported(
          fmt::format("{}: 'markov_head_type' is '{}' (supported: vanilla, gated, rnn)", in.where(), name)));
    }
  }
  need("enable_confidence_head");
  config.confidence = in.flag("enable_confidence_head", true);
  if (!config.confidence) return;
  need("confidence_head_with_markov");
  config.confidence_with_markov = in.flag("confidence_head_with_markov", true);
  if (config.confidence_with_markov && config.markov_rank == 0) {
    in.fail(invalid_argument(in.where() +
                             ": 'confidence_head_with_markov' is true, but 'markov_rank' is 0: there are no "
                             "Markov rows to feed it"));
  }
}

void read_json_short_block(JsonReader& in, DraftConfig& config) {
  config.short_block = whole_number(in, "short_block_size", 0, config.block_size, 0);
  if (Status st = check_short_block(config, in.where() + ": 'short_block_size'"); !st.ok()) in.fail(st);
}

void read_json_taps(JsonReader& in, const char* key, int32_t shift, int32_t lowest, DraftConfig& config) {
  if (!in.has(key)) return in.fail(invalid_argument(fmt::format("{}: '{}' is missing", in.where(), key)));
  const json& list = in.object().at(key);
  if (!list.is_array() || list.empty() || list.size() > static_cast<size_t>(ConfigLimits::kLayers)) {
    return in.fail(invalid_argument(
        fmt::format("{}: '{}' is {}, expected a list of layer ids", in.where(), key, shown(list))));
  }
  for (const json& id : list) {
    // Before the sum, so that no number can overflow it.
    const bool sane = id.is_number_integer() && id >= -1 && id <= ConfigLimits::kLayers;
    const int64_t tap = sane ? id.get<int64_t>() + shift : -1;
    if (!sane || tap < lowest) {
      return in.fail(invalid_argument(fmt::format("{}: '{}' holds {}, expected whole numbers from {} up",
                                                  in.where(), key, shown(id), lowest - shift)));
    }
    config.taps.push_back(static_cast<int32_t>(tap));
  }
  if (Status st = check_draft_taps(config, -shift, fmt::format("{}: '{}'", in.where(), key)); !st.ok()) {
    in.fail(st);
  }
}

}  // namespace dspark
