#pragma once
// The accept rules: how many drafts of a round become text, and which token of the target follows them.
//
//   accept_run        greedy and coupled: a draft stays while it equals the target's own pick
//   accept_rejection  token by token with probability p_t / p_d (DSpark section 3; Leviathan et al. 2023)
//   accept_block      the drafts are judged together (Sun et al. 2024, arXiv 2403.10444)
//
// All keep the target's distribution. accept_rejection and accept_block need drafts that were sampled from
// the distributions they are given, and verify lengths that do not anticipate: whether draft k is verified
// may not depend on draft k or later ones (speculate/scheduler.h).

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/philox.h"
#include "base/status.h"
#include "speculate/draw.h"

namespace dspark {

/// How drafts are judged. All three keep the target's distribution; only kCoupled (and any rule at
/// temperature 0) keeps the text of a seed whatever is drafted.
enum class AcceptRule : uint8_t {
  kCoupled,    // accept while the draft equals the target's own seeded pick
  kRejection,  // token by token with probability p_t / p_d, corrected from the residual
  kBlock,      // block verification: the prefix is judged jointly
};

/// "coupled", "rejection" or "block".
std::string_view accept_rule_name(AcceptRule rule);
/// errors: invalid_argument with the names it knows.
Result<AcceptRule> parse_accept_rule(std::string_view text);

/// Outcome of one round.
struct AcceptResult {
  int32_t accepted = 0;   // drafts that become text, from the front
  int32_t last_pick = 0;  // the token after them
  bool is_bonus = false;  // every draft was accepted: last_pick is the bonus; else it is the correction
};

/// Asks pick(i) for the target's token at row i, i = 0, 1, ... until a pick differs from drafts[i] or the
/// drafts are used up. pick is called once per row, in order, and only for rows whose preceding drafts were
/// all accepted, so it may depend on them (penalties).
template <typename Pick>
AcceptResult accept_run(std::span<const int32_t> drafts, Pick&& pick) {
  AcceptResult result;
  const auto n = static_cast<int32_t>(drafts.size());
  for (int32_t i = 0;; ++i) {
    result.last_pick = pick(i);
    if (i == n) {
      result.is_bonus = true;
      return result;
    }
    if (result.last_pick != drafts[static_cast<size_t>(i)]) return result;
    ++result.accepted;
  }
}

/// The random numbers of one round of one sequence, a pure function of the seed and of the anchor's absolute
/// index.
struct RoundNoise {
  uint64_t seed = 0;
  uint64_t anchor = 0;

  /// Decides about drafts[draft_idx].
  double coin(int32_t draft_idx) const {
    return uniform_at(seed, anchor, static_cast<uint32_t>(draft_idx) + 1, NoisePurpose::kCoin);
  }
  /// Draws the token that follows `row` accepted drafts.
  double draw(int32_t row) const {
    return uniform_at(seed, anchor, static_cast<uint32_t>(row) + 1, NoisePurpose::kDraw);
  }
};

/// Random numbers given one by one, for replaying a recorded round.
struct GivenNoise {
  std::span<const double> coins;  // (drafts)
  double last = 0.0;              // for the correction or bonus

