// config.json -> HfModel. Key names of released files and those that transformers 5 writes.

#include "formats/hf_model.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numbers>

#include "formats/error_text.h"

namespace dspark {
namespace {

using nlohmann::json;

constexpr int64_t kMaxSize = 1 << 30;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kGemma3Pattern = 6;  // every sixth layer is a full one
constexpr int64_t kGemma3Layers27B = 62;

/// Look-ups in one JSON object; the first failure stays, later ones return harmless values.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

  const json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  int64_t size(const char* key, std::optional<int64_t> fallback = std::nullopt, int64_t max = kMaxSize) {
    const json* value = find(key);
    if (value == nullptr) {
      if (!fallback) fail(invalid_argument(fmt::format("{}: key '{}' is missing", where_, key)));
      return fallback.value_or(1);
    }
    // Unsigned first: numbers above 2^63 would wrap.
    const bool in_range = value->is_number_unsigned() && value->get<uint64_t>() >= 1 &&
                          value->get<uint64_t>() <= static_cast<uint64_t>(max);
    if (!in_range) {
      fail(invalid_argument(fmt::format("{}: '{}' is {}, expected a whole number from 1 to {}", where_, key,
                                        in_quotes(value->dump().substr(0, 40)), max)));
      return 1;
    }
    return value->get<int64_t>();
  }
  double number(const char* key, std::optional<double> fallback = std::nullopt) {
    const json* value = find(key);
    if (value == nullptr) {
      if (!fallback) fail(invalid_argument(fmt::format("{}: key '{}' is missing", where_, key)));
      return fallback.value_or(1.0);
    }
    if (!value->is_number() || !std::isfinite(value->get<double>())) {
      fail(invalid_argument(fmt::format("{}: '{}' is not a number", where_, key)));
      return 1.0;
    }
    return value->get<double>();
  }
  double positive(const char* key, std::optional<double> fallback = std::nullopt) {
    const double value = number(key, fallback);
    if (value > 0.0) return value;
    fail(invalid_argument(fmt::format("{}: '{}' is {}, expected a positive number", where_, key, value)));
    return 1.0;
  }
  bool flag(const char* key, bool fallback) {
    const json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean())
      fail(invalid_argument(fmt::format("{}: '{}' is not true or false", where_, key)));
    return value->is_boolean() ? value->get<bool>() : fallback;
  }
  std::string text(const char* key, const std::string& fallback) {
    const json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_string()) fail(invalid_argument(fmt::format("{}: '{}' is not a string", where_, key)));
    return value->is_string() ? value->get<std::string>() : fallback;
  }
  void fail(Status error) {
    if (status_.ok()) status_ = std::move(error);
  }
  void refuse(const std::string& what) { fail(unsupported(where_ + ": " + what)); }
  const Status& status() const { return status_; }
  const std::string& where() const { return where_; }

 private:
  const json& object_;
  std::string where_;
  Status status_;
};

std::string arch_of(const std::string& model_type) {
  if (model_type == "llama" || model_type == "qwen2" || model_type == "qwen3") return model_type;
  if (model_type == "qwen3_moe") return "qwen3moe";
  if (model_type == "gemma3" || model_type == "gemma3_text") return "gemma3";
  return "";
}

// The defaults of Gemma 3 are those of its config class, on which released files rely.
void read_sizes(Fields& in, HfModel& model) {
  const auto gemma = [&](int64_t value) { return model.is_gemma() ? std::optional(value) : std::nullopt; };
  model.n_layers = in.size("num_hidden_layers", std::nullopt, kMaxLayers);
  model.dim = in.size("hidden_size");
  model.ffn_dim = in.size("intermediate_size");
  model.n_heads = in.size("num_attention_heads", gemma(8));
  model.n_kv_heads = in.size("num_key_value_heads", model.is_gemma() ? 4 : model.n_heads);
  model.vocab_size = in.size("vocab_size", gemma(262208));
  model.context_length = in.size("max_position_embeddings", gemma(131072));
  model.norm_eps = in.positive("rms_norm_eps", 1e-6);
  std::optional<int64_t> head_dim;
  if (model.is_gemma()) head_dim = 256;
  if (model.arch == "qwen3") head_dim = 128;
  if (!head_dim && model.dim % model.n_heads == 0) head_dim = model.dim / model.n_heads;
  model.head_dim = in.size("head_dim", head_dim);
  if (model.head_dim % 2 != 0) {
    in.fail(invalid_argument(
        fmt::format("{}: 'head_dim' is {}, expected an even number", in.where(), model.head_dim)));
  }
}

