// Plans for some of the sequences of a step: kinds of policies that are planned apart, and neighbours whose
// verify lengths are not the planner's.
#include <gtest/gtest.h>

#include "speculate/adaptive_planner.h"

namespace dspark {
namespace {

constexpr auto kAdaptive = VerifyPolicy::Kind::kAdaptive, kCausal = VerifyPolicy::Kind::kCausal;

/// Lengths for one sequence of every kind, each with the same drafts; shape: one row for each of them.
std::vector<int32_t> lengths_of(const CostTable& table, const std::vector<VerifyPolicy::Kind>& kinds,
                                const std::vector<float>& confidence, const StepShape& shape,
                                const PlanNeighbours& neighbours = {}, bool any_schedule = true) {
  AdaptivePlanner planner(table);
  std::vector<SurvivalRecord> records(kinds.size());
  std::vector<PlanSequence> sequences;
  const auto n = static_cast<int32_t>(confidence.size());
  for (size_t r = 0; r < kinds.size(); ++r) {
    sequences.push_back({n, n, confidence, any_schedule, &records[r], kinds[r]});
  }
  std::vector<int32_t> lengths(kinds.size(), -1);
  planner.verify_lengths(shape, sequences, lengths, neighbours);
  return lengths;
}

using Lengths = std::vector<int32_t>;

// Two rows cost 10 ms, more cost 30: a first draft alone is a loss, seven together are a gain.
TEST(PlannerNeighbours, KindsArePlannedApart) {
  CostTable stairs;
  stairs.verify = {{1, 0.010}, {2, 0.010}, {3, 0.030}, {64, 0.030}};
  const std::vector<float> sure(7, 0.9f);
  const StepShape shape{2, 0, 0, 0};
  EXPECT_EQ(lengths_of(stairs, {kCausal, kCausal}, sure, shape), (Lengths{0, 0}));
  EXPECT_EQ(lengths_of(stairs, {kCausal, kAdaptive}, sure, shape), (Lengths{0, 7}));
  EXPECT_EQ(lengths_of(stairs, {kAdaptive, kCausal}, sure, shape), (Lengths{7, 0}));
  EXPECT_EQ(lengths_of(stairs, {kAdaptive, kAdaptive}, sure, shape), (Lengths{7, 7}));
  // A rule that must not anticipate makes the budget a matter of records; the first of them are hopeful.
  EXPECT_EQ(lengths_of(stairs, {kCausal, kAdaptive}, sure, shape, {}, false)[0], 0);
}

// Six rows are free: what the causal sequence took is no longer there for the adaptive one.
TEST(PlannerNeighbours, RowsOfOneKindAreThereForTheOther) {
  CostTable table;
  table.verify = {{1, 0.010}, {6, 0.010}, {7, 1.0}, {64, 60.0}};
  const std::vector<float> sure(7, 0.9f);
  EXPECT_EQ(lengths_of(table, {kAdaptive, kCausal}, sure, {2, 0, 0, 0}), (Lengths{0, 4}));
  EXPECT_EQ(lengths_of(table, {kAdaptive}, sure, {1, 0, 0, 0}), (Lengths{5}));
  EXPECT_EQ(lengths_of(table, {kAdaptive}, sure, {4, 0, 0, 0}), (Lengths{2})) << "three rows of neighbours";
}

// A row takes a tenth of a step of one and makes everybody wait: worth it alone, not beside fifteen others.
TEST(PlannerNeighbours, TokensOfNeighboursAreWeighedToo) {
  CostTable table;
  for (int32_t n = 1; n <= 64; ++n) table.verify.push_back({n, 0.010 + 0.001 * (n - 1)});
  const std::vector<float> half(1, 0.5f);
  PlanNeighbours neighbours;
  for (int i = 0; i < 15; ++i) neighbours.add(0, 0, 0, 1.0);
  EXPECT_EQ(neighbours.rows, 15);
  for (const VerifyPolicy::Kind kind : {kAdaptive, kCausal}) {
    EXPECT_EQ(lengths_of(table, {kind}, half, {1, 0, 0, 0}), (Lengths{1}));
    EXPECT_EQ(lengths_of(table, {kind}, half, {16, 0, 0, 0}, neighbours), (Lengths{0}));
  }
}

// Context of neighbours is none of a draft's.
TEST(PlannerNeighbours, ContextOfNeighboursIsNotLookedAt) {
  CostTable table;
  table.verify = {{1, 0.010}, {64, 0.011}};
  table.row_context_s = 1e-6;
  const std::vector<float> sure(4, 0.9f);
  PlanNeighbours neighbours;
  neighbours.add(0, 0, 50000, 1.0);
  const StepShape shape{2, 0, 100 + 50000, 100 + 50000};
  EXPECT_EQ(lengths_of(table, {kAdaptive}, sure, shape, neighbours), (Lengths{4}));
}

/// 300 steps of one sequence whose first three drafts are always right, beside fifteen for which seven drafts
/// are verified and `n_accepted` kept. The pass costs the same for any number of rows, telling the drafter of
/// commits takes commit_s for all together. returns: steps with drafts.
int32_t run_beside_fifteen(AdaptivePlanner& planner, int32_t n_accepted, double commit_s) {
  int32_t n_drafting = 0;
  for (int step = 0; step < 300; ++step) {
    PlanLoad load{1, 1};
    PlanNeighbours neighbours;
    for (int i = 0; i < 15; ++i) {
      load.neighbours.add(7, 7, 0, 0.0);
      neighbours.add(7, 7, 0, 1.0 + n_accepted);
    }
    const int32_t length = planner.draft_length(load, 7);
    n_drafting += length > 0 ? 1 : 0;
    const int32_t n_own = std::min(3, length);
    planner.observe_round(length, n_own);
    const StepShape shape{1 + neighbours.rows + length, 15 + (length > 0 ? 1 : 0), 0, 0, 7};
    planner.observe_gain(shape, 1, 1 + n_own, neighbours);
    planner.observe_step(shape, 0.010, planner.costs().draft_seconds(shape.draft_sequences), commit_s);
  }
  return n_drafting;
}

CostTable flat_table() {
  CostTable table;
  table.verify = {{1, 0.010}, {200, 0.010}};
  table.draft = {{1, 0.001}, {16, 0.002}};
  return table;
}

// Whatever becomes of the neighbours' drafts, own ones are judged by what they add to such a step.
TEST(PlannerNeighbours, DraftsOfNeighboursAreNoVerdict) {
  const int32_t beside = DraftGate::load_of(16);
  AdaptivePlanner planner(flat_table());
  EXPECT_GT(run_beside_fifteen(planner, 0, 0.0), 250);
  EXPECT_EQ(planner.gate().credit(beside), DraftGate::kMostCredit);
  EXPECT_TRUE(planner.gate().is_new(DraftGate::load_of(1))) << "a step of sixteen is none of one";
  EXPECT_TRUE(planner.drafting_pays(1)) << "beside the fifteen of the last step";
}

// What the drafter does for commits is shared by all who draft.
TEST(PlannerNeighbours, CommitsOfNeighboursAreTheirs) {
  AdaptivePlanner planner(flat_table());
  EXPECT_GT(run_beside_fifteen(planner, 0, 0.004), 250);
  EXPECT_EQ(planner.gate().credit(DraftGate::load_of(16)), DraftGate::kMostCredit);
  // Steps of neighbours alone teach nothing about what drafting costs others.
  AdaptivePlanner fresh(flat_table());
  for (int step = 0; step < 300; ++step) {
    EXPECT_EQ(fresh.draft_length(PlanLoad{}, 7), 0);
    fresh.observe_step({8, 1, 0, 0, 7}, 0.010, 0.001, 0.5);
  }
  ASSERT_GT(fresh.draft_length(1, 7), 0);
  const double before = fresh.gate().credit(0);
  fresh.observe_gain({4, 1, 0, 0, 3}, 1, 4);
  EXPECT_GT(fresh.gate().credit(0), before + 2.0);
}

// Drafts that add nothing stay a loss, however well those of the neighbours do.
TEST(PlannerNeighbours, GoodDraftsOfNeighboursAreNoExcuse) {
  CostTable table;
  table.verify = {{1, 0.010}, {200, 0.210}};
  table.draft = {{1, 0.001}, {16, 0.002}};
  AdaptivePlanner planner(table);
  int32_t n_drafting = 0;
  for (int step = 0; step < 300; ++step) {
    PlanLoad load{1, 1};
    PlanNeighbours neighbours;
    for (int i = 0; i < 3; ++i) {
      load.neighbours.add(7, 7, 0, 0.0);
      neighbours.add(7, 7, 0, 8.0);
    }
    const int32_t length = planner.draft_length(load, 7);
    n_drafting += length > 0 ? 1 : 0;
    planner.observe_round(length, 0);
    const StepShape shape{1 + neighbours.rows + length, 3 + (length > 0 ? 1 : 0), 0, 0, 7};
    planner.observe_gain(shape, 1, 1, neighbours);
    planner.observe_step(shape, planner.costs().verify_seconds(shape), 0.001);
  }
  EXPECT_LT(n_drafting, 100);
}

// Gains are counted in steps that a length was asked for; the step ends with what it took.
TEST(PlannerNeighbours, AStepIsJudgedOnce) {
  AdaptivePlanner planner(flat_table());
  ASSERT_GT(planner.draft_length(1, 7), 0);
  planner.observe_gain({8, 1, 0, 0, 7}, 1, 1);
  planner.observe_step({8, 1, 0, 0, 7}, 0.010, 0.001);
  const double credit = planner.gate().credit(0);
  planner.observe_gain({8, 1, 0, 0, 7}, 1, 1);
  EXPECT_EQ(planner.gate().credit(0), credit);
}

}  // namespace
}  // namespace dspark
