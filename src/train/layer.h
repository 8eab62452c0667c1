#pragma once
// Private to the room: what the layers of all drafters share, in training form.

#include <string>

#include "draft/draft_config.h"
#include "train/tensors.h"

namespace dspark {

/// x [.., in] times weightᵀ [out, in], plus bias when it is defined. In bf16 mode both are rounded first and
/// the result is bf16; in fp32 mode everything is fp32.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, Precision precision);

/// fp32 normalisation over the last dimension; no weight when `weight` is not defined.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// Cosines and sines of a set of rows, fp32 [rows, 1, head_dim / 2].
struct Angles {
  at::Tensor cos;
  at::Tensor sin;
};

/// `positions` int64 [rows].
Angles rope_angles(const RopeTable& rope, const at::Tensor& positions);

/// x [rows, heads, head_dim], pairs (j, j + head_dim / 2).
at::Tensor rotate(const at::Tensor& x, const Angles& angles);

/// Keys and values of a set of rows.
struct KeyValue {
  at::Tensor key;    // [rows, kv_heads, head_dim], rotated
  at::Tensor value;  // the same shape
};

/// The tensor of a name; not defined when the drafter has no such tensor.
at::Tensor find_param(const TensorMap& params, const std::string& name);

/// The parts of layer `index`, everything but who sees whom. requires: the arguments outlive it.
class LayerParts {
 public:
  LayerParts(const DraftConfig& config, const TensorMap& params, int32_t index, Precision precision);

  /// A tensor of the layer ("input_layernorm.weight"); not defined when there is none.
  at::Tensor param(const char* name) const { return find_param(params_, prefix_ + name); }
  /// `x` through the norm of that name.
  at::Tensor norm(const at::Tensor& x, const char* name) const;
  /// Rotated queries [rows, heads, head_dim] of x [rows, in].
  at::Tensor query(const at::Tensor& x, const Angles& angles) const;
  KeyValue key_value(const at::Tensor& x, const Angles& angles) const;
  /// The stream [rows, dim] behind the layer, from the one before it and attended [rows, heads * head_dim].
  at::Tensor finish(const at::Tensor& stream, const at::Tensor& attended) const;
  /// `x` in the type of the products.
  at::Tensor operand(const at::Tensor& x) const;

 private:
  at::Tensor project(const at::Tensor& x, const char* weight, const char* bias) const;
  at::Tensor mlp(const at::Tensor& x) const;

  const DraftConfig& config_;
  const TensorMap& params_;
  std::string prefix_;
  Precision precision_;
};

}  // namespace dspark
