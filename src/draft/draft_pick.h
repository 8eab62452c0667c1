#pragma once
// From one row of a drafter's logits to one token of the target's vocabulary.

#include <cstdint>
#include <span>
#include <vector>

#include "draft/drafter.h"
#include "speculate/draw.h"
#include "speculate/logits_processor.h"
#include "speculate/sampling_params.h"

namespace dspark {

/// Columns of a row that share one known maximum.
inline constexpr int64_t kPickChunk = 64;

/// Logits of one draft over the draft vocabulary (or a shortlist of it).
struct PickRow {
  std::span<const float> logits;  // (columns)
  /// (columns / kPickChunk, rounded up); empty: not known yet; -infinity: nothing in this chunk can be
  /// picked.
  std::span<const float> chunk_max;
  std::span<const int32_t> vocab_ids;  // column -> target id, ascending; empty: the same
};

/// Buffers reused from call to call; one per thread.
struct PickScratch {
  std::vector<float> chunk_max;
  std::vector<int32_t> ids;
  std::vector<float> logits;
  SamplerScratch sampler;
  DrawScratch draw;

  /// Room for rows of that many columns, so that picks allocate nothing.
  void reserve(int64_t n_columns);
};

/// The token with the largest logit, the lowest id on ties.
int32_t pick_greedy(const PickRow& row, PickScratch& scratch);

/// The pick that the target's noise makes at absolute index `position` from this distribution after
/// temperature and filters. Tokens whose weight is below kNegligibleWeight of the largest are not looked at:
/// noise for the whole vocabulary would cost more than the sequential head, and any draft distribution is as
/// lossless as any other. requires: !params.greedy().
int32_t pick_coupled(const PickRow& row, const SamplingParams& params, uint64_t position,
                     PickScratch& scratch);
inline constexpr double kNegligibleWeight = 1e-5;

/// Fills `probs` (columns) with the fp32 softmax after temperature and filters and draws from exactly these
/// numbers; u in [0, 1). requires: !params.greedy().
int32_t pick_sampled(const PickRow& row, const SamplingParams& params, double u, std::span<float> probs,
                     PickScratch& scratch);

/// How sure the row is of its likeliest token, for DraftEvidence::kPeakLogit: log(p / (1 - p)) of the largest
/// probability at temperature 1, in [-12, 12]. Rows of many columns are judged by the largest logit of each
/// chunk: a little too sure, and sixty times cheaper. Does not depend on what is picked.
/// Leaves maxima it had to compute in `row`.
float peak_logit(PickRow& row, PickScratch& scratch);

/// The softmax of the row at `token`, at temperature 1; -1 when the row does not have the token.
/// requires: every logit is known, none was left out by bounds.
float row_probability(const PickRow& row, int32_t token, PickScratch& scratch);

/// How drafts of a request are picked.
enum class PickKind : uint8_t { kGreedy, kCoupled, kSampled };
PickKind pick_kind(const DraftRequest& request);

/// Draft number `draft_idx` (from 0) of a request, from its step logits: greedily, with the target's noise of
/// that position, or with noise of its own. probs: kSampled fills it with what was sampled from.
int32_t pick_draft(const PickRow& row, const DraftRequest& request, int32_t draft_idx, std::span<float> probs,
                   PickScratch& scratch);

}  // namespace dspark
