// Single behaviours of the engine: errors, counters, ends of text, progress, failures.

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "draft/test_drafters.h"
#include "engine/generation.h"
#include "engine/reference_generation.h"

namespace dspark {
namespace {

EngineOptions small_options() {
  EngineOptions options;
  options.context_length = 128;
  options.kv_dtype = KvDType::kF32;
  options.eos_ids = {test::kFakeEos};
  options.token_bytes = test::fake_token_bytes;
  return options;
}

GenerateRequest greedy_request(int32_t max_tokens) {
  GenerateRequest request;
  request.prompt = {1, 2, 3};
  request.sampling.temperature = 0.0f;
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  return request;
}

std::unique_ptr<Engine> make(test::FakeModel& model, EngineOptions options,
                             std::unique_ptr<Drafter> drafter = nullptr) {
  auto engine = Engine::create(model, std::move(options), std::move(drafter));
  EXPECT_TRUE(engine.ok()) << engine.status().to_string();
  return std::move(engine).value();
}

std::vector<int32_t> whole_text(const GenerateRequest& request, int32_t context_length) {
  std::vector<int32_t> text = request.prompt;
  const auto expected = test::expected_output(request, context_length);
  text.insert(text.end(), expected.tokens.begin(), expected.tokens.end());
  return text;
}

TEST(Engine, RightDraftsAreAllAcceptedAndWrongOnesNone) {
  const GenerateRequest request = greedy_request(39);
  const std::vector<std::vector<int32_t>> texts = {whole_text(request, 128)};
  for (int32_t offset : {0, 1}) {
    test::FakeModel model;
    EngineOptions options = small_options();
    options.policy = VerifyPolicy::fixed(4);
    const auto engine = make(model, options, test::oracle_drafter(texts, test::kFakeVocab, offset));
    const auto result = generate(*engine, request);
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(result->tokens, test::expected_output(request, 128).tokens);
    const SpeculationStats& s = result->stats.speculation;
    if (offset == 0) {  // one token from the prompt, seven rounds of 4 + 1, one of 2 + 1
      EXPECT_EQ(s.rounds, 8);
      EXPECT_EQ(s.verified_rounds, 8);
      EXPECT_EQ(s.accepted, 30);
      EXPECT_EQ(s.verified, 30);
      EXPECT_DOUBLE_EQ(s.accept_len(), 38.0 / 8.0);
      EXPECT_EQ(model.n_forwards, 9);
    } else {
      EXPECT_EQ(s.rounds, 38);
      EXPECT_EQ(s.accepted, 0);
      EXPECT_GT(s.verified, 100);
      EXPECT_DOUBLE_EQ(s.accept_len(), 1.0);
    }
  }
}

TEST(Engine, StopInsideAnAcceptedRunEndsTheRoundThere) {
  GenerateRequest request = greedy_request(40);
  const std::vector<std::vector<int32_t>> texts = {whole_text(request, 128)};
  const std::vector<int32_t>& text = texts[0];
  // A token at output index 3 (inside the first round's run) that has not occurred before.
  const auto output = std::vector<int32_t>(text.begin() + 3, text.end());
  size_t at = 2;
  while (std::count(output.begin(), output.begin() + static_cast<std::ptrdiff_t>(at), output[at]) > 0) ++at;
  ASSERT_LT(at, 8u) << "pick another prompt";
  request.stop_token_ids = {output[at]};
  test::FakeModel model;
  EngineOptions options = small_options();
  options.policy = VerifyPolicy::fixed(16);
  const auto engine = make(model, options, test::oracle_drafter(texts, test::kFakeVocab, 0));
  const auto result = generate(*engine, request);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->finish_reason, FinishReason::kStop);
  ASSERT_EQ(result->tokens.size(), at + 1);
  EXPECT_TRUE(result->events.back().is_stop);
  EXPECT_EQ(result->events.back().origin, TokenOrigin::kAccepted);
  const SpeculationStats& s = result->stats.speculation;
  EXPECT_EQ(s.rounds, 1);
  EXPECT_EQ(s.verified, 16);
  EXPECT_EQ(s.accepted, static_cast<int64_t>(at));
  EXPECT_EQ(s.proposal_tokens, static_cast<int64_t>(at));   // cut behind the stop token
  EXPECT_EQ(s.committed_tokens, static_cast<int64_t>(at));  // no bonus
}

TEST(Engine, SubmitNamesWhatIsWrong) {
  test::FakeModel model;
  const auto engine = make(model, small_options());
  const auto expect_error = [&](GenerateRequest request, StatusCode code, const std::string& begin) {
    const auto id = engine->submit(std::move(request), {});
    ASSERT_FALSE(id.ok());
    EXPECT_EQ(id.status().code(), code) << id.status().to_string();
    EXPECT_EQ(id.status().message().rfind(begin, 0), 0u) << id.status().message();
  };
  GenerateRequest request = greedy_request(5);
  request.prompt.clear();
  expect_error(request, StatusCode::kInvalidArgument, "prompt:");
  request.prompt = {1, 40};
  expect_error(request, StatusCode::kInvalidArgument, "prompt[1]:");
  request.prompt = {1, -1};
  expect_error(request, StatusCode::kInvalidArgument, "prompt[1]:");
  request.prompt.assign(128, 1);
  expect_error(request, StatusCode::kResourceExhausted, "prompt: 128 tokens do not fit a context of 128");
  request = greedy_request(0);
  expect_error(request, StatusCode::kInvalidArgument, "max_tokens:");
  request = greedy_request(5);
  request.sampling.top_p = 2.0f;
  expect_error(request, StatusCode::kInvalidArgument, "top_p:");
  request = greedy_request(5);
  request.stop_token_ids = {3, 400};
  expect_error(request, StatusCode::kInvalidArgument, "stop_token_ids[1]:");
  request = greedy_request(5);
  request.stop_strings = {"ok", ""};
  expect_error(request, StatusCode::kInvalidArgument, "stop_strings[1]:");
  request = greedy_request(5);
  request.speculation = VerifyPolicy::fixed(65);
  expect_error(request, StatusCode::kInvalidArgument, "speculation:");
  EXPECT_FALSE(engine->has_work());

  EngineOptions no_text = small_options();
  no_text.token_bytes = nullptr;
  request = greedy_request(5);
  request.stop_strings = {"x"};
  EXPECT_EQ(make(model, no_text)->submit(request, {}).status().code(), StatusCode::kInvalidArgument);
  EngineOptions small_cache = small_options();
  small_cache.kv_tokens = 64;
  request.stop_strings.clear();
  request.prompt.assign(70, 1);
  EXPECT_EQ(make(model, small_cache)->submit(request, {}).status().code(), StatusCode::kResourceExhausted);
}

TEST(Engine, OptionsNameWhatIsWrong) {
  test::FakeModel model;
  const auto expect_error = [&](auto change, const std::string& option) {
    EngineOptions options = small_options();
    change(options);
    const auto engine = Engine::create(model, options);
    ASSERT_FALSE(engine.ok()) << option;
    EXPECT_EQ(engine.status().message().rfind(option + ":", 0), 0u) << engine.status().message();
  };
  expect_error([](EngineOptions& o) { o.max_sequences = 0; }, "max_sequences");
  expect_error([](EngineOptions& o) { o.context_length = 1; }, "context_length");
  expect_error([](EngineOptions& o) { o.kv_tokens = -5; }, "kv_tokens");
  expect_error([](EngineOptions& o) { o.kv_tokens = int64_t{1} << 50; }, "kv_tokens");
  expect_error([](EngineOptions& o) { o.prefill_rows = 0; }, "prefill_rows");
  expect_error([](EngineOptions& o) { o.max_batch_rows = 1; }, "max_batch_rows");
  expect_error([](EngineOptions& o) { o.policy = VerifyPolicy::fixed(100); }, "policy");
  const auto no_rows = [](const std::vector<int32_t>&, std::span<int32_t>) { return 0; };
  const auto engine =
      Engine::create(model, small_options(),
                     std::make_unique<test::ScriptedDrafter>(no_rows, 8, std::vector<int32_t>{0, 4}));
  ASSERT_FALSE(engine.ok());
  EXPECT_NE(engine.status().message().find("reads layer 4"), std::string::npos);
}

TEST(Engine, ContextEndsTheText) {
  test::FakeModel model;
  const auto engine = make(model, small_options());
  const auto result = generate(*engine, greedy_request(-1));
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->finish_reason, FinishReason::kLength);
  EXPECT_EQ(result->tokens.size(), 125u);
}

