#pragma once
// Private to the room: how far the optimiser moves a weight in a step, against the learning rate. Adam moves
// all by about the same amount; what that means depends on how large the weight and its input are.

#include "base/status.h"
#include "train/sample_source.h"
#include "train/tensors.h"

namespace dspark {

/// Mean absolute feature of every column of `fc` over the mean of all columns, as a power of two; fp32 [taps
/// * dim]. A target's streams grow from layer to layer and a few of their columns are a hundred times larger
/// than the others (SmolLM2: means of the taps 1 to 15; Qwen2.5: 0.2 to 1.8, columns of 75). Steps of one
/// size then turn mostly what these say. errors: those of reading samples.
Result<at::Tensor> feature_scale(SampleSource& source);

/// For AdamW::scale: columns of `fc` by their features, matrices of layers by their own size against that of
/// SmolLM2's (0.2), norms by theirs against 1. Weights copied from a target of small weights (Qwen2.5: 0.02)
/// are lost within a hundred steps that a new sequential head can hardly do with.
Result<TensorMap> step_scales(const TensorMap& params, SampleSource& source);

}  // namespace dspark
