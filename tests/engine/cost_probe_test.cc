// The probe's bookkeeping, on a target and a drafter without weights. What it measures is the benchmark's
// business.
#include "engine/cost_probe.h"

#include <gtest/gtest.h>

#include "draft/test_drafters.h"
#include "engine/fake_model.h"

namespace dspark {
namespace {

CostProbeOptions small_probe() {
  CostProbeOptions options;
  options.max_rows = 10;
  options.max_sequences = 3;
  options.context = 40;
  options.long_context = 90;
  options.budget_s = 0.05;
  return options;
}

std::vector<int32_t> sizes_of(const std::vector<CostPoint>& points) {
  std::vector<int32_t> sizes;
  for (const CostPoint& point : points) sizes.push_back(point.n);
  return sizes;
}

TEST(CostProbe, CoversTheSizesAndLeavesNothingBehind) {
  test::FakeModel model;
  test::ScriptedDrafter drafter([](const std::vector<int32_t>&, std::span<int32_t>) { return 1; }, 7);
  const auto table = measure_costs(model, &drafter, small_probe());
  ASSERT_TRUE(table.ok()) << table.status().to_string();
  EXPECT_TRUE(table->validate().ok()) << table->validate().to_string();
  EXPECT_EQ(sizes_of(table->verify), (std::vector<int32_t>{1, 2, 3, 4, 6, 8, 10}));
  EXPECT_EQ(sizes_of(table->draft), (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(drafter.n_live_slots(), 0u);
  EXPECT_EQ(model.largest_batch, 10);
}

TEST(CostProbe, NeedsNoDrafter) {
  test::FakeModel model;
  const auto table = measure_costs(model, nullptr, small_probe());
  ASSERT_TRUE(table.ok());
  EXPECT_TRUE(table->draft.empty());
  EXPECT_TRUE(table->validate().ok());
}

TEST(CostProbe, ReportsWhatFails) {
  test::FakeModel model;
  model.fail_from_forward = 3;
  EXPECT_EQ(measure_costs(model, nullptr, small_probe()).status().code(), StatusCode::kOutOfMemory);
  test::FakeModel healthy;
  test::ScriptedDrafter drafter([](const std::vector<int32_t>&, std::span<int32_t>) { return 1; }, 7);
  drafter.fail_from_now_on();
  EXPECT_FALSE(measure_costs(healthy, &drafter, small_probe()).ok());
  EXPECT_EQ(drafter.n_live_slots(), 0u);
}

}  // namespace
}  // namespace dspark