void read_yarn(Fields& in, HfRope& rope) {
  rope.beta_fast = in.positive("beta_fast", 32.0);
  rope.beta_slow = in.positive("beta_slow", 1.0);
  if (!in.flag("truncate", true)) in.refuse("GGUF has no key for yarn with 'truncate' false");
  if (in.find("attention_factor") != nullptr) {
    rope.attention_factor = in.positive("attention_factor");
  } else if (in.find("mscale") != nullptr && in.find("mscale_all_dim") != nullptr && rope.factor > 1.0) {
    const double log_factor = std::log(rope.factor);
    rope.attention_factor = (0.1 * in.number("mscale") * log_factor + 1.0) /
                            (0.1 * in.number("mscale_all_dim") * log_factor + 1.0);
  }
}

/// `object`: rope_parameters or rope_scaling, or an entry of the former per layer type.
void read_rope_object(Fields& config, const json& object, const char* name, HfModel& model) {
  if (!object.is_object()) {
    config.fail(invalid_argument(fmt::format("{}: '{}' is not an object", config.where(), name)));
    return;
  }
  Fields in(object, fmt::format("{}: {}", config.where(), name));
  HfRope& rope = model.rope;
  rope.theta = in.positive("rope_theta", rope.theta);
  rope.type = in.text("rope_type", in.text("type", "default"));
  if (in.number("partial_rotary_factor", 1.0) != 1.0) in.refuse("'partial_rotary_factor' other than 1");
  const bool scaled = rope.type == "linear" || rope.type == "llama3" || rope.type == "yarn";
  if (!scaled && rope.type != "default") {
    in.refuse(fmt::format("rope type {} (supported: default, linear, llama3, yarn)", in_quotes(rope.type)));
  }
  if (scaled) rope.factor = in.positive("factor");
  if (rope.type == "llama3" || rope.type == "yarn") {
    rope.original_context = in.size("original_max_position_embeddings", model.context_length);
  }
  if (rope.type == "yarn") {
    read_yarn(in, rope);
    if (model.is_gemma()) in.refuse("yarn scaling for gemma3");
  }
  if (rope.type == "llama3") {
    rope.low_freq_factor = in.positive("low_freq_factor");
    rope.high_freq_factor = in.positive("high_freq_factor");
    if (rope.high_freq_factor <= rope.low_freq_factor) {
      in.fail(invalid_argument(in.where() + ": 'high_freq_factor' is not above 'low_freq_factor'"));
    }
    if (model.arch != "llama") in.refuse("llama3 scaling exists in GGUF for arch llama only");
  }
  config.fail(in.status());
}

void read_rope(Fields& in, HfModel& model) {
  model.rope.theta = in.positive("rope_theta", model.is_gemma() ? 1e6 : 10000.0);
  model.local_theta = in.positive("rope_local_base_freq", 10000.0);
  const json* parameters = in.find("rope_parameters");
  if (parameters == nullptr) {
    const json* scaling = in.find("rope_scaling");
    if (scaling != nullptr) read_rope_object(in, *scaling, "rope_scaling", model);
    return;
  }
  if (!parameters->is_object() || !parameters->contains("full_attention")) {
    read_rope_object(in, *parameters, "rope_parameters", model);
    return;
  }
  read_rope_object(in, parameters->at("full_attention"), "rope_parameters.full_attention", model);
  if (!model.is_gemma() || !parameters->contains("sliding_attention")) return;
  HfModel local = model;  // only its rope is looked at
  local.rope = HfRope{};
  read_rope_object(in, parameters->at("sliding_attention"), "rope_parameters.sliding_attention", local);
  if (local.rope.type != "default") in.refuse("scaled RoPE on sliding layers");
  model.local_theta = local.rope.theta;
}

/// Which layers slide, as a list of names or as a period.
void read_sliding(Fields& in, HfModel& model) {
  model.sliding.assign(static_cast<size_t>(model.n_layers), false);
  if (const json* types = in.find("layer_types"); types != nullptr) {
    if (!types->is_array() || types->size() != model.sliding.size()) {
      in.fail(invalid_argument(
          fmt::format("{}: 'layer_types' is not a list of {} names", in.where(), model.n_layers)));
      return;
    }
    for (size_t i = 0; i < model.sliding.size(); ++i) {
      model.sliding[i] = (*types)[i] == "sliding_attention";
      if (!model.sliding[i] && (*types)[i] != "full_attention") {
        in.refuse(fmt::format("layer_types[{}] (supported: full_attention, sliding_attention)", i));
      }
    }
  } else if (model.is_gemma()) {
    const char* key =
        in.find("sliding_window_pattern") != nullptr ? "sliding_window_pattern" : "_sliding_window_pattern";
    const int64_t period = in.size(key, kGemma3Pattern);
    for (size_t i = 0; i < model.sliding.size(); ++i)
      model.sliding[i] = static_cast<int64_t>(i + 1) % period != 0;
  } else if (in.flag("use_sliding_window", false) &&
             in.number("max_window_layers", 0.0) < static_cast<double>(model.n_layers)) {
    model.sliding.back() = true;
  }
  const bool any = std::find(model.sliding.begin(), model.sliding.end(), true) != model.sliding.end();
  if (any && !model.is_gemma()) in.refuse("GGUF has no key for sliding windows of arch " + model.arch);
}

