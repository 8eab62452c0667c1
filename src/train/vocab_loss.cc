#include "train/vocab_loss.h"

#include <algorithm>

namespace dspark {
namespace {

using at::Tensor;

// On a CPU a chunk of logits should stay in the cache through the dozen passes over it.
constexpr int64_t kCpuChunkElements = 1 << 21;
constexpr int64_t kDeviceChunkElements = 1 << 28;

int64_t chunk_rows(const Tensor& x, int64_t width) {
  const int64_t elements = x.device().is_cpu() ? kCpuChunkElements : kDeviceChunkElements;
  return std::max<int64_t>(32, elements / width);
}

void softcap_(Tensor& logits, double cap) {
  if (cap > 0) logits.div_(cap).tanh_().mul_(cap);
}

Tensor logits_of(const HeadProduct& product, const Tensor& hidden, double softcap) {
  Tensor logits = at::empty({hidden.size(0), product.rows()}, hidden.options().dtype(at::kFloat));
  product.forward(hidden.to(at::kFloat), logits, false);
  softcap_(logits, softcap);
  return logits;
}

/// log-sum-exp of rows whose softmax is known: cheaper than another pass of exponentials.
Tensor log_sum_of(const Tensor& logits, const Tensor& softmax) {
  return logits.amax(-1, true) - softmax.amax(-1, true).log_();
}

/// The loss of one step, chunk by chunk.
class VocabLoss {
 public:
  VocabLoss(const TargetHead& head, const VocabInput& input, const LossWeights& weights, Precision precision)
      : head_(head), input_(input), factors_(weights), precision_(precision) {
    if (input.latent.defined()) bias_ = HeadProduct(input.bias_weight, precision, true);
    out_.acceptance = at::empty_like(input.weights);
    out_.hidden_grad = at::empty_like(input.hidden);
    if (!input.latent.defined()) return;
    out_.latent_grad = at::empty_like(input.latent);
    out_.bias_weight_grad = at::zeros_like(input.bias_weight);
  }

  VocabOutput run() {
    const int64_t n = input_.hidden.size(0);
    const int64_t step = chunk_rows(input_.hidden, head_.draft.rows());
    sums_ = at::zeros({3}, input_.hidden.options().dtype(at::kDouble));
    for (int64_t begin = 0; begin < n; begin += step) run_chunk(begin, std::min(n, begin + step));
    const Tensor sums = sums_.cpu();
    out_.ce = sums[0].item<double>();
    out_.soft_ce = sums[1].item<double>();
    out_.l1 = sums[2].item<double>();
    return std::move(out_);
  }

  /// Logits of a chunk; `base` gets those before the bias when there is a soft cap.
  Tensor logits(int64_t begin, int64_t end, Tensor* base) const {
    Tensor z = logits_of(head_.draft, input_.hidden.slice(0, begin, end), head_.softcap);
    if (head_.softcap > 0 && base != nullptr) *base = z.clone();
    if (input_.latent.defined()) bias_.forward(input_.latent.slice(0, begin, end), z, true);
    return z;
  }

 private:
  void run_chunk(int64_t begin, int64_t end) {
    Tensor base;
    const Tensor z = logits(begin, end, &base);
    const Tensor q = input_.target.index_select(0, input_.target_rows.slice(0, begin, end));
    const Tensor labels = input_.labels.slice(0, begin, end).unsqueeze(1);
    const Tensor w = input_.weights.slice(0, begin, end).unsqueeze(1);
    const Tensor has_label = (labels >= 0).to(at::kFloat);
    const Tensor label = labels.clamp_min(0);

    Tensor p = at::softmax(z, -1);
    const Tensor log_total = log_sum_of(z, p);
    const Tensor mass = q.sum(-1, true);  // of the target on the draft vocabulary
    Tensor sign = (p - q).sign_();
    const Tensor p_sign = (p * sign).sum(-1, true);
    const Tensor l1 = p_sign - (q * sign).sum(-1, true) + (1 - mass);
    out_.acceptance.slice(0, begin, end).copy_((1 - 0.5 * l1).clamp_(0, 1).squeeze(1));

    const Tensor ce = (log_total - z.gather(1, label)) * has_label;
    const Tensor soft = mass * log_total - (q * z).sum(-1, true);
    sums_ += at::stack({(w * ce).sum(), (w * soft).sum(), (w * l1).sum()}).to(at::kDouble);

    // d loss / d z = w (l1 p (sign - p_sign) + soft (mass p - q) + ce (p - onehot)), in place.
    Tensor grad = sign.sub_(p_sign).mul_(factors_.l1);
    grad.add_(mass * factors_.soft_ce + has_label * factors_.ce).mul_(p);
    if (factors_.soft_ce != 0) grad.sub_(q, factors_.soft_ce);
    if (factors_.ce != 0) grad.scatter_add_(1, label, has_label * -factors_.ce);
    grad.mul_(w);
    add_gradients(begin, end, grad, base);
  }

