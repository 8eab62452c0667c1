#include "train/backbone.h"

#include <cmath>
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
  /// Not defined when the drafter has no such tensor.
  Tensor param(const std::string& name) const {
    const auto found = params_.find(name);
    return found == params_.end() ? Tensor() : found->second;
  }

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

  struct KeyValue {
    Tensor key;    // [rows, kv_heads, head_dim], rotated
    Tensor value;  // the same shape
  };

  KeyValue key_value(const std::string& prefix, const Tensor& x, const Angles& angles) const {
    const std::vector<int64_t> heads = {x.size(0), config_.n_kv_heads, config_.head_dim};
    const Tensor raw = linear(x, param(prefix + "k_proj.weight"), param(prefix + "k_proj.bias"), precision_)
                           .to(at::kFloat)
                           .view(heads);
    Tensor value = raw;
    if (!config_.k_eq_v) {
      value =
          linear(x, param(prefix + "v_proj.weight"), param(prefix + "v_proj.bias"), precision_).view(heads);
    }
    // Gemma 4 norms V too, without a weight.
    if (config_.backbone == DraftBackbone::kGemma4) value = rms_norm(value, {}, config_.norm_eps);
    const Tensor key =
        config_.qk_norm ? rms_norm(raw, param(prefix + "k_norm.weight"), config_.norm_eps) : raw;
    return {rotate(key, angles), value};
  }

  Tensor operand(const Tensor& x) const {
    return precision_ == Precision::kFloat32 ? x.to(at::kFloat) : x.to(at::kBFloat16);
  }

  /// Attention of one sequence. q [A*B, heads, hd]; returns [A*B, heads * hd].
  Tensor attend_sequence(size_t s, const Tensor& q, const KeyValue& context,
                         const KeyValue& block_rows) const {
    const int64_t block = config_.block_size;
    const int64_t head_dim = config_.head_dim;
    const int64_t kv_heads = config_.n_kv_heads;
    const int64_t group = config_.n_heads / kv_heads;
    const int64_t first = batch_.block_begin[s] * block;
    const int64_t n_blocks = batch_.block_begin[s + 1] - batch_.block_begin[s];
    const int64_t n_context = batch_.context_begin[s + 1] - batch_.context_begin[s];
    const auto context_of = [&](const Tensor& x) {  // [kv, C, hd]
      return operand(x.slice(0, batch_.context_begin[s], batch_.context_begin[s + 1])).permute({1, 0, 2});
    };
    const auto block_of = [&](const Tensor& x) {  // [kv, A, B, hd]
      return operand(x.slice(0, first, first + n_blocks * block))
          .view({n_blocks, block, kv_heads, head_dim})
          .permute({2, 0, 1, 3});
    };
    // Query rows ordered kv head, block, head of the group, slot: one product per kv head for the context.
    const Tensor queries = operand(q.slice(0, first, first + n_blocks * block))
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
    const Tensor weights = operand(at::softmax(scores, -1)).view({kv_heads, n_blocks, group * block, width});
    const Tensor far_out =
        at::bmm(weights.slice(-1, 0, n_context).reshape({kv_heads, n_blocks * group * block, n_context}),
                context_of(context.value))
            .view({kv_heads, n_blocks, group * block, head_dim});
    const Tensor out = far_out + at::matmul(weights.slice(-1, n_context, width), block_of(block_rows.value));
    return out.reshape({kv_heads, n_blocks, group, block, head_dim})
        .permute({1, 3, 0, 2, 4})
        .reshape({n_blocks * block, kv_heads * group * head_dim});
  }

  Tensor attention(const std::string& prefix, const Tensor& u, const Tensor& context) const {
    Tensor q = linear(u, param(prefix + "q_proj.weight"), param(prefix + "q_proj.bias"), precision_)
                   .to(at::kFloat)
                   .view({u.size(0), config_.n_heads, config_.head_dim});
    if (config_.qk_norm) q = rms_norm(q, param(prefix + "q_norm.weight"), config_.norm_eps);
    q = rotate(q, block_angles_);
    const KeyValue context_rows = key_value(prefix, context, context_angles_);
    const KeyValue block_rows = key_value(prefix, u, block_angles_);
    std::vector<Tensor> parts;
    for (size_t s = 0; s + 1 < batch_.block_begin.size(); ++s) {
      if (batch_.block_begin[s] == batch_.block_begin[s + 1]) continue;
      parts.push_back(attend_sequence(s, q, context_rows, block_rows));
    }
    return linear(at::cat(parts, 0), param(prefix + "o_proj.weight"), param(prefix + "o_proj.bias"),
                  precision_);
  }

  Tensor mlp(const std::string& prefix, const Tensor& y) const {
    const Tensor gate = linear(y, param(prefix + "gate_proj.weight"), {}, precision_);
    const Tensor up = linear(y, param(prefix + "up_proj.weight"), {}, precision_);
    const Tensor active =
        config_.activation == GateActivation::kSilu ? at::silu(gate) : at::gelu(gate, "tanh");
    return linear(active * up, param(prefix + "down_proj.weight"), {}, precision_);
  }

  Tensor run_layer(int32_t layer, const Tensor& h, const Tensor& context) const {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    const double eps = config_.norm_eps;
    const auto norm = [&](const Tensor& x, const char* name) {
      return rms_norm(x, param(prefix + name), eps);
    };
    const Tensor attended = attention(prefix + "self_attn.", norm(h, "input_layernorm.weight"), context);
    if (!config_.sandwich_norms) {
      const Tensor middle = h + attended;
      return middle + mlp(prefix + "mlp.", norm(middle, "post_attention_layernorm.weight"));
    }
    const Tensor middle = h + norm(attended, "post_attention_layernorm.weight");
    const Tensor out = mlp(prefix + "mlp.", norm(middle, "pre_feedforward_layernorm.weight"));
    const Tensor sum = middle + norm(out, "post_feedforward_layernorm.weight");
    const Tensor scalar = param(prefix + "layer_scalar");
    return scalar.defined() ? sum * scalar : sum;
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

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, Precision precision) {
  const at::ScalarType type = precision == Precision::kFloat32 ? at::kFloat : at::kBFloat16;
  const Tensor out = at::linear(x.to(type), weight.to(type));
  return bias.defined() ? out + bias : out;
}

Angles rope_angles(const RopeTable& rope, const Tensor& positions) {
  // Double, rounded once: positions reach tens of thousands.
  const std::vector<double> frequencies(rope.inv_freq.begin(), rope.inv_freq.end());
  const Tensor inv = at::tensor(frequencies, at::kDouble).to(positions.device());
  const Tensor angles = (positions.to(at::kDouble).unsqueeze(1) * inv.unsqueeze(0)).unsqueeze(1);
  const double factor = rope.attention_factor;
  return {(at::cos(angles) * factor).to(at::kFloat), (at::sin(angles) * factor).to(at::kFloat)};
}

Tensor rotate(const Tensor& x, const Angles& angles) {
  const auto halves = x.chunk(2, -1);
  return at::cat(
      {halves[0] * angles.cos - halves[1] * angles.sin, halves[1] * angles.cos + halves[0] * angles.sin}, -1);
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  const Tensor wide = x.to(at::kFloat);
  const Tensor y = wide * at::rsqrt(wide.square().mean(-1, true) + eps);
  return weight.defined() ? y * weight : y;
}

Tensor backbone_forward(const DraftConfig& config, const TensorMap& params, const Tensor& embedding,
                        const StepBatch& batch, Precision precision) {
  return Backbone(config, params, batch, precision).run(embedding);
}

}  // namespace dspark
