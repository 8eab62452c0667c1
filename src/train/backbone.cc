#include "train/backbone.h"

#include <limits>

namespace dspark {
namespace {

using at::Tensor;

constexpr float kHidden = -std::numeric_limits<float>::infinity();

/// Everything the layers share.
class Backbone {
 public:
  Backbone(const DraftConfig& config, const TensorMap& params, const StepBatch& batch, Precision precision)
      : config_(config), params_(params), batch_(batch), precision_(precision) {
    const Tensor slots = at::arange(config.block_size, batch.anchors.options());
    block_angles_ = rope_angles(config.rope, (batch.anchors.unsqueeze(1) + slots.unsqueeze(0)).flatten());
    context_angles_ = rope_angles(config.rope, batch.context_positions);
    for (size_t s = 0; s + 1 < batch.block_begin.size(); ++s) masks_.push_back(mask_of(s));
  }

  Tensor run(const Tensor& embedding) {
    const Tensor features =
        batch_.features.to(precision_ == Precision::kFloat32 ? at::kFloat : at::kBFloat16);
    const Tensor context = rms_norm(linear(features, param("fc.weight"), {}, precision_),
                                    param("hidden_norm.weight"), config_.norm_eps);
    const int64_t rows = batch_.n_blocks() * config_.block_size;
    Tensor h = embedding.index_select(0, batch_.input_tokens.flatten()).view({rows, config_.dim});
    if (config_.embedding_scale != 1.0f) h = h * config_.embedding_scale;
    for (int32_t layer = 0; layer < config_.n_layers; ++layer) h = run_layer(layer, h, context);
    h = rms_norm(h, param("norm.weight"), config_.norm_eps);
    return h.view({batch_.n_blocks(), config_.block_size, config_.dim});
  }

 private:
  Tensor param(const char* name) const { return find_param(params_, name); }

  /// Additive mask of one sequence, fp32 [A_s, 1 or B, C_s + B], slots as rows when the block is causal.
  Tensor mask_of(size_t s) const {
    const int64_t block = config_.block_size;
    const Tensor positions =
        batch_.context_positions.slice(0, batch_.context_begin[s], batch_.context_begin[s + 1]);
    const Tensor anchors =
        batch_.anchors.slice(0, batch_.block_begin[s], batch_.block_begin[s + 1]).unsqueeze(1);
    Tensor visible = positions.unsqueeze(0) < anchors;
    if (config_.window > 0)
      visible = visible.logical_and(positions.unsqueeze(0) >= anchors - int64_t{config_.window});
    const int64_t n_blocks = visible.size(0);
    Tensor own = at::ones({config_.causal ? block : 1, block}, visible.options());
    if (config_.causal) own = own.tril();
    visible = visible.unsqueeze(1).expand({n_blocks, own.size(0), visible.size(1)});
    const Tensor seen = at::cat({visible, own.unsqueeze(0).expand({n_blocks, own.size(0), block})}, -1);
    return at::zeros(seen.sizes(), seen.options().dtype(at::kFloat))
        .masked_fill_(seen.logical_not(), kHidden);
  }

  /// Attention of one sequence. q [A*B, heads, hd]; returns [A*B, heads * hd].
  Tensor attend_sequence(const LayerParts& layer, size_t s, const Tensor& q, const KeyValue& context,
                         const KeyValue& block_rows) const {
    const int64_t block = config_.block_size;
    const int64_t head_dim = config_.head_dim;
    const int64_t kv_heads = config_.n_kv_heads;
    const int64_t group = config_.n_heads / kv_heads;
    const int64_t first = batch_.block_begin[s] * block;
    const int64_t n_blocks = batch_.block_begin[s + 1] - batch_.block_begin[s];
    const int64_t n_context = batch_.context_begin[s + 1] - batch_.context_begin[s];
    const auto context_of = [&](const Tensor& x) {  // [kv, C, hd]
      return layer.operand(x.slice(0, batch_.context_begin[s], batch_.context_begin[s + 1]))
          .permute({1, 0, 2});
    };
    const auto block_of = [&](const Tensor& x) {  // [kv, A, B, hd]
      return layer.operand(x.slice(0, first, first + n_blocks * block))
          .view({n_blocks, block, kv_heads, head_dim})
          .permute({2, 0, 1, 3});
    };
    // Query rows ordered kv head, block, head of the group, slot: one product per kv head for the context.
    const Tensor queries = layer.operand(q.slice(0, first, first + n_blocks * block))
                               .view({n_blocks, block, kv_heads, group, head_dim})
                               .permute({2, 0, 3, 1, 4})
                               .reshape({kv_heads, n_blocks, group * block, head_dim});
    const Tensor flat = queries.reshape({kv_heads, n_blocks * group * block, head_dim});
    const Tensor far = at::bmm(flat, context_of(context.key).transpose(1, 2))
                           .view({kv_heads, n_blocks, group * block, n_context});
    const Tensor near = at::matmul(queries, block_of(block_rows.key).transpose(2, 3));
    Tensor scores = at::cat({far, near}, -1).to(at::kFloat) * double{config_.attention_scale};
    const Tensor& mask = masks_[s];
    const int64_t width = n_context + block;
    // [kv, A, group, B, width] + [A, 1, 1 or B, width]
    scores = scores.view({kv_heads, n_blocks, group, block, width}) + mask.unsqueeze(1);
    const Tensor weights =
        layer.operand(at::softmax(scores, -1)).view({kv_heads, n_blocks, group * block, width});
    const Tensor far_out =
        at::bmm(weights.slice(-1, 0, n_context).reshape({kv_heads, n_blocks * group * block, n_context}),
                context_of(context.value))
            .view({kv_heads, n_blocks, group * block, head_dim});
    const Tensor out = far_out + at::matmul(weights.slice(-1, n_context, width), block_of(block_rows.value));
    return out.reshape({kv_heads, n_blocks, group, block, head_dim})
        .permute({1, 3, 0, 2, 4})
        .reshape({n_blocks * block, kv_heads * group * head_dim});
  }

  Tensor run_layer(int32_t index, const Tensor& h, const Tensor& context) const {
    const LayerParts layer(config_, params_, index, precision_);
    const Tensor u = layer.norm(h, "input_layernorm.weight");
    const Tensor q = layer.query(u, block_angles_);
    const KeyValue context_rows = layer.key_value(context, context_angles_);
    const KeyValue block_rows = layer.key_value(u, block_angles_);
    std::vector<Tensor> parts;
    for (size_t s = 0; s + 1 < batch_.block_begin.size(); ++s) {
      if (batch_.block_begin[s] == batch_.block_begin[s + 1]) continue;
      parts.push_back(attend_sequence(layer, s, q, context_rows, block_rows));
    }
    return layer.finish(h, at::cat(parts, 0));
  }

  const DraftConfig& config_;
  const TensorMap& params_;
  const StepBatch& batch_;
  Precision precision_;
  Angles block_angles_;
  Angles context_angles_;
  std::vector<Tensor> masks_;
};

}  // namespace

Tensor backbone_forward(const DraftConfig& config, const TensorMap& params, const Tensor& embedding,
                        const StepBatch& batch, Precision precision) {
  return Backbone(config, params, batch, precision).run(embedding);
}

}  // namespace dspark
