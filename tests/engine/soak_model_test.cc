// The soak with real kernels, a tiny target and a learned drafter: a cache much smaller than what its
// requests want, so that texts are preempted and computed again, while others are cancelled and share
// beginnings. With the coupled rule no text changes; with no rule a page is lost.

#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "engine/loader.h"
#include "engine/model_workload.h"
#include "kernels/kv_layout.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

constexpr int32_t kContext = 192;
constexpr int32_t kSequences = 5;
constexpr int32_t kPages = 7;  // a longest text takes five

LoadedModel load_target() {
  auto loaded = load_model((test::data_dir() / "draft" / "targets" / "llama").string(),
                           {.n_threads = 2, .float_activations = false, .on_stage = {}});
  EXPECT_TRUE(loaded.ok()) << loaded.status().to_string();
  return std::move(loaded).value();
}

/// An engine with a cache of kPages pages.
std::unique_ptr<Engine> crowded_engine(LoadedModel& loaded, const VerifyPolicy& policy, bool hybrid) {
  EngineOptions options;
  options.max_sequences = kSequences;
  options.context_length = kContext;
  options.kv_tokens = (kPages - (kSequences - 1)) * kKvPageSize;  // every sequence may leave one partly empty
  options.prefill_rows = 24;
  options.policy = policy;
  if (policy.needs_costs()) {  // drafts are free, and nothing that is decided depends on this machine
    options.costs =
        CostTable{.verify = {{1, 1e-3}, {200, 1.001e-3}}, .draft = {{1, 1e-9}}, .draft_short = {}};
    options.clock = [] { return std::chrono::steady_clock::time_point(); };
  }
  const auto folder = test::data_dir() / "draft" / "drafts" / "llama_dspark_vanilla";
  auto drafter =
      load_drafter(loaded, options, {.spec = folder.string(), .calibration = {}, .hybrid = hybrid});
  EXPECT_TRUE(drafter.ok()) << drafter.status().to_string();
  auto engine = make_engine(loaded, options, std::move(drafter).value());
  EXPECT_TRUE(engine.ok()) << engine.status().to_string();
  EXPECT_EQ((*engine)->load().n_pages, kPages);
  return std::move(engine).value();
}

/// Requests that take two to five pages each; half of them begin alike, with a page and more.
std::vector<GenerateRequest> crowd(int32_t vocab_size, uint32_t seed) {
  std::mt19937 rng(seed);
  const auto token = [&] { return static_cast<int32_t>(rng() % static_cast<uint32_t>(vocab_size)); };
  std::vector<int32_t> beginning(40);
  for (int32_t& id : beginning) id = token();
  std::vector<GenerateRequest> requests = test::model_requests(rng, vocab_size, 24, 20, 30);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].max_tokens += 40;
    if (i % 2 == 1) requests[i].prompt.insert(requests[i].prompt.begin(), beginning.begin(), beginning.end());
  }
  return requests;
}

/// What became of one request.
struct Outcome {
  std::vector<int32_t> tokens;
  FinishReason reason = FinishReason::kNone;
  int n_final = 0;
};

/// All requests at once through the engine, of which some are cancelled on the way. Pages are counted after
/// every step and all given back at the end.
std::vector<Outcome> run_crowd(Engine& engine, const std::vector<GenerateRequest>& requests, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<Outcome> outcomes(requests.size());
  std::vector<RequestId> ids;
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto id = engine.submit(requests[i], [&out = outcomes[i]](const StreamUpdate& update) {
      for (const TokenEvent& event : update.tokens) out.tokens.push_back(event.token);
      out.reason = update.finish_reason;
      out.n_final += update.finish_reason == FinishReason::kNone ? 0 : 1;
    });
    EXPECT_TRUE(id.ok()) << id.status().to_string();
    ids.push_back(*id);
  }
  while (engine.has_work()) {
    engine.step();
    const Status intact = engine.check_integrity();
    EXPECT_TRUE(intact.ok()) << intact.to_string();
    if (!intact.ok()) break;
    if (rng() % 40 == 0) engine.cancel(ids[rng() % ids.size()]);
  }
  const EngineLoad load = engine.load();
  EXPECT_EQ(load.n_running + load.n_waiting + load.n_pages_used, 0);
  EXPECT_EQ(engine.stats().requests_finished, std::ssize(requests));
  EXPECT_GT(engine.stats().preemptions, 0);
  EXPECT_GT(engine.stats().recomputed_tokens, 0);
  EXPECT_GT(engine.stats().speculation.accepted, 0);
  return outcomes;
}

