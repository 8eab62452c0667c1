#pragma once
// Order statistics of measurements.

#include <cstdint>
#include <span>
#include <vector>

namespace dspark {

/// The q-quantile, linear between neighbours: position q * (n - 1) of the sorted values. 0 without values.
/// requires: ascending values, 0 <= q <= 1.
double quantile_of_sorted(std::span<const double> sorted, double q);
/// The median of unsorted values. 0 without values.
double median_of(std::vector<double> values);

/// What is reported of many times. All 0 without any.
struct QuantileSummary {
  int64_t n = 0;
  double mean = 0.0;
  double p50 = 0.0;
  double p95 = 0.0;
  double p99 = 0.0;
  double max = 0.0;
};
QuantileSummary summarize_quantiles(std::vector<double> values);

}  // namespace dspark
