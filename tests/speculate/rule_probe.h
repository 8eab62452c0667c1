#pragma once
// Exact probabilities of an accept rule's outcomes, found by asking the rule itself: its answer changes with
// each random number at one place only, and bisection finds that place to the last bit of a double.

#include <gtest/gtest.h>

#include <cstdint>
#include <span>
#include <vector>

#include "speculate/accept.h"

namespace dspark::test {

inline constexpr double kAlmostOne = 1.0 - 0x1p-53;

/// Where `below` turns from true to false on [0, 1); 0 or 1 when it never does.
template <typename Below>
double turning_point(Below&& below) {
  if (!below(0.0)) return 0.0;
  if (below(kAlmostOne)) return 1.0;
  double yes = 0.0, no = kAlmostOne;
  for (int i = 0; i < 64; ++i) {
    const double middle = 0.5 * (yes + no);
    (below(middle) ? yes : no) = middle;
  }
  return no;
}

/// One round to be judged: rows are given as if they did not depend on the drafts.
struct Round {
  std::vector<int32_t> drafts;
  std::vector<std::vector<float>> target;  // (drafts + 1, vocabulary)
  std::vector<DraftDistribution> draft;    // (drafts)
};

inline AcceptResult judge(AcceptRule rule, const Round& round, const GivenNoise& noise) {
  DrawScratch scratch;
  int32_t asked = 0;
  const auto target_row = [&](int32_t i) -> std::span<const float> {
    EXPECT_EQ(i, asked++) << "rows are asked in order, each once";
    return round.target[static_cast<size_t>(i)];
  };
  const auto draft_row = [&](int32_t i) { return round.draft[static_cast<size_t>(i)]; };
  const AcceptResult result = rule == AcceptRule::kBlock
                                  ? accept_block(round.drafts, target_row, draft_row, noise, scratch)
                                  : accept_rejection(round.drafts, target_row, draft_row, noise, scratch);
  const auto n = static_cast<int32_t>(round.drafts.size());
  EXPECT_EQ(asked, rule == AcceptRule::kBlock ? n + 1 : result.accepted + 1);
  EXPECT_EQ(result.is_bonus, result.accepted == n);
  return result;
}

/// One way a round can end.
struct Outcome {
  int32_t accepted = 0;
  double probability = 0.0;
  std::vector<double> next;  // (vocabulary) of the token behind the accepted drafts
};

/// The distribution of the last token under the given coins.
inline std::vector<double> next_distribution(AcceptRule rule, const Round& round,
                                             const std::vector<double>& coins) {
  std::vector<double> next;
  double before = 0.0;
  for (size_t v = 0; v < round.target[0].size(); ++v) {
    const double up_to = turning_point([&](double u) {
      return judge(rule, round, {coins, u}).last_pick <= static_cast<int32_t>(v);
    });
    next.push_back(up_to - before);
    before = up_to;
  }
  return next;
}

/// Acceptance probability of each coin on its own: min(1, p / q) of the token rule, h_i of block
/// verification. One that no coin can show (a certain later coin hides it) stays 0.
inline std::vector<double> coin_thresholds(AcceptRule rule, const Round& round) {
  const size_t n = round.drafts.size();
  std::vector<double> found(n);
  for (size_t i = 0; i < n; ++i) {
    // The token rule sees coin i after accepting those before it, the block rule after failing those behind.
    std::vector<double> coins(n, rule == AcceptRule::kBlock ? kAlmostOne : 0.0);
    found[i] = turning_point([&](double u) {
      coins[i] = u;
      const int32_t accepted = judge(rule, round, {coins, 0.5}).accepted;
      return rule == AcceptRule::kBlock ? accepted == static_cast<int32_t>(i) + 1
                                        : accepted > static_cast<int32_t>(i);
    });
  }
  return found;
}

/// All ways with a probability worth speaking of (above 1e-15).
inline std::vector<Outcome> outcomes(AcceptRule rule, const Round& round) {
  const auto n = static_cast<int32_t>(round.drafts.size());
  const std::vector<double> thresholds = coin_thresholds(rule, round);
  const bool block = rule == AcceptRule::kBlock;
  std::vector<Outcome> found;
  std::vector<double> coins(static_cast<size_t>(n), block ? kAlmostOne : 0.0);
  double rest = 1.0;
  const auto add = [&](int32_t accepted, double probability) {
    if (probability > 1e-15) found.push_back({accepted, probability, next_distribution(rule, round, coins)});
  };
  for (int32_t step = 0; step < n && rest > 1e-15; ++step) {
    const auto i = static_cast<size_t>(block ? n - 1 - step : step);
    coins[i] = block ? 0.0 : kAlmostOne;  // block: accepted here; token: rejected here
    add(block ? static_cast<int32_t>(i) + 1 : static_cast<int32_t>(i),
        rest * (block ? thresholds[i] : 1.0 - thresholds[i]));
    coins[i] = block ? kAlmostOne : 0.0;
    rest *= block ? 1.0 - thresholds[i] : thresholds[i];
  }
  add(block ? 0 : n, rest);
  return found;
}

}  // namespace dspark::test
