// DeepSeek V4 (GGUF architecture deepseek4): config.json and GGUF metadata -> ModelConfig.

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "models/config_readers.h"
#include "models/rope_scaling.h"

namespace dspark {
namespace {

using nlohmann::json;

constexpr double kMainTheta = 10000.0;
constexpr double kCompressTheta = 160000.0;
constexpr int32_t kSparseRate = 4;
constexpr int32_t kHeavyRate = 128;

void read_hf_sizes(JsonReader& in, ModelConfig& config) {
  config.n_layers = in.size("num_hidden_layers", ConfigLimits::kLayers);
  config.dim = in.size("hidden_size", ConfigLimits::kDim);
  config.n_heads = in.size("num_attention_heads", ConfigLimits::kHeads);
  config.n_kv_heads = 1;
  config.head_dim = in.size("head_dim", ConfigLimits::kHeadDim);
  config.vocab_size = in.size("vocab_size", ConfigLimits::kVocab);
  config.context_length = in.size("max_position_embeddings", ConfigLimits::kContext);
  config.norm_eps = static_cast<float>(in.number("rms_norm_eps", 1e-6));
  V4Config& v4 = config.v4;
  v4.n_streams = in.size("hc_mult", 64);
  v4.sinkhorn_iters = in.size("hc_sinkhorn_iters", 1000);
  v4.hc_eps = static_cast<float>(in.number("hc_eps", 1e-6));
  v4.q_rank = in.size("q_lora_rank", ConfigLimits::kDim);
  v4.window = in.size("sliding_window", ConfigLimits::kContext);
  v4.o_groups = in.size("o_groups", ConfigLimits::kHeads);
  v4.o_rank = in.size("o_lora_rank", ConfigLimits::kDim);
  v4.index_heads = in.size("index_n_heads", ConfigLimits::kHeads);
  v4.index_dim = in.size("index_head_dim", ConfigLimits::kHeadDim);
  v4.index_topk = in.size("index_topk", ConfigLimits::kContext);
  const double share = in.number("partial_rotary_factor", 0.125);
  v4.rope_dim = in.has("qk_rope_head_dim") ? in.size("qk_rope_head_dim", ConfigLimits::kHeadDim)
                                           : static_cast<int32_t>(config.head_dim * share);
  if (in.flag("tie_word_embeddings", false)) in.fail(unsupported(in.where() + ": 'tie_word_embeddings'"));
  if (in.flag("attention_bias", false)) in.fail(unsupported(in.where() + ": 'attention_bias'"));
}

// A layer's kind from its rate: 0, the small one, the large one.
void set_kind(ModelConfig& config, int64_t rate, const std::string& place, Status& status) {
  V4Config& v4 = config.v4;
  if (rate == 0) {
    v4.attention.push_back(V4Attention::kSliding);
  } else if (rate == v4.sparse_rate) {
    v4.attention.push_back(V4Attention::kSparse);
  } else if (rate == v4.heavy_rate) {
    v4.attention.push_back(V4Attention::kHeavy);
  } else if (status.ok()) {
    status = unsupported(
        fmt::format("{} is {} (supported: 0, {}, {})", place, rate, v4.sparse_rate, v4.heavy_rate));
  }
}

void read_hf_rates(JsonReader& in, V4Config& v4) {
  v4.sparse_rate = in.size("compress_rate_csa", 1 << 16, kSparseRate);
  v4.heavy_rate = in.size("compress_rate_hca", 1 << 16, kHeavyRate);
  if (!in.has("compress_rates") || !in.object().at("compress_rates").is_object()) return;
  JsonReader rates(in.object().at("compress_rates"), in.where() + ": compress_rates");
  v4.sparse_rate = rates.size("compressed_sparse_attention", 1 << 16, v4.sparse_rate);
  v4.heavy_rate = rates.size("heavily_compressed_attention", 1 << 16, v4.heavy_rate);
  if (!rates.status().ok()) in.fail(rates.status());
}

void read_hf_layer_kinds(JsonReader& in, ModelConfig& config) {
  read_hf_rates(in, config.v4);
  const char* key = in.has("layer_types") ? "layer_types" : "compress_ratios";
  const auto n_layers = static_cast<size_t>(config.n_layers);
  const json list = in.has(key) ? in.object().at(key) : json();
  if (!list.is_array() || list.size() < n_layers) {
    return in.fail(invalid_argument(
        fmt::format("{}: '{}' is not a list of at least {} layers", in.where(), key, config.n_layers)));
  }
  Status status;
  for (size_t i = 0; i < n_layers; ++i) {
    const std::string place = fmt::format("{}: {}[{}]", in.where(), key, i);
    int64_t rate = -1;
    if (list[i].is_number_integer()) rate = list[i].get<int64_t>();
    if (list[i] == "sliding_attention") rate = 0;
    if (list[i] == "compressed_sparse_attention") rate = config.v4.sparse_rate;
    if (list[i] == "heavily_compressed_attention") rate = config.v4.heavy_rate;
    set_kind(config, rate, place, status);
  }
  if (!status.ok()) in.fail(status);
}

void read_hf_routers(JsonReader& in, ModelConfig& config) {
  const auto n_layers = static_cast<size_t>(config.n_layers);
  config.v4.hash_routed.assign(n_layers, false);
  if (!in.has("mlp_layer_types")) {
    const int32_t n_hash = in.count("num_hash_layers", ConfigLimits::kLayers, 0);
    for (size_t i = 0; i < n_layers; ++i) config.v4.hash_routed[i] = i < static_cast<size_t>(n_hash);
    return;
  }
  const json& list = in.object().at("mlp_layer_types");
  if (!list.is_array() || list.size() < n_layers) {
    return in.fail(invalid_argument(in.where() + ": 'mlp_layer_types' is shorter than the layers"));
  }
  for (size_t i = 0; i < n_layers; ++i) {
    config.v4.hash_routed[i] = list[i] == "hash_moe";
    if (list[i] == "hash_moe" || list[i] == "moe") continue;
    in.fail(unsupported(fmt::format("{}: mlp_layer_types[{}] is {} (supported: moe, hash_moe)", in.where(), i,
                                    list[i].dump().substr(0, 60))));
  }
}

void read_hf_experts(JsonReader& in, ModelConfig& config) {
  MoeConfig& moe = config.moe;
  moe.n_experts = in.size("n_routed_experts", ConfigLimits::kExperts);
  moe.n_used = in.size("num_experts_per_tok", ConfigLimits::kExperts);
  moe.expert_dim = in.size("moe_intermediate_size", ConfigLimits::kDim);
  if (in.count("n_shared_experts", 64, 1) > 0) moe.shared_dim = moe.expert_dim;
  moe.weight_scale = static_cast<float>(in.number("routed_scaling_factor", 1.0));
  moe.clamp = static_cast<float>(in.number("swiglu_limit", 0.0));
  const std::string score = in.text("scoring_func", "sqrtsoftplus");
  if (score == "softmax") {
    moe.gating = ExpertGating::kSoftmax;
  } else if (score == "sigmoid") {
    moe.gating = ExpertGating::kSigmoid;
  } else if (score == "sqrtsoftplus") {
    moe.gating = ExpertGating::kSqrtSoftplus;
  } else {
    in.fail(unsupported(fmt::format("{}: 'scoring_func' is '{}' (supported: sqrtsoftplus, sigmoid, softmax)",
                                    in.where(), score)));
  }
}

// [0] main, [1] compress. YaRN belongs to the second; its attention factor is not used.
void read_hf_ropes(JsonReader& in, RopeParams ropes[2], int32_t context_length) {
  ropes[0].theta = in.number("rope_theta", kMainTheta);
  ropes[1].theta = in.number("compress_rope_theta", kCompressTheta);
  const json none;
  const json& parameters = in.has("rope_parameters") ? in.object().at("rope_parameters") : none;
  const auto read = [&](const json& object, const char* name, RopeParams& rope) {
    if (!object.is_object())
      return in.fail(invalid_argument(fmt::format("{}: {} is not an object", in.where(), name)));
    json plain = object;
    plain.erase("partial_rotary_factor");  // what rotates is qk_rope_head_dim
    JsonReader nested(plain, fmt::format("{}: {}", in.where(), name));
    rope = read_hf_rope_object(nested, rope.theta, context_length);
    if (!nested.status().ok()) in.fail(nested.status());
  };
  if (parameters.is_object() && parameters.contains("compress")) {
    read(parameters.at("compress"), "rope_parameters.compress", ropes[1]);
    if (parameters.contains("main")) read(parameters.at("main"), "rope_parameters.main", ropes[0]);
  } else if (in.has("rope_scaling")) {
    const double theta = ropes[1].theta;
    read(in.object().at("rope_scaling"), "rope_scaling", ropes[1]);
    ropes[1].theta = theta;
  }
}

// What holds for both formats.
Status complete(ModelConfig& config, RopeParams ropes[2], const std::string& where) {
  V4Config& v4 = config.v4;
  MoeConfig& moe = config.moe;
  moe.renormalise = true;
  moe.choice_bias = true;
  config.ffn_dim = moe.expert_dim;
  if (v4.rope_dim < 2 || v4.rope_dim % 2 != 0 || v4.rope_dim > config.head_dim ||
      v4.rope_dim > v4.index_dim) {
    return invalid_argument(fmt::format("{}: {} rotary channels, expected an even number up to {} and {}",
                                        where, v4.rope_dim, config.head_dim, v4.index_dim));
  }
  if (config.n_heads % v4.o_groups != 0) {
    return invalid_argument(
        fmt::format("{}: {} heads cannot form {} output groups", where, config.n_heads, v4.o_groups));
  }
  if (moe.clamp < 0.0f || !(v4.hc_eps > 0.0f)) {
    return invalid_argument(
        fmt::format("{}: swiglu_limit {} or hc_eps {} is out of range", where, moe.clamp, v4.hc_eps));
  }
  config.attention_scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  config.layers.resize(static_cast<size_t>(config.n_layers));
  for (LayerConfig& layer : config.layers) {
    layer.moe = true;
    layer.window = v4.window;
  }
  ropes[1].attention_factor = 1.0;
  for (int i = 0; i < 2; ++i) {
    DSPARK_RETURN_IF_ERROR(check_rope_params(ropes[i], where));
    config.ropes.push_back(make_rope_table(ropes[i], v4.rope_dim));
    config.ropes.back().attention_factor = 1.0f;
  }
  return ok_status();
}

void read_gguf_sizes(MetaReader& meta, ModelConfig& config) {
  config.n_layers = meta.size("block_count", ConfigLimits::kLayers);
  config.dim = meta.size("embedding_length", ConfigLimits::kDim);
  config.context_length = meta.size("context_length", ConfigLimits::kContext);
  config.n_heads = meta.size("attention.head_count", ConfigLimits::kHeads);
  config.n_kv_heads = 1;
  config.head_dim = meta.size("attention.key_length", ConfigLimits::kHeadDim);
  config.norm_eps = static_cast<float>(meta.number("attention.layer_norm_rms_epsilon"));
  V4Config& v4 = config.v4;
  v4.n_streams = meta.size("hyper_connection.count", 64);
  v4.sinkhorn_iters = meta.size("hyper_connection.sinkhorn_iterations", 1000);
  v4.hc_eps = static_cast<float>(meta.number("hyper_connection.epsilon", 1e-6));
  v4.q_rank = meta.size("attention.q_lora_rank", ConfigLimits::kDim);
  v4.rope_dim = meta.size("rope.dimension_count", ConfigLimits::kHeadDim);
  v4.window = meta.size("attention.sliding_window", ConfigLimits::kContext);
  v4.o_groups = meta.size("attention.output_group_count", ConfigLimits::kHeads);
  v4.o_rank = meta.size("attention.output_lora_rank", ConfigLimits::kDim);
  v4.index_heads = meta.size("attention.indexer.head_count", ConfigLimits::kHeads);
  v4.index_dim = meta.size("attention.indexer.key_length", ConfigLimits::kHeadDim);
  v4.index_topk = meta.size("attention.indexer.top_k", ConfigLimits::kContext);
  v4.sparse_rate = kSparseRate;
  v4.heavy_rate = kHeavyRate;
}

void read_gguf_layers(const Checkpoint& checkpoint, MetaReader& meta, ModelConfig& config) {
  const std::string key = meta.key_name("attention.compress_ratios");
  const auto* rates = std::get_if<std::vector<int64_t>>(checkpoint.meta(key));
  const auto n_layers = static_cast<size_t>(config.n_layers);
  if (rates == nullptr || rates->size() < n_layers) {
    return meta.fail(invalid_argument(
        fmt::format("{}: {} is not a list of at least {} layers", checkpoint.path(), key, config.n_layers)));
  }
  Status status;
  for (size_t i = 0; i < n_layers; ++i) {
    set_kind(config, (*rates)[i], fmt::format("{}: {}[{}]", checkpoint.path(), key, i), status);
  }
  if (!status.ok()) return meta.fail(status);
  const int32_t n_hash = meta.count("hash_layer_count", ConfigLimits::kLayers, 0);
  for (size_t i = 0; i < n_layers; ++i) config.v4.hash_routed.push_back(i < static_cast<size_t>(n_hash));
}

// One clamp for all layers, routed and shared.
float read_gguf_clamp(const Checkpoint& checkpoint, MetaReader& meta) {
  std::optional<double> clamp;
  for (const char* name : {"swiglu_clamp_exp", "swiglu_clamp_shexp"}) {
    const auto* values = std::get_if<std::vector<double>>(checkpoint.meta(meta.key_name(name)));
    if (values == nullptr) continue;
    for (double value : *values) {
      if (clamp && *clamp != value) {
        meta.fail(unsupported(
            fmt::format("{}: {} differs from layer to layer", checkpoint.path(), meta.key_name(name))));
        return 0.0f;
      }
      clamp = value;
    }
  }
  return static_cast<float>(clamp.value_or(0.0));
}

void read_gguf_experts(const Checkpoint& checkpoint, MetaReader& meta, ModelConfig& config) {
  MoeConfig& moe = config.moe;
  moe.n_experts = meta.size("expert_count", ConfigLimits::kExperts);
  moe.n_used = meta.size("expert_used_count", ConfigLimits::kExperts);
  moe.expert_dim = meta.size("expert_feed_forward_length", ConfigLimits::kDim);
  if (meta.count("expert_shared_count", 64, 1) > 0) moe.shared_dim = moe.expert_dim;
  moe.weight_scale = static_cast<float>(meta.number("expert_weights_scale", 1.0));
  moe.clamp = read_gguf_clamp(checkpoint, meta);
  const int32_t gating = meta.size("expert_gating_func", 16, 4);
  if (gating == 1) moe.gating = ExpertGating::kSoftmax;
  if (gating == 2) moe.gating = ExpertGating::kSigmoid;
  if (gating == 4) moe.gating = ExpertGating::kSqrtSoftplus;
  if (gating != 1 && gating != 2 && gating != 4) {
    meta.fail(unsupported(fmt::format("{}: {} {} (supported: 1, 2, 4)", checkpoint.path(),
                                      meta.key_name("expert_gating_func"), gating)));
  }
}

}  // namespace

Result<ModelConfig> read_hf_deepseek4(const Checkpoint& checkpoint, const std::string& where) {
  JsonReader in(checkpoint.config(), where);
  ModelConfig config;
  config.arch = "deepseek4";
  config.name = std::filesystem::path(checkpoint.folder()).filename().string();
  read_hf_sizes(in, config);
  if (!in.status().ok()) return in.status();
  read_hf_layer_kinds(in, config);
  read_hf_routers(in, config);
  read_hf_experts(in, config);
  RopeParams ropes[2];
  read_hf_ropes(in, ropes, config.context_length);
  if (!in.status().ok()) return in.status();
  DSPARK_RETURN_IF_ERROR(complete(config, ropes, where));
  config.eos_ids = read_hf_eos(checkpoint, config.vocab_size);
  return config;
}

Result<ModelConfig> read_gguf_deepseek4(const Checkpoint& checkpoint, MetaReader& meta) {
  ModelConfig config;
  config.arch = "deepseek4";
  config.name = checkpoint.meta_string("general.name").value_or("");
  read_gguf_sizes(meta, config);
  const TensorView* embedding = checkpoint.find("token_embd.weight");
  std::optional<int32_t> rows;
  if (embedding != nullptr && embedding->shape.size() == 2 && embedding->shape[0] >= 1 &&
      embedding->shape[0] <= ConfigLimits::kVocab) {
    rows = static_cast<int32_t>(embedding->shape[0]);
  }
  config.vocab_size = meta.size("vocab_size", ConfigLimits::kVocab, rows);
  if (!meta.status().ok()) return meta.status();
  read_gguf_layers(checkpoint, meta, config);
  read_gguf_experts(checkpoint, meta, config);
  RopeParams ropes[2];
  ropes[1] = read_gguf_rope(checkpoint, meta, config.context_length);  // scaling belongs to the entries
  ropes[0].theta = ropes[1].theta;
  ropes[1].theta = meta.number("attention.compress_rope_freq_base", kCompressTheta);
  if (!meta.status().ok()) return meta.status();
  DSPARK_RETURN_IF_ERROR(complete(config, ropes, checkpoint.path()));
  config.eos_ids = read_gguf_eos(checkpoint, config.vocab_size);
  return config;
}

}  // namespace dspark
