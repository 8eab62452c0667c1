#pragma once
// Acceptance by equality: greedy decoding and coupled sampling. A committed token is always the target's own
// pick, so the text is the one plain decoding would give; drafts only decide how many picks one pass yields.

#include <cstdint>
#include <span>

namespace dspark {

/// How drafts are judged. All three keep the target's distribution; only kCoupled (and any rule at
/// temperature 0) keeps the text of a seed whatever is drafted.
enum class AcceptRule : uint8_t {
  kCoupled,    // accept while the draft equals the target's own seeded pick
  kRejection,  // token by token with probability p_t / p_d, corrected from the residual
  kBlock,      // block verification: the prefix is judged jointly
};

/// What a draft was sampled from. Empty `probs`: the draft was certain (one-hot).
struct DraftDistribution {
  std::span<const float> probs;  // (draft vocabulary) sums to 1
  std::span<const int32_t> ids;  // column -> target id, ascending; empty: column = id
};

/// Outcome of one round.
struct AcceptResult {
  int32_t accepted = 0;   // drafts equal to the target's picks, from the front
  int32_t last_pick = 0;  // the pick after them
  bool is_bonus = false;  // every draft agreed: last_pick is the bonus; else it is the correction
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

}  // namespace dspark
