#include "models/config.h"

#include <fmt/format.h>

#include <cmath>
#include <string>

#include "models/config_readers.h"
#include "tensor/half.h"

namespace dspark {
namespace {

// Fields that a reader left open are the model's.
void complete_layers(ModelConfig& config) {
  for (int32_t i = 0; i < config.n_layers; ++i) {
    LayerConfig& layer = config.layers[static_cast<size_t>(i)];
    if (layer.n_kv_heads == 0) layer.n_kv_heads = config.n_kv_heads;
    if (layer.head_dim == 0) layer.head_dim = config.head_dim;
    if (layer.ffn_dim == 0) layer.ffn_dim = config.ffn_dim;
    if (layer.kv_layer < 0) layer.kv_layer = i;
  }
}

Status check_layer(const ModelConfig& config, int32_t layer_idx, const std::string& path) {
  const LayerConfig& layer = config.layer(layer_idx);
  if (config.n_heads % layer.n_kv_heads != 0) {
    return invalid_argument(fmt::format("{}: {} attention heads cannot share {} key/value heads evenly", path,
                                        config.n_heads, layer.n_kv_heads));
  }
  if (layer.head_dim % 2 != 0) {
    return invalid_argument(
        fmt::format("{}: head size is {}, expected an even number (rotary pairs)", path, layer.head_dim));
  }
  const LayerConfig& source = config.layer(layer.kv_layer);
  if (source.head_dim != layer.head_dim || source.n_kv_heads != layer.n_kv_heads) {
    return invalid_argument(fmt::format(
        "{}: layer {} shares keys and values of layer {}, which has {} heads of {} instead of {} of {}", path,
        layer_idx, layer.kv_layer, source.n_kv_heads, source.head_dim, layer.n_kv_heads, layer.head_dim));
  }
  return ok_status();
}

Status check_moe(const MoeConfig& moe, const std::string& path) {
  if (moe.n_experts == 0) return ok_status();
  if (moe.n_used > moe.n_experts) {
    return invalid_argument(
        fmt::format("{}: {} experts of one row, but there are only {}", path, moe.n_used, moe.n_experts));
  }
  constexpr int32_t kMaxGroups = 256;
  if (moe.n_groups > kMaxGroups || moe.n_experts % moe.n_groups != 0 || moe.n_groups_used > moe.n_groups) {
    return invalid_argument(fmt::format("{}: {} of {} groups (at most {}) cannot be formed of {} experts",
                                        path, moe.n_groups_used, moe.n_groups, kMaxGroups, moe.n_experts));
  }
  if (moe.n_experts / moe.n_groups * moe.n_groups_used < moe.n_used) {
    return invalid_argument(fmt::format("{}: {} experts of one row do not fit into {} groups of {}", path,
                                        moe.n_used, moe.n_groups_used, moe.n_experts / moe.n_groups));
  }
  return ok_status();
}

// What must hold whatever the format. The readers have checked that each number by itself is in range.
Status check_config(const ModelConfig& config, const std::string& path) {
  for (int32_t i = 0; i < config.n_layers; ++i) DSPARK_RETURN_IF_ERROR(check_layer(config, i, path));
  DSPARK_RETURN_IF_ERROR(check_moe(config.moe, path));
  if (!(config.norm_eps > 0.0f && config.norm_eps < 1.0f)) {
    return invalid_argument(
        fmt::format("{}: RMS norm epsilon is {}, expected between 0 and 1", path, config.norm_eps));
  }
  if (!(config.attention_scale > 0.0f)) {
    return invalid_argument(
        fmt::format("{}: attention scale is {}, expected a positive number", path, config.attention_scale));
  }
  if (config.attention_softcap < 0.0f || config.final_softcap < 0.0f) {
    return invalid_argument(fmt::format("{}: a soft cap is negative", path));
  }
  return ok_status();
}

}  // namespace

Status share_last_layers(ModelConfig& config, int32_t n_shared, const std::string& where) {
  const int32_t first = config.n_layers - n_shared;
  for (int32_t i = first; i < config.n_layers; ++i) {
    LayerConfig& layer = config.layers[static_cast<size_t>(i)];
    for (int32_t source = first - 1; source >= 0 && layer.kv_layer < 0; --source) {
      if ((config.layer(source).window > 0) == (layer.window > 0)) layer.kv_layer = source;
    }
    if (layer.kv_layer < 0) {
      return invalid_argument(
          fmt::format("{} is {}, but none of the first {} layers has {} attention, which layer {} needs",
                      where, n_shared, first, layer.window > 0 ? "sliding" : "full", i));
    }
  }
  return ok_status();
}

float gemma4_embedding_scale(int32_t width, DType embedding_dtype) {
  const float scale = std::sqrt(static_cast<float>(width));
  return embedding_dtype == DType::kF32 ? scale : bf16_to_f32(f32_to_bf16(scale));
}

Result<ModelConfig> read_model_config(const Checkpoint& checkpoint) {
  Result<ModelConfig> config = checkpoint.format() == Checkpoint::Format::kGguf ? read_gguf_config(checkpoint)
                                                                                : read_hf_config(checkpoint);
  if (!config.ok()) return config.status();
  complete_layers(*config);
  DSPARK_RETURN_IF_ERROR(check_config(*config, checkpoint.path()));
  return config;
}

}  // namespace dspark
