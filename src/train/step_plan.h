#pragma once
// Private to the room: what changes in the course of a run beside the learning rate.

#include "train/trainer.h"
#include "train/vocab_loss.h"

namespace dspark {

/// How one step trains.
struct StepPlan {
  bool first_slot_only = false;  // blocks of one slot
  int64_t anchors = 0;           // per sequence
  LossWeights weights;
};

/// The plan when `progress` (0..1) of the budget is used: a function of its arguments, so that a resumed run
/// makes the same one.
/// - first stage (options.first_stage > 0): one slot and first_anchors blocks while progress < first_stage.
/// - curriculum: the decay of slots rises from 1 to options.decay over the first half of whole blocks.
/// - loss slide: over the last third the factors of ce, soft-ce and l1 move in a straight line to .1, 0, .9.
StepPlan plan_step(const TrainOptions& options, double progress);

}  // namespace dspark
