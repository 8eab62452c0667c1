#pragma once
// Draws by inverse cumulative distribution: from a row of probabilities, and from what a target row has more
// than a draft's distribution (the corrections of speculative sampling).

#include <cstdint>
#include <span>
#include <vector>

namespace dspark {

/// What a draft was sampled from. Empty `probs`: the draft was certain (one-hot).
struct DraftDistribution {
  std::span<const float> probs;  // (draft vocabulary) sums to 1
  std::span<const int32_t> ids;  // column -> target id, ascending; empty: column = id
};

/// The probability that `draft`, an outcome of q, had; 0 when q's vocabulary lacks the id.
double draft_probability(const DraftDistribution& q, int32_t draft);

/// Buffers reused from call to call.
struct DrawScratch {
  std::vector<double> chunk_mass;

  /// Room for rows of `n_tokens`.
  void reserve(size_t n_tokens);
};

/// The smallest index whose cumulative sum (float64) exceeds u times the row's sum: index v with probability
/// weights[v] / sum for uniform u. requires: 0 <= u < 1, weights finite and >= 0, not empty.
/// returns: 0 for a row of zeros.
int32_t draw_index(std::span<const float> weights, double u, DrawScratch& scratch);

/// Weights max(scale * p(v) - q(v), 0) over the target's vocabulary, never stored as a row.
struct Residual {
  std::span<const float> target;  // p
  double scale = 1.0;
  DraftDistribution draft;  // q; ids inside p
  int32_t token = 0;        // the draft, for a one-hot q
};

/// Sum of the residual's weights, in float64. scratch: what draw_residual needs.
double residual_mass(const Residual& residual, DrawScratch& scratch);

/// draw_index over the residual's weights.
/// requires: scratch is as residual_mass of the same residual left it, and that mass was > 0.
int32_t draw_residual(const Residual& residual, double u, const DrawScratch& scratch);

}  // namespace dspark
