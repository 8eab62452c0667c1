#pragma once
// Private to the room: the parallel part of the drafter in training form, all blocks of a step in one pass.

#include "draft/draft_config.h"
#include "train/step_batch.h"
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

/// positions int64 [rows].
Angles rope_angles(const RopeTable& rope, const at::Tensor& positions);

/// x [rows, heads, head_dim], pairs (j, j + head_dim / 2).
at::Tensor rotate(const at::Tensor& x, const Angles& angles);

/// Hidden rows of every slot after the final norm, fp32 [A, B, dim], as a function of the parameters that the
/// gradients flow to. `embedding` is the target's, fp32 [vocab, dim], without scale.
///
/// A slot of block b sees the context rows of its sequence before the anchor (the last `window` of them when
/// the configuration has one) and the rows of its own block; positions are absolute.
at::Tensor backbone_forward(const DraftConfig& config, const TensorMap& params, const at::Tensor& embedding,
                            const StepBatch& batch, Precision precision);

}  // namespace dspark
