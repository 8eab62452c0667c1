#pragma once
// Many requests through one engine, from several threads, with everything that can happen to them; every text
// is compared with the definition.

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <random>
#include <thread>

#include "draft/ngram.h"
#include "draft/page_drafter.h"
#include "draft/test_drafters.h"
#include "engine/engine.h"
#include "engine/reference_generation.h"

namespace dspark::test {

inline constexpr int32_t kSoakContext = 200;

/// Requests with what they must give. Half of the prompts begin like others.
struct SoakPool {
  std::vector<GenerateRequest> requests;
  std::vector<Expected> expected;

  SoakPool(uint32_t seed, size_t n) {
    std::mt19937 rng(seed);
    std::vector<std::vector<int32_t>> beginnings(4);
    for (auto& beginning : beginnings) {
      beginning.resize(40 + rng() % 60);
      for (int32_t& token : beginning) token = static_cast<int32_t>(rng() % kFakeVocab);
    }
    for (size_t i = 0; i < n; ++i) {
      GenerateRequest request = random_request(rng);
      if (request.max_tokens < 0 || rng() % 3 == 0) request.max_tokens = 110;
      if (rng() % 2 == 0) {
        const auto& beginning = beginnings[rng() % beginnings.size()];
        request.prompt.resize(std::min<size_t>(request.prompt.size(), 30));
        request.prompt.insert(request.prompt.begin(), beginning.begin(), beginning.end());
      }
      request.queue.priority = static_cast<int32_t>(rng() % 5) - 2;
      request.queue.client = std::string(1, static_cast<char>('a' + rng() % 3));
      if (rng() % 4 == 0) request.max_drafts = static_cast<int32_t>(rng() % 4);
      expected.push_back(expected_output(request, kSoakContext));
      requests.push_back(std::move(request));
    }
  }
};

/// Greedy continuations by the fake model itself, wrong now and then.
inline PageDrafter::ProposeRow fake_continuation(uint32_t seed) {
  return [rng = std::make_shared<std::mt19937>(seed)](const std::vector<int32_t>& tokens,
                                                      std::span<int32_t> out) {
    std::vector<int32_t> text = tokens;
    std::vector<float> logits;
    const auto n = std::min<size_t>(out.size(), (*rng)() % 4);
    for (size_t i = 0; i < n; ++i) {
      logits.clear();
      FakeModel::append_logits_after(text, kFakeVocab, logits);
      out[i] = (*rng)() % 4 == 0 ? static_cast<int32_t>((*rng)() % kFakeVocab) : argmax(logits);
      text.push_back(out[i]);
    }
    return static_cast<int32_t>(n);
  };
}

struct SoakWay {
  std::string drafter = "none";  // none, ngram, pages, waiting, gaps, paired, taps
  int32_t max_sequences = 6;
  int32_t cache_tokens = 600;  // a few texts
  VerifyPolicy policy = VerifyPolicy::fixed(4);
  bool prefix_cache = true;
  bool is_crowded = false;  // drafts pay for two sequences, not for all
  int n_threads = 3;
  int64_t n_requests = 1000;
  int check_every = 5;
};

/// What a pass takes on the fake clock: 8 rows as long as one.
inline double soak_pass_seconds(int64_t n_rows) {
  return 1e-3 * (1.0 + 0.125 * static_cast<double>(std::max<int64_t>(0, n_rows - 8)));
}

/// Four rows cost as one, every row beyond as much as half of them.
inline double crowded_pass_seconds(int64_t n_rows) {
  return 1e-3 * (1.0 + 0.5 * static_cast<double>(std::max<int64_t>(0, n_rows - 4)));
}

/// Time as the model has it, and a table that says so: nothing that is decided depends on this machine.
inline void use_fake_time(FakeModel& model, EngineOptions& options, double (*pass_seconds)(int64_t)) {
  model.pass_seconds = pass_seconds;
  options.clock = model.time.clock();
  options.costs.emplace();
  for (const int32_t n : {1, 4, 8, 256}) options.costs->verify.push_back({n, pass_seconds(n)});
  options.costs->draft = {{1, 1e-4}, {16, 4e-4}};
}

inline std::unique_ptr<Engine> soak_engine(FakeModel& model, const SoakWay& way) {
  EngineOptions options;
  options.max_sequences = way.max_sequences;
  options.context_length = kSoakContext;
  options.kv_tokens = way.cache_tokens;
  options.kv_dtype = KvDType::kF32;
  options.prefill_rows = 48;
  options.prefix_cache = way.prefix_cache;
  options.max_waiting = 40;
  options.policy = way.policy;
  options.rows_on_demand = way.drafter == "gaps";
  if (way.policy.needs_costs()) {
    use_fake_time(model, options, way.is_crowded ? crowded_pass_seconds : soak_pass_seconds);
  }
  options.eos_ids = {kFakeEos};
  options.token_bytes = fake_token_bytes;
  std::unique_ptr<Drafter> drafter;
  if (way.drafter == "ngram") drafter = std::make_unique<NgramDrafter>(NgramOptions{});
  if (way.drafter == "taps") drafter = garbage_drafter(3, kFakeVocab, {0, 2});
  if (way.drafter == "pages") drafter = std::make_unique<PageDrafter>(fake_continuation(4), 0);
  if (way.drafter == "waiting")
    drafter = std::make_unique<PageDrafter>(fake_continuation(4), 0, std::vector<int32_t>{0}, 100);
  if (way.drafter == "gaps")
    drafter = std::make_unique<PageDrafter>(fake_continuation(4), 0, std::vector<int32_t>{0}, 100, true);
  if (way.drafter == "paired") drafter = std::make_unique<PageDrafter>(fake_continuation(5), 1);
  auto engine = Engine::create(model, options, std::move(drafter));
  EXPECT_TRUE(engine.ok()) << engine.status().to_string();
  return std::move(engine).value();
}

/// What came back for one submission.
struct SoakResult {
  size_t which = 0;  // of the pool
  std::vector<int32_t> tokens;
  std::string text;
  FinishReason reason = FinishReason::kNone;
  int32_t n_preemptions = 0;
  int n_final = 0;
};

struct SoakCounts {
  std::atomic<int64_t> n_refused{0};  // full queue
  int64_t n_cancelled = 0, n_preempted = 0, n_whole = 0;
};

inline void expect_right(const SoakPool& pool, const SoakResult& got, SoakCounts& counts) {
  const Expected& want = pool.expected[got.which];
  ASSERT_EQ(got.n_final, 1);
  if (got.reason == FinishReason::kCancelled) {
    ++counts.n_cancelled;
    ASSERT_LE(got.tokens.size(), want.tokens.size());
    ASSERT_TRUE(std::equal(got.tokens.begin(), got.tokens.end(), want.tokens.begin()));
    return;
  }
  ++counts.n_whole;
  counts.n_preempted += got.n_preemptions > 0 ? 1 : 0;
  ASSERT_EQ(got.tokens, want.tokens) << "request " << got.which;
  ASSERT_EQ(got.text, want.text);
  ASSERT_EQ(got.reason, want.reason);
}

/// Submits its share of the requests, waits when the queue is full, and cancels some.
inline void soak_submitter(Engine& engine, const SoakPool& pool, std::span<SoakResult> results, uint32_t seed,
                           SoakCounts& counts) {
  std::mt19937 rng(seed);
  std::vector<RequestId> ids;
  for (SoakResult& result : results) {
    result.which = rng() % pool.requests.size();
    const auto take = [&result](const StreamUpdate& update) {
      for (const TokenEvent& event : update.tokens) result.tokens.push_back(event.token);
      result.text.append(update.text);
      result.reason = update.finish_reason;
      result.n_preemptions = update.stats->preemptions;
      if (update.finish_reason != FinishReason::kNone) ++result.n_final;
    };
    for (;;) {
      const auto id = engine.submit(pool.requests[result.which], take);
      if (id.ok()) {
        ids.push_back(*id);
        break;
      }
      ASSERT_EQ(id.status().code(), StatusCode::kResourceExhausted) << id.status().to_string();
      ++counts.n_refused;
      std::this_thread::yield();
    }
    if (rng() % 5 == 0) engine.cancel(ids[ids.size() - 1 - rng() % std::min<size_t>(ids.size(), 20)]);
  }
}

/// Runs a workload to its end and checks everything. returns: the engine's sums.
inline EngineStats soak(const SoakPool& pool, const SoakWay& way, uint32_t seed, SoakCounts& counts) {
  FakeModel model(kFakeVocab, kSoakContext);
  const auto engine = soak_engine(model, way);
  std::vector<SoakResult> results(static_cast<size_t>(way.n_requests));
  std::atomic<int> n_submitting{way.n_threads};
  std::vector<std::thread> threads;
  const size_t share = results.size() / static_cast<size_t>(way.n_threads);
  for (int t = 0; t < way.n_threads; ++t) {
    const size_t first = static_cast<size_t>(t) * share;
    const size_t n = t + 1 == way.n_threads ? results.size() - first : share;
    threads.emplace_back([&, t, first, n] {
      soak_submitter(*engine, pool, std::span(results).subspan(first, n), seed + static_cast<uint32_t>(t),
                     counts);
      --n_submitting;
    });
  }
  int64_t n_steps = 0;
  while (n_submitting > 0 || engine->has_work()) {
    if (!engine->has_work()) std::this_thread::yield();
    engine->step();
    if (++n_steps % way.check_every != 0) continue;
    const Status intact = engine->check_integrity();
    EXPECT_TRUE(intact.ok()) << intact.to_string();
    if (!intact.ok()) break;
  }
  for (std::thread& thread : threads) thread.join();
  while (engine->has_work()) engine->step();
  EXPECT_TRUE(engine->check_integrity().ok());
  for (const SoakResult& result : results) {
    expect_right(pool, result, counts);
    if (testing::Test::HasFatalFailure()) break;
  }
  const EngineLoad load = engine->load();
  EXPECT_EQ(load.n_running + load.n_waiting + load.n_pages_used, 0);
  EXPECT_EQ(engine->n_waiting(), 0);
  EXPECT_EQ(engine->stats().requests_finished, way.n_requests);
  if (const auto* pages = dynamic_cast<const PageDrafter*>(engine->drafter())) {
    EXPECT_EQ(pages->n_live_slots(), 0u);
    EXPECT_EQ(pages->was_waiting, way.drafter == "waiting" || way.drafter == "gaps");
    if (way.is_crowded) {
      EXPECT_GT(pages->n_attached_without_rows, 0);
      EXPECT_GT(pages->n_gaps, 0);
    }
  }
  return engine->stats();
}

}  // namespace dspark::test
