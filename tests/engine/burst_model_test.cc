// One client, then sixteen, then one again, with real kernels and a learned drafter: budgets follow the load,
// nobody starves, and every text is that of the request alone.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>
#include <vector>

#include "engine/loader.h"
#include "engine/model_workload.h"
#include "engine/watch.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

constexpr size_t kClients = 16;
constexpr int32_t kContext = 192;

LoadedModel load_target() {
  auto loaded = load_model((test::data_dir() / "draft" / "targets" / "llama").string(),
                           {.n_threads = 2, .float_activations = false, .on_stage = {}});
  EXPECT_TRUE(loaded.ok()) << loaded.status().to_string();
  return std::move(loaded).value();
}

/// Eight rows cost as one, every row beyond as much as a fifth of them: alone a sequence verifies seven
/// drafts for nothing, sixteen of them pay more for any draft than it can bring. The clock stands still, so
/// nothing that is decided depends on this machine.
std::unique_ptr<Engine> burst_engine(LoadedModel& loaded) {
  EngineOptions options;
  options.max_sequences = static_cast<int32_t>(kClients);
  options.context_length = kContext;
  options.prefill_rows = 64;
  options.policy = VerifyPolicy::adaptive();
  options.costs.emplace();
  options.costs->verify = {{1, 0.010}, {8, 0.010}, {200, 0.394}};
  options.costs->draft = {{1, 1e-4}, {16, 16e-4}};
  options.clock = [] { return std::chrono::steady_clock::time_point(); };
  const auto folder = test::data_dir() / "draft" / "drafts" / "llama_dspark_vanilla";
  auto drafter = load_drafter(loaded, options, {.spec = folder.string(), .calibration = {}});
  EXPECT_TRUE(drafter.ok()) << drafter.status().to_string();
  auto engine = make_engine(loaded, options, std::move(drafter).value());
  EXPECT_TRUE(engine.ok()) << engine.status().to_string();
  return std::move(engine).value();
}

/// High temperatures: the noise that target and drafter share decides, so that drafts are often right.
std::vector<GenerateRequest> burst_requests(int32_t vocab_size, size_t n) {
  std::mt19937 rng(16);
  std::vector<GenerateRequest> requests = test::model_requests(rng, vocab_size, n, 40, 30);
  for (GenerateRequest& request : requests) {
    request.max_tokens += 20;
    if (!request.sampling.greedy()) request.sampling.temperature = 4.0f;
  }
  return requests;
}

/// What the steps of a phase verified in which more than half of its clients decoded.
struct Phase {
  int64_t n_steps = 0;
  int64_t n_sequences = 0;
  int64_t n_verified = 0;
  double budget() const { return static_cast<double>(n_verified) / static_cast<double>(n_sequences); }
};

/// `n_clients` ask one request after the other until `last` of them have been asked and answered.
/// submitted_at: the step of every request.
Phase run_phase(test::Watch& watch, const std::vector<GenerateRequest>& requests, size_t last,
                size_t n_clients, std::vector<int64_t>& submitted_at) {
  Phase phase;
  const auto n_open = [&watch] {
    return static_cast<size_t>(
        std::ranges::count_if(watch.all, [](const auto& one) { return one->reason == FinishReason::kNone; }));
  };
  while (watch.all.size() < last || watch.engine.has_work()) {
    while (watch.all.size() < last && n_open() < n_clients) {
      submitted_at.push_back(watch.n_steps);
      watch.submit(requests[watch.all.size()]);
    }
    watch.step();
    const StepStats& step = watch.engine.last_step();
    if (2 * static_cast<size_t>(step.decode_sequences) <= n_clients) continue;
    ++phase.n_steps;
    phase.n_sequences += step.decode_sequences;
    phase.n_verified += step.decode_rows - step.decode_sequences;
  }
  return phase;
}

TEST(BurstModel, BudgetsFollowTheLoadAndTextsDoNot) {
  LoadedModel plain = load_target();
  const auto requests = burst_requests(plain.model->config().vocab_size, 60);
  EngineOptions alone;
  alone.context_length = kContext;
  const auto plain_engine = make_engine(plain, alone);
  ASSERT_TRUE(plain_engine.ok()) << plain_engine.status().to_string();
  const auto expected = test::run_all(**plain_engine, requests);

  LoadedModel loaded = load_target();
  const auto engine = burst_engine(loaded);
  test::Watch watch(*engine);
  std::vector<Phase> phases;
  std::vector<int64_t> submitted_at;
  size_t last = 0;
  constexpr std::pair<size_t, size_t> kPhases[] = {{6, 1}, {48, kClients}, {6, 1}};  // requests, clients
  for (const auto& [n_more, n_clients] : kPhases) {
    last += n_more;
    phases.push_back(run_phase(watch, requests, last, n_clients, submitted_at));
    ASSERT_GT(phases.back().n_steps, 10);
  }
  ASSERT_EQ(watch.all.size(), requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(watch[i].tokens, expected[i]) << "request " << i;
    EXPECT_EQ(watch[i].reason, FinishReason::kLength);
    EXPECT_LT(watch[i].last_step - submitted_at[i], 100) << "request " << i;
  }
  EXPECT_GT(phases[0].budget(), 2.0);
  EXPECT_LT(phases[1].budget(), 0.5);
  EXPECT_GT(phases[2].budget(), 2.0) << "what was learned at sixteen is no verdict on one";
  EXPECT_GT(engine->stats().speculation.accepted, 0);
}

}  // namespace
}  // namespace dspark
