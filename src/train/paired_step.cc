#include "train/paired_step.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "train/layer.h"

namespace dspark {
namespace {

using at::Tensor;

constexpr double kStepDecay = 0.8;  // weight of a step of the unroll against the one before
constexpr float kHidden = -std::numeric_limits<float>::infinity();

/// What goes into the layer.
struct Inputs {
  Tensor x;       // [rows, columns of the projections]
  Tensor stream;  // fp32 [rows, dim], the residual stream
};

class Unroll {
 public:
  Unroll(const DraftConfig& config, const TensorMap& params, const Tensor& embedding,
         const PairedBatch& batch, Precision precision)
      : config_(config),
        params_(params),
        embedding_(embedding),
        batch_(batch),
        precision_(precision),
        layer_(config, params, 0, precision) {
    active_positions_ = batch.positions.index_select(0, batch.active);
    for (size_t s = 0; s + 1 < batch.row_begin.size(); ++s) masks_.push_back(mask_of(s));
  }

  std::vector<Tensor> run() {
    const Tensor carried = config_.kind == DraftKind::kEagle3
                               ? linear(batch_.carried, param("fc.weight"), {}, precision_).to(at::kFloat)
                               : batch_.carried.to(at::kFloat);
    const Inputs all = inputs(batch_.tokens, carried);
    first_ = layer_.key_value(all.x, rope_angles(config_.rope, batch_.positions));
    std::vector<Tensor> outputs;
    Inputs now = {all.x.index_select(0, batch_.active), all.stream.index_select(0, batch_.active)};
    for (size_t k = 0; k < batch_.steps.size(); ++k) {
      const Angles angles = rope_angles(config_.rope, active_positions_ + static_cast<int64_t>(k));
      if (k > 0) {
        now = inputs(batch_.steps[k].tokens, outputs.back());
        later_.push_back(layer_.key_value(now.x, angles));
      }
      outputs.push_back(layer_.finish(now.stream, attend(layer_.query(now.x, angles))));
    }
    return outputs;
  }

 private:
  Tensor param(const char* name) const { return find_param(params_, name); }

  /// As PairedDrafter::make_inputs.
  Inputs inputs(const Tensor& tokens, const Tensor& carried) const {
    Tensor e = embedding_.index_select(0, tokens);
    if (config_.embedding_scale != 1.0f) e = e * config_.embedding_scale;
    if (config_.kind == DraftKind::kEagle3) {
      const Tensor own = layer_.norm(e, "input_layernorm.weight");
      return {at::cat({own, layer_.norm(carried, "hidden_norm.weight")}, -1), carried};
    }
    const Tensor own = rms_norm(e, param("enorm.weight"), config_.norm_eps);
    const Tensor pair = at::cat({own, rms_norm(carried, param("hnorm.weight"), config_.norm_eps)}, -1);
    const Tensor stream = linear(pair, param("eh_proj.weight"), {}, precision_).to(at::kFloat);
    return {layer_.norm(stream, "input_layernorm.weight"), stream};
  }

  /// Additive mask of one sequence's active rows over its rows, fp32 [n_s, C_s].
  Tensor mask_of(size_t s) const {
    const Tensor keys = batch_.positions.slice(0, batch_.row_begin[s], batch_.row_begin[s + 1]);
    const Tensor rows = active_positions_.slice(0, batch_.active_begin[s], batch_.active_begin[s + 1]);
    const Tensor hidden = keys.unsqueeze(0) > rows.unsqueeze(1);
    return at::zeros(hidden.sizes(), hidden.options().dtype(at::kFloat)).masked_fill_(hidden, kHidden);
  }

  /// q [n, heads, hd]; returns [n, heads * hd].
  Tensor attend(const Tensor& q) const {
    std::vector<Tensor> parts;
    for (size_t s = 0; s + 1 < batch_.active_begin.size(); ++s) {
      if (batch_.active_begin[s] < batch_.active_begin[s + 1]) parts.push_back(attend_sequence(s, q));
    }
    return at::cat(parts, 0);
  }

