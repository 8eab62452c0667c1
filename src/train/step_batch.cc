#include "train/step_batch.h"

#include <algorithm>

#include "train/anchors.h"

namespace dspark {
namespace {

int32_t token_at(const TargetCacheSample& sample, int64_t position) {
  return sample.input_ids[static_cast<size_t>(position)];
}

struct ContextRange {
  int64_t first = 0;
  int64_t count = 0;
};

ContextRange context_range(const AnchorSet& set, int64_t max_context) {
  if (set.anchors.empty()) return {};
  const int64_t last = set.anchors.back();
  const int64_t first = max_context > 0 ? std::max<int64_t>(0, set.anchors.front() - max_context) : 0;
  return {first, last - first};
}

/// Token ids and label bookkeeping of all blocks.
struct BlockRows {
  std::vector<int64_t> anchors, input, previous, labels, n_valid, slots, target_rows;
};

void add_block(const AnchorSet& set, int32_t anchor, const DraftConfig& config, BlockRows& rows) {
  const int32_t block = config.block_size;
  const TargetCacheSample& sample = set.sample;
  const int32_t valid = valid_slots(sample.loss_mask, anchor, block);
  const auto first_slot = static_cast<int64_t>(rows.input.size());
  rows.anchors.push_back(anchor);
  rows.n_valid.push_back(valid);
  for (int32_t slot = 0; slot < block; ++slot) {
    const bool inside = static_cast<size_t>(anchor + slot) < sample.n_tokens();
    rows.input.push_back(slot == 0 ? token_at(sample, anchor) : config.mask_token_id);
    rows.previous.push_back(inside ? token_at(sample, anchor + slot) : 0);
    rows.labels.push_back(slot < valid ? token_at(sample, anchor + slot + 1) : 0);
    if (slot < valid) rows.slots.push_back(first_slot + slot);
  }
}

}  // namespace

StepBatch build_step_batch(const std::vector<AnchorSet>& sets, const DraftConfig& config, int64_t max_context,
                           const at::Device& device) {
  StepBatch batch;
  TargetRowList targets;
  std::vector<const TargetCacheSample*> samples;
  batch.context_begin.push_back(0);
  batch.block_begin.push_back(0);
  BlockRows rows;
  std::vector<int64_t> context_positions;
  std::vector<ContextRange> ranges;
  for (size_t s = 0; s < sets.size(); ++s) {
    samples.push_back(&sets[s].sample);
    ranges.push_back(context_range(sets[s], max_context));
    for (int64_t i = 0; i < ranges[s].count; ++i) context_positions.push_back(ranges[s].first + i);
    for (int32_t anchor : sets[s].anchors) {
      add_block(sets[s], anchor, config, rows);
      for (int32_t slot = 0; slot < rows.n_valid.back(); ++slot) {
        rows.target_rows.push_back(targets.row_of(static_cast<int64_t>(s), anchor + slot));
      }
    }
    batch.context_begin.push_back(static_cast<int64_t>(context_positions.size()));
    batch.block_begin.push_back(static_cast<int64_t>(rows.anchors.size()));
  }

  const auto n_taps = static_cast<int64_t>(config.taps.size());
  at::Tensor features = at::empty({batch.context_begin.back(), n_taps * config.dim}, at::kBFloat16);
  for (size_t s = 0; s < sets.size(); ++s) {
    copy_rows(sets[s].sample.target_hidden_states, ranges[s].first, ranges[s].count, features,
              batch.context_begin[s]);
  }
  const auto n_blocks = static_cast<int64_t>(rows.anchors.size());
  const std::vector<int64_t> grid = {n_blocks, config.block_size};
  batch.features = features.to(device);
  static_cast<TargetRows&>(batch) = targets.gather(samples, config.dim, device);
  batch.context_positions = index_tensor(context_positions, device);
  batch.anchors = index_tensor(rows.anchors, device);
  batch.input_tokens = index_tensor(rows.input, device).view(grid);
  batch.previous_tokens = index_tensor(rows.previous, device).view(grid);
  batch.labels = index_tensor(rows.labels, device).view(grid);
  batch.n_valid = index_tensor(rows.n_valid, device);
  batch.slots = index_tensor(rows.slots, device);
  batch.target_rows = index_tensor(rows.target_rows, device);
  return batch;
}

}  // namespace dspark
