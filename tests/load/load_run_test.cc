// Load on an engine with a model of hashes: who is measured, what is counted, and that texts stay.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "draft/ngram.h"
#include "engine/fake_model.h"
#include "load/arrivals.h"
#include "load/load_run.h"
#include "load/load_summary.h"
#include "load/round_trace.h"

namespace dspark {
namespace {

constexpr int32_t kVocab = 40;

std::vector<LoadRequest> workload(int64_t n, int32_t least = 12, int32_t most = 20) {
  const PromptSource source = synthetic_source(9, 10, kVocab, 4);
  return *make_workload({source}, {n, least, most, 11});
}

std::unique_ptr<Engine> engine_of(test::FakeModel& model, const char* policy, int32_t max_sequences = 4,
                                  bool with_drafter = true) {
  EngineOptions options;
  options.max_sequences = max_sequences;
  options.context_length = 200;
  options.policy = *VerifyPolicy::parse(policy);
  options.costs.emplace();
  options.costs->verify = {{1, 1e-3}, {8, 1.5e-3}};
  options.costs->draft = {{1, 1e-5}};
  std::unique_ptr<Drafter> drafter;
  if (with_drafter) drafter = std::make_unique<NgramDrafter>(NgramOptions{});
  auto engine = Engine::create(model, options, std::move(drafter));
  EXPECT_TRUE(engine.ok()) << engine.status().to_string();
  return std::move(engine).value();
}

LoadPlan closed_plan(int32_t clients, int64_t n) {
  LoadPlan plan;
  plan.clients = clients;
  plan.n_measured = n;
  plan.warmup_tokens = 5;
  plan.sampling.temperature = 0.0f;
  return plan;
}

TEST(LoadRun, ClosedLoopMeasuresEveryRequestOnce) {
  test::FakeModel model(kVocab);
  const std::vector<LoadRequest> requests = workload(15);
  const auto engine = engine_of(model, "fixed:3");
  const auto result = run_load(*engine, requests, closed_plan(4, 15));
  ASSERT_TRUE(result.ok()) << result.status().to_string();
  EXPECT_FALSE(result->cut);
  std::vector<int> measured(15, 0);
  for (const RequestRecord& request : result->requests) {
    if (!request.measured) continue;
    ++measured[static_cast<size_t>(request.index)];
    EXPECT_TRUE(request.whole);
    const LoadRequest& wanted = requests[static_cast<size_t>(request.index)];
    EXPECT_EQ(request.tokens.size(), static_cast<size_t>(wanted.max_tokens));
    EXPECT_GE(request.first_token_s, request.submitted_s);
    EXPECT_GE(request.last_token_s, request.first_token_s);
    EXPECT_GE(request.submitted_s, result->begin_s);
    EXPECT_LE(request.last_token_s, result->end_s);
  }
  EXPECT_EQ(measured, std::vector<int>(15, 1));
  for (const LoadStep& step : result->steps) EXPECT_EQ(step.clients, 4);
  EXPECT_FALSE(engine->has_work());
  EXPECT_TRUE(engine->check_integrity().ok());
}

TEST(LoadRun, CountsAgree) {
  test::FakeModel model(kVocab);
  const std::vector<LoadRequest> requests = workload(12);
  const auto engine = engine_of(model, "fixed:2");
  const auto result = run_load(*engine, requests, closed_plan(3, 12));
  ASSERT_TRUE(result.ok());
  const LoadSummary summary = summarize_load(*result);
  int64_t tokens = 0;
  for (const RequestRecord& request : result->requests) tokens += static_cast<int64_t>(request.tokens.size());
  int64_t committed = 0, verified = 0, accepted = 0;
  for (const LoadStep& step : result->steps) {
    committed += step.committed;
    verified += step.verified;
    accepted += step.accepted;
    EXPECT_GE(step.drafted, step.verified);
    EXPECT_GT(step.predicted_s, 0.0);
  }
  EXPECT_EQ(committed, tokens);
  EXPECT_GE(verified, accepted);
  EXPECT_LE(summary.tokens, committed);
  EXPECT_GT(summary.tokens, 0);
  const SpeculationStats& s = summary.speculation;
  EXPECT_EQ(s.drafted, s.verified + s.trimmed);
  EXPECT_GT(s.accepted, 0);
  EXPECT_EQ(summary.answers, 12);
  EXPECT_EQ(summary.ttft_s.n, 12);
  EXPECT_EQ(summary.gap_s.n, static_cast<int64_t>(result->gap_s.size()));
  EXPECT_GE(summary.inter_token_s.n, summary.gap_s.n);
  EXPECT_NEAR(summary.tokens_per_s, static_cast<double>(summary.tokens) / summary.seconds, 1e-9);
  EXPECT_NEAR(summary.draft_s + summary.forward_s + summary.commit_s + summary.loop_s + summary.outside_s,
              summary.seconds, 1e-6);
  EXPECT_NEAR(summary.mean_decode_sequences, 3.0, 0.7);
}

TEST(LoadRun, TextsAreTheSameUnderEveryPolicyAndLoad) {
  test::FakeModel model(kVocab);
  const std::vector<LoadRequest> requests = workload(12);
  TextCheck texts;
  for (const char* policy : {"off", "fixed:1", "fixed:5", "causal", "adaptive"}) {
    for (int32_t clients : {1, 4}) {
      const auto engine = engine_of(model, policy, 4, std::string(policy) != "off");
      const auto result = run_load(*engine, requests, closed_plan(clients, 12));
      ASSERT_TRUE(result.ok());
      texts.add(*result, policy);
    }
  }
  EXPECT_EQ(texts.different(), 0) << texts.first_difference();
  EXPECT_GE(texts.compared(), 9 * 12);
}

/// Engines over one model in one interleaved run: each has its own requests, counts and clock.
TEST(LoadRun, InTurnAsOneAfterTheOther) {
  test::FakeModel model(kVocab);
  const std::vector<LoadRequest> requests = workload(12);
  std::vector<std::unique_ptr<Engine>> engines;
  std::vector<LoadTurn> turns;
  for (const char* policy : {"off", "fixed:1", "fixed:5", "adaptive"}) {
    engines.push_back(engine_of(model, policy, 4, std::string(policy) != "off"));
    turns.push_back({engines.back().get(), nullptr});
  }
  for (const double slice_s : {0.0, 1e-4}) {
    const auto start = std::chrono::steady_clock::now();
    const auto results = run_loads_in_turn(turns, requests, closed_plan(4, 12), slice_s);
    const double wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    ASSERT_TRUE(results.ok()) << results.status().to_string();
    ASSERT_EQ(results->size(), 4u);
    TextCheck texts;
    double own_s = 0.0;
    for (const LoadResult& result : *results) {
      texts.add(result, "in turn");
      own_s += result.end_s;
      EXPECT_GT(result.end_s, result.begin_s);
      EXPECT_EQ(std::ranges::count_if(result.requests,
                                      [](const RequestRecord& r) { return r.measured && r.whole; }),
                12);
      double last_s = 0.0;
      for (const LoadStep& step : result.steps) {
        EXPECT_GE(step.end_s, last_s);
        last_s = step.end_s;
      }
      EXPECT_TRUE(std::ranges::is_sorted(result.turn_end_s));
      EXPECT_EQ(result.turn_end_s.back(), result.end_s);
      EXPECT_GE(result.turn_end_s.size(), slice_s == 0.0 ? result.steps.size() : 1);  // one step per turn
      EXPECT_FALSE(summarize_load(result).turns.along.empty());
    }
    EXPECT_EQ(texts.different(), 0) << texts.first_difference();
    EXPECT_LE(own_s, wall_s) << "a clock went on while another engine had its turn";
    for (const auto& engine : engines) EXPECT_FALSE(engine->has_work());
  }
  std::atomic<bool> cancel = true;
  EXPECT_EQ(run_loads_in_turn(turns, requests, closed_plan(4, 12), 0.0, &cancel).status().code(),
            StatusCode::kCancelled);
  for (const auto& engine : engines) EXPECT_FALSE(engine->has_work());
}

TEST(LoadRun, TextCheckFindsDifferences) {
  LoadResult a;
  a.requests.resize(2);
  a.requests[0] = {.index = 0, .whole = true, .tokens = {1, 2, 3}};
  a.requests[1] = {.index = 1, .whole = false, .tokens = {1, 2}};
  TextCheck texts;
  texts.add(a, "first");
  EXPECT_EQ(texts.compared(), 0);
  LoadResult b = a;
  b.requests[0].tokens = {1, 2};  // ends early without being whole: fine
  b.requests[0].whole = false;
  b.requests[1].tokens = {1, 2, 4};
  texts.add(b, "second");
  EXPECT_EQ(texts.different(), 0);
  LoadResult c = a;
  c.requests[0].tokens = {1, 2, 3, 4};  // longer than a whole one
  c.requests[1].tokens = {1, 2, 5};     // not what the second run said
  texts.add(c, "third");
  EXPECT_EQ(texts.different(), 2);
  EXPECT_NE(texts.first_difference().find("request 1: token 4"), std::string::npos)
      << texts.first_difference();
  LoadResult d = a;
  d.requests[0].tokens = {1, 2};
  texts.add(d, "fourth");  // whole, but shorter than the first
  EXPECT_EQ(texts.different(), 3);
}

/// Every request by itself is the reference, even where two other runs agree with each other.
TEST(LoadRun, TextsOfSingleRuns) {
  test::FakeModel model(kVocab);
  const std::vector<LoadRequest> requests = workload(12);
  LoadPlan plan = closed_plan(4, 12);
  plan.sampling.temperature = 1.0f;  // the seed of a request decides
  const auto single = engine_of(model, "off", 1, false);
  std::vector<int64_t> shown;
  const auto alone = run_alone(*single, requests, plan, [&](int64_t n) { shown.push_back(n); });
  ASSERT_TRUE(alone.ok()) << alone.status().to_string();
  ASSERT_EQ(alone->requests.size(), 12u);
  EXPECT_EQ(shown.back(), 12);
  EXPECT_EQ(model.most_logit_rows, 1) << "somebody was not alone";
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(alone->requests[i].index, static_cast<int64_t>(i));
    EXPECT_TRUE(alone->requests[i].whole);
    EXPECT_EQ(alone->requests[i].tokens.size(), static_cast<size_t>(requests[i].max_tokens));
  }
  TextCheck texts;
  texts.add(*alone, "its single run");
  const auto engine = engine_of(model, "adaptive");
  const auto result = run_load(*engine, requests, plan);
  ASSERT_TRUE(result.ok());
  texts.add(*result, "adaptive");
  EXPECT_EQ(texts.compared(), std::ssize(result->requests));
  EXPECT_EQ(texts.different(), 0) << texts.first_difference();
  LoadResult wrong = *alone;
  wrong.requests.resize(1);
  wrong.requests[0].tokens[2] += 1;
  texts.add(wrong, "a batch");
  texts.add(wrong, "another batch");
  EXPECT_EQ(texts.different(), 2);
  EXPECT_EQ(texts.first_difference(), "request 1: token 3 differs between its single run and a batch");
}

TEST(LoadRun, SingleRunsStopAndFail) {
  test::FakeModel model(kVocab);
  std::vector<LoadRequest> requests = workload(3);
  const auto engine = engine_of(model, "off", 1, false);
  std::atomic<bool> cancel = true;
  EXPECT_EQ(run_alone(*engine, requests, closed_plan(1, 3), {}, &cancel).status().code(),
            StatusCode::kCancelled);
  EXPECT_FALSE(engine->has_work());
  requests[1].prompt = {kVocab + 5};
  const auto result = run_alone(*engine, requests, closed_plan(1, 3));
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.status().message().find("request 2"), std::string::npos) << result.status().message();
  model.fail_from_forward = model.n_forwards + 2;
  EXPECT_EQ(run_alone(*engine, workload(3), closed_plan(1, 3)).status().code(), StatusCode::kOutOfMemory);
}

