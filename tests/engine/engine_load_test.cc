// What changes with the load: budgets, and rows for a drafter that does not draft.

#include <gtest/gtest.h>

#include "draft/page_drafter.h"
#include "engine/generation.h"
#include "engine/soak.h"
#include "engine/watch.h"

namespace dspark {
namespace {

using test::expected_output;
using test::make;
using test::request_of;
using test::Watch;

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
TEST(EngineLoad, RowsForDraftsAreLeftOutWhereNobodyDrafts) {
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
TEST(EngineLoad, OneUnluckyStartIsForgottenWithinARequest) {
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
TEST(EngineLoad, BudgetsFollowABurst) {
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
