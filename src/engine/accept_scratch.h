#pragma once
// Buffers of the accept rules, one set for every thread that judges sequences.

#include <cstddef>
#include <vector>

#include "speculate/accept.h"
#include "speculate/draw.h"
#include "speculate/logits_processor.h"
#include "speculate/sampling_params.h"

namespace dspark {

/// Threads write to theirs at the same time: no two lie on one cache line, or on a pair that is fetched
/// together.
struct alignas(128) AcceptScratch {
  SamplerScratch sampler;
  DrawScratch draws;
  std::vector<float> probabilities;  // (vocabulary) of the row in hand, for kRejection and kBlock

  /// Makes room for rows of `n_vocab` logits under this rule, so that judging does not allocate. Memory that
  /// is never used is never touched.
  void reserve(AcceptRule rule, const SamplingParams& params, size_t n_vocab) {
    if (params.has_penalties() || !params.logit_bias.empty()) sampler.row.reserve(n_vocab);
    if (params.has_filters()) sampler.heads.reserve(n_vocab);
    // Probabilities of a row with +infinity are made of candidates even without filters.
    if (params.has_filters() || rule != AcceptRule::kCoupled) sampler.candidates.reserve(n_vocab);
    if (rule == AcceptRule::kCoupled) return;
    probabilities.reserve(n_vocab);
    draws.reserve(n_vocab);
  }
};

}  // namespace dspark