TEST(LoadRun, OpenArrivals) {
  test::FakeModel model(kVocab);
  const std::vector<LoadRequest> requests = workload(10);
  LoadPlan plan;
  plan.kind = LoadPlan::Kind::kOpen;
  plan.arrivals = arrival_times(*ArrivalProcess::parse("bursty:4"), 300.0, 10, 1);
  const auto engine = engine_of(model, "adaptive");
  const auto result = run_load(*engine, requests, plan);
  ASSERT_TRUE(result.ok());
  ASSERT_EQ(result->requests.size(), 10u);
  for (size_t i = 0; i < 10; ++i) {
    EXPECT_EQ(result->requests[i].index, static_cast<int64_t>(i));
    EXPECT_DOUBLE_EQ(result->requests[i].submitted_s, plan.arrivals[i]);
    EXPECT_GE(result->requests[i].first_token_s, plan.arrivals[i]);
    EXPECT_TRUE(result->requests[i].whole);
  }
}

TEST(LoadRun, PhasesChangeTheNumberOfClients) {
  test::FakeModel model(kVocab);
  const std::vector<LoadRequest> requests = workload(30, 40, 60);
  LoadPlan plan;
  plan.kind = LoadPlan::Kind::kPhases;
  plan.phases = {1, 4, 1};
  plan.phase_s = 0.4;
  const auto engine = engine_of(model, "adaptive");
  const auto result = run_load(*engine, requests, plan);
  ASSERT_TRUE(result.ok());
  ASSERT_EQ(result->phase_begin_s.size(), 3u);
  int32_t most = 0;
  for (const LoadStep& step : result->steps) {
    EXPECT_LE(step.clients, step.end_s < result->phase_begin_s[1] ? 1 : 4);
    most = std::max(most, step.clients);
  }
  EXPECT_EQ(most, 4);
  EXPECT_EQ(result->steps.front().clients, 1);
  EXPECT_LT(result->steps.back().clients, 4);
  const std::vector<PhaseSummary> phases = summarize_phases(*result, plan.phases, plan.phase_s);
  ASSERT_EQ(phases.size(), 3u);
  EXPECT_EQ(phases[1].clients, 4);
  for (const PhaseSummary& phase : phases) EXPECT_GT(phase.tokens_per_s, 0.0);
}