  void add_gradients(int64_t begin, int64_t end, Tensor& grad, const Tensor& base) {
    if (input_.latent.defined()) {
      const Tensor latent = input_.latent.slice(0, begin, end);
      out_.latent_grad.slice(0, begin, end).copy_(bias_.backward(grad));
      const at::ScalarType type = precision_ == Precision::kFloat32 ? at::kFloat : at::kBFloat16;
      out_.bias_weight_grad.add_(at::matmul(grad.to(type).t(), latent.to(type)));
    }
    // The soft cap's derivative is 1 - (u / cap)^2; the bias does not pass it.
    if (base.defined()) grad.mul_(1 - (base / head_.softcap).square_());
    out_.hidden_grad.slice(0, begin, end).copy_(head_.draft.backward(grad));
  }

  const TargetHead& head_;
  const VocabInput& input_;
  LossWeights factors_;
  Precision precision_;
  HeadProduct bias_;
  Tensor sums_;
  VocabOutput out_;
};

}  // namespace

Tensor target_log_sum(const TargetHead& head, const Tensor& target_hidden) {
  const HeadProduct& product = head.reduced ? head.full : head.draft;
  const int64_t step = chunk_rows(target_hidden, product.rows());
  std::vector<Tensor> parts;
  for (int64_t begin = 0; begin < target_hidden.size(0); begin += step) {
    Tensor logits = logits_of(product, target_hidden.slice(0, begin, begin + step), head.softcap);
    const Tensor top = logits.amax(-1, true);
    parts.push_back((logits.sub_(top).exp_().sum(-1, true).log_() + top).squeeze(1));
  }
  return parts.empty() ? at::empty({0}, target_hidden.options().dtype(at::kFloat)) : at::cat(parts, 0);
}

Tensor target_distribution(const TargetHead& head, const Tensor& target_hidden, const Tensor& log_sum) {
  const int64_t step = chunk_rows(target_hidden, head.draft.rows());
  Tensor out =
      at::empty({target_hidden.size(0), head.draft.rows()}, target_hidden.options().dtype(at::kFloat));
  for (int64_t begin = 0; begin < target_hidden.size(0); begin += step) {
    const int64_t end = std::min(target_hidden.size(0), begin + step);
    const Tensor logits = logits_of(head.draft, target_hidden.slice(0, begin, end), head.softcap);
    Tensor rows = out.slice(0, begin, end);
    at::softmax_out(rows, logits, -1);
    // The share of the whole distribution; another rounding of log_sum may leave a little more than all.
    if (head.reduced) {
      const Tensor share = log_sum_of(logits, rows).sub_(log_sum.slice(0, begin, end).unsqueeze(1)).exp_();
      rows.mul_(share.clamp_max_(1.0));
    }
  }
  return out;
}

VocabOutput vocab_loss(const TargetHead& head, const VocabInput& input, const LossWeights& weights,
                       Precision precision) {
  return VocabLoss(head, input, weights, precision).run();
}

Tensor draft_logits(const TargetHead& head, const VocabInput& input, Precision precision) {
  return VocabLoss(head, input, {}, precision).logits(0, input.hidden.size(0), nullptr);
}

}  // namespace dspark
