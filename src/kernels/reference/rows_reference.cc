#include "kernels/reference/rows_reference.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace dspark::reference {

std::vector<double> rms_norm(std::span<const float> x, std::span<const float> weight, double eps) {
  double sum = 0.0;
  for (float value : x) sum += static_cast<double>(value) * static_cast<double>(value);
  const double factor = 1.0 / std::sqrt(sum / static_cast<double>(x.size()) + eps);
  std::vector<double> y;
  for (size_t i = 0; i < x.size(); ++i) {
    y.push_back(static_cast<double>(x[i]) * factor * (weight.empty() ? 1.0 : static_cast<double>(weight[i])));
  }
  return y;
}

std::vector<double> rope(std::span<const float> head, const RopeTable& table, int32_t position) {
  const size_t half = head.size() / 2;
  std::vector<double> y(head.size());
  for (size_t j = 0; j < half; ++j) {
    const double angle = static_cast<double>(position) * static_cast<double>(table.inv_freq[j]);
    const double c = std::cos(angle) * static_cast<double>(table.attention_factor);
    const double s = std::sin(angle) * static_cast<double>(table.attention_factor);
    const double a = static_cast<double>(head[j]), b = static_cast<double>(head[j + half]);
    y[j] = a * c - b * s;
    y[j + half] = b * c + a * s;
  }
  return y;
}

double gated_activation(double gate, double up, GateActivation act) {
  if (act == GateActivation::kSilu) return gate / (1.0 + std::exp(-gate)) * up;
  const double u = std::sqrt(2.0 / std::numbers::pi) * (gate + 0.044715 * gate * gate * gate);
  return 0.5 * gate * (1.0 + std::tanh(u)) * up;
}

double softcap(double x, double cap) {
  return cap * std::tanh(x / cap);
}

std::vector<double> softmax(std::span<const float> x) {
  const double largest = static_cast<double>(*std::max_element(x.begin(), x.end()));
  std::vector<double> y;
  double sum = 0.0;
  for (float value : x) {
    y.push_back(std::exp(static_cast<double>(value) - largest));
    sum += y.back();
  }
  for (double& value : y) value /= sum;
  return y;
}

}  // namespace dspark::reference
