#pragma once
// Private to the room: first weights of a drafter from its target's own layers.

#include <vector>

#include "formats/target_cache.h"
#include "train/draft_init.h"

namespace dspark {

/// Layers of the target that a drafter of `n_layers` can repeat, ascending: the last ones with full attention
/// and one rotary table. Fewer than `n_layers` when the target has no more. A target with windows in all
/// layers gives its last ones.
std::vector<int32_t> warm_layers(const ModelConfig& target, int32_t n_layers);

/// The rotary table of a new drafter: that of the layers above, or of another layer when their heads have
/// another size than ModelConfig::head_dim.
const RopeTable& draft_rope(const ModelConfig& target);

/// Overwrites layers, fc and norm of `model`. Sizes of intermediate rows are measured on samples of the first
/// cache. errors: unsupported for a target whose layers do not fit; not_found naming a tensor.
Status warm_start(DraftModel& model, const TrainTarget& target, const std::vector<TargetCacheReader>& caches);

}  // namespace dspark
