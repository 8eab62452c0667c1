#pragma once
// Which blocks a step trains on. Every choice is a pure function of (seed, step, place), so a resumed run
// draws what an uninterrupted one would have drawn.

#include <cstdint>
#include <span>
#include <vector>

namespace dspark {

/// Positions p with loss_mask[p] and loss_mask[p + 1], p + 1 < length: the anchors that can be trained on.
std::vector<int32_t> anchor_candidates(std::span<const uint8_t> loss_mask);

/// Up to `count` of `candidates`, uniform without replacement, ascending.
std::vector<int32_t> draw_anchors(std::span<const int32_t> candidates, int64_t count, uint64_t seed,
                                  uint64_t stream);

/// 0 .. count-1 in the random order of (seed, epoch).
std::vector<int32_t> shuffled_order(int64_t count, uint64_t seed, uint64_t epoch);

/// Slots of the block at `anchor` that have a label: the leading run of supervised tokens after the anchor,
/// at most `block_size`.
int32_t valid_slots(std::span<const uint8_t> loss_mask, int32_t anchor, int32_t block_size);

}  // namespace dspark
