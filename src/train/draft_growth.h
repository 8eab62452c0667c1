#pragma once
// Private to the room: a drafter that becomes larger and still computes what it did.

#include "base/status.h"
#include "train/draft_model.h"
#include "train/trainer.h"

namespace dspark {

/// Gives the drafter the kv heads of --kv-heads and the layers of --add-layers. A kv head is repeated for the
/// queries that will read the copies; an added layer is the last one again, with zeros where attention and
/// MLP add to the stream. So the first step of training sees the function of the smaller drafter.
/// errors: invalid_argument naming the option.
Status grow_draft(DraftModel& model, const TrainOptions& options);

}  // namespace dspark
