#pragma once
// Private to the room: first weights of a drafter from its target's own layers.

#include <vector>

#include "train/draft_init.h"
#include "train/sample_source.h"

namespace dspark {

/// Layers of the target that a drafter of `n_layers` can repeat, ascending: the last ones with full attention
/// and one rotary table. Fewer than `n_layers` when the target has no more. A target with windows in all
/// layers gives its last ones.
std::vector<int32_t> warm_layers(const ModelConfig& target, int32_t n_layers);

/// The rotary table of a new drafter: that of the layers above, or of another layer when their heads have
/// another size than ModelConfig::head_dim.
const RopeTable& draft_rope(const ModelConfig& target);

/// Overwrites layers, fc (MTP: eh_proj) and norm of `model`. Sizes of intermediate rows are measured on
/// samples of the first source. errors: unsupported for a target whose layers do not fit; not_found naming a
/// tensor; those of the source.
Status warm_start(DraftModel& model, const TrainTarget& target, const SampleSources& sources);

}  // namespace dspark