  /// The rows' own keys or values of later steps, side by side: [kv, n_s, hd, steps].
  Tensor own_rows(size_t s, Tensor KeyValue::*member) const {
    std::vector<Tensor> parts;
    for (const KeyValue& step : later_) {
      const Tensor rows = (step.*member).slice(0, batch_.active_begin[s], batch_.active_begin[s + 1]);
      parts.push_back(layer_.operand(rows).permute({1, 0, 2}));
    }
    return at::stack(parts, -1);
  }

  Tensor attend_sequence(size_t s, const Tensor& q) const {
    const int64_t head_dim = config_.head_dim;
    const int64_t kv_heads = config_.n_kv_heads;
    const int64_t group = config_.n_heads / kv_heads;
    const int64_t n = batch_.active_begin[s + 1] - batch_.active_begin[s];
    const int64_t n_keys = batch_.row_begin[s + 1] - batch_.row_begin[s];
    const auto first_of = [&](const Tensor& x) {  // [kv, C, hd]
      return layer_.operand(x.slice(0, batch_.row_begin[s], batch_.row_begin[s + 1])).permute({1, 0, 2});
    };
    // [kv, n, group, hd]: a row's heads of one group side by side.
    const Tensor queries = layer_.operand(q.slice(0, batch_.active_begin[s], batch_.active_begin[s + 1]))
                               .view({n, kv_heads, group, head_dim})
                               .permute({1, 0, 2, 3});
    Tensor scores =
        at::bmm(queries.reshape({kv_heads, n * group, head_dim}), first_of(first_.key).transpose(1, 2))
                .view({kv_heads, n, group, n_keys})
                .to(at::kFloat) *
            double{config_.attention_scale} +
        masks_[s].unsqueeze(1);
    if (!later_.empty()) {
      const Tensor own = at::matmul(queries, own_rows(s, &KeyValue::key)).to(at::kFloat);
      scores = at::cat({scores, own * double{config_.attention_scale}}, -1);
    }
    const Tensor weights = layer_.operand(at::softmax(scores, -1));
    Tensor out =
        at::bmm(weights.slice(-1, 0, n_keys).reshape({kv_heads, n * group, n_keys}), first_of(first_.value))
            .view({kv_heads, n, group, head_dim});
    if (!later_.empty()) {
      const Tensor own = own_rows(s, &KeyValue::value).transpose(2, 3);
      out = out + at::matmul(weights.slice(-1, n_keys), own);
    }
    return out.permute({1, 0, 2, 3}).reshape({n, kv_heads * group * head_dim});
  }