/// A fast and a slow engine in turn are in the same phase, although one has far more tokens.
TEST(LoadRun, PhasesInTurnKeepTheClocksTogether) {
  test::FakeModel fast(kVocab), slow(kVocab);
  std::string order;  // of passes
  fast.pass_seconds = [&](int64_t) {
    order += 'f';
    return 0.0;
  };
  slow.pass_seconds = [&](int64_t) {
    order += 's';
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return 0.0;
  };
  const auto fast_engine = engine_of(fast, "off", 4, false);
  const auto slow_engine = engine_of(slow, "off", 4, false);
  const std::vector<LoadTurn> turns = {{fast_engine.get(), nullptr}, {slow_engine.get(), nullptr}};
  const std::vector<LoadRequest> requests = workload(30, 40, 60);
  LoadPlan plan;
  plan.kind = LoadPlan::Kind::kPhases;
  plan.phases = {1, 3};
  plan.phase_s = 0.2;
  const auto results = run_loads_in_turn(turns, requests, plan, 0.01);
  ASSERT_TRUE(results.ok()) << results.status().to_string();
  size_t n_changes = 0;
  for (size_t i = 1; i < order.size(); ++i) n_changes += order[i] != order[i - 1] ? 1 : 0;
  EXPECT_GE(n_changes, 8u) << "by tokens, the slow one would have come to its end in its first turn";
  for (const LoadResult& result : *results) {
    ASSERT_EQ(result.phase_begin_s.size(), 2u);
    ASSERT_EQ(result.phase_longest_wait_s.size(), 2u);
    EXPECT_GE(result.turn_end_s.size(), 4u);
  }
  EXPECT_GE((*results)[1].phase_longest_wait_s[0], 2e-3);
}