TEST(SoakModel, TextsAreThoseOfTheRequestsAlone) {
  LoadedModel plain = load_target();
  const auto requests = crowd(plain.model->config().vocab_size, 31);
  EngineOptions alone;
  alone.context_length = kContext;
  const auto plain_engine = make_engine(plain, alone);
  ASSERT_TRUE(plain_engine.ok()) << plain_engine.status().to_string();
  const auto expected = test::run_all(**plain_engine, requests);
  int n_whole = 0, n_cancelled = 0;
  int64_t cached_tokens = 0;
  uint32_t seed = 1;
  for (const VerifyPolicy& policy : {VerifyPolicy::fixed(7), VerifyPolicy::adaptive()}) {
    for (const bool hybrid : {false, true}) {
      SCOPED_TRACE(policy.to_string() + (hybrid ? " hybrid" : ""));
      LoadedModel loaded = load_target();
      const auto engine = crowded_engine(loaded, policy, hybrid);
      const std::vector<Outcome> outcomes = run_crowd(*engine, requests, seed++);
      cached_tokens += engine->stats().cached_tokens;
      for (size_t i = 0; i < requests.size(); ++i) {
        const Outcome& got = outcomes[i];
        ASSERT_EQ(got.n_final, 1) << "request " << i;
        if (got.reason == FinishReason::kCancelled) {
          ++n_cancelled;
          ASSERT_LE(got.tokens.size(), expected[i].size());
          ASSERT_TRUE(std::equal(got.tokens.begin(), got.tokens.end(), expected[i].begin()));
          continue;
        }
        ++n_whole;
        ASSERT_EQ(got.reason, FinishReason::kLength);
        ASSERT_EQ(got.tokens, expected[i]) << "request " << i;
      }
    }
  }
  EXPECT_GT(n_whole, 40);
  EXPECT_GT(n_cancelled, 0);
  EXPECT_GT(cached_tokens, 0);
}

// Their texts depend on drafter and policy; that they are distributed as they should be is tested elsewhere.
TEST(SoakModel, RejectionAndBlockLoseNoPages) {
  LoadedModel loaded = load_target();
  auto requests = crowd(loaded.model->config().vocab_size, 32);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].sampling.temperature = 0.7f;
    requests[i].accept_rule = i % 3 == 0 ? AcceptRule::kRejection : AcceptRule::kBlock;
  }
  uint32_t seed = 11;
  for (const VerifyPolicy& policy : {VerifyPolicy::fixed(7), VerifyPolicy::adaptive()}) {
    for (const bool hybrid : {false, true}) {
      SCOPED_TRACE(policy.to_string() + (hybrid ? " hybrid" : ""));
      const auto engine = crowded_engine(loaded, policy, hybrid);
      const std::vector<Outcome> outcomes = run_crowd(*engine, requests, seed++);
      for (size_t i = 0; i < requests.size(); ++i) {
        ASSERT_EQ(outcomes[i].n_final, 1) << "request " << i;
        if (outcomes[i].reason == FinishReason::kCancelled) continue;
        ASSERT_EQ(outcomes[i].reason, FinishReason::kLength);
        ASSERT_EQ(std::ssize(outcomes[i].tokens), requests[i].max_tokens);
      }
    }
  }
}

}  // namespace
}  // namespace dspark
