#pragma once
// Private to the room: what changes in the course of a run beside the learning rate.

#include "train/trainer.h"
#include "train/vocab_loss.h"

namespace dspark {

/// How one step trains.
struct StepPlan {
  int32_t block_size = 0;  // slots of a block
  int64_t anchors = 0;     // per sequence
  LossWeights weights;
};

/// The plan of step `step` when `progress` (0..1) of the budget is used, for blocks of `block_size`: a
/// function of its arguments, so that a resumed run makes the same one.
/// - first stage (options.first_stage > 0): one slot and first_anchors blocks while progress < first_stage.
/// - short blocks: a share of the other steps, spread evenly, has blocks of options.short_block_size slots,
///   and more of them, so that the number of slots stays.
/// - curriculum: the decay of slots rises from 1 to options.decay over the first half of whole blocks.
/// - loss slide: over the last third the factors of ce, soft-ce and l1 move in a straight line to .1, 0, .9.
StepPlan plan_step(const TrainOptions& options, int32_t block_size, int64_t step, double progress);

}  // namespace dspark
