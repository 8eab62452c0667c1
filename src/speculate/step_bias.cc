#include "speculate/step_bias.h"

#include <algorithm>
#include <cmath>

namespace dspark {

StepBias::Nearby StepBias::nearby(const Recent& recent) const {
  double sum = 0.0, n = 0.0;
  for (int64_t i = std::max<int64_t>(0, recent.n - int64_t{kMostRecent}); i < recent.n; ++i) {
    const auto at = static_cast<size_t>(i) % kMostRecent;
    if (step_ - recent.steps[at] > kNear) continue;
    sum += recent.ratios[at];
    ++n;
  }
  if (n == 0.0) return {};
  return {sum / n, n / double{kMostRecent}};
}

// Only where the kind changes: within a stretch every step would be compared with the same few of the other.
// A single step after many of the other kind says more than the first of many after a single one: the first
// is not like the others (a drafter has rows to make up for).
void StepBias::add(bool drafts, double ratio) {
  const size_t kind = drafts ? 1 : 0;
  ++step_;
  const Nearby other = nearby(recent_[1 - kind]);
  if (last_ == static_cast<int32_t>(1 - kind) && other.mean_ratio > 0.0 && ratio > 0.0) {
    const double plain_over_drafting = drafts ? other.mean_ratio / ratio : ratio / other.mean_ratio;
    const double most = std::log(kMostRatio);
    const double sample = std::clamp(std::log(plain_over_drafting), -most, most);
    n_comparisons_ += other.share;
    const double step = std::max(kLeastStep, 1.0 / (kFirstWeight + n_comparisons_));
    log_value_ += step * other.share * (sample - log_value_);
    value_ = std::exp(log_value_);
  }
  last_ = static_cast<int32_t>(kind);
  Recent& recent = recent_[kind];
  const auto at = static_cast<size_t>(recent.n++) % kMostRecent;
  recent.ratios[at] = ratio;
  recent.steps[at] = step_;
}

}  // namespace dspark
