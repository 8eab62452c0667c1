#include "train/layer.h"

#include <vector>

namespace dspark {

using at::Tensor;

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, Precision precision) {
  const at::ScalarType type = precision == Precision::kFloat32 ? at::kFloat : at::kBFloat16;
  const Tensor out = at::linear(x.to(type), weight.to(type));
  return bias.defined() ? out + bias : out;
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  const Tensor wide = x.to(at::kFloat);
  const Tensor y = wide * at::rsqrt(wide.square().mean(-1, true) + eps);
  return weight.defined() ? y * weight : y;
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

Tensor find_param(const TensorMap& params, const std::string& name) {
  const auto found = params.find(name);
  return found == params.end() ? Tensor() : found->second;
}

LayerParts::LayerParts(const DraftConfig& config, const TensorMap& params, int32_t index, Precision precision)
    : config_(config),
      params_(params),
      prefix_("layers." + std::to_string(index) + "."),
      precision_(precision) {}

Tensor LayerParts::norm(const Tensor& x, const char* name) const {
  return rms_norm(x, param(name), config_.norm_eps);
}

Tensor LayerParts::operand(const Tensor& x) const {
  return precision_ == Precision::kFloat32 ? x.to(at::kFloat) : x.to(at::kBFloat16);
}

Tensor LayerParts::project(const Tensor& x, const char* weight, const char* bias) const {
  return linear(x, param(weight), param(bias), precision_);
}

Tensor LayerParts::query(const Tensor& x, const Angles& angles) const {
  Tensor q = project(x, "self_attn.q_proj.weight", "self_attn.q_proj.bias")
                 .to(at::kFloat)
                 .view({x.size(0), config_.n_heads, config_.head_dim});
  if (config_.qk_norm) q = norm(q, "self_attn.q_norm.weight");
  return rotate(q, angles);
}

KeyValue LayerParts::key_value(const Tensor& x, const Angles& angles) const {
  const std::vector<int64_t> heads = {x.size(0), config_.n_kv_heads, config_.head_dim};
  const Tensor raw =
      project(x, "self_attn.k_proj.weight", "self_attn.k_proj.bias").to(at::kFloat).view(heads);
  Tensor value = raw;
  if (!config_.k_eq_v) {
    value = project(x, "self_attn.v_proj.weight", "self_attn.v_proj.bias").view(heads);
  }
  // Gemma 4 norms V too, without a weight.
  if (config_.backbone == DraftBackbone::kGemma4) value = rms_norm(value, {}, config_.norm_eps);
  const Tensor key = config_.qk_norm ? norm(raw, "self_attn.k_norm.weight") : raw;
  return {rotate(key, angles), value};
}

Tensor LayerParts::mlp(const Tensor& x) const {
  const Tensor gate = linear(x, param("mlp.gate_proj.weight"), {}, precision_);
  const Tensor up = linear(x, param("mlp.up_proj.weight"), {}, precision_);
  const Tensor active = config_.activation == GateActivation::kSilu ? at::silu(gate) : at::gelu(gate, "tanh");
  return linear(active * up, param("mlp.down_proj.weight"), {}, precision_);
}

Tensor LayerParts::finish(const Tensor& stream, const Tensor& attended) const {
  const Tensor branch = project(attended, "self_attn.o_proj.weight", "self_attn.o_proj.bias");
  if (!config_.sandwich_norms) {
    const Tensor middle = stream + branch;
    return middle + mlp(norm(middle, "post_attention_layernorm.weight"));
  }
  const Tensor middle = stream + norm(branch, "post_attention_layernorm.weight");
  const Tensor out = mlp(norm(middle, "pre_feedforward_layernorm.weight"));
  const Tensor sum = middle + norm(out, "post_feedforward_layernorm.weight");
  const Tensor scalar = param("layer_scalar");
  return scalar.defined() ? sum * scalar : sum;
}

}  // namespace dspark