TEST(LoadRun, WhoWaitsAtTheEndHasWaited) {
  test::FakeModel model(kVocab);
  const std::vector<LoadRequest> requests = workload(4, 150, 180);
  LoadPlan plan;
  plan.kind = LoadPlan::Kind::kPhases;
  plan.phases = {2};
  plan.phase_s = 0.05;
  const auto engine = engine_of(model, "off", 1, false);  // one place for two clients
  model.pass_seconds = [](int64_t) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return 0.0;
  };
  const auto result = run_load(*engine, requests, plan);
  ASSERT_TRUE(result.ok());
  ASSERT_LT(result->requests[1].first_token_s, 0.0) << "the second client was not to get its turn";
  EXPECT_DOUBLE_EQ(result->phase_longest_wait_s[0], result->end_s - result->requests[1].submitted_s);
}

TEST(LoadRun, PredictionsOfBothKindsOfSteps) {
  LoadResult result;
  result.end_s = 10.0;
  const auto add = [&](double step_s, double predicted_s, int32_t prefill_rows) {
    LoadStep step;
    step.end_s = 1.0 + static_cast<double>(result.steps.size());
    step.step_s = step_s;
    step.predicted_s = predicted_s;
    step.prefill_rows = prefill_rows;
    result.steps.push_back(step);
  };
  add(0.11, 0.1, 0);
  add(0.12, 0.1, 0);
  add(0.10, 0.1, 0);
  add(0.50, 0.0, 0);  // nobody predicted it
  add(0.60, 0.2, 64);
  const LoadSummary summary = summarize_load(result);
  EXPECT_EQ(summary.decode_steps.steps, 3);
  EXPECT_NEAR(summary.decode_steps.ratio, 1.1, 1e-9);
  EXPECT_NEAR(summary.decode_steps.error, 0.1, 1e-9);
  EXPECT_EQ(summary.prompt_steps.steps, 1);
  EXPECT_NEAR(summary.prompt_steps.ratio, 3.0, 1e-9);
  EXPECT_NEAR(summary.prompt_steps.error, 2.0, 1e-9);
}

