#include "speculate/acceptance_estimator.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "speculate/confidence.h"

namespace dspark {
namespace {

constexpr double kForget = 0.99;         // of counts, per observation
constexpr double kPriorWeight = 4.0;     // observations that an assumption is worth
constexpr double kFirstRate = 0.5;       // assumed before anything was seen
constexpr double kWindowForget = 0.995;  // of the regression, per observation
constexpr float kMostLogit = 12.0f;
// Before any fit: a drafter's peak is an over-estimate of its acceptance. The ridge pulls towards this.
constexpr std::array<double, 3> kFirstWeights = {-0.3, 0.7, 0.0};
constexpr std::array<double, 3> kRidge = {1.0, 4.0, 4.0};
constexpr int kNewtonSteps = 3;
constexpr double kMostStep = 4.0;    // of one weight in one Newton step
constexpr double kSmallStep = 1e-3;  // of every weight: the fit is close enough

float clean(float logit) {
  return std::isnan(logit) ? 0.0f : std::clamp(logit, -kMostLogit, kMostLogit);
}

std::array<double, 3> features(float logit, int32_t draft_idx) {
  return {1.0, static_cast<double>(logit), draft_idx / 8.0};
}

double dot(const std::array<double, 3>& a, const std::array<double, 3>& b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

/// Solves the symmetric positive definite system h x = g by elimination.
std::array<double, 3> solve(std::array<std::array<double, 3>, 3> h, std::array<double, 3> g) {
  for (size_t i = 0; i < 3; ++i) {
    for (size_t r = i + 1; r < 3; ++r) {
      const double factor = h[r][i] / h[i][i];
      for (size_t c = i; c < 3; ++c) h[r][c] -= factor * h[i][c];
      g[r] -= factor * g[i];
    }
  }
  for (size_t i = 3; i-- > 0;) {
    for (size_t c = i + 1; c < 3; ++c) g[i] -= h[i][c] * g[c];
    g[i] /= h[i][i];
  }
  return g;
}

}  // namespace

void AcceptanceEstimator::Count::add(bool hit) {
  tries = tries * kForget + 1.0;
  hits = hits * kForget + (hit ? 1.0 : 0.0);
}

AcceptanceEstimator::AcceptanceEstimator() : window_(static_cast<size_t>(kWindow)), weights_(kFirstWeights) {
  rate_positions();
}

/// A position that was rarely seen is assumed to be like the one before it.
void AcceptanceEstimator::rate_positions() {
  double rate = kFirstRate;
  for (size_t j = 0; j < rates_.size(); ++j) {
    rate = (positions_[j].hits + kPriorWeight * rate) / (positions_[j].tries + kPriorWeight);
    rates_[j] = rate;
  }
}

/// 1, 2, 3, 4, 5-6, 7-8, 9-12, 13-16, more.
size_t AcceptanceEstimator::length_class(float length) {
  const int n = std::isnan(length) ? 1 : static_cast<int>(std::clamp(length, 1.0f, 99.0f));
  if (n <= 4) return static_cast<size_t>(n - 1);
  return n <= 6 ? 4 : n <= 8 ? 5 : n <= 12 ? 6 : n <= 16 ? 7 : 8;
}

/// 0, 1, 2-3, 4 and more.
size_t AcceptanceEstimator::position_class(int32_t draft_idx) {
  return std::min<size_t>(std::bit_width(static_cast<uint32_t>(std::max(draft_idx, 0))),
                          kPositionClasses - 1);
}

double AcceptanceEstimator::confidence(DraftEvidence kind, int32_t draft_idx, float evidence) const {
  if (kind == DraftEvidence::kPeakLogit) {
    const double p = sigmoid(dot(weights_, features(clean(evidence), draft_idx)));
    return std::clamp(p, 1e-4, 1.0 - 1e-4);
  }
  const double by_position = rates_[static_cast<size_t>(std::clamp(draft_idx, 0, kMaxDraftTokens - 1))];
  if (kind == DraftEvidence::kNone) return by_position;
  const Count& seen = lengths_[length_class(evidence)][position_class(draft_idx)];
  return (seen.hits + kPriorWeight * by_position) / (seen.tries + kPriorWeight);
}

void AcceptanceEstimator::observe(DraftEvidence kind, int32_t draft_idx, float evidence, bool accepted) {
  const int32_t position = std::clamp(draft_idx, 0, kMaxDraftTokens - 1);
  positions_[static_cast<size_t>(position)].add(accepted);
  if (kind == DraftEvidence::kMatchLength) {
    lengths_[length_class(evidence)][position_class(position)].add(accepted);
  }
  has_new_ = true;
  if (kind != DraftEvidence::kPeakLogit) return;
  window_[n_seen_++ % kWindow] = {clean(evidence), static_cast<uint8_t>(position), accepted};
}

void AcceptanceEstimator::end_step() {
  if (!has_new_) return;
  has_new_ = false;
  rate_positions();
  if (n_seen_ - n_fitted_ >= kRefit) refit();
}

/// Newton steps from where the last fit ended.
void AcceptanceEstimator::refit() {
  n_fitted_ = n_seen_;
  ++n_fits_;
  for (int step = 0; step < kNewtonSteps; ++step) {
    if (newton_step() < kSmallStep) return;
  }
}

/// One step on the penalised likelihood of the window. returns: the largest change of a weight.
double AcceptanceEstimator::newton_step() {
  const size_t n = std::min<size_t>(n_seen_, kWindow);
  std::array<double, 3> gradient{};
  std::array<std::array<double, 3>, 3> curvature{};
  for (size_t i = 0; i < 3; ++i) {
    gradient[i] = kRidge[i] * (kFirstWeights[i] - weights_[i]);
    curvature[i][i] = kRidge[i];
  }
  double weight = 1.0;
  for (size_t age = 0; age < n; ++age, weight *= kWindowForget) {
    const Sample& sample = window_[(n_seen_ - 1 - age) % kWindow];
    const std::array<double, 3> x = features(sample.logit, sample.draft_idx);
    const double p = sigmoid(dot(weights_, x));
    const double surprise = weight * ((sample.accepted ? 1.0 : 0.0) - p), spread = weight * p * (1.0 - p);
    for (size_t i = 0; i < 3; ++i) {
      gradient[i] += surprise * x[i];
      for (size_t j = 0; j <= i; ++j) curvature[i][j] += spread * x[i] * x[j];
    }
  }
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = i + 1; j < 3; ++j) curvature[i][j] = curvature[j][i];
  }
  double largest = 0.0;
  const std::array<double, 3> change = solve(curvature, gradient);
  for (size_t i = 0; i < 3; ++i) {
    const double step = std::clamp(change[i], -kMostStep, kMostStep);
    weights_[i] += step;
    largest = std::max(largest, std::abs(step));
  }
  return largest;
}

}  // namespace dspark
