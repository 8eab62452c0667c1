#include "train/step_plan.h"

#include <algorithm>
#include <cmath>

namespace dspark {
namespace {

constexpr double kFirstDecay = 1.0;
constexpr double kCurriculumShare = 0.5;   // of the steps with whole blocks
constexpr double kSlideBegin = 2.0 / 3.0;  // of the budget
constexpr double kLastCe = 0.1;            // factors of the reference
constexpr double kLastSoftCe = 0.0;
constexpr double kLastL1 = 0.9;

/// How far `progress` is on the way from `begin` to `end`, 0..1.
double share_of(double progress, double begin, double end) {
  return std::clamp((progress - begin) / std::max(end - begin, 1e-9), 0.0, 1.0);
}

/// A share of the steps, spread evenly.
bool is_short(const TrainOptions& options, int64_t step) {
  const auto n_before = [&](int64_t n) { return std::floor(static_cast<double>(n) * options.short_blocks); };
  return n_before(step + 1) > n_before(step);
}

double between(double from, double to, double share) {
  return from + (to - from) * share;
}

}  // namespace

StepPlan plan_step(const TrainOptions& options, int32_t block_size, int64_t step, double progress) {
  StepPlan plan{block_size, options.anchors, {}};
  if (progress < options.first_stage) {
    plan.block_size = 1;
    plan.anchors = options.first_anchors > 0 ? options.first_anchors : plan.anchors * block_size;
  } else if (is_short(options, step)) {
    plan.block_size = std::min(options.short_block_size, block_size);
    plan.anchors = plan.anchors * block_size / plan.block_size;
  }
  plan.weights = {options.ce, options.soft_ce, options.l1, options.confidence, options.decay};
  if (options.curriculum) {
    const double end = options.first_stage + kCurriculumShare * (1.0 - options.first_stage);
    plan.weights.decay = between(kFirstDecay, options.decay, share_of(progress, options.first_stage, end));
  }
  if (options.loss_slide) {
    const double share = share_of(progress, kSlideBegin, 1.0);
    plan.weights.ce = between(options.ce, kLastCe, share);
    plan.weights.soft_ce = between(options.soft_ce, kLastSoftCe, share);
    plan.weights.l1 = between(options.l1, kLastL1, share);
  }
  return plan;
}

}  // namespace dspark
