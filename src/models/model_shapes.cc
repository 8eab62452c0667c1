#include "models/model_shapes.h"

#include "models/deepseek_v4_state.h"
#include "models/deepseek_v4_weights.h"
#include "models/tensor_table.h"
#include "models/weight_reader.h"
#include "models/weights.h"

namespace dspark {
namespace {

void expect_all(TensorFinder& finder, const Checkpoint& checkpoint, const ModelConfig& config) {
  if (config.v4.n_streams > 0) {
    expect_v4_weights(finder, config, checkpoint.format() == Checkpoint::Format::kGguf);
  } else {
    expect_weights(finder, checkpoint, config);
  }
}

}  // namespace

std::vector<ExpectedTensor> expected_tensors(const Checkpoint& checkpoint, const ModelConfig& config) {
  TensorFinder finder(checkpoint);
  expect_all(finder, checkpoint, config);
  std::vector<ExpectedTensor> tensors;
  for (const auto& [name, shape] : finder.expected()) tensors.push_back({name, shape});
  return tensors;
}

Status check_tensors(const Checkpoint& checkpoint, const ModelConfig& config) {
  TensorFinder finder(checkpoint);
  expect_all(finder, checkpoint, config);
  if (config.v4.n_streams > 0) {
    return finder.finish(config.arch, [](std::string_view name) { return name.starts_with("mtp."); });
  }
  const TensorNames names(checkpoint);
  return finder.finish(config.arch, [&](std::string_view name) { return names.is_ignorable(name, config); });
}

std::vector<KvLayerShape> cache_shapes(const ModelConfig& config) {
  std::vector<KvLayerShape> shapes;
  for (int32_t i = 0; i < config.n_layers; ++i) {
    if (config.v4.n_streams > 0) {
      shapes.push_back(v4_kv_shape(config, config.v4.attention[static_cast<size_t>(i)]));
    } else if (!config.shares_kv(i)) {
      shapes.push_back({config.layer(i).n_kv_heads, config.layer(i).head_dim});
    }
  }
  return shapes;
}

}  // namespace dspark
