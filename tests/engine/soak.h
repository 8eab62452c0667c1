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
#include "engine/test_constraint.h"

namespace dspark::test {

inline constexpr int32_t kSoakContext = 200;

/// A mean of hidden states, not scaled, by the definition.
inline std::vector<double> expected_embedding(const EmbedRequest& request) {
  std::vector<double> mean(4, 0.0);
  const auto n = static_cast<int32_t>(request.tokens.size());
  for (int32_t p = 0; p < n; ++p) {
    for (int32_t d = 0; d < 4; ++d) {
      const float value = FakeModel::hidden_value(request.tokens[static_cast<size_t>(p)], p, d);
      mean[static_cast<size_t>(d)] += static_cast<double>(value) / n;
    }
  }
  return mean;
}

/// Requests with what they must give. Half of the prompts begin like others; one in eight is under a
/// constraint.
struct SoakPool {
  std::vector<GenerateRequest> requests;
  std::vector<Expected> expected;
  std::vector<EmbedRequest> texts;  // to be made vectors of
  std::vector<std::vector<double>> vectors;

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
      if (i % 8 == 7) {
        constrain(request, rng);
      } else {
        expected.push_back(expected_output(request, kSoakContext));
      }
      if (i % 4 == 0) {
        texts.push_back({request.prompt, Pooling::kMean, false, request.queue});
        vectors.push_back(expected_embedding(texts.back()));
      }
      requests.push_back(std::move(request));
    }
  }

 private:
  void constrain(GenerateRequest& request, std::mt19937& rng) {
    request.stop_strings.clear();
    request.stop_token_ids.clear();
    request.ignore_eos = true;
    request.max_tokens = 40;
    const auto constraint =
        std::make_shared<TestConstraint>(kFakeVocab, rng() % 60 + 1, rng() % 4 == 0 ? rng() % 30 : 1000);
    expected.push_back(constrained_output(request, *constraint));
    request.constraint = constraint;
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
  bool holds = false;       // requests are held and released now and then
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
  } else {  // deadlines too are a matter of passes
    model.pass_seconds = soak_pass_seconds;
    options.clock = model.time.clock();
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
  bool is_vector = false;
  QueueParams queue;
  std::vector<float> embedding;
  std::vector<int32_t> tokens;
  std::string text;
  FinishReason reason = FinishReason::kNone;
  int32_t n_preemptions = 0;
  int n_final = 0;
};

struct SoakCounts {
  std::atomic<int64_t> n_refused{0};  // full queue
  int64_t n_cancelled = 0, n_preempted = 0, n_whole = 0;
  int64_t n_held_steps = 0;  // with something to do, while somebody was held
  int64_t n_late = 0, n_never_started = 0, n_constrained = 0, n_vectors = 0;
};

/// Whether somebody or a clock ended it; counts that.
inline bool was_cut(const SoakResult& got, SoakCounts& counts) {
  counts.n_cancelled += got.reason == FinishReason::kCancelled ? 1 : 0;
  counts.n_late += got.reason == FinishReason::kDeadline ? 1 : 0;
  counts.n_never_started += got.reason == FinishReason::kQueueTimeout ? 1 : 0;
  EXPECT_TRUE(got.reason != FinishReason::kDeadline || got.queue.deadline_s > 0.0);
  EXPECT_TRUE(got.reason != FinishReason::kQueueTimeout || got.queue.queue_timeout_s > 0.0);
  EXPECT_TRUE(got.reason != FinishReason::kQueueTimeout || got.tokens.empty());
  return got.reason == FinishReason::kCancelled || got.reason == FinishReason::kDeadline ||
         got.reason == FinishReason::kQueueTimeout;
}

inline void expect_right_vector(const SoakPool& pool, const SoakResult& got, SoakCounts& counts) {
  ASSERT_EQ(got.n_final, 1);
  if (was_cut(got, counts)) return;
  ++counts.n_vectors;
  counts.n_preempted += got.n_preemptions > 0 ? 1 : 0;
  ASSERT_EQ(got.reason, FinishReason::kStop);
  const std::vector<double>& want = pool.vectors[got.which];
  ASSERT_EQ(got.embedding.size(), want.size());
  for (size_t d = 0; d < want.size(); ++d) ASSERT_NEAR(static_cast<double>(got.embedding[d]), want[d], 1e-5);
}

inline void expect_right(const SoakPool& pool, const SoakResult& got, SoakCounts& counts) {
  if (got.is_vector) return expect_right_vector(pool, got, counts);
  const Expected& want = pool.expected[got.which];
  ASSERT_EQ(got.n_final, 1);
  if (was_cut(got, counts)) {
    ASSERT_LE(got.tokens.size(), want.tokens.size());
    ASSERT_TRUE(std::equal(got.tokens.begin(), got.tokens.end(), want.tokens.begin()));
    return;
  }
  ++counts.n_whole;
  counts.n_constrained += pool.requests[got.which].constraint != nullptr ? 1 : 0;
  counts.n_preempted += got.n_preemptions > 0 ? 1 : 0;
  ASSERT_EQ(got.tokens, want.tokens) << "request " << got.which;
  ASSERT_EQ(got.text, want.text);
  ASSERT_EQ(got.reason, want.reason);
}

