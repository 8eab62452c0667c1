#include "train/vocab_loss.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "train/vocab_rows.h"

namespace dspark {
namespace {

using at::Tensor;

constexpr int64_t kChunkElements = 1 << 28;  // of a device
// A CPU's threads take chunks of their own: rows enough for the product to pay for packing its operands.
constexpr int64_t kLeastCpuRows = 32;
constexpr int64_t kMostCpuRows = 512;
constexpr int64_t kMostCpuElements = 1 << 24;

int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// Rows of one chunk: on a CPU as many for every thread, so that all end together.
int64_t chunk_rows(const Tensor& x, int64_t width) {
  if (!x.device().is_cpu()) return std::max<int64_t>(32, kChunkElements / width);
  const int64_t n_threads = at::get_num_threads();
  const int64_t most = std::clamp(kMostCpuElements / width, kLeastCpuRows, kMostCpuRows);
  const int64_t rounds = divide_up(x.size(0), n_threads * most);
  return std::max(kLeastCpuRows, divide_up(x.size(0), std::max<int64_t>(1, rounds) * n_threads));
}

/// Calls chunk(begin, end, first) for all rows; on a CPU side by side, and what a chunk computes stays in its
/// thread. `first`: number of the first chunk of the thread's share, which are chunks in a row.
template <class Chunk>
void for_chunks(const Tensor& x, int64_t width, const Chunk& chunk) {
  const int64_t n = x.size(0);
  const int64_t rows = chunk_rows(x, width);
  const auto some = [&](int64_t first, int64_t last) {
    const at::NoGradGuard no_grad;  // of this thread
    for (int64_t i = first; i < last; ++i) chunk(i * rows, std::min(n, (i + 1) * rows), first);
  };
  if (!x.device().is_cpu()) return some(0, divide_up(n, rows));
  at::parallel_for(0, divide_up(n, rows), 1, some);
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
    // The loops over rows count on it.
    for (Tensor* x : {&input_.labels, &input_.target, &input_.target_rows, &input_.weights}) {
      *x = x->contiguous();
    }
    out_.acceptance = at::empty_like(input_.weights);
    out_.hidden_grad = at::empty_like(input.hidden);
    if (!input.latent.defined()) return;
    out_.latent_grad = at::empty_like(input.latent);
    out_.bias_weight_grad = at::zeros_like(input.bias_weight);
  }

