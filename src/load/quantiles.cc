#include "load/quantiles.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace dspark {

double quantile_of_sorted(std::span<const double> sorted, double q) {
  if (sorted.empty()) return 0.0;
  const double at = std::clamp(q, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  const auto left = static_cast<size_t>(std::floor(at));
  const size_t right = std::min(left + 1, sorted.size() - 1);
  return sorted[left] + (at - static_cast<double>(left)) * (sorted[right] - sorted[left]);
}

double median_of(std::vector<double> values) {
  std::ranges::sort(values);
  return quantile_of_sorted(values, 0.5);
}

QuantileSummary summarize_quantiles(std::vector<double> values) {
  QuantileSummary summary;
  if (values.empty()) return summary;
  std::ranges::sort(values);
  summary.n = static_cast<int64_t>(values.size());
  summary.mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  summary.p50 = quantile_of_sorted(values, 0.50);
  summary.p95 = quantile_of_sorted(values, 0.95);
  summary.p99 = quantile_of_sorted(values, 0.99);
  summary.max = values.back();
  return summary;
}

}  // namespace dspark
