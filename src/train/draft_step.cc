#include "train/draft_step.h"

#include "train/backbone.h"
#include "train/heads.h"

namespace dspark {
namespace {

using at::Tensor;

constexpr double kWeightEpsilon = 1e-6;  // added to the sum of the weights

/// Means over slots and blocks. acceptance fp32 [n].
void add_acceptance(const DraftConfig& config, const StepBatch& batch, const Tensor& acceptance,
                    StepMetrics& metrics) {
  const int64_t n_blocks = batch.n_blocks();
  const int64_t block = config.block_size;
  const Tensor grid = at::zeros({n_blocks * block}, acceptance.options())
                          .index_copy_(0, batch.slots, acceptance)
                          .view({n_blocks, block});
  const Tensor valid = at::arange(block, batch.n_valid.options()).unsqueeze(0) < batch.n_valid.unsqueeze(1);
  const Tensor counts = valid.sum(0).cpu();
  const Tensor sums = grid.sum(0).to(at::kDouble).cpu();
  for (int64_t slot = 0; slot < block; ++slot) {
    metrics.accept_count.push_back(counts[slot].item<double>());
    metrics.accept_rate.push_back(sums[slot].item<double>() / std::max(1.0, metrics.accept_count.back()));
  }
  const Tensor used = batch.n_valid > 0;
  const Tensor lengths = (grid.cumprod(1).sum(1) + 1) * used;
  metrics.n_lengths = used.sum().item<int64_t>();
  metrics.tau = lengths.sum().item<double>() / static_cast<double>(std::max<int64_t>(1, metrics.n_lengths));
}

/// The confidence term, with its graph.
Tensor confidence_loss(const Tensor& logits, const Tensor& acceptance, const Tensor& weights,
                       StepMetrics& metrics) {
  const Tensor loss = (weights * at::binary_cross_entropy_with_logits(logits, acceptance, {}, {}, 0)).sum();
  const Tensor error = at::sigmoid(logits.detach()) - acceptance;
  metrics.confidence = loss.item<double>();
  metrics.confidence_bias = (weights * error).sum().item<double>();
  metrics.confidence_abs_error = (weights * error.abs()).sum().item<double>();
  return loss;
}

/// Weights of the slots with a label; those of the whole step sum to one.
Tensor slot_weights(const DraftConfig& config, const StepBatch& batch, const LossWeights& weights,
                    const GlobalSum& global_sum) {
  const Tensor slot = at::remainder(batch.slots, int64_t{config.block_size}).to(at::kFloat);
  const Tensor w = at::exp(slot / -weights.decay);
  double total = w.sum().item<double>();
  if (global_sum) total = global_sum(total);
  return w / (total + kWeightEpsilon);
}

}  // namespace

StepMetrics train_step(const DraftConfig& config, const TensorMap& params, const FrozenTarget& target,
                       const StepBatch& batch, const Tensor& log_sum, const LossWeights& weights,
                       double scale, Precision precision, const GlobalSum& global_sum) {
  StepMetrics metrics;
  metrics.n_blocks = batch.n_blocks();
  metrics.n_slots = batch.slots.size(0);
  const Tensor w = slot_weights(config, batch, weights, global_sum);
  if (metrics.n_slots == 0) {
    metrics.accept_rate.assign(static_cast<size_t>(config.block_size), 0.0);
    metrics.accept_count = metrics.accept_rate;
    return metrics;
  }
  const bool learn = scale != 0.0;
  const at::AutoGradMode grad_mode(learn);
  const Tensor hidden = backbone_forward(config, params, target.embedding, batch, precision);
  const HeadRows rows = heads_forward(config, params, hidden, batch);

  VocabInput input;
  input.hidden = rows.hidden.detach();
  if (rows.latent.defined()) {
    input.latent = rows.latent.detach();
    input.bias_weight = params.find("markov_head.markov_w2.weight")->second.detach();
  }
  const Tensor labels = batch.labels.flatten().index_select(0, batch.slots);
  input.labels = target.target_to_draft.defined() ? target.target_to_draft.index_select(0, labels) : labels;
  input.target = target_distribution(target.head, batch.target_hidden, log_sum);
  input.target_rows = batch.target_rows;
  input.weights = w;
  const VocabOutput out = vocab_loss(target.head, input, weights, precision);

  // The chunks above hold the gradients of the wide part; this sum carries them into the graph.
  Tensor carrier = (rows.hidden * out.hidden_grad).sum();
  if (rows.latent.defined()) {
    carrier = carrier + (rows.latent * out.latent_grad).sum();
  }
  if (rows.latent.defined() && learn) {
    const Tensor& bias_weight = params.find("markov_head.markov_w2.weight")->second;
    const Tensor bias_grad = out.bias_weight_grad * scale;
    if (bias_weight.grad().defined()) {
      bias_weight.mutable_grad().add_(bias_grad);
    } else {
      bias_weight.mutable_grad() = bias_grad;
    }
  }
  metrics.ce = out.ce;
  metrics.soft_ce = out.soft_ce;
  metrics.l1 = out.l1;
  if (rows.confidence.defined() && weights.confidence != 0) {
    carrier = carrier + weights.confidence * confidence_loss(rows.confidence, out.acceptance, w, metrics);
  }
  if (learn) (carrier * scale).backward();
  metrics.loss = weights.ce * out.ce + weights.soft_ce * out.soft_ce + weights.l1 * out.l1 +
                 (rows.confidence.defined() ? weights.confidence * metrics.confidence : 0.0);
  add_acceptance(config, batch, out.acceptance, metrics);
  return metrics;
}

}  // namespace dspark