  VocabOutput run() {
    const int64_t width = head_.draft.rows();
    const int64_t rows = chunk_rows(input_.hidden, width);
    parts_.resize(static_cast<size_t>(divide_up(input_.hidden.size(0), rows)));
    for_chunks(input_.hidden, width, [&](int64_t begin, int64_t end, int64_t first) {
      run_chunk(begin, end, parts_[static_cast<size_t>(first)]);
    });
    // In the order of the shares, whoever was first.
    Tensor sums = at::zeros({3}, input_.hidden.options().dtype(at::kDouble));
    for (const Part& part : parts_) {
      if (part.sums.defined()) sums += part.sums;
      if (part.bias_weight_grad.defined()) out_.bias_weight_grad.add_(part.bias_weight_grad);
    }
    sums = sums.cpu();
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
  /// What the chunks of one thread add up to. One for each of them would be as large as the vocabulary.
  struct Part {
    Tensor sums;  // fp64 [3]: ce, soft_ce, l1
    Tensor bias_weight_grad;
  };

  static void add_to(Tensor& sum, const Tensor& x) {
    if (sum.defined()) {
      sum.add_(x);
    } else {
      sum = x;
    }
  }

  void run_chunk(int64_t begin, int64_t end, Part& part) const {
    Tensor base;
    Tensor z = logits(begin, end, &base);
    if (z.device().is_cpu()) {
      add_to(part.sums, rows_to_gradients(begin, end, z));
      add_gradients(begin, end, z, base, part);
    } else {
      Tensor grad = gradients_on_device(begin, end, z, part);
      add_gradients(begin, end, grad, base, part);
    }
  }

  /// z becomes the gradient, row by row; returns the sums of the terms.
  Tensor rows_to_gradients(int64_t begin, int64_t end, Tensor& z) const {
    const int64_t width = z.size(1);
    const auto* labels = input_.labels.const_data_ptr<int64_t>();
    const auto* target_rows = input_.target_rows.const_data_ptr<int64_t>();
    const auto* weights = input_.weights.const_data_ptr<float>();
    const auto* target = input_.target.const_data_ptr<float>();
    auto* acceptance = out_.acceptance.mutable_data_ptr<float>();
    auto* row = z.mutable_data_ptr<float>();
    double ce = 0, soft_ce = 0, l1 = 0;
    for (int64_t i = begin; i < end; ++i, row += width) {
      const RowFactors factors = {weights[i], static_cast<float>(factors_.ce),
                                  static_cast<float>(factors_.soft_ce), static_cast<float>(factors_.l1)};
      const RowTerms terms = loss_row(row, target + target_rows[i] * width, width, labels[i], factors);
      acceptance[i] = std::clamp(1.0f - 0.5f * terms.l1, 0.0f, 1.0f);
      ce += double{weights[i]} * terms.ce;
      soft_ce += double{weights[i]} * terms.soft_ce;
      l1 += double{weights[i]} * terms.l1;
    }
    return at::tensor({ce, soft_ce, l1}, at::kDouble);
  }

  /// The same as products of whole tensors.
  Tensor gradients_on_device(int64_t begin, int64_t end, const Tensor& z, Part& part) const {
    const Tensor q = input_.target.index_select(0, input_.target_rows.slice(0, begin, end));
    const Tensor labels = input_.labels.slice(0, begin, end).unsqueeze(1);
    const Tensor w = input_.weights.slice(0, begin, end).unsqueeze(1);
    const Tensor has_label = (labels >= 0).to(at::kFloat);
    const Tensor label = labels.clamp_min(0);

    const Tensor p = at::softmax(z, -1);
    const Tensor log_total = log_sum_of(z, p);
    const Tensor mass = q.sum(-1, true);  // of the target on the draft vocabulary
    Tensor sign = (p - q).sign_();
    const Tensor p_sign = (p * sign).sum(-1, true);
    const Tensor l1 = p_sign - (q * sign).sum(-1, true) + (1 - mass);
    out_.acceptance.slice(0, begin, end).copy_((1 - 0.5 * l1).clamp_(0, 1).squeeze(1));

    const Tensor ce = (log_total - z.gather(1, label)) * has_label;
    const Tensor soft = mass * log_total - (q * z).sum(-1, true);
    add_to(part.sums, at::stack({(w * ce).sum(), (w * soft).sum(), (w * l1).sum()}).to(at::kDouble));

    // d loss / d z = w (l1 p (sign - p_sign) + soft (mass p - q) + ce (p - onehot)), in place.
    Tensor grad = sign.sub_(p_sign).mul_(factors_.l1);
    grad.add_(mass * factors_.soft_ce + has_label * factors_.ce).mul_(p);
    if (factors_.soft_ce != 0) grad.sub_(q, factors_.soft_ce);
    if (factors_.ce != 0) grad.scatter_add_(1, label, has_label * -factors_.ce);
    return grad.mul_(w);
  }

  void add_gradients(int64_t begin, int64_t end, Tensor& grad, const Tensor& base, Part& part) const {
    if (input_.latent.defined()) {
      const Tensor latent = input_.latent.slice(0, begin, end);
      out_.latent_grad.slice(0, begin, end).copy_(bias_.backward(grad));
      const at::ScalarType type = precision_ == Precision::kFloat32 ? at::kFloat : at::kBFloat16;
      add_to(part.bias_weight_grad, at::matmul(grad.to(type).t(), latent.to(type)).to(at::kFloat));
    }
    // The soft cap's derivative is 1 - (u / cap)^2; the bias does not pass it.
    if (base.defined()) grad.mul_(1 - (base / head_.softcap).square_());
    out_.hidden_grad.slice(0, begin, end).copy_(head_.draft.backward(grad));
  }

  const TargetHead& head_;
  VocabInput input_;
  LossWeights factors_;
  Precision precision_;
  HeadProduct bias_;
  std::vector<Part> parts_;
  VocabOutput out_;  // rows of its tensors belong to the chunks
};

/// Logits become the share of the whole distribution.
void share_on_device(const TargetHead& head, Tensor& rows, const Tensor& log_sum, int64_t begin,
                     int64_t end) {
  const Tensor logits = rows.clone();
  at::softmax_out(rows, logits, -1);
  if (!head.reduced) return;
  // Another rounding of log_sum may leave a little more than all.
  const Tensor share = log_sum_of(logits, rows).sub_(log_sum.slice(0, begin, end).unsqueeze(1)).exp_();
  rows.mul_(share.clamp_max_(1.0));
}

}  // namespace

Tensor target_log_sum(const TargetHead& head, const Tensor& target_hidden) {
  const HeadProduct& product = head.reduced ? head.full : head.draft;
  Tensor out = at::empty({target_hidden.size(0)}, target_hidden.options().dtype(at::kFloat));
  for_chunks(target_hidden, product.rows(), [&](int64_t begin, int64_t end, int64_t) {
    Tensor logits = logits_of(product, target_hidden.slice(0, begin, end), head.softcap);
    const Tensor top = logits.amax(-1, true);
    out.slice(0, begin, end).copy_((logits.sub_(top).exp_().sum(-1, true).log_() + top).squeeze(1));
  });
  return out;
}

Tensor target_distribution(const TargetHead& head, const Tensor& target_hidden, const Tensor& log_sum) {
  const int64_t width = head.draft.rows();
  Tensor out = at::empty({target_hidden.size(0), width}, target_hidden.options().dtype(at::kFloat));
  const Tensor sums = log_sum.defined() ? log_sum.contiguous() : log_sum;
  for_chunks(target_hidden, width, [&](int64_t begin, int64_t end, int64_t) {
    Tensor rows = out.slice(0, begin, end);
    head.draft.forward(target_hidden.slice(0, begin, end).to(at::kFloat), rows, false);
    softcap_(rows, head.softcap);
    if (!rows.device().is_cpu()) {
      share_on_device(head, rows, sums, begin, end);
      return;
    }
    auto* row = rows.mutable_data_ptr<float>();
    for (int64_t i = begin; i < end; ++i, row += width) {
      if (head.reduced) {
        distribution_row(row, width, sums.const_data_ptr<float>()[i]);
      } else {
        whole_distribution_row(row, width);
      }
    }
  });
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
