#pragma once
// Private to the room: the rows of one training step, packed without padding.

#include <cstdint>
#include <vector>

#include "draft/draft_config.h"
#include "formats/target_cache.h"
#include "train/target_rows.h"
#include "train/tensors.h"

namespace dspark {

/// Blocks of one sample.
struct AnchorSet {
  TargetCacheSample sample;
  std::vector<int32_t> anchors;  // ascending
};

/// All rows of a step. C: context rows, A: blocks, B: slots of a block, n: slots with a label. Sequence s
/// owns context rows [context_begin[s], context_begin[s + 1]) and blocks [block_begin[s], block_begin[s +
/// 1]).
struct StepBatch : TargetRows {
  std::vector<int64_t> context_begin;
  std::vector<int64_t> block_begin;
  at::Tensor features;           // bf16 [C, taps * dim]
  at::Tensor context_positions;  // int64 [C]
  at::Tensor anchors;            // int64 [A]
  at::Tensor input_tokens;       // int64 [A, B]: anchor token, then the mask token
  at::Tensor previous_tokens;    // int64 [A, B]: token before the predicted one (teacher forcing)
  at::Tensor labels;             // int64 [A, B]: target ids; 0 where there is no label
  at::Tensor n_valid;            // int64 [A]: slots with a label, a leading run
  at::Tensor slots;              // int64 [n]: index into A * B of the slots with a label
  at::Tensor target_rows;        // int64 [n]: row of target_hidden that gives the slot's distribution
  int64_t n_blocks() const { return block_begin.empty() ? 0 : block_begin.back(); }
};

/// Gathers everything a step needs from the mapped caches. Context rows behind a sequence's last anchor are
/// left out, and with `max_context` > 0 those more than that many rows before its first anchor.
StepBatch build_step_batch(const std::vector<AnchorSet>& sets, const DraftConfig& config, int64_t max_context,
                           const at::Device& device);

}  // namespace dspark
