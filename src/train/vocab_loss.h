#pragma once
// Private to the room: everything between hidden rows and the loss that is as wide as the draft vocabulary,
// in chunks of rows and with gradients in closed form, so that memory does not grow with the step.

#include "train/head_product.h"
#include "train/tensors.h"

namespace dspark {

/// Factors of the terms of the loss.
struct LossWeights {
  double ce = 0.1;       // cross-entropy with the label
  double soft_ce = 0.0;  // cross-entropy with the target's distribution
  double l1 = 0.9;       // sum of |p_draft - p_target|
  double confidence = 1.0;
  double decay = 4.0;  // slot j weighs exp(-j / decay)
};

/// The target's head over the draft vocabulary and, for a reduced one, over everything.
struct TargetHead {
  HeadProduct draft;   // [draft_vocab, dim]
  HeadProduct full;    // [vocab, dim]; only used when the vocabulary is reduced
  double softcap = 0;  // of both; 0: none
  bool reduced = false;
};

/// log-sum-exp of the target's logits over its whole vocabulary, fp32 [P].
at::Tensor target_log_sum(const TargetHead& head, const at::Tensor& target_hidden);

/// The target's distribution on the draft vocabulary, fp32 [P, draft_vocab]. `log_sum` as above; rows of a
/// reduced vocabulary sum to less than one.
at::Tensor target_distribution(const TargetHead& head, const at::Tensor& target_hidden,
                               const at::Tensor& log_sum);

/// The rows of a step, all on one device. n slots with a label, r rank of the sequential head.
struct VocabInput {
  at::Tensor hidden;       // fp32 [n, dim], no gradient
  at::Tensor latent;       // fp32 [n, r], no gradient; may be undefined
  at::Tensor bias_weight;  // markov_w2, fp32 [draft_vocab, r]; undefined with latent
  at::Tensor labels;       // int64 [n], draft rows; -1 outside the draft vocabulary
  at::Tensor target;       // fp32 [P, draft_vocab] from target_distribution
  at::Tensor target_rows;  // int64 [n]
  at::Tensor weights;      // fp32 [n], already divided by the sum of all weights of the step
};

struct VocabOutput {
  double ce = 0;  // weighted means
  double soft_ce = 0;
  double l1 = 0;
  at::Tensor acceptance;        // fp32 [n]: 1 - L1 / 2 = probability that the draft is accepted
  at::Tensor hidden_grad;       // fp32 [n, dim]
  at::Tensor latent_grad;       // fp32 [n, r]
  at::Tensor bias_weight_grad;  // fp32 [draft_vocab, r]
};

VocabOutput vocab_loss(const TargetHead& head, const VocabInput& input, const LossWeights& weights,
                       Precision precision);

/// Draft logits of the given rows after soft cap and bias, fp32 [n, draft_vocab] (tests).
at::Tensor draft_logits(const TargetHead& head, const VocabInput& input, Precision precision);

}  // namespace dspark
