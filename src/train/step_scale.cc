#include "train/step_scale.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

namespace dspark {
namespace {

constexpr int64_t kSamples = 64;     // spread over the source
constexpr size_t kFirstToken = 1;    // the stream of the very first one is unlike all others
constexpr double kMatrixSize = 0.2;  // for which the learning rates of docs/training.md are
constexpr double kSmallest = 1.0 / 64, kLargest = 1024;  // of a scale

float from_bf16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

/// The next power of two, so that scaling rounds nothing.
float power_of_two(double value) {
  return static_cast<float>(std::exp2(std::round(std::log2(std::clamp(value, kSmallest, kLargest)))));
}

/// What a weight is divided by to be treated like one of the usual size; 0: it is of no size yet.
double unit_of(const std::string& name, const at::Tensor& tensor) {
  const double size = tensor.detach().square().mean().sqrt().item<double>();
  if (name.ends_with("norm.weight")) return size;
  return name.starts_with("layers.") && tensor.dim() == 2 ? size / kMatrixSize : 0.0;
}

}  // namespace

Result<at::Tensor> feature_scale(SampleSource& source) {
  const size_t n_columns =
      source.info().target_layer_ids.size() * static_cast<size_t>(source.info().hidden_size);
  std::vector<double> sums(n_columns, 0.0);
  TargetCacheSample sample;
  const int64_t n = std::min(kSamples, source.n_samples());
  for (int64_t i = 0; i < n; ++i) {
    DSPARK_RETURN_IF_ERROR(source.read(i * source.n_samples() / n, sample));
    const std::vector<uint16_t>& rows = sample.target_hidden_states;
    for (size_t at = kFirstToken * n_columns; at + n_columns <= rows.size(); at += n_columns) {
      for (size_t column = 0; column < n_columns; ++column) {
        sums[column] += std::abs(static_cast<double>(from_bf16(rows[at + column])));
      }
    }
  }
  const double mean = std::accumulate(sums.begin(), sums.end(), 0.0) / static_cast<double>(n_columns);
  at::Tensor scale = at::ones({static_cast<int64_t>(n_columns)}, at::kFloat);
  if (!(mean > 0.0) || !std::isfinite(mean)) return scale;
  auto* values = scale.data_ptr<float>();
  for (size_t column = 0; column < n_columns; ++column) {
    values[column] = power_of_two(sums[column] / mean);
  }
  return scale;
}

Result<TensorMap> step_scales(const TensorMap& params, SampleSource& source) {
  TensorMap scales;
  for (const auto& [name, tensor] : params) {
    const double unit = unit_of(name, tensor);
    if (unit > 0.0) scales[name] = at::full({1}, 1.0f / power_of_two(unit));
  }
  if (params.contains("fc.weight")) {
    DSPARK_ASSIGN_OR_RETURN(scales["fc.weight"], feature_scale(source));
  }
  return scales;
}

}  // namespace dspark