void read_gemma3(Fields& in, HfModel& model) {
  model.window = in.size("sliding_window", 4096);
  model.attention_softcap = in.number("attn_logit_softcapping", 0.0);
  model.final_softcap = in.number("final_logit_softcapping", 0.0);
  if (in.flag("use_bidirectional_attention", false)) in.refuse("'use_bidirectional_attention'");
  // GGUF readers derive the softmax scale: head_dim, but dim / heads for the 62 layers of the 27B model.
  const double scalar = in.positive("query_pre_attn_scalar", 256.0);
  const double implied = model.n_layers == kGemma3Layers27B
                             ? static_cast<double>(model.dim) / static_cast<double>(model.n_heads)
                             : static_cast<double>(model.head_dim);
  if (scalar != implied) {
    in.refuse(fmt::format("'query_pre_attn_scalar' is {}, but a GGUF file of this shape means {}", scalar,
                          implied));
  }
}

void read_experts(Fields& in, HfModel& model) {
  model.n_experts =
      in.size(in.find("num_experts") != nullptr ? "num_experts" : "num_local_experts", std::nullopt, 1 << 16);
  model.n_experts_used = in.size("num_experts_per_tok");
  model.expert_ffn_dim = in.size("moe_intermediate_size");
  const json* dense = in.find("mlp_only_layers");
  if ((dense != nullptr && !dense->empty()) || in.size("decoder_sparse_step", 1) != 1) {
    in.refuse("GGUF arch qwen3moe has experts in every layer, this model does not");
  }
  if (!in.flag("norm_topk_prob", false)) in.refuse("GGUF arch qwen3moe means 'norm_topk_prob' true");
}

void read_activation(Fields& in, const HfModel& model) {
  const char* key = in.find("hidden_activation") != nullptr ? "hidden_activation" : "hidden_act";
  const char* expected = model.is_gemma() ? "gelu_pytorch_tanh" : "silu";
  const std::string found = in.text(key, expected);
  if (found != expected) {
    in.refuse(
        fmt::format("'{}' is {}, but GGUF arch {} means {}", key, in_quotes(found), model.arch, expected));
  }
}

}  // namespace

Result<HfModel> read_hf_model(const Checkpoint& checkpoint) {
  const json& root = checkpoint.config();
  if (!root.is_object()) {
    return not_found(checkpoint.path() + ": no config.json beside the weights; give the model's folder");
  }
  const std::string where = checkpoint.path() + ": config.json";
  Fields top(root, where);
  const std::string model_type = top.text("model_type", "");
  HfModel model;
  model.arch = arch_of(model_type);
  if (model.arch.empty()) {
    return unsupported(
        fmt::format("{}: model_type {} (supported: llama, qwen2, qwen3, qwen3_moe, gemma3, gemma3_text)",
                    where, in_quotes(model_type)));
  }
  const json* text_config = top.find("text_config");
  const bool nested = text_config != nullptr && text_config->is_object();
  Fields in(nested ? *text_config : root, nested ? where + ": text_config" : where);
  for (Fields* fields : {&top, &in}) {
    if (fields->find("quantization_config") != nullptr)
      return unsupported(where + ": 'quantization_config' (give the unquantised weights)");
  }
  model.name = std::filesystem::path(checkpoint.folder()).lexically_normal().filename().string();
  if (model.name.empty()) {
    model.name =
        std::filesystem::path(checkpoint.folder()).lexically_normal().parent_path().filename().string();
  }
  model.tied_head = in.flag("tie_word_embeddings", top.flag("tie_word_embeddings", model.is_gemma()));
  read_sizes(in, model);
  if (!in.status().ok()) return in.status();
  read_activation(in, model);
  read_rope(in, model);
  read_sliding(in, model);
  if (model.is_gemma()) read_gemma3(in, model);
  if (model.arch == "qwen3moe") read_experts(in, model);
  if (!in.status().ok()) return in.status();
  if (!top.status().ok()) return top.status();
  return model;
}

std::vector<float> llama3_rope_divisors(const HfRope& rope, int64_t head_dim) {
  const auto old = static_cast<double>(rope.original_context);
  std::vector<float> divisors;
  for (int64_t i = 0; i < head_dim; i += 2) {
    const double exponent = static_cast<double>(i) / static_cast<double>(head_dim);
    const double wavelength = 2.0 * std::numbers::pi * std::pow(rope.theta, exponent);
    double divisor = 1.0;
    if (wavelength > old / rope.low_freq_factor) {
      divisor = rope.factor;
    } else if (wavelength >= old / rope.high_freq_factor) {
      const double s =
          (old / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
      divisor = 1.0 / ((1.0 - s) / rope.factor + s);
    }
    divisors.push_back(static_cast<float>(divisor));
  }
  return divisors;
}

}  // namespace dspark
