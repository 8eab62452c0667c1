#include "train/draft_growth.h"

#include <fmt/format.h>

namespace dspark {
namespace {

using at::Tensor;

std::string layer_prefix(int32_t layer) {
  return fmt::format("layers.{}.", layer);
}

Tensor leaf(const Tensor& tensor) {
  return tensor.detach().clone().contiguous().set_requires_grad(true);
}

Status repeat_kv_heads(DraftModel& model, int32_t n_kv_heads) {
  DraftConfig& config = model.config;
  if (n_kv_heads % config.n_kv_heads != 0 || config.n_heads % n_kv_heads != 0) {
    return invalid_argument(
        fmt::format("--kv-heads: expected a multiple of {} that divides {}, the drafter's heads, found {}",
                    config.n_kv_heads, config.n_heads, n_kv_heads));
  }
  const int64_t copies = n_kv_heads / config.n_kv_heads;
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    for (const char* name : {"k_proj.weight", "v_proj.weight", "k_proj.bias", "v_proj.bias"}) {
      const auto found = model.trainable.find(layer_prefix(layer) + "self_attn." + name);
      if (found == model.trainable.end()) continue;
      Tensor& rows = found->second;
      std::vector<int64_t> shape = rows.sizes().vec();
      const Tensor heads = rows.reshape({config.n_kv_heads, config.head_dim, -1});
      shape[0] *= copies;
      rows = leaf(heads.repeat_interleave(copies, 0).reshape(shape));
    }
  }
  config.n_kv_heads = n_kv_heads;
  return ok_status();
}

void add_layer(DraftModel& model) {
  const std::string last = layer_prefix(model.config.n_layers - 1);
  const std::string added = layer_prefix(model.config.n_layers);
  for (TensorMap* tensors : {&model.trainable, &model.buffers}) {
    TensorMap copies;
    for (const auto& [name, tensor] : *tensors) {
      if (name.rfind(last, 0) != 0) continue;
      const std::string part = name.substr(last.size());
      const bool ends_branch = part.rfind("self_attn.o_proj.", 0) == 0 || part == "mlp.down_proj.weight";
      const Tensor copy = ends_branch ? at::zeros_like(tensor) : tensor.detach().clone();
      copies[added + part] = copy.contiguous().set_requires_grad(tensor.requires_grad());
    }
    tensors->insert(copies.begin(), copies.end());
  }
  ++model.config.n_layers;
}

}  // namespace

Status grow_draft(DraftModel& model, const TrainOptions& options) {
  const at::NoGradGuard no_grad;
  if (options.kv_heads > 0) DSPARK_RETURN_IF_ERROR(repeat_kv_heads(model, options.kv_heads));
  if (options.add_layers == 0) return ok_status();
  // The sandwich norms of Gemma 4 bring zeros back to full size, and the paired kinds have one layer.
  if (is_paired(model.config.kind) || model.config.sandwich_norms) {
    return invalid_argument(
        "--add-layers: only for dspark and dflash drafters without norms behind attention");
  }
  for (int32_t i = 0; i < options.add_layers; ++i) add_layer(model);
  return ok_status();
}

}  // namespace dspark
