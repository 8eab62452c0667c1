// Engines in turn: their ratio and its standard error, on turns that are made up.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/philox.h"
#include "load/load_pairs.h"

namespace dspark {
namespace {

TurnCurve curve(std::vector<double> along, std::vector<double> amount) {
  return {std::move(along), std::move(amount)};
}

/// n turns of 10 tokens and these seconds.
TurnCurve turns_of(const std::vector<double>& seconds) {
  TurnCurve made;
  double total = 0.0;
  for (size_t i = 0; i < seconds.size(); ++i) {
    made.along.push_back(10.0 * static_cast<double>(i + 1));
    made.amount.push_back(total += seconds[i]);
  }
  return made;
}

TurnComparison compare(const TurnCurve& a, const TurnCurve& b) {
  return compare_turns(std::vector{a}, std::vector{b});
}

LoadStep step(double end_s, int32_t committed) {
  LoadStep made;
  made.end_s = end_s;
  made.committed = committed;
  return made;
}

TEST(LoadPairs, CurvesOfARun) {
  LoadResult result;
  result.begin_s = 1.0;
  result.end_s = 6.0;
  result.steps = {step(0.5, 9), step(1.0, 7), step(1.5, 2), step(2.0, 3), step(3.0, 0), step(5.0, 4)};
  result.turn_end_s = {1.0, 2.0, 3.0, 5.5, 6.0};
  // The step that opened the window is not in it, and the turns that gave no token end with the next one that
  // did.
  const TurnCurve window = window_curve(result);
  EXPECT_EQ(window.along, (std::vector<double>{5, 9}));
  EXPECT_EQ(window.amount, (std::vector<double>{1.0, 4.5}));
  const TurnCurve phase = phase_curve(result, 1.5, 5.75);
  EXPECT_EQ(phase.along, (std::vector<double>{0.5, 1.5, 4.0, 4.25}));
  EXPECT_EQ(phase.amount, (std::vector<double>{3, 3, 7, 7}));
}

TEST(LoadPairs, RatioOfTheSameStretch) {
  // The second engine went on for longer; what it did there does not count.
  const TurnComparison all = compare(curve({10, 20}, {2, 4}), curve({5, 20, 40}, {1, 2, 1000}));
  EXPECT_DOUBLE_EQ(all.ratio, 2.0);
  EXPECT_EQ(all.n_pieces, 2);
  EXPECT_LT(all.error, 0.0) << "two pieces have no spread";
  EXPECT_DOUBLE_EQ(compare(curve({15}, {3}), curve({10, 20}, {1, 3})).ratio, 1.5);  // 2 s, within a turn
  EXPECT_EQ(compare({}, curve({10}, {1})).ratio, 0.0);
  EXPECT_EQ(compare_turns({}, {}).n_pieces, 0);
}

TEST(LoadPairs, WhatBothSufferIsNoSpread) {
  std::vector<double> fast, slow;
  for (int i = 0; i < 40; ++i) {
    const double machine = i % 20 < 10 ? 1.0 : 3.0;  // a neighbour comes and goes
    fast.push_back(machine);
    slow.push_back(1.02 * machine);
  }
  const TurnComparison both = compare(turns_of(slow), turns_of(fast));
  EXPECT_NEAR(both.ratio, 1.02, 1e-12);
  EXPECT_EQ(both.n_pieces, 40);
  EXPECT_GE(both.error, 0.0);
  EXPECT_LT(both.error, 1e-12);
}

TEST(LoadPairs, RoundsAddUp) {
  const TurnCurve one = turns_of({1, 1, 1, 1});
  const TurnCurve two = turns_of({2, 2, 2, 2, 2, 2});
  const TurnComparison rounds = compare_turns(std::vector{two, one}, std::vector{one, one});
  EXPECT_DOUBLE_EQ(rounds.ratio, 12.0 / 8.0);  // 8 + 4 s for the tokens of 4 + 4 s
  EXPECT_EQ(rounds.n_pieces, 8);
  EXPECT_GT(rounds.error, 0.1) << "the rounds do not agree";
}

/// A sum of twelve uniform numbers: nearly normal, deviation 1.
double noise(uint64_t seed, uint64_t i) {
  double sum = -6.0;
  for (uint32_t k = 0; k < 12; ++k) sum += uniform_of_word(noise_word(seed, i, k));
  return sum;
}

TEST(LoadPairs, NeighboursThatGoTogetherWidenTheError) {
  std::vector<double> steady(120, 1.0), alone, together;
  for (uint64_t i = 0; i < 120; ++i) {
    alone.push_back(1.0 + 0.1 * noise(5, i));
    together.push_back(1.0 + 0.1 * noise(5, i / 5));  // the same for five turns
  }
  const TurnComparison independent = compare(turns_of(alone), turns_of(steady));
  const TurnComparison dependent = compare(turns_of(together), turns_of(steady));
  EXPECT_NEAR(independent.error, 0.1 / std::sqrt(120.0), 0.004);
  EXPECT_GT(dependent.error, 1.4 * independent.error);
}

/// Engines in turn on a machine whose speed wanders: the engine with the fewest tokens has the next turn.
class Machine {
 public:
  Machine(uint64_t seed, double forgets) : seed_(seed), forgets_(forgets) {}

