#pragma once
// Private to the room: one forward and backward pass of an Eagle3 or MTP drafter over a step's rows.

#include <vector>

#include "train/draft_step.h"
#include "train/paired_batch.h"

namespace dspark {

/// Outputs of the layer before the final norm, fp32 [n, dim] of the active rows at every step of the unroll,
/// as a function of the parameters. `embedding` as of backbone_forward.
///
/// Step 0 is a causal layer over all rows. At step k > 0 an active row goes on from its own output of step
/// k - 1 at position i + k; it sees the rows of step 0 up to i and its own keys of later steps.
std::vector<at::Tensor> paired_forward(const DraftConfig& config, const TensorMap& params,
                                       const at::Tensor& embedding, const PairedBatch& batch,
                                       Precision precision);

/// Computes the loss of the batch and adds its gradients, times `scale`, to the `grad` of every parameter.
/// Loss of step k: sum of the soft cross-entropy over its rows / n_padded; of the batch: sum of 0.8^k times
/// that. `log_sum`: target_log_sum of the batch's target rows. `scale` 0: the loss only.
/// With several processes batch.n_padded counts the samples of all; what is returned and the gradients are
/// this process's share of the sums. In the metrics "slot" is a step, "block" a row with a weight at step 0.
StepMetrics train_paired_step(const DraftConfig& config, const TensorMap& params, const FrozenTarget& target,
                              const PairedBatch& batch, const at::Tensor& log_sum, double scale,
                              Precision precision, const GlobalSum& global_sum = {});

}  // namespace dspark
