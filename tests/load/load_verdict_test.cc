// What is said about the adaptive policy, on results that are made up.
#include <gtest/gtest.h>

#include <cmath>

#include "load/load_verdict.h"

namespace dspark {
namespace {

/// A round of 10 turns of 10 tokens in these seconds each.
LoadSummary round_in_turn(double turn_s, double wobble = 0.0) {
  LoadSummary round;
  double total_s = 0.0;
  for (int i = 0; i < 10; ++i) {
    total_s += turn_s * (1.0 + (i % 2 == 0 ? wobble : -wobble));
    round.turns.along.push_back(10.0 * (i + 1));
    round.turns.amount.push_back(total_s);
  }
  round.tokens_per_s = 100.0 / total_s;
  round.user_tokens_per_s = round.tokens_per_s / 2;
  return round;
}

LoadSummary round_at(double tokens_per_s, double user_tokens_per_s = 0.0) {
  LoadSummary round;
  round.tokens_per_s = tokens_per_s;
  round.user_tokens_per_s = user_tokens_per_s;
  return round;
}

LoadCell cell(double load, const char* policy, std::vector<LoadSummary> rounds) {
  return {load, policy, 12, std::move(rounds), {}};
}

TEST(LoadVerdict, RatiosOfTurnsWithTheirError) {
  const std::vector<LoadCell> cells = {
      cell(4, "off", {round_in_turn(1.0), round_in_turn(3.0)}),
      cell(4, "fixed:2", {round_in_turn(1.1), round_in_turn(3.3)}),
      cell(4, "adaptive", {round_in_turn(0.8, 0.1), round_in_turn(3.0, 0.1)}),
      cell(8, "fixed:2", {round_in_turn(1.0)}),  // of another load
      cell(8, "adaptive", {round_in_turn(9.0)}),
  };
  const std::vector<LoadVerdict> verdicts = judge_cells(cells, true, 0.98);
  ASSERT_EQ(verdicts.size(), 1u) << "without off there is nothing to say";
  const LoadVerdict& verdict = verdicts.front();
  EXPECT_EQ(verdict.load, 4);
  EXPECT_EQ(verdict.best_fixed, "off");
  // All seconds of one over all seconds of the other, not the mean of 1.25 and 1.0.
  EXPECT_NEAR(verdict.vs_off, 40.0 / 38.0, 1e-9);
  EXPECT_EQ(verdict.vs_best_fixed, verdict.vs_off);
  EXPECT_NEAR(verdict.vs_off_spread.least, 1.0, 1e-9);
  EXPECT_NEAR(verdict.vs_off_spread.most, 1.25, 1e-9);
  EXPECT_NEAR(verdict.vs_off_spread.median, 1.125, 1e-9);
  EXPECT_EQ(verdict.vs_off_spread.n_pieces, 20);
  EXPECT_GT(verdict.vs_off_spread.error, 0.0);
  EXPECT_LT(verdict.vs_off_spread.error, 0.1);
  EXPECT_FALSE(verdict.some_fixed_wins);
  EXPECT_TRUE(verdict.pass);
}

TEST(LoadVerdict, WithoutTurnsMediansOfRounds) {
  std::vector<LoadCell> cells = {
      cell(1, "off", {round_at(100, 10), round_at(200, 20), round_at(100, 40)}),
      cell(1, "fixed:3", {round_at(120, 12), round_at(210, 10), round_at(99, 39)}),
      cell(1, "adaptive", {round_at(119, 5), round_at(210, 10), round_at(150, 80)})};
  const LoadVerdict closed = judge_cells(cells, true, 0.98).front();
  EXPECT_EQ(closed.best_fixed, "fixed:3");
  EXPECT_DOUBLE_EQ(closed.vs_off, 1.19);
  EXPECT_DOUBLE_EQ(closed.vs_best_fixed, 1.0);
  EXPECT_LT(closed.vs_off_spread.error, 0.0);
  EXPECT_DOUBLE_EQ(closed.vs_off_spread.most, 1.5);
  EXPECT_TRUE(closed.some_fixed_wins);
  EXPECT_TRUE(closed.pass);
  const LoadVerdict open = judge_cells(cells, false, 0.98).front();
  EXPECT_DOUBLE_EQ(open.vs_off, 0.5) << "the speed of one user";
  EXPECT_FALSE(open.pass);
  // Turns say nothing about users who ask when they like.
  for (LoadCell& one : cells) one.rounds = {round_in_turn(1.0)};
  EXPECT_LT(judge_cells(cells, false, 0.98).front().vs_off_spread.error, 0.0);
  EXPECT_GE(judge_cells(cells, true, 0.98).front().vs_off_spread.error, 0.0);
}

PhaseSummary phase(int32_t clients, double tokens_per_s, int32_t steps_to_follow, double longest_wait_s) {
  PhaseSummary made;
  made.clients = clients;
  made.tokens_per_s = tokens_per_s;
  made.steps_to_follow = steps_to_follow;
  made.longest_wait_s = longest_wait_s;
  for (int i = 1; i <= 12; ++i) {  // twelve turns of half a second
    made.turns.along.push_back(0.5 * i);
    made.turns.amount.push_back(0.5 * i * tokens_per_s);
  }
  return made;
}

BurstCell burst(const char* policy, std::vector<std::vector<PhaseSummary>> rounds) {
  BurstCell made;
  made.policy = policy;
  made.rounds = std::move(rounds);
  return made;
}

TEST(LoadVerdict, EveryPhaseHasItsOwn) {
  std::vector<BurstCell> cells = {burst("off", {{phase(1, 100, 0, 0.1), phase(16, 500, 0, 0.3)},
                                                {phase(1, 50, 0, 0.1), phase(16, 400, 0, 0.3)}}),
                                  burst("fixed:5", {{phase(1, 180, 0, 0.1), phase(16, 200, 0, 2.0)},
                                                    {phase(1, 100, 0, 0.1), phase(16, 200, 0, 2.0)}}),
                                  burst("adaptive", {{phase(1, 200, 30, 0.2), phase(16, 450, -1, 0.5)},
                                                     {phase(1, 100, 10, 0.1), phase(16, 450, 4, 0.4)}})};
  const std::vector<PhaseVerdict> verdicts = judge_phases(cells);
  ASSERT_EQ(verdicts.size(), 2u);
  EXPECT_EQ(verdicts[0].clients, 1);
  EXPECT_EQ(verdicts[0].best_fixed, "fixed:5");
  EXPECT_NEAR(verdicts[0].vs_off, 2.0, 1e-9);
  EXPECT_NEAR(verdicts[0].vs_best_fixed, 300.0 / 280.0, 1e-9);
  EXPECT_NEAR(verdicts[0].vs_best_fixed_spread.most, 200.0 / 180.0, 1e-9);
  EXPECT_NEAR(verdicts[0].vs_best_fixed_spread.least, 1.0, 1e-9);
  EXPECT_GE(verdicts[0].vs_best_fixed_spread.error, 0.0);
  EXPECT_EQ(verdicts[0].steps_to_follow, 20.0);
  EXPECT_EQ(verdicts[0].longest_wait_s, 0.2);
  EXPECT_EQ(verdicts[1].clients, 16);
  EXPECT_EQ(verdicts[1].best_fixed, "off");
  EXPECT_NEAR(verdicts[1].vs_off, 1.0, 1e-9);
  EXPECT_NEAR(verdicts[1].vs_off_spread.median, (0.9 + 1.125) / 2, 1e-9);
  EXPECT_LT(verdicts[1].steps_to_follow, 0.0) << "half of the rounds never followed";
  EXPECT_EQ(verdicts[1].longest_wait_s, 0.5);
  EXPECT_EQ(cells[2].longest_wait_s(), 0.5);
  cells.erase(cells.begin());
  EXPECT_TRUE(judge_phases(cells).empty());
}

TEST(LoadVerdict, BurstsCountWhoWasPassedOver) {
  LoadResult result;
  result.phase_begin_s = {0.0};
  result.phase_longest_wait_s = {0.75};
  result.end_s = 2.0;
  result.requests.resize(3);
  result.requests[0].submitted_s = 0.0;  // no token, though the next one was answered
  result.requests[1].submitted_s = 0.5;
  result.requests[1].first_token_s = 0.75;
  result.requests[1].whole = true;
  result.requests[2].submitted_s = 1.0;  // no token, but nobody came later
  BurstCell cell;
  const std::vector<int32_t> phases = {3};
  cell.add(result, phases, 2.0);
  EXPECT_EQ(cell.unanswered, 1);
  EXPECT_EQ(cell.first_waits_s, std::vector<double>{0.25});
  EXPECT_EQ(cell.longest_wait_s(0), 0.75);
  EXPECT_EQ(cell.longest_wait_s(), 0.75);
}

}  // namespace
}  // namespace dspark
