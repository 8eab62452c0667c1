// The probe's bookkeeping, on a target and a drafter without weights. What it measures is the benchmark's
// business.
#include "engine/cost_probe.h"

#include <gtest/gtest.h>

#include <chrono>
#include <set>

#include "draft/test_drafters.h"
#include "engine/engine.h"
#include "engine/fake_model.h"

namespace dspark {
namespace {

/// A drafter whose calls take the time that they are told to.
class TimedDrafter final : public Drafter {
 public:
  TimedDrafter(test::FakeTime time, double propose_s, double commit_s, int32_t short_block = 0)
      : time_(std::move(time)), propose_s_(propose_s), commit_s_(commit_s), short_block_(short_block) {}

  std::string_view name() const override { return "timed"; }
  int32_t max_block() const override { return 7; }
  int32_t short_block() const override { return short_block_; }
  Status propose(std::span<const DraftRequest> requests, DraftBlock&) override {
    const int32_t length = requests.front().max_tokens;
    const double stair = short_block_ > 0 && length > short_block_ ? 10.0 : 0.0;
    time_.pass(propose_s_ * static_cast<double>(requests.size()) * (1.0 + length + stair));
    return ok_status();
  }
  void commit(std::span<const CommitEvent> events) override {
    for (const CommitEvent& event : events) live_.insert(event.slot);
    time_.pass(commit_s_ * static_cast<double>(events.size()));
  }
  void release(int32_t slot) override { live_.erase(slot); }
  size_t n_live_slots() const { return live_.size(); }

