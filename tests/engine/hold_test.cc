// Held requests: they get no rows, no text changes by it, and what ends or moves them all the same.

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "draft/page_drafter.h"
#include "engine/soak.h"
#include "engine/watch.h"

namespace dspark {
namespace {

using test::expected_output;
using test::make;
using test::request_of;
using test::Watch;
using Clock = std::chrono::steady_clock;

constexpr int32_t kContext = 256;

EngineOptions small_options() {
  EngineOptions options;
  options.context_length = kContext;
  options.kv_dtype = KvDType::kF32;
  options.max_sequences = 2;
  return options;
}

/// Greedy for even numbers, sampled for odd ones.
GenerateRequest mixed_request(int32_t number, int32_t n_prompt, int32_t max_tokens) {
  GenerateRequest request = request_of(number, n_prompt, max_tokens);
  request.sampling.temperature = number % 2 == 0 ? 0.0f : 0.8f;
  request.sampling.repetition_penalty = 1.1f;
  return request;
}

void hold_one_of_three(const std::string& drafter, const VerifyPolicy& policy) {
  SCOPED_TRACE(drafter + " " + policy.to_string());
  test::FakeModel model(test::kFakeVocab, test::kSoakContext);
  test::SoakWay way;
  way.drafter = drafter;
  way.policy = policy;
  way.cache_tokens = 2000;
  const auto engine = test::soak_engine(model, way);
  Watch watch(*engine);
  std::vector<RequestId> ids;
  for (int32_t i = 0; i < 3; ++i) ids.push_back(watch.submit(mixed_request(i, 20, 100)));
  for (int i = 0; i < 4; ++i) watch.step();
  engine->hold(ids[1]);
  const size_t n_before = watch[1].tokens.size(), n_other = watch[0].tokens.size();
  ASSERT_GT(n_before, 0u);
  for (int i = 0; i < 10; ++i) {
    watch.step();
    EXPECT_LE(engine->last_step().decode_sequences, 2);
    EXPECT_EQ(engine->load().n_held, 1);
  }
  EXPECT_EQ(watch[1].tokens.size(), n_before);
  EXPECT_GT(watch[0].tokens.size(), n_other);
  engine->release(ids[1]);
  watch.finish();
  EXPECT_EQ(engine->load().n_held, 0);
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(watch[static_cast<size_t>(i)].tokens,
              expected_output(mixed_request(i, 20, 100), test::kSoakContext).tokens)
        << i;
  }
}

TEST(EngineHold, GetsNoRowsAndChangesNoText) {
  for (const std::string drafter : {"none", "ngram", "taps", "pages", "waiting", "gaps", "paired"}) {
    hold_one_of_three(drafter, VerifyPolicy::fixed(4));
    hold_one_of_three(drafter, VerifyPolicy::adaptive());
  }
}

TEST(EngineHold, PromptsAreNotReadEither) {
  test::FakeModel model(test::kFakeVocab, test::kSoakContext);
  test::SoakWay way;
  way.cache_tokens = 2000;
  const auto engine = test::soak_engine(model, way);  // 48 prompt rows per step
  Watch watch(*engine);
  const RequestId id = watch.submit(request_of(1, 150, 5));
  watch.step();
  engine->hold(id);
  EXPECT_FALSE(engine->step());
  EXPECT_EQ(watch[0].prompt_done, std::vector<int32_t>{48});
  watch.submit(request_of(2, 48, 3));
  watch.step();
  EXPECT_EQ(engine->last_step().prefill_rows, 48) << "the one that is held has no share";
  EXPECT_EQ(watch[1].tokens.size(), 1u);
  engine->release(id);
  watch.finish();
  EXPECT_EQ(watch[0].tokens, expected_output(request_of(1, 150, 5), test::kSoakContext).tokens);
  EXPECT_EQ(watch[1].tokens, expected_output(request_of(2, 48, 3), test::kSoakContext).tokens);
}

TEST(EngineHold, WhereAllAreHeldThereIsNothingToDo) {
  test::FakeModel model;
  const auto engine = make(model, small_options());
  Watch watch(*engine);
  EXPECT_FALSE(engine->step());
  const RequestId a = watch.submit(request_of(1, 5, 20)), b = watch.submit(request_of(2, 5, 20));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(engine->step());
  engine->hold(a);
  engine->hold(b);
  const int64_t n_forwards = model.n_forwards, n_steps = engine->stats().steps;
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(engine->step());
  EXPECT_EQ(model.n_forwards, n_forwards);
  EXPECT_EQ(engine->stats().steps, n_steps);
  EXPECT_TRUE(engine->has_work());
  EXPECT_EQ(engine->next_expiry(), Clock::time_point::max());
  EXPECT_EQ(engine->load().n_running, 2);
  EXPECT_EQ(engine->load().n_held, 2);
  watch.submit(request_of(3, 5, 4));
  EXPECT_TRUE(engine->step()) << "who is held gives its place to who waits";
  EXPECT_EQ(engine->stats().preemptions, 1);
  ASSERT_TRUE(watch.step_to_end_of(2));
  EXPECT_EQ(watch[0].reason, FinishReason::kNone);
  EXPECT_EQ(watch[1].reason, FinishReason::kNone);
  engine->release(b);
  engine->release(a);
  watch.finish();
  for (int32_t i = 1; i <= 3; ++i) {
    const GenerateRequest request = request_of(i, 5, i < 3 ? 20 : 4);
    EXPECT_EQ(watch[static_cast<size_t>(i) - 1].tokens, expected_output(request, kContext).tokens) << i;
  }
  engine->hold(a);  // finished
  engine->release(999);
  EXPECT_FALSE(engine->step());
}

TEST(EngineHold, CancellationsAndDeadlinesEndWhoIsHeld) {
  test::FakeModel model;
  EngineOptions options = small_options();
  Clock::time_point time{};
  options.clock = [&time] { return time; };
  const auto engine = make(model, options);
  Watch watch(*engine);
  const RequestId cancelled = watch.submit(request_of(1, 5, 100));
  GenerateRequest dying = request_of(2, 5, 100);
  dying.queue.deadline_s = 10.0;
  const RequestId late = watch.submit(dying);
  GenerateRequest waiting = request_of(3, 5, 100);
  waiting.queue.queue_timeout_s = 20.0;
  const RequestId never = watch.submit(waiting);
  watch.step();
  watch.step();
  for (const RequestId id : {cancelled, late, never}) engine->hold(id);
  EXPECT_FALSE(engine->step());
  EXPECT_EQ(engine->next_expiry(), Clock::time_point{} + std::chrono::seconds(10));
  engine->cancel(cancelled);
  EXPECT_TRUE(engine->step());
  EXPECT_EQ(watch[0].reason, FinishReason::kCancelled);
  EXPECT_EQ(watch[0].tokens.size(), 2u);
  EXPECT_FALSE(engine->step()) << "there is a slot, but who waits is held";
  time += std::chrono::seconds(10);
  EXPECT_TRUE(engine->step());
  EXPECT_EQ(watch[1].reason, FinishReason::kDeadline);
  EXPECT_EQ(watch[1].tokens.size(), 2u);
  EXPECT_EQ(engine->next_expiry(), Clock::time_point{} + std::chrono::seconds(20));
  time += std::chrono::seconds(10);
  EXPECT_TRUE(engine->step());
  EXPECT_EQ(watch[2].reason, FinishReason::kQueueTimeout);
  EXPECT_FALSE(engine->has_work());
  EXPECT_EQ(engine->load().n_pages_used, 0);
  EXPECT_TRUE(engine->check_integrity().ok());
}

TEST(EngineHold, PagesAreTakenFromThoseWhoAreHeldFirst) {
  for (const bool prefix_cache : {true, false}) {
    test::FakeModel model;
    EngineOptions options = small_options();
    options.kv_tokens = 224;
    options.prefix_cache = prefix_cache;
    options.policy = VerifyPolicy::fixed(3);
    const auto engine =
        make(model, options, std::make_unique<test::PageDrafter>(test::fake_continuation(1), 1));
    Watch watch(*engine);
    const RequestId senior = watch.submit(mixed_request(0, 60, 150));
    watch.submit(mixed_request(1, 60, 150));
    for (int i = 0; i < 4; ++i) watch.step();
    engine->hold(senior);
    ASSERT_TRUE(watch.step_to_end_of(1));
    EXPECT_EQ(watch[1].stats.preemptions, 0);
    EXPECT_EQ(engine->load().n_preempted, 1);
    EXPECT_EQ(engine->load().n_held, 1);
    EXPECT_FALSE(engine->step()) << "it does not start again before it is released";
    engine->release(senior);
    watch.finish();
    EXPECT_EQ(watch[0].stats.preemptions, 1);
    for (int32_t i = 0; i < 2; ++i) {
      EXPECT_EQ(watch[static_cast<size_t>(i)].tokens,
                expected_output(mixed_request(i, 60, 150), kContext).tokens)
          << i;
    }
  }
}

TEST(EngineHold, WhoWaitsGetsThePagesWhereNobodyGoesOn) {
  test::FakeModel model;
  EngineOptions options = small_options();
  options.kv_tokens = 224;
  const auto engine = make(model, options);
  Watch watch(*engine);
  const RequestId id = watch.submit(request_of(0, 150, 20));
  for (int i = 0; i < 4; ++i) watch.step();
  engine->hold(id);
  watch.submit(request_of(1, 150, 20));  // five pages of eight, as the other one
  ASSERT_TRUE(watch.step_to_end_of(1));
  EXPECT_EQ(watch[0].reason, FinishReason::kNone);
  EXPECT_EQ(engine->load().n_preempted, 1);
  engine->release(id);
  watch.finish();
  EXPECT_EQ(watch[0].stats.preemptions, 1);
  for (int32_t i = 0; i < 2; ++i) {
    EXPECT_EQ(watch[static_cast<size_t>(i)].tokens, expected_output(request_of(i, 150, 20), kContext).tokens);
  }
}

TEST(EngineHold, OneThatHasNotStartedLetsOthersPass) {
  test::FakeModel model;
  EngineOptions options = small_options();
  options.max_sequences = 1;
  const auto engine = make(model, options);
  Watch watch(*engine);
  watch.submit(request_of(1, 5, 5));
  const RequestId held = watch.submit(request_of(2, 5, 5));
  engine->hold(held);
  watch.submit(request_of(3, 5, 5));
  ASSERT_TRUE(watch.step_to_end_of(2));
  EXPECT_FALSE(engine->step());
  EXPECT_TRUE(watch[1].tokens.empty());
  EXPECT_EQ(engine->n_waiting(), 1);
  engine->release(held);
  watch.finish();
  EXPECT_EQ(watch[1].tokens, expected_output(request_of(2, 5, 5), kContext).tokens);
  EXPECT_EQ(engine->n_waiting(), 0);
}

}  // namespace
}  // namespace dspark
