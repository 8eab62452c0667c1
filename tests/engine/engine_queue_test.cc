// Who runs when: priorities, clients, deadlines, full queues, fair prompts, preemption; and what the sharing
// of prefixes saves.

#include <gtest/gtest.h>

#include "draft/page_drafter.h"
#include "engine/generation.h"
#include "engine/soak.h"

namespace dspark {
namespace {

using test::Expected;
using test::expected_output;

EngineOptions small_options() {
  EngineOptions options;
  options.context_length = 256;
  options.kv_dtype = KvDType::kF32;
  return options;
}

GenerateRequest request_of(int32_t first, int32_t n_prompt, int32_t max_tokens) {
  GenerateRequest request;
  request.prompt.resize(static_cast<size_t>(n_prompt));
  for (int32_t i = 0; i < n_prompt; ++i) request.prompt[static_cast<size_t>(i)] = (first + i * 7) % 40;
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

struct Watched {
  std::vector<int32_t> tokens;
  std::vector<int32_t> prompt_done;
  FinishReason reason = FinishReason::kNone;
  GenerateStats stats;
  int64_t first_step = -1, last_step = -1;
};

/// Requests of one engine with the steps at which they answered.
struct Watch {
  explicit Watch(Engine& e) : engine(e) {}
  RequestId submit(GenerateRequest request) {
    auto& one = all.emplace_back(std::make_unique<Watched>());
    const auto id = engine.submit(std::move(request), [this, &out = *one](const StreamUpdate& update) {
      for (const TokenEvent& event : update.tokens) {
        EXPECT_EQ(event.position, update.prompt_tokens + static_cast<int32_t>(out.tokens.size()));
        out.tokens.push_back(event.token);
      }
      if (!update.tokens.empty() && out.first_step < 0) out.first_step = n_steps;
      out.prompt_done.push_back(update.prompt_done);
      out.reason = update.finish_reason;
      out.stats = *update.stats;
      out.last_step = n_steps;
    });
    EXPECT_TRUE(id.ok()) << id.status().to_string();
    return id.ok() ? *id : 0;
  }
  void step() {
    engine.step();
    ++n_steps;
    const Status intact = engine.check_integrity();
    EXPECT_TRUE(intact.ok()) << intact.to_string();
  }
  void finish() {
    while (engine.has_work()) step();
  }
  const Watched& operator[](size_t i) const { return *all[i]; }

  Engine& engine;
  int64_t n_steps = 0;
  std::vector<std::unique_ptr<Watched>> all;
};

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
  while (engine->load().n_preempted == 0) watch.step();
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

/// Eight rows cost as one, every row beyond as much as a fifth of them: alone a sequence verifies seven
/// drafts for nothing, sixteen of them pay more for any draft than it can bring.
double crowded_seconds(int64_t n_rows) {
  return 0.010 + 0.002 * static_cast<double>(std::max<int64_t>(0, n_rows - 8));
}

/// Greedy continuations by the fake model itself, every eighth token wrong; a pass takes time.
test::ScriptedDrafter::ProposeRow timed_continuation(test::FakeTime time) {
  return [time](const std::vector<int32_t>& tokens, std::span<int32_t> out) mutable {
    std::vector<int32_t> text = tokens;
    std::vector<float> logits;
    for (int32_t& draft : out) {
      logits.clear();
      test::FakeModel::append_logits_after(text, 40, logits);
      draft = argmax(logits);
      if (text.size() % 8 == 0) draft = (draft + 1) % 40;
      text.push_back(draft);
    }
    time.pass(1e-4);
    return static_cast<int32_t>(out.size());
  };
}

/// Sixteen sequences for which drafting does not pay give the drafter no rows, but for some by which it would
/// show when it did. Those that are left begin to where it pays, and draft from what they gave. Where it pays
/// later ones share many pages that have no rows, but a few are computed again and have them from then on.
TEST(EngineQueue, RowsForDraftsAreLeftOutWhereNobodyDrafts) {
  test::FakeModel model;
  model.pass_seconds = crowded_seconds;
  EngineOptions options;
  options.context_length = 1000;
  options.max_sequences = 16;
  options.kv_tokens = 16 * 1000;
  options.rows_on_demand = true;
  options.kv_dtype = KvDType::kF32;
  options.policy = VerifyPolicy::adaptive();
  options.clock = model.time.clock();
  options.costs.emplace();
  for (int32_t n = 1; n <= 200; ++n) options.costs->verify.push_back({n, crowded_seconds(n)});
  options.costs->draft = {{1, 1e-4}, {16, 16e-4}};
  auto owned = std::make_unique<test::PageDrafter>(timed_continuation(model.time), 0, std::vector<int32_t>{0},
                                                   64, true);
  const test::PageDrafter& drafter = *owned;
  const auto engine = make(model, options, std::move(owned));
  Watch watch(*engine);
  std::vector<GenerateRequest> requests;
  const auto submit = [&](GenerateRequest request) {
    requests.push_back(request);
    watch.submit(request);
  };
  submit(request_of(1, 100, 60));
  watch.finish();
  EXPECT_GE(drafter.n_feature_rows, 150) << "alone everything is given, but for what the last step makes";
  const auto crowd_request = [](int32_t i) { return request_of(i + 2, i % 8 == 7 ? 200 : 70, 40); };
  for (int32_t i = 0; i < 40; ++i) submit(crowd_request(i));
  const size_t long_one = requests.size();
  submit(request_of(90, 60, 600));
  for (int32_t i = 40; i < 80; ++i) submit(crowd_request(i));
  do watch.step();
  while (engine->load().n_running + engine->load().n_waiting > 1);
  const int64_t n_rows = 70 * 109 + 10 * 239;
  EXPECT_LT(drafter.n_feature_rows, 159 + n_rows / 2);
  EXPECT_GT(drafter.n_feature_rows, 159 + n_rows / 16);
  watch.finish();
  EXPECT_GT(drafter.n_gaps, 0) << "the long one had begun without";
  EXPECT_GT(drafter.n_drafts_behind_gaps, 10);
  // Its pages in front of where it began have none: who continues its text learns that.
  GenerateRequest next_turn = request_of(0, 1, 20);
  next_turn.prompt = requests[long_one].prompt;
  const std::vector<int32_t>& said = watch[long_one].tokens;
  next_turn.prompt.insert(next_turn.prompt.end(), said.begin(), said.begin() + 400);
  const int64_t n_before = drafter.n_attached_without_rows;
  submit(next_turn);
  watch.finish();
  EXPECT_EQ(drafter.n_attached_without_rows, n_before + 1);
  // Requests of the crowd once more, each alone; returns how many got pages without rows.
  const auto repeat = [&](int32_t first, int32_t step) {
    const int64_t n_without = drafter.n_attached_without_rows;
    for (int32_t i = first; i < 80; i += step) {
      submit(crowd_request(i));
      watch.finish();
    }
    return drafter.n_attached_without_rows - n_without;
  };
  int64_t n_cached = engine->stats().cached_tokens;
  EXPECT_GT(repeat(7, 8), 0) << "three pages are too many to be computed again";
  EXPECT_EQ(engine->stats().cached_tokens, n_cached + 10 * 192);
  n_cached = engine->stats().cached_tokens;
  EXPECT_EQ(repeat(40, 8), 0);
  EXPECT_LT(engine->stats().cached_tokens, n_cached + 5 * 64);
  n_cached = engine->stats().cached_tokens;
  EXPECT_EQ(repeat(40, 8), 0);
  EXPECT_EQ(engine->stats().cached_tokens, n_cached + 5 * 64);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(watch[i].tokens, expected_output(requests[i], options.context_length).tokens) << i;
  }
  EXPECT_TRUE(engine->check_integrity().ok());
}

/// The first rounds of one user fail, and drafting stops. That must not last for the requests that follow:
/// they would have no rows to draft from, and nothing would show that drafts are good.
TEST(EngineQueue, OneUnluckyStartIsForgottenWithinARequest) {
  test::FakeModel model;
  model.pass_seconds = crowded_seconds;
  EngineOptions options;
  options.context_length = 1000;
  options.kv_dtype = KvDType::kF32;
  options.policy = VerifyPolicy::adaptive();
  options.clock = model.time.clock();
  options.costs.emplace();
  for (int32_t n = 1; n <= 32; ++n) options.costs->verify.push_back({n, crowded_seconds(n)});
  options.costs->draft = {{1, 3e-3}};
  int32_t n_unlucky = 6;
  const auto propose = [&, time = model.time, good = timed_continuation(model.time)](
                           const std::vector<int32_t>& tokens, std::span<int32_t> out) mutable {
    const int32_t n = good(tokens, out);
    time.pass(2.9e-3);
    if (n_unlucky-- > 0) out[0] = (out[0] + 1) % 40;
    return n;
  };
  const auto engine = make(
      model, options, std::make_unique<test::PageDrafter>(propose, 0, std::vector<int32_t>{0}, 64, true));
  Watch watch(*engine);
  watch.submit(request_of(1, 70, 60));
  watch.finish();
  EXPECT_GT(engine->stats().scheduler.paused_steps, 30) << "the verdict that is to be forgotten";
  const int64_t n_steps = engine->stats().steps;
  for (int32_t i = 2; i < 6; ++i) {
    watch.submit(request_of(i, 70, 120));
    watch.finish();
  }
  EXPECT_LT(engine->stats().steps - n_steps, 4 * 120 / 2);
}

/// Drafts verified per decoding sequence, step by step, and how many these were.
struct Budgets {
  std::vector<double> verified;
  std::vector<int32_t> n_sequences;