TEST(Engine, LongPromptsReportProgressAndShareTheBudget) {
  test::FakeModel model;
  EngineOptions options = small_options();
  options.prefill_rows = 10;
  options.max_sequences = 2;
  const auto engine = make(model, options);
  GenerateRequest request = greedy_request(2);
  request.prompt.assign(25, 7);
  std::vector<int32_t> first, second;
  ASSERT_TRUE(engine->submit(request, [&](const StreamUpdate& u) { first.push_back(u.prompt_done); }).ok());
  ASSERT_TRUE(engine->submit(request, [&](const StreamUpdate& u) { second.push_back(u.prompt_done); }).ok());
  while (engine->has_work()) engine->step();
  EXPECT_EQ(first, (std::vector<int32_t>{10, 20, 25, 25}));
  EXPECT_EQ(second, (std::vector<int32_t>{5, 15, 25, 25}));
  EXPECT_EQ(model.largest_batch, 11);  // ten prompt rows and the other's anchor
}

TEST(Engine, FailingDrafterCostsNothingButSpeed) {
  test::FakeModel model;
  EngineOptions options = small_options();
  options.policy = VerifyPolicy::fixed(4);
  auto drafter = test::garbage_drafter(3, test::kFakeVocab);
  drafter->fail_from_now_on();
  const auto engine = make(model, options, std::move(drafter));
  const GenerateRequest request = greedy_request(30);
  const auto result = generate(*engine, request);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->tokens, test::expected_output(request, 128).tokens);
  EXPECT_EQ(result->stats.speculation.drafted, 0);
  EXPECT_GT(result->stats.speculation.rounds, 0);
  EXPECT_EQ(result->stats.speculation.verified_rounds, 0);
}

