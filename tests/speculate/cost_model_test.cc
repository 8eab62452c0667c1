// The cost model as arithmetic: no clock, no model.
#include "speculate/cost_model.h"

#include <gtest/gtest.h>

#include <limits>

namespace dspark {
namespace {

CostTable staircase() {
  CostTable table;
  table.verify = {{1, 0.010}, {2, 0.010}, {4, 0.011}, {8, 0.020}, {16, 0.040}};
  table.draft = {{1, 0.001}, {8, 0.004}};
  table.context_s = 1e-6;
  table.row_context_s = 1e-7;
  table.overhead_s = 1e-4;
  return table;
}

TEST(CostModel, FollowsTheMeasuredPoints) {
  const CostModel model(staircase());
  EXPECT_DOUBLE_EQ(model.verify_seconds({.rows = 1}), 0.010);
  EXPECT_DOUBLE_EQ(model.verify_seconds({.rows = 3}), 0.0105);
  EXPECT_DOUBLE_EQ(model.verify_seconds({.rows = 8}), 0.020);
  EXPECT_DOUBLE_EQ(model.verify_seconds({.rows = 32}), 0.080);  // along the slope from 8 to 16
  EXPECT_DOUBLE_EQ(model.verify_seconds({}), 0.0);
  EXPECT_DOUBLE_EQ(model.draft_seconds(0), 0.0);
  EXPECT_DOUBLE_EQ(model.draft_seconds(1), 0.001);
  EXPECT_NEAR(model.draft_seconds(16), 0.004 + 8 * 0.003 / 7, 1e-12);
  EXPECT_NEAR(model.step_seconds({.rows = 2, .draft_sequences = 1, .context = 1000, .row_context = 2000}),
              0.010 + 1e-3 + 2e-4 + 0.001 + 1e-4, 1e-12);
}

// Neighbouring sizes may be the two edges of one stair: what lies beyond is not as steep as the stair.
TEST(CostModel, GoesOnBeyondAStair) {
  CostTable table;
  table.verify = {{1, 0.010}, {8, 0.010}, {9, 0.014}, {16, 0.014}, {17, 0.018}};
  const CostModel model(table);
  EXPECT_NEAR(model.verify_seconds({.rows = 12}), 0.014, 1e-12);
  EXPECT_NEAR(model.verify_seconds({.rows = 26}), 0.026, 1e-12);  // from row 8 to row 17
  std::vector<double> costs;
  model.step_costs({.rows = 1}, 40, 0.0, costs);
  for (int32_t b = 0; b <= 40; ++b) {
    EXPECT_DOUBLE_EQ(costs[static_cast<size_t>(b)], model.verify_seconds({.rows = 1 + b})) << b;
  }
}

// One slow moment at a small size must not make all larger sizes look dear.
TEST(CostModel, ABumpDoesNotLiftWhatIsBehindIt) {
  CostTable table;
  table.verify = {{1, 0.004}, {2, 0.011}, {4, 0.005}, {8, 0.006}, {16, 0.012}};
  const CostModel model(table);
  EXPECT_NEAR(model.verify_seconds({.rows = 1}), 0.004, 1e-12);
  EXPECT_NEAR(model.verify_seconds({.rows = 2}), 0.005, 1e-12);
  EXPECT_NEAR(model.verify_seconds({.rows = 8}), 0.006, 1e-12);
  EXPECT_NEAR(model.verify_seconds({.rows = 16}), 0.012, 1e-12);
}

TEST(CostModel, DipsInTheMeasurementAreNoise) {
  CostTable table = staircase();
  table.verify[2].seconds = 0.009;
  const CostModel model(table);
  EXPECT_NEAR(model.verify_seconds({.rows = 4}), 0.009, 1e-12);
  EXPECT_LE(model.verify_seconds({.rows = 3}), 0.009);  // sizes it contradicts took too long
  std::vector<double> costs;
  model.step_costs({.rows = 1, .draft_sequences = 1, .context = 100, .row_context = 100}, 15, 100.0, costs);
  ASSERT_EQ(costs.size(), 16u);
  EXPECT_DOUBLE_EQ(costs[0], model.step_seconds({1, 1, 100, 100}));
  EXPECT_DOUBLE_EQ(costs[15], model.step_seconds({16, 1, 100, 1600}));
  for (size_t b = 1; b < costs.size(); ++b) EXPECT_GE(costs[b], costs[b - 1]);
}

TEST(CostModel, OneOutlierChangesNothing) {
  CostModel model(staircase());
  const StepShape shape{.rows = 4};
  for (int i = 0; i < 20; ++i) model.observe(shape, 0.011, 0.0);
  const double before = model.verify_seconds(shape);
  model.observe(shape, 3.0, 0.0);
  EXPECT_DOUBLE_EQ(model.verify_seconds(shape), before);
}

TEST(CostModel, LearnsThatTheMachineIsSlowerNow) {
  CostModel model(staircase());
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(model.correction_is_settled(), i >= 15);
    model.observe({.rows = 4, .draft_sequences = 1}, 0.022, 0.002);
  }
  EXPECT_NEAR(model.verify_seconds({.rows = 4}), 0.022, 1e-9);
  EXPECT_NEAR(model.verify_seconds({.rows = 1}), 0.020, 1e-9);  // sizes not seen follow
  EXPECT_NEAR(model.draft_seconds(1), 0.002, 1e-9);
  EXPECT_NEAR(model.correction(), 2.0, 1e-9);
}

TEST(CostModel, DraftsBehindTheTablesLengthAreFree) {
  CostTable table = staircase();
  table.draft_short = {{1, 0.0004}, {8, 0.002}};
  table.draft_length = 7;
  const CostModel model(table);
  EXPECT_NEAR(model.draft_seconds(1, 4), 0.0007, 1e-9);
  EXPECT_NEAR(model.draft_seconds(1, 7), 0.001, 1e-9);
  EXPECT_NEAR(model.draft_seconds(1, 16), 0.001, 1e-9);
}

TEST(CostModel, ShortBlocksAreAStair) {
  CostTable table = staircase();  // a whole block of one sequence: 0.001
  table.draft_short = {{1, 0.0003}, {8, 0.002}};
  table.draft_stair = {{1, 0.0004}, {8, 0.0025}};
  table.draft_length = 7;
  table.stair_length = 3;
  ASSERT_TRUE(table.validate().ok()) << table.validate().to_string();
  const CostModel model(table);
  const double expected[] = {0.0003, 0.00035, 0.0004, 0.00085, 0.0009, 0.00095, 0.001, 0.001};
  for (int32_t length = 1; length <= 8; ++length) {
    EXPECT_NEAR(model.draft_seconds(1, length), expected[length - 1], 1e-9) << length;
  }
  EXPECT_NEAR(model.draft_seconds(1), 0.001, 1e-9);
  table.stair_length = 1;  // one draft and the stair are the same pass
  table.draft_stair = table.draft_short;
  EXPECT_NEAR(CostModel(table).draft_seconds(1, 1), 0.0003, 1e-9);
  EXPECT_NEAR(CostModel(table).draft_seconds(1, 2), 0.001, 1e-9);
  table.stair_length = 0;
  EXPECT_FALSE(table.validate().ok());
}

TEST(CostModel, TheFirstStepsAreNotCountedTwice) {
  CostModel model(staircase());
  for (int i = 0; i < 8; ++i) {
    model.observe({.rows = 4}, 0.020, 0.0);
    EXPECT_LE(model.verify_seconds({.rows = 4}), 0.0201) << i;
  }
  EXPECT_NEAR(model.verify_seconds({.rows = 4}), 0.020, 1e-9);
}

// Many prompts at the start, in passes that take half of what the table says.
TEST(CostModel, PassesOverPromptsSayNothingAboutTheMachine) {
  CostModel model(staircase());
  const StepShape prompt{.rows = 16, .prompt_rows = 16};
  const double before = model.verify_seconds(prompt);
  for (int i = 0; i < 20; ++i) model.observe(prompt, 0.5 * before, 0.0);
  EXPECT_DOUBLE_EQ(model.correction(), 1.0);
  EXPECT_NEAR(model.verify_seconds({.rows = 4}), 0.011, 1e-9);
  for (int i = 0; i < 12; ++i) {
    model.observe({.rows = 4}, 0.011, 0.0);
    model.observe(prompt, 0.5 * before, 0.0);
  }
  EXPECT_NEAR(model.verify_seconds(prompt), 0.5 * before, 1e-9);
  EXPECT_NEAR(model.verify_seconds({.rows = 4}), 0.011, 1e-9);
}

// Rows of prompts have no logits: a step of 64 rows of which most are a prompt's takes less than one that
// verifies as many.
TEST(CostModel, StepsWithPromptsSayNothingOfThoseWithout) {
  CostTable table;
  table.verify = {{1, 0.010}, {16, 0.020}, {32, 0.036}, {64, 0.068}};
  CostModel model(table);
  StepShape with_prompt{64, 0, 0, 0};
  with_prompt.prompt_rows = 48;
  for (int i = 0; i < 40; ++i) {
    model.observe({16, 0, 0, 0}, 0.020, 0.0);
    model.observe(with_prompt, 0.051, 0.0);
  }
  EXPECT_NEAR(model.verify_seconds(with_prompt), 0.051, 1e-6);
  EXPECT_NEAR(model.verify_seconds({64, 0, 0, 0}), 0.068, 1e-6);
  std::vector<double> costs;
  model.step_costs({16, 0, 0, 0}, 48, 0.0, costs);
  EXPECT_NEAR(costs.back(), 0.068, 1e-6);
}

TEST(CostModel, LearnsWhatTheTableGotWrongAtOneSize) {
  CostModel model(staircase());
  for (int i = 0; i < 60; ++i) {
    model.observe({.rows = 1}, 0.010, 0.0);
    model.observe({.rows = 2}, 0.010, 0.0);
    model.observe({.rows = 8}, 0.030, 0.0);
  }
  EXPECT_NEAR(model.verify_seconds({.rows = 1}), 0.010, 1e-3);
  EXPECT_NEAR(model.verify_seconds({.rows = 8}), 0.030, 3e-3);
}

// Layers with windows: up to 500 positions cost all there is, up to 2000 a fifth, and so on.
TEST(CostModel, PositionsCountByTheCurve) {
  CostTable table = staircase();
  EXPECT_EQ(table.counted_positions(123.5), 123.5);
  table.context_curve = {{500, 1000.0}, {2000, 1300.0}};
  ASSERT_TRUE(table.validate().ok()) << table.validate().to_string();
  EXPECT_DOUBLE_EQ(table.counted_positions(0), 0.0);
  EXPECT_DOUBLE_EQ(table.counted_positions(250), 500.0);
  EXPECT_DOUBLE_EQ(table.counted_positions(500), 1000.0);
  EXPECT_DOUBLE_EQ(table.counted_positions(1000), 1100.0);
  EXPECT_DOUBLE_EQ(table.counted_positions(2000), 1300.0);
  EXPECT_DOUBLE_EQ(table.counted_positions(12000), 3300.0);
  const CostModel model(table);
  EXPECT_EQ(model.counted_positions(1001), 1100);
  EXPECT_EQ(CostModel(staircase()).counted_positions(1001), 1001);
  table.context_curve = {{500, 200.0}};  // one point: a line
  EXPECT_DOUBLE_EQ(table.counted_positions(1000), 400.0);
}

TEST(CostModel, SizesAreKeptAsStepsSaidTheyAre) {
  CostModel model(staircase());
  for (int i = 0; i < 60; ++i) {
    for (const int32_t n : {1, 2, 1, 2}) model.observe({.rows = n}, 0.010, 0.0);
    model.observe({.rows = 4}, 0.0121, 0.0);
    model.observe({.rows = 4, .prompt_rows = 3}, 0.005, 0.0);
    if (i < 20) model.observe({.rows = 8}, 0.100, 0.0);  // a bad moment
    model.observe({.rows = 16}, i % 2 == 0 ? 0.080 : 0.084, 0.0);
  }
  const CostTable kept = model.corrected_table();
  ASSERT_EQ(kept.verify.size(), 5u);
  EXPECT_NEAR(kept.verify[0].seconds, 0.010, 1e-9);
  EXPECT_NEAR(kept.verify[2].seconds, 0.0121, 1e-4);
  EXPECT_NEAR(kept.verify[3].seconds, 0.020, 1e-9);  // 20 steps are too few
  EXPECT_NEAR(kept.verify[4].seconds, 0.050, 1e-9);  // a quarter at most
  EXPECT_EQ(model.table().verify[4].seconds, 0.040);
  // How fast the machine is now is not kept.
  CostModel slow(staircase());
  for (int i = 0; i < 100; ++i) slow.observe({.rows = 4}, 0.0165, 0.0);
  EXPECT_NEAR(slow.correction(), 1.5, 1e-9);
  EXPECT_NEAR(slow.corrected_table().verify[2].seconds, 0.011, 1e-9);
}

TEST(CostModel, RefusesTablesThatAreNone) {
  EXPECT_TRUE(staircase().validate().ok());
  CostTable table = staircase();
  table.verify.clear();
  EXPECT_FALSE(table.validate().ok());
  table = staircase();
  table.verify[1].n = 1;
  EXPECT_NE(table.validate().to_string().find("verify[1]"), std::string::npos);
  table = staircase();
  table.draft[0].seconds = 0.0;
  EXPECT_NE(table.validate().to_string().find("draft[0]"), std::string::npos);
  table = staircase();
  table.overhead_s = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NE(table.validate().to_string().find("overhead_s"), std::string::npos);
  for (const std::vector<ContextPoint>& curve :
       {std::vector<ContextPoint>{{0, 0.0}}, {{5, 5.0}, {5, 6.0}}, {{5, 5.0}, {6, 4.0}}, {{5, -1.0}}}) {
    table = staircase();
    table.context_curve = curve;
    EXPECT_NE(table.validate().to_string().find("context_curve"), std::string::npos);
  }
}

}  // namespace
}  // namespace dspark
