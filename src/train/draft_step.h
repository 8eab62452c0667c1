#pragma once
// Private to the room: one forward and backward pass over a step's blocks.

#include <functional>
#include <vector>

#include "draft/draft_config.h"
#include "train/step_batch.h"
#include "train/tensors.h"
#include "train/vocab_loss.h"

namespace dspark {

/// The frozen parts of the target.
struct FrozenTarget {
  at::Tensor embedding;  // fp32 [vocab, dim], without the configuration's scale
  TargetHead head;
  at::Tensor target_to_draft;  // int64 [vocab]: draft row of a target id, -1 outside; undefined: the same
};

/// What is logged about a step. Everything is a weighted mean over the step unless it says otherwise.
struct StepMetrics {
  double loss = 0;
  double ce = 0;
  double soft_ce = 0;
  double l1 = 0;
  double confidence = 0;
  double tau = 0;                    // 1 + expected accepted drafts of a block at temperature 1
  std::vector<double> accept_rate;   // per slot, mean over the blocks with a label there; 0 without any
  std::vector<double> step_loss;     // Eagle3, MTP: loss of every step of the unroll, before its decay
  std::vector<double> accept_count;  // per slot, what accept_rate is a mean over
  int64_t n_lengths = 0;             // what tau is a mean over
  double confidence_abs_error = 0;
  double confidence_bias = 0;
  int64_t n_blocks = 0;
  int64_t n_slots = 0;  // with a label
};

/// The sum of a number over all processes of a run. Not set: there is one.
using GlobalSum = std::function<double(double)>;

/// Computes the loss of the batch and adds its gradients, times `scale`, to the `grad` of every parameter.
/// `log_sum`: target_log_sum of the batch's target rows. `scale` 0: the loss only.
/// With several processes the weights are those of the step of all; what is returned and the gradients are
/// this process's share of the sums.
StepMetrics train_step(const DraftConfig& config, const TensorMap& params, const FrozenTarget& target,
                       const StepBatch& batch, const at::Tensor& log_sum, const LossWeights& weights,
                       double scale, Precision precision, const GlobalSum& global_sum = {});

}  // namespace dspark