  const DraftConfig& config_;
  const TensorMap& params_;
  const Tensor& embedding_;
  const PairedBatch& batch_;
  Precision precision_;
  LayerParts layer_;
  Tensor active_positions_;
  std::vector<Tensor> masks_;
  KeyValue first_;               // of all rows
  std::vector<KeyValue> later_;  // of the active rows, steps 1 ..
};

/// Of a row at step k, in the loss of the batch.
double row_weight(const PairedBatch& batch, size_t k) {
  return std::pow(kStepDecay, static_cast<double>(k)) / static_cast<double>(batch.n_padded);
}

double sum_of_weights(const PairedBatch& batch, const GlobalSum& global_sum) {
  double sum = 0;
  for (size_t k = 0; k < batch.steps.size(); ++k) {
    sum += row_weight(batch, k) * static_cast<double>(batch.steps[k].rows.size(0));
  }
  return global_sum ? global_sum(sum) : sum;
}

/// Rows of one step, all of the same weight. `hidden`: behind the final norm, [m, dim].
VocabInput vocab_input(const FrozenTarget& target, const PairedStep& step, const Tensor& hidden,
                       const Tensor& distribution, double weight) {
  VocabInput input;
  input.hidden = hidden.detach();
  input.labels = step.labels;
  if (target.target_to_draft.defined()) {
    const Tensor rows = target.target_to_draft.index_select(0, step.labels.clamp_min(0));
    input.labels = at::where(step.labels < 0, step.labels, rows);
  }
  input.target = distribution;
  input.target_rows = step.target_rows;
  input.weights = at::full({hidden.size(0)}, weight, input.hidden.options());
  return input;
}

/// Mean acceptance per step, and the expected accepted drafts of a row.
/// `acceptance`: fp32 [n] per step, 0 where a row has no weight.
void add_acceptance(const PairedBatch& batch, const std::vector<Tensor>& acceptance, StepMetrics& metrics) {
  for (size_t k = 0; k < acceptance.size(); ++k) {
    const auto n = static_cast<double>(std::max<int64_t>(1, batch.steps[k].rows.size(0)));
    metrics.accept_rate.push_back(acceptance[k].sum().item<double>() / n);
    metrics.accept_count.push_back(static_cast<double>(batch.steps[k].rows.size(0)));
  }
  metrics.n_lengths = metrics.n_blocks;
  const Tensor lengths = at::stack(acceptance, 0).cumprod(0).sum(0).index_select(0, batch.steps[0].rows);
  if (metrics.n_blocks > 0) metrics.tau = 1.0 + lengths.mean().item<double>();
}

}  // namespace

std::vector<Tensor> paired_forward(const DraftConfig& config, const TensorMap& params,
                                   const Tensor& embedding, const PairedBatch& batch, Precision precision) {
  return Unroll(config, params, embedding, batch, precision).run();
}

StepMetrics train_paired_step(const DraftConfig& config, const TensorMap& params, const FrozenTarget& target,
                              const PairedBatch& batch, const Tensor& log_sum, double scale,
                              Precision precision, const GlobalSum& global_sum) {
  StepMetrics metrics;
  metrics.n_blocks = batch.steps[0].rows.size(0);
  const double weight_sum = sum_of_weights(batch, global_sum);
  if (batch.active.size(0) == 0) {
    metrics.accept_rate.assign(batch.steps.size(), 0.0);
    metrics.accept_count = metrics.step_loss = metrics.accept_rate;
    return metrics;
  }
  const at::AutoGradMode grad_mode(scale != 0.0);
  const std::vector<Tensor> outputs = paired_forward(config, params, target.embedding, batch, precision);
  const Tensor distribution = target_distribution(target.head, batch.target_hidden, log_sum);
  const LossWeights soft_only = {0, 1, 0, 0, 1};
  std::vector<Tensor> acceptance;
  Tensor carrier = at::zeros({}, outputs[0].options());
  for (size_t k = 0; k < outputs.size(); ++k) {
    const PairedStep& step = batch.steps[k];
    acceptance.push_back(at::zeros({outputs[k].size(0)}, outputs[k].options()).detach());
    const int64_t n_rows = step.rows.size(0);
    metrics.n_slots += n_rows;
    metrics.step_loss.push_back(0);
    if (n_rows == 0) continue;
    const Tensor hidden =
        rms_norm(outputs[k].index_select(0, step.rows), find_param(params, "norm.weight"), config.norm_eps);
    const double decay = std::pow(kStepDecay, static_cast<double>(k));
    const double weight = row_weight(batch, k);
    const VocabInput input = vocab_input(target, step, hidden, distribution, weight);
    const VocabOutput out = vocab_loss(target.head, input, soft_only, precision);
    carrier = carrier + (hidden * out.hidden_grad).sum();
    acceptance.back().index_copy_(0, step.rows, out.acceptance);
    metrics.step_loss.back() = out.soft_ce / decay;
    metrics.loss += out.soft_ce;
    metrics.soft_ce += out.soft_ce;
    metrics.ce += out.ce;
    metrics.l1 += out.l1;
  }
  if (scale != 0.0) (carrier * scale).backward();
  for (double* mean : {&metrics.ce, &metrics.soft_ce, &metrics.l1}) *mean /= weight_sum;
  add_acceptance(batch, acceptance, metrics);
  return metrics;
}

}  // namespace dspark
