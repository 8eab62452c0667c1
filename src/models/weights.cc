#include "models/weights.h"

#include <string>
#include <utility>

#include "models/moe_weights.h"
#include "models/tensor_table.h"
#include "models/weight_reader.h"

namespace dspark {
namespace {

/// order[i] = stored row of our row i: undoes the interleaving of rotary pairs head by head.
/// Ours: row s * hd/2 + j of a head; stored: row 2j + s.
std::vector<int32_t> deinterleave(int32_t n_heads, int32_t head_dim) {
  std::vector<int32_t> order;
  order.reserve(static_cast<size_t>(n_heads) * static_cast<size_t>(head_dim));
  for (int32_t head = 0; head < n_heads; ++head) {
    for (int32_t half = 0; half < 2; ++half) {
      for (int32_t pair = 0; pair < head_dim / 2; ++pair) order.push_back(head * head_dim + 2 * pair + half);
    }
  }
  return order;
}

class WeightLoader {
 public:
  WeightLoader(const Checkpoint& checkpoint, const ModelConfig& config, ThreadPool& pool,
               bool float_activations)
      : checkpoint_(checkpoint),
        config_(config),
        reader_(checkpoint, pool, float_activations),
        names_(checkpoint) {
    if (config.qk_interleaved && config.mla.kv_rank == 0) {
      query_rows_ = deinterleave(config.n_heads, config.head_dim);
      key_rows_ = deinterleave(config.n_kv_heads, config.head_dim);
    }
  }

  Result<ModelWeights> load() {
    DSPARK_RETURN_IF_ERROR(check_all());
    ModelWeights weights;
    weights.embedding = *checkpoint_.find(names_.embedding());
    weights.layers.resize(static_cast<size_t>(config_.n_layers));
    for (int32_t layer = 0; layer < config_.n_layers; ++layer) {
      for (const LayerTensor& tensor : layer_tensors(config_, layer)) {
        DSPARK_RETURN_IF_ERROR(load_layer_tensor(tensor, layer, weights));
      }
      if (config_.mla.kv_rank > 0) {
        DSPARK_RETURN_IF_ERROR(load_mla(reader_, config_, is_gguf(), names_.layer_prefix(layer),
                                        weights.layers[static_cast<size_t>(layer)].mla));
      }
      if (config_.layer(layer).moe) {
        DSPARK_RETURN_IF_ERROR(load_moe(reader_, expert_names(layer), config_.moe, config_.dim,
                                        weights.layers[static_cast<size_t>(layer)].moe));
      }
    }
    if (config_.per_layer_dim > 0) {
      weights.per_layer_embedding = *checkpoint_.find(names_.per_layer_embedding());
      weights.per_layer_norm = load_vector(names_.per_layer_norm(), true, {});
      DSPARK_ASSIGN_OR_RETURN(weights.per_layer_projection, reader_.matrix(names_.per_layer_projection()));
    }
    weights.final_norm = load_vector(names_.final_norm(), true, {});
    const std::string head = config_.tied_head ? names_.embedding() : names_.head();
    if (const TensorView* stored = checkpoint_.find(head)) weights.head_tensor = *stored;
    DSPARK_ASSIGN_OR_RETURN(weights.head, reader_.matrix(head));
    weights.packed_bytes = reader_.packed_bytes();
    return weights;
  }

 private:
  Status check_all() const {
    TensorFinder finder(checkpoint_);
    expect_weights(finder, checkpoint_, config_);
    return finder.finish(config_.arch,
                         [&](std::string_view name) { return names_.is_ignorable(name, config_); });
  }

  MoeNames expert_names(int32_t layer) const {
    return moe_names(config_.arch, config_.moe, is_gguf(), names_.layer_prefix(layer));
  }
  bool is_gguf() const { return checkpoint_.format() == Checkpoint::Format::kGguf; }

  std::span<const int32_t> row_order(RowOrder rows) const {
    if (rows == RowOrder::kQueryHeads) return query_rows_;
    if (rows == RowOrder::kKeyHeads) return key_rows_;
    return {};
  }

  Status load_layer_tensor(const LayerTensor& tensor, int32_t layer, ModelWeights& weights) {
    LayerWeights& slot = weights.layers[static_cast<size_t>(layer)];
    const std::string name = names_.layer(tensor, layer);
    if (tensor.vector != nullptr) {
      slot.*tensor.vector = load_vector(name, tensor.is_norm, row_order(tensor.rows));
      return ok_status();
    }
    DSPARK_ASSIGN_OR_RETURN(slot.*tensor.matrix, reader_.matrix(name, row_order(tensor.rows)));
    return ok_status();
  }

  std::vector<float> load_vector(const std::string& name, bool is_norm, std::span<const int32_t> rows) const {
    std::vector<float> stored = reader_.floats(name);
    if (is_norm && config_.norm_plus_one) {
      for (float& w : stored) w += 1.0f;
    }
    if (rows.empty()) return stored;
    std::vector<float> ordered(stored.size());
    for (size_t i = 0; i < ordered.size(); ++i) ordered[i] = stored[static_cast<size_t>(rows[i])];
    return ordered;
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  WeightReader reader_;
  TensorNames names_;
  std::vector<int32_t> query_rows_;
  std::vector<int32_t> key_rows_;
};

}  // namespace

void expect_weights(TensorFinder& finder, const Checkpoint& checkpoint, const ModelConfig& config) {
  const TensorNames names(checkpoint);
  const bool gguf = checkpoint.format() == Checkpoint::Format::kGguf;
  finder.expect(names.embedding(), {config.vocab_size, config.dim});
  finder.expect(names.final_norm(), {config.dim});
  if (!config.tied_head) finder.expect(names.head(), {config.vocab_size, config.dim});
  if (config.per_layer_dim > 0) {
    const int64_t all_layers = static_cast<int64_t>(config.n_layers) * config.per_layer_dim;
    finder.expect(names.per_layer_embedding(), {config.vocab_size, all_layers});
    finder.expect(names.per_layer_projection(), {all_layers, config.dim});
    finder.expect(names.per_layer_norm(), {config.per_layer_dim});
  }
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    for (const LayerTensor& tensor : layer_tensors(config, layer)) {
      std::vector<int64_t> shape = {extent_of(config, config.layer(layer), tensor.out)};
      if (tensor.matrix != nullptr) shape.push_back(extent_of(config, config.layer(layer), tensor.in));
      finder.expect(names.layer(tensor, layer), shape);
    }
    for (const LayerTensor& tensor : unread_layer_tensors(config, layer)) {
      finder.allow(names.layer(tensor, layer));
    }
    const std::string prefix = names.layer_prefix(layer);
    if (config.mla.kv_rank > 0) expect_mla(finder, config, gguf, prefix);
    if (!config.layer(layer).moe) continue;
    expect_moe(finder, moe_names(config.arch, config.moe, gguf, prefix), config.moe, config.dim,
               config.vocab_size);
  }
}

Result<ModelWeights> load_weights(const Checkpoint& checkpoint, const ModelConfig& config, ThreadPool& pool,
                                  bool float_activations) {
  return WeightLoader(checkpoint, config, pool, float_activations).load();
}

}  // namespace dspark