 private:
  test::FakeTime time_;
  double propose_s_, commit_s_;
  int32_t short_block_;
  std::set<int32_t> live_;
};

/// Kernels with tiles of 8 rows: every tile begun costs as much as four rows.
double stairs(int64_t n_rows) {
  return 1e-3 + 1e-4 * static_cast<double>(n_rows) + 4e-4 * static_cast<double>((n_rows + 7) / 8);
}

CostProbeOptions small_probe() {
  CostProbeOptions options;
  options.max_rows = 10;
  options.max_sequences = 3;
  options.context = 40;
  options.long_context = 90;
  options.budget_s = 1e9;  // rounds are bounded: a slow machine leaves nothing out
  return options;
}

std::vector<int32_t> sizes_of(const std::vector<CostPoint>& points) {
  std::vector<int32_t> sizes;
  for (const CostPoint& point : points) sizes.push_back(point.n);
  return sizes;
}

TEST(CostProbe, SizesReachTheLastAndBothEdgesOfStairs) {
  EXPECT_EQ(probe_rows(1), (std::vector<int32_t>{1}));
  EXPECT_EQ(probe_rows(17), (std::vector<int32_t>{1, 2, 3, 4, 6, 8, 9, 12, 16, 17}));
  EXPECT_EQ(probe_rows(256),
            (std::vector<int32_t>{1, 2, 3, 4, 6, 8, 9, 12, 16, 17, 24, 25, 32, 33, 48, 64, 128, 256}));
  EXPECT_EQ(probe_rows(180).back(), 180);
  EXPECT_EQ(probe_sequences(2), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(probe_sequences(32), (std::vector<int32_t>{1, 2, 3, 4, 6, 8, 12, 16, 24, 32}));
}

TEST(CostProbe, CoversTheSizesAndLeavesNothingBehind) {
  test::FakeModel model;
  test::ScriptedDrafter drafter([](const std::vector<int32_t>&, std::span<int32_t>) { return 1; }, 7);
  const auto table = measure_costs(model, &drafter, small_probe());
  ASSERT_TRUE(table.ok()) << table.status().to_string();
  EXPECT_TRUE(table->validate().ok()) << table->validate().to_string();
  EXPECT_EQ(sizes_of(table->verify), (std::vector<int32_t>{1, 2, 3, 4, 6, 8, 9, 10}));
  EXPECT_EQ(sizes_of(table->draft), (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(drafter.n_live_slots(), 0u);
  EXPECT_EQ(model.largest_batch, 10);
}

TEST(CostProbe, FindsWhatPassesCost) {
  test::FakeModel model;
  int n_passes = 0;
  model.pass_seconds = [&](int64_t n) { return stairs(n) * (n_passes++ < 8 ? 3.0 : 1.0); };  // cold caches
  TimedDrafter drafter(model.time, 1e-4, 1e-3);
  CostProbeOptions options = small_probe();
  options.max_rows = 256;
  options.max_sequences = 32;
  options.clock = model.time.clock();
  const auto table = measure_costs(model, &drafter, options);
  ASSERT_TRUE(table.ok()) << table.status().to_string();
  EXPECT_EQ(sizes_of(table->verify), probe_rows(256));
  EXPECT_EQ(sizes_of(table->draft), probe_sequences(32));
  EXPECT_EQ(sizes_of(table->draft_short), probe_sequences(32));
  for (const CostPoint& point : table->verify) EXPECT_NEAR(point.seconds, stairs(point.n), 1e-8) << point.n;
  for (const CostPoint& point : table->draft) EXPECT_NEAR(point.seconds, 8e-4 * point.n, 1e-8);
  for (const CostPoint& point : table->draft_short) EXPECT_NEAR(point.seconds, 2e-4 * point.n, 1e-8);
  EXPECT_EQ(drafter.n_live_slots(), 0u);
  // What lies between the sizes of the first four stairs is right too.
  const CostModel costs(*table);
  for (int32_t n = 9; n <= 33; ++n) EXPECT_NEAR(costs.verify_seconds({.rows = n}), stairs(n), 1e-8) << n;
}

TEST(CostProbe, FindsTheStairOfShortBlocks) {
  for (const int32_t short_block : {1, 3, 7}) {
    SCOPED_TRACE(short_block);
    test::FakeModel model;
    model.pass_seconds = stairs;
    TimedDrafter drafter(model.time, 1e-4, 1e-3, short_block);
    CostProbeOptions options = small_probe();
    options.clock = model.time.clock();
    const auto table = measure_costs(model, &drafter, options);
    ASSERT_TRUE(table.ok()) << table.status().to_string();
    ASSERT_TRUE(table->validate().ok()) << table->validate().to_string();
    EXPECT_EQ(table->stair_length, short_block < 7 ? short_block : 0);
    const CostModel costs(*table);
    for (int32_t n = 1; n <= 3; ++n) {
      for (int32_t length = 1; length <= 7; ++length) {
        // What a draft takes behind a stair is not seen where only one lies before it.
        const int32_t counted = short_block == 1 && length > 1 ? 7 : length;
        const double expected = 1e-4 * n * (1.0 + counted + (length > short_block ? 10.0 : 0.0));
        EXPECT_NEAR(costs.draft_seconds(n, length), expected, 1e-8) << n << " with " << length;
      }
    }
  }
}

/// Whatever passes and the drafter's commits take, the probe ends in time; only the first sizes are measured
/// in any case.
TEST(CostProbe, KeepsToItsTime) {
  for (const double slowness : {0.1, 1.0, 4.0, 16.0, 64.0}) {
    for (const double commit_s : {0.0, 0.1}) {  // 32 sequences: 3.2 s
      SCOPED_TRACE(std::to_string(slowness) + ", commits " + std::to_string(commit_s));
      test::FakeModel model;
      model.pass_seconds = [&](int64_t n) { return slowness * stairs(n); };
      TimedDrafter drafter(model.time, slowness * 5e-5, commit_s);
      CostProbeOptions options = small_probe();
      options.max_rows = 256;
      options.max_sequences = 32;
      options.context = 128;
      options.long_context = 2048;
      options.most_context = 4096;
      options.budget_s = 1.6;
      options.clock = model.time.clock();
      const auto start = model.time.now();
      const auto table = measure_costs(model, &drafter, options);
      ASSERT_TRUE(table.ok()) << table.status().to_string();
      const double took_s = std::chrono::duration<double>(model.time.now() - start).count();
      EXPECT_LE(took_s, 1.02 * options.budget_s);  // a stair may lie between the sizes it was foretold from
      EXPECT_TRUE(table->validate().ok()) << table->validate().to_string();
      EXPECT_GE(table->verify.back().n, slowness <= 1.0 ? 256 : 8);
      EXPECT_GE(table->draft.back().n, slowness <= 1.0 && commit_s == 0.0 ? 32 : 1);
      EXPECT_LT(table->draft.back().n, commit_s == 0.0 ? 33 : 17);
    }
  }
}

TEST(CostProbe, ContextsReachTheLastThatIsWorthIt) {
  EXPECT_EQ(probe_contexts(128, 2048, 0), (std::vector<int32_t>{512, 2048}));
  EXPECT_EQ(probe_contexts(128, 2048, 4095), (std::vector<int32_t>{512, 2048}));
  EXPECT_EQ(probe_contexts(128, 2048, 8000), (std::vector<int32_t>{512, 2048, 8000}));
  EXPECT_EQ(probe_contexts(40, 90, 0), (std::vector<int32_t>{90}));
  EXPECT_EQ(probe_contexts(300, 2048, 0), (std::vector<int32_t>{2048}));
}

/// What rows take longer because they look at positions: those of the last `window`.
double window_seconds(const ForwardBatch& batch, int32_t window) {
  double seconds = 0.0;
  for (const int32_t position : batch.positions) seconds += 1e-7 * std::min(position, window);
  for (const KvRun& run : batch.runs) seconds += 1e-6 * std::min(run.pos_begin, window);
  return seconds;
}

CostTable windowed_table(int32_t window, int32_t most_context) {
  test::FakeModel model(40, 16384);
  model.pass_seconds = stairs;
  model.context_seconds = [window](const ForwardBatch& batch) { return window_seconds(batch, window); };
  CostProbeOptions options = small_probe();
  options.context = 128;
  options.long_context = 2048;
  options.most_context = most_context;
  options.clock = model.time.clock();
  const auto table = measure_costs(model, nullptr, options);
  EXPECT_TRUE(table.ok()) << table.status().to_string();
  EXPECT_TRUE(table->validate().ok()) << table->validate().to_string();
  return *table;
}

double predicted(const CostModel& costs, int32_t n_rows, int64_t n_cached) {
  const int64_t context = costs.counted_positions(n_cached);
  return costs.verify_seconds({.rows = n_rows, .context = context, .row_context = n_rows * context});
}

TEST(CostProbe, SlidingWindowsEndWhatContextCosts) {
  const CostModel costs(windowed_table(512, 0));
  for (const int32_t n_rows : {1, 4, 8}) {
    for (const int32_t n_cached : {0, 100, 256, 512, 2048, 4096, 100000}) {
      const double looked_at = std::min(n_cached, 512);
      const double context_s = (1e-6 + 1e-7 * n_rows) * looked_at;
      // Rows see the rows before them too, and at a window's edge they do not.
      EXPECT_NEAR(predicted(costs, n_rows, n_cached), stairs(n_rows) + context_s, 1e-5 + 0.01 * context_s)
          << n_rows << " rows behind " << n_cached;
    }
  }
}

TEST(CostProbe, ALongerContextIsMeasuredWhereThereIsOne) {
  // What lies behind 2048 positions costs nothing.
  const CostModel near(windowed_table(2048, 0)), far(windowed_table(2048, 8000));
  EXPECT_EQ(near.table().context_curve.back().positions, 2048);
  EXPECT_EQ(far.table().context_curve.back().positions, 8000);
  const double whole_s = stairs(1) + 1.1e-6 * 2048;
  EXPECT_NEAR(predicted(far, 1, 6000), whole_s, 0.02 * whole_s);
  EXPECT_GT(predicted(near, 1, 6000), 1.5 * whole_s);  // nobody looked
}

TEST(CostProbe, EqualPositionsCountAsOneEach) {
  const CostTable table = windowed_table(1 << 20, 8000);
  EXPECT_NEAR(table.context_s, 1e-6, 1e-9);
  EXPECT_NEAR(table.row_context_s, 1e-7, 1e-9);
  for (const double n : {10.0, 128.0, 300.0, 512.0, 2048.0, 5000.0, 20000.0}) {
    EXPECT_NEAR(table.counted_positions(n), n, 1e-3 * n);
  }
  for (const CostPoint& point : table.verify) EXPECT_NEAR(point.seconds, stairs(point.n), 1e-6) << point.n;
}

/// Scoring and reading positions takes as long as their type makes it.
TEST(CostProbe, TimesTheCacheThatIsServed) {
  for (const KvDType type : {KvDType::kF32, KvDType::kBF16}) {
    test::FakeModel model;
    model.pass_seconds = stairs;
    EngineOptions options;
    options.context_length = 400;
    options.kv_dtype = type;
    options.policy = VerifyPolicy::adaptive();
    options.clock = model.time.clock();
    const auto engine =
        Engine::create(model, options,
                       std::make_unique<test::ScriptedDrafter>(
                           [](const std::vector<int32_t>&, std::span<int32_t>) { return 1; }, 7));
    ASSERT_TRUE(engine.ok()) << engine.status().to_string();
    EXPECT_NE((*engine)->costs(), nullptr);
    ASSERT_TRUE(model.cache_type.has_value());
    EXPECT_EQ(*model.cache_type, type);
  }
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
