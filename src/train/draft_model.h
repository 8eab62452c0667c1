#pragma once
// Private to the room: the parameters of a drafter in training and the frozen tensors of its target.

#include <string>
#include <vector>

#include "base/status.h"
#include "draft/draft_checkpoint.h"
#include "draft/draft_config.h"
#include "train/draft_step.h"
#include "train/tensors.h"

namespace dspark {

/// Whether a kind pairs hidden rows with tokens (Eagle3, MTP) instead of predicting blocks.
inline bool is_paired(DraftKind kind) {
  return kind == DraftKind::kEagle3 || kind == DraftKind::kMtp;
}

/// A drafter in training.
struct DraftModel {
  DraftConfig config;
  TensorMap trainable;  // fp32 masters that require gradients
  TensorMap buffers;    // Gemma 4's layer scalars
  /// Both, sharing storage.
  TensorMap all() const;
};

/// Decodes a stored tensor to fp32 on the CPU. errors: unsupported element type, naming the tensor.
Result<at::Tensor> decode_tensor(const TensorView& view);

/// Takes over every tensor but the copies of embedding and head.
Result<DraftModel> draft_model_from(const DraftCheckpoint& checkpoint);

/// Names and shapes of the trainable tensors of a configuration.
std::vector<std::pair<std::string, std::vector<int64_t>>> trainable_shapes(const DraftConfig& config);

/// Frozen parts from an embedding and a head, fp32 [vocab, dim] each, cut to config.d2t.
FrozenTarget frozen_target(const DraftConfig& config, const at::Tensor& embedding, const at::Tensor& head,
                           Precision precision, const at::Device& device);

void move_to(DraftModel& model, const at::Device& device);

}  // namespace dspark