  std::vector<TurnCurve> run(const std::vector<double>& tokens_per_turn, double n_tokens) {
    std::vector<TurnCurve> curves(tokens_per_turn.size());
    std::vector<double> tokens(tokens_per_turn.size(), 0.0);
    for (;;) {
      const auto next = static_cast<size_t>(std::ranges::min_element(tokens) - tokens.begin());
      if (tokens[next] >= n_tokens) return curves;
      speed_ = (1 - forgets_) * speed_ + std::sqrt(forgets_ * (2 - forgets_)) * 0.2 * noise(seed_, turn_++);
      tokens[next] += tokens_per_turn[next] * std::exp(speed_ + 0.03 * noise(seed_ + 1000, turn_));
      curves[next].along.push_back(tokens[next]);
      curves[next].amount.push_back(static_cast<double>(curves[next].amount.size()) + 1.0);
    }
  }

 private:
  uint64_t seed_;
  double forgets_;  // share of the machine's state that is new in every turn
  double speed_ = 0.0;
  uint64_t turn_ = 0;
};

struct Study {
  double mean = 0.0, deviation = 0.0, said = 0.0;
};

Study study(double forgets) {
  constexpr uint64_t kRuns = 300;
  std::vector<double> ratios;
  double squares = 0.0, mean = 0.0;
  for (uint64_t r = 0; r < kRuns; ++r) {
    const std::vector<TurnCurve> curves = Machine(r, forgets).run({100, 97, 95}, 5000);
    const TurnComparison comparison = compare(curves[0], curves[2]);
    ratios.push_back(comparison.ratio);
    mean += comparison.ratio / kRuns;
    squares += comparison.error * comparison.error / kRuns;
  }
  double variance = 0.0;
  for (const double ratio : ratios) variance += (ratio - mean) * (ratio - mean) / (kRuns - 1);
  return {mean, std::sqrt(variance), std::sqrt(squares)};
}

TEST(LoadPairs, ErrorIsTheDeviationOfRepeatedRuns) {
  for (const double forgets : {0.05, 0.3, 1.0}) {
    const Study result = study(forgets);
    EXPECT_NEAR(result.mean, 0.95, 0.004) << forgets;
    EXPECT_NEAR(result.said / result.deviation, 1.0, 0.2) << forgets;
  }
  // A machine that changes slowly says more about the ratio, though single runs vary as much.
  EXPECT_LT(study(0.05).said, 0.5 * study(1.0).said);
}

}  // namespace
}  // namespace dspark
