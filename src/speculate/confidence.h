#pragma once
// From what a confidence head says to the probability that a whole prefix of drafts is accepted.

#include <cmath>
#include <cstddef>
#include <span>

namespace dspark {

/// 1 / (1 + exp(-z)), without overflow.
inline double sigmoid(double z) {
  if (z >= 0.0) return 1.0 / (1.0 + std::exp(-z));
  const double e = std::exp(z);
  return e / (1.0 + e);
}

/// out[j] = confidence[0] * ... * confidence[j], in float64: the probability that drafts 0..j are all
/// accepted, when confidence[k] is that of draft k given its predecessors. requires: same sizes.
template <typename Real>
void survival(std::span<const Real> confidence, std::span<double> out) {
  double product = 1.0;
  for (size_t j = 0; j < confidence.size(); ++j) {
    product *= static_cast<double>(confidence[j]);
    out[j] = product;
  }
}

}  // namespace dspark
