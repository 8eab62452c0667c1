#pragma once
// Private to the room: the rows of one training step of an Eagle3 or MTP drafter, packed without padding.

#include <vector>

#include "draft/draft_config.h"
#include "train/step_batch.h"
#include "train/target_rows.h"
#include "train/tensors.h"

namespace dspark {

/// One step of the unroll. m: rows with a weight at this step.
struct PairedStep {
  at::Tensor tokens;       // int64 [n]: the token at i + k + 1, 0 behind the end
  at::Tensor rows;         // int64 [m]: which of the active rows
  at::Tensor labels;       // int64 [m]: the target id at i + k + 2, -1 behind the end
  at::Tensor target_rows;  // int64 [m]: row of target_hidden that gives the distribution, position i + k + 1
};

/// C: rows, one per position; n: active rows, those with a weight at some step. Row i has a weight at step k
/// when token i + k is supervised and not the sample's last. Sequence s owns rows
/// [row_begin[s], row_begin[s + 1]) and active rows [active_begin[s], active_begin[s + 1]).
struct PairedBatch : TargetRows {
  std::vector<int64_t> row_begin;
  std::vector<int64_t> active_begin;
  at::Tensor carried;             // bf16 [C, taps * dim] features of Eagle3, [C, dim] last hidden of MTP
  at::Tensor positions;           // int64 [C]
  at::Tensor tokens;              // int64 [C]: the token at i + 1
  at::Tensor active;              // int64 [n]: which of the rows
  std::vector<PairedStep> steps;  // config.n_drafts()
  int64_t n_padded = 0;           // samples times the longest one's tokens: what the loss is divided by
};

/// Rows behind a sequence's last active one are left out, and with `max_context` > 0 those more than that
/// many before its first. The anchors of `sets` are not used.
PairedBatch build_paired_batch(const std::vector<AnchorSet>& sets, const DraftConfig& config,
                               int64_t max_context, const at::Device& device);

}  // namespace dspark
