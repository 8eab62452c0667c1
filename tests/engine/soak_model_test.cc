// The soak with real kernels, tiny targets and learned drafters of every kind: a cache much smaller than what
// its requests want, so that texts are preempted and computed again, while others are cancelled and share
// beginnings. With the coupled rule no text changes; with no rule a page is lost. DSPARK_SOAK_REQUESTS sets
// the number of requests of every run.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <random>

#include "engine/draft_golden.h"
#include "engine/model_workload.h"
#include "kernels/kv_layout.h"

namespace dspark {
namespace {

using test::DraftGolden;

constexpr int32_t kContext = 192;
constexpr int32_t kSequences = 5;
constexpr int32_t kPages = 7;  // a longest text takes five

size_t n_requests() {
  constexpr int64_t kShort = 24;
  const char* wanted = std::getenv("DSPARK_SOAK_REQUESTS");
  return static_cast<size_t>(std::max<int64_t>(kShort, wanted != nullptr ? std::atoll(wanted) : 0));
}

/// The drafters that travel with the repository: every architecture and kind, small.
std::vector<DraftGolden> fixtures() {
  std::vector<DraftGolden> found = test::draft_goldens();
  std::erase_if(found, [](const DraftGolden& golden) { return !golden.name.starts_with("fixture_"); });
  return found;
}

LoadedModel load_target(const DraftGolden& golden) {
  return test::load_golden_target(golden, 2, false);
}

/// An engine with a cache of kPages pages.
std::unique_ptr<Engine> crowded_engine(LoadedModel& loaded, const DraftGolden& golden,
                                       const VerifyPolicy& policy, bool hybrid) {
  EngineOptions options;
  options.max_sequences = kSequences;
  options.context_length = kContext;
  options.kv_tokens = (kPages - (kSequences - 1)) * kKvPageSize;  // every sequence may leave one partly empty
  options.prefill_rows = 24;
  options.policy = policy;
  if (policy.needs_costs()) {  // drafts are free, and nothing that is decided depends on this machine
    options.costs = CostTable{
        .verify = {{1, 1e-3}, {200, 1.001e-3}}, .draft = {{1, 1e-9}}, .draft_short = {}, .context_curve = {}};
    options.clock = [] { return std::chrono::steady_clock::time_point(); };
  }
  auto drafter =
      load_drafter(loaded, options, {.spec = golden.draft.string(), .calibration = {}, .hybrid = hybrid});
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
  std::vector<GenerateRequest> requests = test::model_requests(rng, vocab_size, n_requests(), 20, 30);
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

class SoakModel : public testing::TestWithParam<DraftGolden> {};

TEST_P(SoakModel, TextsAreThoseOfTheRequestsAlone) {
  LoadedModel plain = load_target(GetParam());
  const auto requests = crowd(plain.model->config().vocab_size, 31);
  EngineOptions alone;
  alone.context_length = kContext;
  const auto plain_engine = make_engine(plain, alone);
  ASSERT_TRUE(plain_engine.ok()) << plain_engine.status().to_string();
  const auto expected = test::run_all(**plain_engine, requests);
  size_t n_whole = 0, n_cancelled = 0;
  int64_t cached_tokens = 0;
  uint32_t seed = 1;
  for (const VerifyPolicy& policy : {VerifyPolicy::fixed(7), VerifyPolicy::adaptive()}) {
    for (const bool hybrid : {false, true}) {
      SCOPED_TRACE(policy.to_string() + (hybrid ? " hybrid" : ""));
      LoadedModel loaded = load_target(GetParam());
      const auto engine = crowded_engine(loaded, GetParam(), policy, hybrid);
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
  EXPECT_GT(n_whole, 4 * requests.size() * 2 / 5);
  EXPECT_GT(n_cancelled, 0u);
  EXPECT_GT(cached_tokens, 0);
}

// Their texts depend on drafter and policy; that they are distributed as they should be is tested elsewhere.
TEST_P(SoakModel, RejectionAndBlockLoseNoPages) {
  LoadedModel loaded = load_target(GetParam());
  auto requests = crowd(loaded.model->config().vocab_size, 32);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].sampling.temperature = 0.7f;
    requests[i].accept_rule = i % 3 == 0 ? AcceptRule::kRejection : AcceptRule::kBlock;
  }
  uint32_t seed = 11;
  for (const VerifyPolicy& policy : {VerifyPolicy::fixed(7), VerifyPolicy::adaptive()}) {
    for (const bool hybrid : {false, true}) {
      SCOPED_TRACE(policy.to_string() + (hybrid ? " hybrid" : ""));
      const auto engine = crowded_engine(loaded, GetParam(), policy, hybrid);
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

INSTANTIATE_TEST_SUITE_P(Golden, SoakModel, testing::ValuesIn(fixtures()),
                         [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace dspark
