// What a decision costs: draft length, plan and learning of one step at up to 256 sequences of 16 drafts.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "speculate/adaptive_planner.h"

namespace {

using namespace dspark;

CostTable table_for(int32_t n_rows) {
  CostTable table;
  for (int32_t n = 1; n <= n_rows; n *= 2) table.verify.push_back({n, 0.010 + 1e-5 * n});
  table.draft = {{1, 0.001}, {256, 0.002}};
  table.draft_short = {{1, 0.0005}, {256, 0.001}};
  table.draft_length = 16;
  return table;
}

// careful: a rule that must not anticipate, so that history is read too.
void plan_step(benchmark::State& state, bool careful) {
  const auto n_sequences = static_cast<int32_t>(state.range(0)),
             n_drafts = static_cast<int32_t>(state.range(1));
  const auto n = static_cast<size_t>(n_sequences), width = static_cast<size_t>(n_drafts);
  AdaptivePlanner planner(table_for(8192));
  std::mt19937 rng(1);
  std::uniform_real_distribution<float> uniform(0.5f, 1.0f);
  std::vector<float> confidence(n * width);
  std::vector<SurvivalRecord> records(n);
  std::vector<PlanSequence> sequences;
  std::vector<int32_t> lengths(n);
  for (float& c : confidence) c = uniform(rng);
  for (size_t r = 0; r < n; ++r) {
    const std::span row = std::span<const float>(confidence).subspan(r * width, width);
    sequences.push_back({n_drafts, n_drafts, row, !careful, &records[r]});
  }
  for (auto _ : state) {
    benchmark::DoNotOptimize(planner.draft_length(n_sequences, n_drafts));
    StepShape shape{n_sequences, n_sequences, 512 * n_sequences, 512 * n_sequences};
    planner.verify_lengths(VerifyPolicy::Kind::kAdaptive, shape, sequences, lengths);
    int32_t n_tokens = 0;
    for (const int32_t length : lengths) {
      planner.observe_round(length, length / 2);
      shape.rows += length;
      n_tokens += 1 + length / 2;
    }
    planner.observe_gain(shape, n_sequences, n_tokens);
    planner.observe_step(shape, 0.012, 0.001);
  }
}

void live(benchmark::State& state) {
  plan_step(state, false);
}
void history(benchmark::State& state) {
  plan_step(state, true);
}
BENCHMARK(live)->Args({1, 7})->Args({16, 7})->Args({64, 16})->Args({256, 16})->Unit(benchmark::kMicrosecond);
BENCHMARK(history)->Args({1, 7})->Args({16, 7})->Args({64, 16})->Args({256, 16})->Unit(
    benchmark::kMicrosecond);

}  // namespace

BENCHMARK_MAIN();
