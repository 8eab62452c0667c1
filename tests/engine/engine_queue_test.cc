// Who runs when: priorities, clients, deadlines, full queues, fair prompts, preemption; and what the sharing
// of prefixes saves.

#include <gtest/gtest.h>

#include "draft/page_drafter.h"
#include "engine/generation.h"
#include "engine/soak.h"
#include "engine/watch.h"

namespace dspark {
namespace {

using test::Expected;
using test::expected_output;
using test::make;
using test::request_of;
using test::Watch;

EngineOptions small_options() {
  EngineOptions options;
  options.context_length = 256;
  options.kv_dtype = KvDType::kF32;
  return options;
}

TEST(EngineQueue, PriorityStartsEarlierAndClientsTakeTurns) {
  test::FakeModel model;
  const auto engine = make(model, small_options());
  Watch watch(*engine);
  for (int i = 0; i < 6; ++i) {
    GenerateRequest request = request_of(i, 5, 3);
    request.queue.client = i < 3 ? "a" : "b";
    if (i == 5) request.queue.priority = 3;
    watch.submit(request);
  }
  watch.finish();
  std::vector<size_t> order = {0, 1, 2, 3, 4, 5};
  std::sort(order.begin(), order.end(),
            [&](size_t x, size_t y) { return watch[x].last_step < watch[y].last_step; });
  EXPECT_EQ(order, (std::vector<size_t>{5, 0, 3, 1, 4, 2}));
}

TEST(EngineQueue, AFullQueueRefusesAndSaysSo) {
  test::FakeModel model;
  EngineOptions options = small_options();
  options.max_waiting = 2;
  const auto engine = make(model, options);
  Watch watch(*engine);
  watch.submit(request_of(1, 5, 10));
  watch.step();  // runs now
  watch.submit(request_of(2, 5, 3));
  const RequestId waits = watch.submit(request_of(3, 5, 3));
  EXPECT_EQ(engine->n_waiting(), 2);
  const auto refused = engine->submit(request_of(4, 5, 3), {});
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(refused.status().message().find("queue: 2 requests"), std::string::npos);
  engine->cancel(waits);
  watch.step();
  EXPECT_TRUE(engine->submit(request_of(4, 5, 3), {}).ok());
  // The queue is full again; what goes on where one ended is let in all the same.
  GenerateRequest next = request_of(5, 5, 3);
  EXPECT_FALSE(engine->submit(next, {}).ok());
  next.queue.follows = true;
  EXPECT_TRUE(engine->submit(next, {}).ok());
  watch.finish();
  EXPECT_EQ(engine->n_waiting(), 0);
}

TEST(EngineQueue, TimeoutsAndDeadlinesEndRequests) {
  test::FakeModel model;
  EngineOptions options = small_options();
  std::chrono::steady_clock::time_point time{};
  options.clock = [&time] { return time; };
  const auto engine = make(model, options);
  Watch watch(*engine);
  GenerateRequest running = request_of(1, 5, 200);
  running.queue.deadline_s = 10.0;
  watch.submit(running);
  GenerateRequest waiting = request_of(2, 5, 3);
  waiting.queue.queue_timeout_s = 5.0;
  watch.submit(waiting);
  GenerateRequest dying = request_of(3, 5, 3);
  dying.queue.deadline_s = 7.0;
  watch.submit(dying);
  GenerateRequest patient = request_of(4, 5, 3);
  watch.submit(patient);
  watch.step();
  watch.step();
  time += std::chrono::seconds(6);
  watch.step();
  EXPECT_EQ(watch[1].reason, FinishReason::kQueueTimeout);
  EXPECT_EQ(watch[2].reason, FinishReason::kNone);
  time += std::chrono::seconds(2);
  watch.step();
  EXPECT_EQ(watch[2].reason, FinishReason::kDeadline);
  time += std::chrono::seconds(2);
  watch.step();
  EXPECT_EQ(watch[0].reason, FinishReason::kDeadline);
  EXPECT_EQ(watch[0].tokens.size(), 4u);
  watch.finish();
  EXPECT_EQ(watch[3].reason, FinishReason::kLength);
  EXPECT_STREQ(finish_reason_name(watch[1].reason), "queue_timeout");
  EXPECT_STREQ(finish_reason_name(watch[0].reason), "deadline");
}

TEST(EngineQueue, ShortPromptsDoNotWaitBehindALongOne) {
  test::FakeModel model;
  EngineOptions options = small_options();
  options.max_sequences = 4;
  options.prefill_rows = 10;
  const auto engine = make(model, options);
  Watch watch(*engine);
  watch.submit(request_of(1, 200, 2));
  for (int i = 0; i < 3; ++i) watch.submit(request_of(i + 2, 5, 2));
  watch.finish();
  for (size_t i = 1; i < 4; ++i) EXPECT_LE(watch[i].first_step, 2);
  // It gets at least half of the rows all the while.
  EXPECT_LE(watch[0].first_step, 22);
  EXPECT_EQ(watch[0].tokens, expected_output(request_of(1, 200, 2), 256).tokens);
}

TEST(EngineQueue, PreemptedRequestsGoOnWhereTheyWere) {
  for (const bool prefix_cache : {true, false}) {
    test::FakeModel model;
    EngineOptions options = small_options();
    options.max_sequences = 4;
    options.kv_tokens = 256;
    options.prefix_cache = prefix_cache;
    options.policy = VerifyPolicy::fixed(3);
    const auto engine =
        make(model, options, std::make_unique<test::PageDrafter>(test::fake_continuation(1), 1));
    Watch watch(*engine);
    for (int i = 0; i < 4; ++i) {
      GenerateRequest request = request_of(i, 30, 150);
      request.sampling.temperature = i % 2 == 0 ? 0.0f : 0.8f;
      request.sampling.repetition_penalty = 1.1f;
      watch.submit(request);
    }
    watch.finish();
    int32_t n_preempted = 0;
    for (size_t i = 0; i < 4; ++i) {
      GenerateRequest request = request_of(static_cast<int32_t>(i), 30, 150);
      request.sampling.temperature = i % 2 == 0 ? 0.0f : 0.8f;
      request.sampling.repetition_penalty = 1.1f;
      EXPECT_EQ(watch[i].tokens, expected_output(request, 256).tokens) << i;
      EXPECT_TRUE(std::is_sorted(watch[i].prompt_done.begin(), watch[i].prompt_done.end()));
      n_preempted += watch[i].stats.preemptions;
    }
    EXPECT_GT(n_preempted, 0);
    EXPECT_EQ(watch[0].stats.preemptions, 0) << "the most senior one gives way to nobody";
    EXPECT_EQ(engine->stats().preemptions, n_preempted);
    EXPECT_GT(engine->stats().recomputed_tokens, 0);
  }
}

TEST(EngineQueue, CancellingWhilePreempted) {
  test::FakeModel model;
  EngineOptions options = small_options();
  options.max_sequences = 2;
  options.kv_tokens = 224;
  const auto engine = make(model, options);
  Watch watch(*engine);
  watch.submit(request_of(1, 60, 150));
  const RequestId id = watch.submit(request_of(2, 60, 150));
  ASSERT_TRUE(watch.step_until([&] { return engine->load().n_preempted > 0; }));
  const size_t n_before = watch[1].tokens.size();
  EXPECT_GT(n_before, 0u);
  engine->cancel(id);
  watch.step();
  EXPECT_EQ(watch[1].reason, FinishReason::kCancelled);
  EXPECT_EQ(watch[1].tokens.size(), n_before);
  watch.finish();
  EXPECT_EQ(watch[0].tokens, expected_output(request_of(1, 60, 150), 256).tokens);
}

TEST(EngineQueue, LaterTurnsReuseTheConversation) {
  for (const std::string drafter : {"none", "pages", "waiting", "gaps", "paired", "ngram", "taps"}) {
    SCOPED_TRACE(drafter);
    test::FakeModel model(test::kFakeVocab, test::kSoakContext);
    test::SoakWay way;
    way.drafter = drafter;
    way.cache_tokens = 2000;
    const auto engine = test::soak_engine(model, way);
    const GenerateRequest first = request_of(3, 70, 40);
    const auto answer = generate(*engine, first);
    ASSERT_TRUE(answer.ok());
    EXPECT_EQ(answer->stats.cached_tokens, 0);
    GenerateRequest second = first;
    second.prompt.insert(second.prompt.end(), answer->tokens.begin(), answer->tokens.end());
    second.prompt.insert(second.prompt.end(), {1, 2, 3});
    const auto turn = generate(*engine, second);
    ASSERT_TRUE(turn.ok());
    EXPECT_EQ(turn->tokens, expected_output(second, test::kSoakContext).tokens);
    EXPECT_EQ(turn->stats.cached_tokens, drafter == "taps" ? 0 : 96);  // whole pages of the 109 rows known
    EXPECT_EQ(engine->stats().cached_tokens, turn->stats.cached_tokens);
    GenerateRequest plain = second;  // without drafts nothing is needed but the target's rows
    plain.max_drafts = 0;
    EXPECT_EQ(generate(*engine, plain)->stats.cached_tokens, 96);
  }
}

TEST(EngineQueue, RunningRequestsShareABeginning) {
  test::FakeModel model;
  EngineOptions options = small_options();
  options.max_sequences = 4;
  const auto engine = make(model, options);
  Watch watch(*engine);
  watch.submit(request_of(1, 100, 100));
  watch.step();
  for (int i = 0; i < 3; ++i) {
    GenerateRequest request = request_of(1, 100, 100);
    request.prompt.push_back(i);
    watch.submit(request);
  }
  watch.step();
  EXPECT_EQ(engine->load().n_pages_used, 4 + 3);  // three pages are everybody's
  watch.finish();
  for (size_t i = 1; i < 4; ++i) EXPECT_EQ(watch[i].stats.cached_tokens, 96);
  EXPECT_EQ(engine->load().n_pages_used, 0);
}

/// The drafter's last row of a page waits for the token behind the page; who is cancelled meanwhile leaves a
/// page that only requests without drafts can use.
TEST(EngineQueue, APageIsSharedWhenItsRowsAreComplete) {
  test::FakeModel model;
  EngineOptions options = small_options();
  options.prefill_rows = 32;
  options.policy = VerifyPolicy::fixed(3);
  const auto engine =
      make(model, options, std::make_unique<test::PageDrafter>(test::fake_continuation(1), 1));
  Watch watch(*engine);
  const RequestId id = watch.submit(request_of(1, 80, 20));
  watch.step();  // one page of the prompt
  engine->cancel(id);
  watch.step();
  watch.submit(request_of(1, 80, 20));
  watch.finish();
  EXPECT_EQ(watch[1].stats.cached_tokens, 0);
  EXPECT_EQ(watch[1].tokens, expected_output(request_of(1, 80, 20), 256).tokens);
  watch.submit(request_of(1, 80, 20));
  watch.finish();
  EXPECT_EQ(watch[2].stats.cached_tokens, 64);
}

TEST(EngineQueue, EmbeddingsAreTheMeanOrTheLastHiddenState) {
  test::FakeModel model;
  EngineOptions options = small_options();
  options.max_sequences = 3;
  const auto engine = make(model, options);
  Watch watch(*engine);
  watch.submit(request_of(9, 30, 40));
  for (const Pooling pooling : {Pooling::kMean, Pooling::kLast}) {
    EmbedRequest request;
    request.tokens = request_of(2, 75, 1).prompt;
    request.pooling = pooling;
    request.normalize = false;
    std::vector<float> got;
    FinishReason reason = FinishReason::kNone;
    const auto take = [&](const EmbedResult& result) {
      got.assign(result.embedding.begin(), result.embedding.end());
      reason = result.finish_reason;
    };
    ASSERT_TRUE(engine->submit_embedding(request, take).ok());
    while (reason == FinishReason::kNone) watch.step();
    EXPECT_EQ(reason, FinishReason::kStop);
    ASSERT_EQ(got.size(), 4u);
    for (int32_t d = 0; d < 4; ++d) {
      double want = 0.0;
      for (int32_t p = pooling == Pooling::kMean ? 0 : 74; p < 75; ++p) {
        want +=
            static_cast<double>(test::FakeModel::hidden_value(request.tokens[static_cast<size_t>(p)], p, d));
      }
      EXPECT_NEAR(got[static_cast<size_t>(d)], pooling == Pooling::kMean ? want / 75 : want, 1e-6);
    }
    request.normalize = true;
    reason = FinishReason::kNone;
    ASSERT_TRUE(engine->submit_embedding(request, take).ok());
    while (reason == FinishReason::kNone) watch.step();
    double squares = 0.0;
    for (const float value : got) squares += static_cast<double>(value) * static_cast<double>(value);
    EXPECT_NEAR(squares, 1.0, 1e-5);
  }
  EXPECT_FALSE(engine->submit_embedding({}, {}).ok());
  watch.finish();
  EXPECT_EQ(watch[0].tokens, expected_output(request_of(9, 30, 40), 256).tokens);
}

/// The load goes from 1 to 16 and back to 1; nobody waits for ever and every text stays what it is alone.
TEST(EngineQueue, BurstsChangeNoText) {
  const test::SoakPool pool(5, 60);
  for (const std::string drafter : {"none", "ngram", "pages", "waiting", "paired"}) {
    SCOPED_TRACE(drafter);
    test::FakeModel model(test::kFakeVocab, test::kSoakContext);
    test::SoakWay way;
    way.drafter = drafter;
    way.max_sequences = 16;
    way.cache_tokens = 1200;
    const auto engine = test::soak_engine(model, way);
    Watch watch(*engine);
    size_t next = 0;
    std::vector<int64_t> submitted_at;
    const auto submit_next = [&] {
      GenerateRequest request = pool.requests[next++];
      request.queue.priority = 0;  // all alike: the order of submission is that of the start
      watch.submit(request);
      submitted_at.push_back(watch.n_steps);
    };
    for (; next < 10; watch.finish()) submit_next();
    while (next < 42) submit_next();  // 16 run at once, 16 wait
    while (engine->load().n_running + engine->load().n_waiting > 1 || watch.n_steps == 0) {
      watch.step();
      if (!engine->has_work()) break;
    }
    watch.finish();
    for (; next < 50; watch.finish()) submit_next();
    for (size_t i = 0; i < next; ++i) {
      EXPECT_EQ(watch[i].tokens, pool.expected[i].tokens) << i;
      EXPECT_LT(watch[i].first_step - submitted_at[i], 600) << i;
    }
  }
}

}  // namespace
}  // namespace dspark