TEST(LoadRun, PhaseFollowsTheLoad) {
  LoadResult result;
  result.phase_begin_s = {0.0};
  result.end_s = 40.0;
  for (int i = 0; i < 40; ++i) {  // 7 steps with 5 drafts, then 2
    LoadStep step;
    step.end_s = i;
    step.decode_sequences = 2;
    step.verified = i < 7 ? 10 : 4;
    result.steps.push_back(step);
  }
  const std::vector<int32_t> clients = {2};
  const std::vector<PhaseSummary> phases = summarize_phases(result, clients, 40.0);
  EXPECT_DOUBLE_EQ(phases[0].verified_per_sequence, 2.0);
  EXPECT_EQ(phases[0].steps_to_follow, 7);  // the window of five steps still holds none of the first
}

TEST(LoadRun, CutsAndCancels) {
  test::FakeModel model(kVocab);
  const std::vector<LoadRequest> requests = workload(4, 150, 180);
  LoadPlan plan = closed_plan(2, 100000);
  plan.max_s = 0.05;
  auto engine = engine_of(model, "fixed:2");
  const auto result = run_load(*engine, requests, plan);
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->cut);
  EXPECT_FALSE(engine->has_work());
  EXPECT_TRUE(std::ranges::any_of(result->requests, [](const RequestRecord& r) { return !r.whole; }));
  std::atomic<bool> cancel = true;
  EXPECT_EQ(run_load(*engine, requests, plan, nullptr, &cancel).status().code(), StatusCode::kCancelled);
  EXPECT_FALSE(engine->has_work());
}

TEST(LoadRun, FailuresAreReported) {
  test::FakeModel model(kVocab);
  const std::vector<LoadRequest> requests = workload(4);
  model.fail_from_forward = 3;
  auto engine = engine_of(model, "fixed:2");
  EXPECT_EQ(run_load(*engine, requests, closed_plan(2, 4)).status().code(), StatusCode::kOutOfMemory);
  std::vector<LoadRequest> wrong = requests;
  wrong[3].prompt = {kVocab + 5};
  model.fail_from_forward = -1;
  engine = engine_of(model, "fixed:2");
  const auto result = run_load(*engine, wrong, closed_plan(1, 4));
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.status().message().find("request 4"), std::string::npos) << result.status().message();
}

TEST(RecordRounds, EveryTokenHasItsProposal) {
  test::FakeModel model(kVocab);
  const std::vector<LoadRequest> requests = workload(6, 30, 30);
  EngineOptions options;
  options.max_sequences = 3;
  options.context_length = 200;
  options.policy = *VerifyPolicy::parse("threshold:1");
  bool has_confidence = true;
  const auto engine = *Engine::create(
      model, options,
      make_recording_drafter(std::make_unique<NgramDrafter>(NgramOptions{}), &has_confidence));
  SamplingParams greedy;
  greedy.temperature = 0.0f;
  const auto trace = record_rounds(*engine, requests, greedy, has_confidence);
  ASSERT_TRUE(trace.ok()) << trace.status().to_string();
  EXPECT_FALSE(trace->has_confidence);
  ASSERT_EQ(trace->answers.size(), 6u);
  int64_t drafts = 0, accepted = 0;
  for (const TraceAnswer& answer : trace->answers) {
    EXPECT_EQ(answer.prompt_tokens, 9);
    EXPECT_EQ(answer.output_tokens, 30);
    for (size_t i = 0; i < answer.anchors.size(); ++i) {
      const TraceAnchor& anchor = answer.anchors[i];
      EXPECT_LE(anchor.accepted, anchor.n_drafts);
      EXPECT_LE(static_cast<int32_t>(i) + anchor.n_drafts, answer.output_tokens - 1);
      drafts += anchor.n_drafts;
      accepted += anchor.accepted;
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_GT(drafts, accepted);
}

}  // namespace
}  // namespace dspark