TEST(Engine, OutOfMemoryEndsTheBatchNotTheEngine) {
  test::FakeModel model;
  const auto engine = make(model, small_options());
  model.fail_from_forward = 3;
  const auto result = generate(*engine, greedy_request(30));
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), StatusCode::kOutOfMemory);
  EXPECT_TRUE(engine->check_integrity().ok());
  model.fail_from_forward = -1;
  EXPECT_TRUE(generate(*engine, greedy_request(30)).ok());
}

TEST(Engine, CancelFlagEndsGenerate) {
  test::FakeModel model;
  const auto engine = make(model, small_options());
  std::atomic<bool> cancel{false};
  int updates = 0;
  const auto result = generate(
      *engine, greedy_request(100), [&](const StreamUpdate&) { cancel = ++updates == 5; }, &cancel);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(result->tokens.size(), 5u);
  EXPECT_FALSE(engine->has_work());
}

TEST(Engine, SubmitAndCancelFromOtherThreads) {
  test::FakeModel model;
  EngineOptions options = small_options();
  options.max_sequences = 3;
  const auto engine = make(model, options);
  std::atomic<int> n_final{0};
  constexpr int kPerThread = 20;
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kPerThread; ++i) {
        const auto id = engine->submit(greedy_request(10), [&](const StreamUpdate& u) {
          if (u.finish_reason != FinishReason::kNone) ++n_final;
        });
        ASSERT_TRUE(id.ok());
        if ((i + t) % 3 == 0) engine->cancel(*id);
      }
    });
  }
  while (n_final < 2 * kPerThread) engine->step();
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(engine->has_work());
  EXPECT_TRUE(engine->check_integrity().ok());
}

TEST(Engine, TwoEnginesInOneProcess) {
  test::FakeModel model_a, model_b;
  const auto a = make(model_a, small_options()), b = make(model_b, small_options());
  const GenerateRequest request = greedy_request(20);
  std::vector<int32_t> from_a, from_b;
  const auto into = [](std::vector<int32_t>& out) {
    return [&out](const StreamUpdate& u) {
      for (const TokenEvent& event : u.tokens) out.push_back(event.token);
    };
  };
  ASSERT_TRUE(a->submit(request, into(from_a)).ok());
  ASSERT_TRUE(b->submit(request, into(from_b)).ok());
  while (a->has_work() || b->has_work()) {
    a->step();
    b->step();
  }
  EXPECT_EQ(from_a, from_b);
  EXPECT_EQ(from_a, test::expected_output(request, 128).tokens);
}

}  // namespace
}  // namespace dspark
