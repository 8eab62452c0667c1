#pragma once
// A drafter that knows nothing: the shape and the cost of a real one, weights of noise. What adaptive
// verification must not lose against.

#include <cstdint>

#include "base/status.h"
#include "draft/draft_checkpoint.h"

namespace dspark {

/// Replaces all weights of `draft` but its norms and scales by normal noise with the mean and spread that
/// each tensor had, in the element type it had (F16 where that cannot be written). The bytes live as long as
/// draft.file. The same noise for the same seed. errors: unsupported (an element type that cannot be read).
Status randomize_weights(DraftCheckpoint& draft, uint64_t seed);

}  // namespace dspark
