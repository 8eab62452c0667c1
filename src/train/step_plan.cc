#include "train/step_plan.h"

#include <algorithm>

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

double between(double from, double to, double share) {
  return from + (to - from) * share;
}

}  // namespace

StepPlan plan_step(const TrainOptions& options, double progress) {
  StepPlan plan;
  plan.first_slot_only = progress < options.first_stage;
  plan.anchors = options.anchors;
  if (plan.first_slot_only) {
    const int64_t as_many_slots = int64_t{options.anchors} * options.block_size;
    plan.anchors = options.first_anchors > 0 ? options.first_anchors : as_many_slots;
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
