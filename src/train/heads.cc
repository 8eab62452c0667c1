#include "train/heads.h"

#include "train/backbone.h"

namespace dspark {
namespace {

using at::Tensor;

const Tensor& param(const TensorMap& params, const char* name) {
  return params.find(name)->second;
}

/// Unrolls the recurrent head over the slots of every block. embedded [A, B, r], hidden [A, B, dim].
Tensor rnn_latents(const TensorMap& params, const Tensor& embedded, const Tensor& hidden) {
  const Tensor& weight = param(params, "markov_head.joint_proj.weight");
  const Tensor& bias = param(params, "markov_head.joint_proj.bias");
  Tensor state = at::zeros({embedded.size(0), embedded.size(2)}, embedded.options());
  std::vector<Tensor> latents;
  for (int64_t slot = 0; slot < embedded.size(1); ++slot) {
    const Tensor input = at::cat({state, embedded.select(1, slot), hidden.select(1, slot)}, -1);
    const auto parts = (at::linear(input, weight) + bias).chunk(3, -1);
    const Tensor gate = at::sigmoid(parts[0]);
    state = gate * state + (1 - gate) * at::tanh(parts[1]);
    latents.push_back(at::tanh(parts[2]));
  }
  return at::stack(latents, 1);
}

Tensor latent_rows(const DraftConfig& config, const TensorMap& params, const Tensor& embedded,
                   const Tensor& hidden) {
  switch (config.head) {
    case SequentialHead::kGated: {
      const Tensor input = at::cat({hidden, embedded}, -1);
      const Tensor gate = at::linear(input, param(params, "markov_head.gate_proj.weight"),
                                     param(params, "markov_head.gate_proj.bias"));
      return at::sigmoid(gate) * embedded;
    }
    case SequentialHead::kRnn:
      return rnn_latents(params, embedded, hidden);
    default:
      return embedded;
  }
}

}  // namespace

HeadRows heads_forward(const DraftConfig& config, const TensorMap& params, const Tensor& hidden,
                       const StepBatch& batch) {
  const int64_t rows = hidden.size(0) * hidden.size(1);
  const auto with_label = [&](const Tensor& x) { return x.reshape({rows, -1}).index_select(0, batch.slots); };
  HeadRows out;
  out.hidden = with_label(hidden);
  Tensor embedded;
  if (config.head != SequentialHead::kNone) {
    embedded = at::embedding(param(params, "markov_head.markov_w1.weight"), batch.previous_tokens);
    out.latent = with_label(latent_rows(config, params, embedded, hidden));
  }
  if (config.confidence) {
    Tensor input = out.hidden;
    if (config.confidence_with_markov) input = at::cat({out.hidden, with_label(embedded)}, -1);
    out.confidence = at::linear(input, param(params, "confidence_head.proj.weight"),
                                param(params, "confidence_head.proj.bias"))
                         .squeeze(-1);
  }
  return out;
}

}  // namespace dspark