  void add(const StepStats& step) {
    if (step.decode_sequences == 0) return;
    verified.push_back((step.decode_rows - step.decode_sequences) /
                       static_cast<double>(step.decode_sequences));
    n_sequences.push_back(step.decode_sequences);
  }
  double mean(size_t begin, size_t end) const {
    double sum = 0.0;
    for (size_t i = begin; i < end; ++i) sum += verified[i];
    return sum / static_cast<double>(end - begin);
  }
};

/// The load jumps 1 -> 16 -> 1 under policies that weigh costs. The costs of this step and the confidences of
/// this step decide, so the budget is that of the new load at once; three steps are allowed because budgets
/// that must not anticipate are two steps old.
TEST(EngineQueue, BudgetsFollowABurst) {
  for (const VerifyPolicy& policy : {VerifyPolicy::adaptive(), VerifyPolicy::causal()}) {
    SCOPED_TRACE(policy.to_string());
    test::FakeModel model;
    model.pass_seconds = crowded_seconds;
    EngineOptions options;
    options.context_length = 1000;
    options.max_sequences = 16;
    options.kv_dtype = KvDType::kF32;
    options.policy = policy;
    options.clock = model.time.clock();
    options.costs.emplace();
    for (int32_t n = 1; n <= 200; ++n) options.costs->verify.push_back({n, crowded_seconds(n)});
    options.costs->draft = {{1, 1e-4}, {16, 16e-4}};
    const auto engine =
        make(model, options, std::make_unique<test::ScriptedDrafter>(timed_continuation(model.time), 8));
    Watch watch(*engine);
    Budgets budgets;
    const auto step = [&] {
      watch.step();
      budgets.add(engine->last_step());
    };
    std::vector<GenerateRequest> requests = {request_of(1, 5, 700)};
    for (int32_t i = 0; i < 23; ++i) requests.push_back(request_of(i + 2, 5 + i % 7, 40));
    watch.submit(requests[0]);
    while (budgets.verified.size() < 40) step();
    const int64_t burst_at = watch.n_steps;
    for (size_t i = 1; i < requests.size(); ++i) watch.submit(requests[i]);  // 15 start, 8 wait
    while (engine->has_work()) step();

    const auto& load = budgets.n_sequences;
    const size_t full = static_cast<size_t>(std::find(load.begin(), load.end(), 16) - load.begin());
    const size_t emptier = static_cast<size_t>(std::find_if(load.begin() + static_cast<std::ptrdiff_t>(full),
                                                            load.end(), [](int32_t n) { return n < 16; }) -
                                               load.begin());
    size_t alone = load.size();
    while (alone > 0 && load[alone - 1] == 1) --alone;  // not the step in which the second wave starts
    ASSERT_LT(full + 10, emptier);
    ASSERT_LT(alone + 10, load.size());
    EXPECT_GT(budgets.mean(20, 40), 4.0) << "before the burst";
    EXPECT_LT(budgets.mean(full + 3, emptier), 0.25) << "in the burst";
    EXPECT_GT(budgets.mean(alone + 3, load.size() - 3), 4.0) << "behind it";
    EXPECT_GT(budgets.mean(alone + 3, alone + 6), 4.0) << "at once";
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(watch[i].tokens, expected_output(requests[i], options.context_length).tokens) << i;
      // Sixteen places: the first wave starts at once, the second when answers of 40 tokens end.
      if (i > 0) {
        EXPECT_LE(watch[i].first_step - burst_at, i <= 15 ? 2 : 45) << i;
      }
    }
  }
}

}  // namespace
}  // namespace dspark