/// What a submission asks for: one in twelve a vector, one in sixteen each with a deadline or a limit of its
/// wait, of some dozen passes.
inline void choose_submission(const SoakPool& pool, std::mt19937& rng, SoakResult& result) {
  result.is_vector = rng() % 12 == 0;
  result.which = rng() % (result.is_vector ? pool.texts.size() : pool.requests.size());
  result.queue = result.is_vector ? pool.texts[result.which].queue : pool.requests[result.which].queue;
  const double seconds = 1e-3 * static_cast<double>(rng() % 200 + 5);
  const uint32_t limit = static_cast<uint32_t>(rng() % 16);
  if (limit == 0) result.queue.deadline_s = seconds;
  if (limit == 1) result.queue.queue_timeout_s = seconds;
}

inline Result<RequestId> submit_soak(Engine& engine, const SoakPool& pool, SoakResult& result) {
  if (result.is_vector) {
    EmbedRequest request = pool.texts[result.which];
    request.queue = result.queue;
    return engine.submit_embedding(std::move(request), [&result](const EmbedResult& got) {
      result.embedding.assign(got.embedding.begin(), got.embedding.end());
      result.reason = got.finish_reason;
      result.n_preemptions = got.stats->preemptions;
      ++result.n_final;
    });
  }
  GenerateRequest request = pool.requests[result.which];
  request.queue = result.queue;
  return engine.submit(std::move(request), [&result](const StreamUpdate& update) {
    for (const TokenEvent& event : update.tokens) result.tokens.push_back(event.token);
    result.text.append(update.text);
    result.reason = update.finish_reason;
    result.n_preemptions = update.stats->preemptions;
    if (update.finish_reason != FinishReason::kNone) ++result.n_final;
  });
}

/// Submits its share of the requests, waits when the queue is full, cancels some and holds some for a while.
/// n_steps: steps of the engine so far.
inline void soak_submitter(Engine& engine, const SoakPool& pool, std::span<SoakResult> results, uint32_t seed,
                           bool holds, const std::atomic<int64_t>& n_steps, SoakCounts& counts) {
  constexpr int64_t kHeldSteps = 10;
  std::mt19937 rng(seed);
  std::vector<RequestId> ids, held;
  int64_t held_until = 0;  // in steps
  const auto release_all = [&] {
    for (const RequestId id : held) engine.release(id);
    held.clear();
  };
  for (SoakResult& result : results) {
    choose_submission(pool, rng, result);
    for (;;) {
      const auto id = submit_soak(engine, pool, result);
      if (id.ok()) {
        ids.push_back(*id);
        break;
      }
      ASSERT_EQ(id.status().code(), StatusCode::kResourceExhausted) << id.status().to_string();
      ++counts.n_refused;
      // Those who are held may be all that run. But the queue is full most of the time and is tried many
      // times a step: who was let go at once would never have been held.
      if (n_steps >= held_until) release_all();
      std::this_thread::yield();
    }
    if (rng() % 5 == 0) engine.cancel(ids[ids.size() - 1 - rng() % std::min<size_t>(ids.size(), 20)]);
    if (!holds) continue;
    if (rng() % 3 == 0) {
      if (held.empty()) held_until = n_steps + kHeldSteps;
      held.push_back(ids[ids.size() - 1 - rng() % std::min<size_t>(ids.size(), 20)]);
      engine.hold(held.back());
    }
    if (rng() % 8 == 0) release_all();
  }
  release_all();
}

/// Runs a workload to its end and checks everything. returns: the engine's sums.
inline EngineStats soak(const SoakPool& pool, const SoakWay& way, uint32_t seed, SoakCounts& counts) {
  FakeModel model(kFakeVocab, kSoakContext);
  const auto engine = soak_engine(model, way);
  std::vector<SoakResult> results(static_cast<size_t>(way.n_requests));
  std::atomic<int> n_submitting{way.n_threads};
  std::atomic<int64_t> n_steps{0};
  std::vector<std::thread> threads;
  const size_t share = results.size() / static_cast<size_t>(way.n_threads);
  for (int t = 0; t < way.n_threads; ++t) {
    const size_t first = static_cast<size_t>(t) * share;
    const size_t n = t + 1 == way.n_threads ? results.size() - first : share;
    threads.emplace_back([&, t, first, n] {
      soak_submitter(*engine, pool, std::span(results).subspan(first, n), seed + static_cast<uint32_t>(t),
                     way.holds, n_steps, counts);
      --n_submitting;
    });
  }
  while (n_submitting > 0 || engine->has_work()) {
    if (!engine->has_work()) std::this_thread::yield();
    const bool did_something = engine->step();
    if (way.holds && did_something) counts.n_held_steps += engine->load().n_held > 0 ? 1 : 0;
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
