#include "models/config.h"

#include <fmt/format.h>

#include <string>

#include "models/config_readers.h"

namespace dspark {
namespace {

// What must hold whatever the format. The readers have checked that each number by itself is in range.
Status check_config(const ModelConfig& config, const std::string& path) {
  if (config.n_heads % config.n_kv_heads != 0) {
    return invalid_argument(fmt::format("{}: {} attention heads cannot share {} key/value heads evenly", path,
                                        config.n_heads, config.n_kv_heads));
  }
  if (config.head_dim % 2 != 0) {
    return invalid_argument(
        fmt::format("{}: head size is {}, expected an even number (rotary pairs)", path, config.head_dim));
  }
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

Result<ModelConfig> read_model_config(const Checkpoint& checkpoint) {
  Result<ModelConfig> config = checkpoint.format() == Checkpoint::Format::kGguf ? read_gguf_config(checkpoint)
                                                                                : read_hf_config(checkpoint);
  if (!config.ok()) return config.status();
  DSPARK_RETURN_IF_ERROR(check_config(*config, checkpoint.path()));
  return config;
}

}  // namespace dspark
