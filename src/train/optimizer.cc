#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace dspark {
namespace {

using at::Tensor;

std::vector<Tensor> values(const TensorMap& map) {
  std::vector<Tensor> list;
  for (const auto& [name, tensor] : map) list.push_back(tensor.detach());
  return list;
}

std::vector<Tensor> gradients(const TensorMap& params) {
  std::vector<Tensor> list;
  for (const auto& [name, tensor] : params) {
    if (!tensor.grad().defined()) tensor.mutable_grad() = at::zeros_like(tensor);
    list.push_back(tensor.grad());
  }
  return list;
}

}  // namespace

AdamW::AdamW(const TensorMap& params, const AdamOptions& options) : options_(options) {
  for (const auto& [name, tensor] : params) {
    first_[name] = at::zeros_like(tensor.detach());
    second_[name] = at::zeros_like(tensor.detach());
  }
}

void AdamW::scale(TensorMap scales, const at::Device& device) {
  scales_ = std::move(scales);
  for (auto& [name, scale] : scales_) scale = scale.to(device);
}

void AdamW::scale_gradients(const TensorMap& params) const {
  const at::NoGradGuard no_grad;
  for (const auto& [name, scale] : scales_) {
    const Tensor& grad = params.at(name).grad();
    if (grad.defined()) Tensor(grad).div_(scale);
  }
}

void AdamW::step(const TensorMap& params, double learning_rate) {
  const at::NoGradGuard no_grad;
  ++steps_;
  for (const auto& [name, scale] : scales_) params.at(name).detach().mul_(scale);
  const std::vector<Tensor> masters = values(params);
  std::vector<Tensor> counts;
  for (const Tensor& master : masters) {
    counts.push_back(at::full({}, static_cast<double>(steps_), master.options().dtype(at::kFloat)));
  }
  at::_fused_adamw_(masters, gradients(params), values(first_), values(second_), {}, counts, learning_rate,
                    options_.beta1, options_.beta2, options_.weight_decay, options_.epsilon, false, false);
  for (const auto& [name, scale] : scales_) params.at(name).detach().div_(scale);
}

double clip_gradients(const TensorMap& params, double max_norm) {
  const at::NoGradGuard no_grad;
  const std::vector<Tensor> grads = gradients(params);
  const std::vector<Tensor> norms = at::_foreach_norm(grads);
  const double norm = at::linalg_vector_norm(at::stack(norms)).item<double>();
  const double factor = max_norm / (norm + 1e-6);
  if (factor < 1.0) at::_foreach_mul_(grads, factor);
  return norm;
}

void zero_gradients(const TensorMap& params) {
  for (const auto& [name, tensor] : params) tensor.mutable_grad() = Tensor();
}

double learning_rate_at_step(double peak, double warmup, int64_t step, int64_t total) {
  const auto warm = static_cast<int64_t>(warmup * static_cast<double>(total));
  const auto n = static_cast<double>(step);
  if (step < warm) return peak * (n + 1.0) / static_cast<double>(warm);
  const auto rest = static_cast<double>(total - warm);
  if (rest <= 1.0) return peak;
  const double chained = 2.0 / (1.0 + std::cos(M_PI / rest));
  return std::max(0.0,
                  peak * chained * 0.5 * (1.0 + std::cos(M_PI * (n - static_cast<double>(warm)) / rest)));
}

double learning_rate_at(double peak, double warmup, double progress) {
  const double share = std::clamp(progress, 0.0, 1.0);
  if (share < warmup) return peak * std::max(share / warmup, 1e-3);
  return peak * 0.5 * (1.0 + std::cos(M_PI * (share - warmup) / std::max(1.0 - warmup, 1e-9)));
}

void update_average(TensorMap& average, const TensorMap& params, double decay, int64_t step) {
  const at::NoGradGuard no_grad;
  const auto n = static_cast<double>(step);
  const double kept = std::min(decay, (1.0 + n) / (10.0 + n));
  at::_foreach_lerp_(values(average), values(params), 1.0 - kept);
}

}  // namespace dspark
