#pragma once
// Private to the room: the small heads behind the backbone, teacher forced.

#include "draft/draft_config.h"
#include "train/step_batch.h"
#include "train/tensors.h"

namespace dspark {

/// What the heads add to the backbone for the slots with a label.
struct HeadRows {
  at::Tensor hidden;      // fp32 [n, dim]
  at::Tensor latent;      // fp32 [n, rank]: markov_w2 turns it into the bias; not defined without a head
  at::Tensor confidence;  // fp32 [n], before the sigmoid; not defined without a confidence head
};

/// `hidden` [A, B, dim] from backbone_forward.
HeadRows heads_forward(const DraftConfig& config, const TensorMap& params, const at::Tensor& hidden,
                       const StepBatch& batch);

}  // namespace dspark