  double coin(int32_t draft_idx) const { return coins[static_cast<size_t>(draft_idx)]; }
  double draw(int32_t) const { return last; }
};

/// Below this a draft's probability counts as this much (token rule).
inline constexpr double kMinDraftProbability = 1e-8;
/// With a residual mass at or below these the correction is drawn from the target's row itself.
inline constexpr double kMinResidualMass = 1e-8;
inline constexpr double kMinBlockResidualMass = 1e-12;

/// Probability with which the token rule accepts a draft: min(1, p / max(q, kMinDraftProbability)).
inline double token_acceptance(double p, double q) {
  return std::min(1.0, p / std::max(q, kMinDraftProbability));
}

/// Block verification's w_i from w_{i-1}: the largest probability with which the prefix can be kept without
/// giving it more than the target does.
inline double block_weight(double previous, double p, double q) {
  if (q > 0.0) return std::min(1.0, previous * p / q);
  return p > 0.0 && previous > 0.0 ? 1.0 : 0.0;
}

/// Block verification's h_i of a prefix that is not the whole block: mass is the sum over v of
/// max(w_i * p_{i+1}(v) - q_{i+1}(v), 0).
inline double block_acceptance(double weight, double mass) {
  const double whole = mass + 1.0 - weight;
  return whole > 0.0 ? mass / whole : 1.0;
}

/// The token rule. Draft i is accepted iff coin(i) < p_i(x_i) / q_i(x_i); the first rejected one is replaced
/// by a token from max(p_i - q_i, 0), or, after a full run, a bonus comes from the row behind it.
///
/// target_row(i): the target's probabilities (vocabulary) behind i accepted drafts, after all logit
/// processing; asked once per row, in order, and only when the drafts before it were accepted. The span need
/// only live until the next call. draft_row(i): the DraftDistribution drafts[i] was sampled from.
template <typename TargetRow, typename DraftRow, typename Noise>
AcceptResult accept_rejection(std::span<const int32_t> drafts, TargetRow&& target_row, DraftRow&& draft_row,
                              const Noise& noise, DrawScratch& scratch) {
  AcceptResult result;
  const auto n = static_cast<int32_t>(drafts.size());
  for (int32_t i = 0; i < n; ++i, ++result.accepted) {
    const std::span<const float> p = target_row(i);
    const DraftDistribution q = draft_row(i);
    const int32_t draft = drafts[static_cast<size_t>(i)];
    const double p_draft = static_cast<double>(p[static_cast<size_t>(draft)]);
    if (noise.coin(i) < token_acceptance(p_draft, draft_probability(q, draft))) continue;
    const Residual residual{p, 1.0, q, draft};
    const bool has_mass = residual_mass(residual, scratch) > kMinResidualMass;
    result.last_pick =
        has_mass ? draw_residual(residual, noise.draw(i), scratch) : draw_index(p, noise.draw(i), scratch);
    return result;
  }
  result.last_pick = draw_index(target_row(n), noise.draw(n), scratch);
  result.is_bonus = true;
  return result;
}

/// Block verification: the longest prefix whose own coin falls below h_i, whatever the coins of shorter ones
/// said. At least as many accepted drafts as under the token rule, in expectation.
///
/// target_row(i) is asked for every row 0 .. drafts.size(), once and in order, whether or not the drafts
/// before it will be accepted: penalties at row i count drafts[0 .. i-1]. The span need only live until the
/// next call. draft_row(i): the DraftDistribution drafts[i] was sampled from.
template <typename TargetRow, typename DraftRow, typename Noise>
AcceptResult accept_block(std::span<const int32_t> drafts, TargetRow&& target_row, DraftRow&& draft_row,
                          const Noise& noise, DrawScratch& scratch) {
  AcceptResult result;
  const auto n = static_cast<int32_t>(drafts.size());
  double weight = 1.0;
  for (int32_t i = 0;; ++i) {
    // Here `weight` is w_i, and row i is the target's distribution behind the first i drafts.
    const std::span<const float> p = target_row(i);
    if (i == n) {
      if (n == 0 || noise.coin(n - 1) < weight) {
        result = {n, draw_index(p, noise.draw(n), scratch), true};
      }
      return result;
    }
    const DraftDistribution q = draft_row(i);
    const int32_t draft = drafts[static_cast<size_t>(i)];
    const Residual residual{p, weight, q, draft};
    const double mass = residual_mass(residual, scratch);
    if (i == 0 || noise.coin(i - 1) < block_acceptance(weight, mass)) {
      // The longest prefix so far; its correction is drawn now, while the row is there.
      result.accepted = i;
      result.last_pick = mass > kMinBlockResidualMass ? draw_residual(residual, noise.draw(i), scratch)
                                                      : draw_index(p, noise.draw(i), scratch);
    }
    weight =
        block_weight(weight, static_cast<double>(p[static_cast<size_t>(draft)]), draft_probability(q, draft));
  }
}

}  // namespace dspark
