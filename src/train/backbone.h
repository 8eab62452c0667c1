#pragma once
// Private to the room: the parallel part of the drafter in training form, all blocks of a step in one pass.

#include "draft/draft_config.h"
#include "train/layer.h"
#include "train/step_batch.h"
#include "train/tensors.h"

namespace dspark {

/// Hidden rows of every slot after the final norm, fp32 [A, B, dim], as a function of the parameters that the
/// gradients flow to. `embedding` is the target's, fp32 [vocab, dim], without scale.
///
/// A slot of block b sees the context rows of its sequence before the anchor (the last `window` of them when
/// the configuration has one) and the rows of its own block; positions are absolute.
at::Tensor backbone_forward(const DraftConfig& config, const TensorMap& params, const at::Tensor& embedding,
                            const StepBatch& batch, Precision precision);

}  // namespace dspark
