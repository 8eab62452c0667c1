// Requests with policies of their own in one engine: everybody gets the text of the request alone, and what
// neighbours draft is no verdict on those whose drafts are planned by costs.

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <utility>

#include "engine/soak.h"
#include "engine/watch.h"

namespace dspark {
namespace {

using test::make;
using test::request_of;
using test::Watch;

const std::array kPolicies = {VerifyPolicy::adaptive(), VerifyPolicy::causal(), VerifyPolicy::fixed(4),
                              VerifyPolicy::off(), VerifyPolicy::from_threshold(0.5f)};

/// Continues every text as the fake model does when it is greedy, or with other tokens, and says how sure it
/// is; both by the first token of the text. Always drafts as much as it is asked for.
class KnowingDrafter final : public Drafter {
 public:
  struct Says {
    bool is_right = true;
    float confidence = 0.9f;
  };
  using SayFn = std::function<Says(int32_t first_token)>;

  explicit KnowingDrafter(SayFn say) : say_(std::move(say)) {}
  std::string_view name() const override { return "knowing"; }
  int32_t max_block() const override { return 6; }
  Status propose(std::span<const DraftRequest> requests, DraftBlock& out) override {
    out.has_confidence = true;
    std::vector<float> logits;
    for (size_t i = 0; i < requests.size(); ++i) {
      std::vector<int32_t> text = told_[requests[i].slot];
      const Says says = say_(text.front());
      out.n_tokens[i] = requests[i].max_tokens;
      for (int32_t j = 0; j < requests[i].max_tokens; ++j) {
        logits.clear();
        test::FakeModel::append_logits_after(text, test::kFakeVocab, logits);
        text.push_back(argmax(logits));
        out.row(i)[static_cast<size_t>(j)] =
            says.is_right ? text.back() : (text.back() + 1) % test::kFakeVocab;
        out.confidence[out.at(i, j)] = says.confidence;
      }
    }
    return ok_status();
  }
  void commit(std::span<const CommitEvent> events) override {
    for (const CommitEvent& event : events) {
      std::vector<int32_t>& text = told_[event.slot];
      text.insert(text.end(), event.tokens.begin(), event.tokens.end());
    }
  }
  void release(int32_t slot) override { told_.erase(slot); }

 private:
  SayFn say_;
  std::map<int32_t, std::vector<int32_t>> told_;
};

EngineOptions mixed_options(test::FakeModel& model, const VerifyPolicy& policy, int32_t context_length) {
  EngineOptions options;
  options.max_sequences = 5;
  options.context_length = context_length;
  options.kv_dtype = KvDType::kF32;
  options.prefill_rows = 48;
  options.policy = policy;
  options.eos_ids = {test::kFakeEos};
  options.token_bytes = test::fake_token_bytes;
  test::use_fake_time(model, options, test::soak_pass_seconds);
  return options;
}

std::unique_ptr<Drafter> drafter_of(const std::string& kind) {
  if (kind == "ngram") return std::make_unique<NgramDrafter>(NgramOptions{});
  if (kind == "pages") return std::make_unique<test::PageDrafter>(test::fake_continuation(6), 0);
  if (kind == "knowing")
    return std::make_unique<KnowingDrafter>([](int32_t first) {
      return KnowingDrafter::Says{first % 2 == 0, first % 3 == 0 ? 0.3f : 0.8f};
    });
  auto garbage = test::garbage_drafter(7, test::kFakeVocab, {0, 2});
  garbage->be_confident(8);
  return garbage;
}

TEST(MixedPolicies, TextsAreThoseOfSingleRuns) {
  std::mt19937 rng(21);
  std::vector<GenerateRequest> requests;
  for (size_t i = 0; i < 40; ++i) {
    GenerateRequest request = test::random_request(rng);
    request.speculation = kPolicies[i % kPolicies.size()];
    if (rng() % 4 == 0) request.max_drafts = static_cast<int32_t>(rng() % 4);
    requests.push_back(std::move(request));
  }
  for (const VerifyPolicy& policy : {VerifyPolicy::adaptive(), VerifyPolicy::fixed(3)}) {
    for (const char* drafter : {"ngram", "pages", "knowing", "garbage"}) {
      SCOPED_TRACE(policy.to_string() + " " + drafter);
      test::FakeModel model(test::kFakeVocab, test::kSoakContext);
      EngineOptions options = mixed_options(model, policy, test::kSoakContext);
      options.kv_tokens = 400;  // some are preempted
      const auto engine = make(model, options, drafter_of(drafter));
      Watch watch(*engine);
      for (const GenerateRequest& request : requests) watch.submit(request);
      int n_mixed = 0;
      while (engine->has_work()) {
        watch.step();
        const StepStats& step = engine->last_step();
        n_mixed += step.planned_rounds > 0 && step.neighbours.n_sequences > 0 ? 1 : 0;
        ASSERT_LE(step.planned_rounds + step.neighbours.n_sequences, step.rounds);
        ASSERT_LE(step.planned_tokens, step.round_tokens);
      }
      EXPECT_GT(n_mixed, 30);
      for (size_t i = 0; i < requests.size(); ++i) {
        const test::Expected want = test::expected_output(requests[i], test::kSoakContext);
        ASSERT_EQ(watch[i].tokens, want.tokens) << "request " << i;
        ASSERT_EQ(watch[i].reason, want.reason);
      }
      EXPECT_GT(engine->stats().speculation.verified, 20);
    }
  }
}

/// Verified drafts of the first round in which anything was drafted for it.
StreamCallback first_round(std::pair<int32_t, int32_t>& drafted_and_verified) {
  return [&out = drafted_and_verified](const StreamUpdate& update) {
    if (update.round == nullptr || update.round->counts.drafted == 0 || out.first > 0) return;
    out = {update.round->counts.drafted, update.round->counts.verified};
  };
}

// A third row takes 3 ms more and what lies behind it is free: one draft is not worth it, two are. Only who
// looks at all numbers finds out.
TEST(MixedPolicies, CausalStaysCausalBesideAdaptive) {
  const auto stairs = [](int64_t n_rows) { return n_rows <= 2 ? 0.010 : 0.013; };
  test::FakeModel model;
  EngineOptions options = mixed_options(model, VerifyPolicy::adaptive(), 200);
  model.pass_seconds = stairs;
  options.costs->verify = {{1, 0.010}, {2, 0.010}, {3, 0.013}, {64, 0.013}};
  const auto engine = make(model, options, std::make_unique<KnowingDrafter>([](int32_t) {
                             return KnowingDrafter::Says{true, 0.5f};
                           }));
  std::array<std::pair<int32_t, int32_t>, 2> rounds{};
  for (size_t i = 0; i < 2; ++i) {
    GenerateRequest request = request_of(3 + static_cast<int32_t>(i), 4, 30);
    request.speculation = i == 0 ? VerifyPolicy::causal() : VerifyPolicy::adaptive();
    ASSERT_TRUE(engine->submit(request, first_round(rounds[i])).ok());
  }
  while (engine->has_work()) engine->step();
  ASSERT_GE(rounds[0].first, 2);
  EXPECT_EQ(rounds[0].second, 0);
  ASSERT_GE(rounds[1].first, 2);
  EXPECT_EQ(rounds[1].second, rounds[1].first);
}

/// An adaptive request of `n_tokens` beside three with fixed lengths, which go on for longer. The drafts of
/// one side are always right, those of the other never.
SchedulerStats run_beside_three(bool own_are_right, int32_t n_tokens, double* credit) {
  test::FakeModel model;
  EngineOptions options = mixed_options(model, VerifyPolicy::adaptive(), 1200);
  const auto say = [own_are_right](int32_t first) {
    if (first == 1) return KnowingDrafter::Says{own_are_right, 0.9f};
    return KnowingDrafter::Says{!own_are_right, own_are_right ? 0.1f : 0.9f};
  };
  const auto engine = make(model, options, std::make_unique<KnowingDrafter>(say));
  Watch watch(*engine);
  watch.submit(request_of(1, 8, n_tokens));
  for (int32_t i = 2; i <= 4; ++i) {
    GenerateRequest other = request_of(i, 8, 1000);
    other.speculation = VerifyPolicy::fixed(6);
    watch.submit(other);
  }
  while (watch[0].reason == FinishReason::kNone) watch.step();
  EXPECT_EQ(watch[1].reason, FinishReason::kNone) << "the neighbours were there all the time";
  EXPECT_EQ(engine->planner()->gate().is_new(DraftGate::load_of(4)), false);
  *credit = engine->planner()->gate().credit(DraftGate::load_of(4));
  return engine->stats().scheduler;
}

TEST(MixedPolicies, BadDraftsOfNeighboursAreNoVerdict) {
  double credit = 0.0;
  const SchedulerStats stats = run_beside_three(true, 300, &credit);
  EXPECT_GT(stats.drafting_steps, stats.planned_steps * 4 / 5);
  EXPECT_GT(credit, DraftGate::kTrustedCredit);
}

TEST(MixedPolicies, GoodDraftsOfNeighboursAreNoExcuse) {
  double credit = 0.0;
  const SchedulerStats stats = run_beside_three(false, 130, &credit);
  EXPECT_GE(stats.planned_steps, 100);
  EXPECT_LT(stats.drafting_steps, stats.planned_steps / 2);
  EXPECT_LT(credit, DraftGate::kStartCredit);
}

TEST(MixedPolicies, DraftedNeverExceedsMaxDrafts) {
  test::FakeModel model;
  EngineOptions options = mixed_options(model, VerifyPolicy::adaptive(), 200);
  options.max_sequences = 20;
  options.kv_tokens = 20 * 200;
  for (const bool is_garbage : {false, true}) {  // who drafts what it is asked for, and who drafts more
    const auto engine = make(model, options, drafter_of(is_garbage ? "garbage" : "knowing"));
    std::array<int32_t, 20> most{};
    for (size_t i = 0; i < most.size(); ++i) {
      const auto max_drafts = static_cast<int32_t>(i % 4);
      GenerateRequest request = request_of(2 * static_cast<int32_t>(i), 4, 40);
      request.speculation = kPolicies[i / 4];
      request.max_drafts = max_drafts;
      const auto id = engine->submit(request, [&most, i](const StreamUpdate& update) {
        if (update.round != nullptr) most[i] = std::max(most[i], update.round->counts.drafted);
      });
      ASSERT_TRUE(id.ok()) << id.status().to_string();
    }
    while (engine->has_work()) engine->step();
    for (size_t i = 0; i < most.size(); ++i) {
      const auto max_drafts = static_cast<int32_t>(i % 4);
      EXPECT_LE(most[i], max_drafts) << kPolicies[i / 4].to_string();
      if (kPolicies[i / 4].kind == VerifyPolicy::Kind::kFixed) {
        EXPECT_EQ(most[i], max_drafts);
      }
    }
  }
}

/// What prompts look at is counted as everything else that a step looks at, or the planner would take one
/// from the other.
TEST(MixedPolicies, ContextOfPromptsCountsLikeAllContext) {
  test::FakeModel model;
  EngineOptions options = mixed_options(model, VerifyPolicy::adaptive(), 200);
  ASSERT_TRUE(options.costs.has_value());
  options.costs->context_curve = {{8, 16.0}, {64, 20.0}};
  options.prefill_rows = 16;
  const auto engine = make(model, options, drafter_of("ngram"));
  ASSERT_TRUE(engine->submit(request_of(3, 60, 4), [](const StreamUpdate&) {}).ok());
  int n_steps = 0;
  for (; n_steps < 3; ++n_steps) {
    engine->step();
    const StepShape& shape = engine->last_step().shape;
    EXPECT_EQ(shape.prompt_context, shape.context) << n_steps;
    EXPECT_EQ(shape.context > 0, n_steps > 0);
  }
  EXPECT_LT(engine->last_step().shape.context, 20);  // not 32
}

TEST(MixedPolicies, PlannedLengthsNeedCosts) {
  test::FakeModel model;
  EngineOptions options = mixed_options(model, VerifyPolicy::fixed(4), 200);
  const auto costs = std::exchange(options.costs, std::nullopt);
  const auto submit = [](Engine& engine, const VerifyPolicy& policy) {
    GenerateRequest request = request_of(3, 4, 10);
    request.speculation = policy;
    return engine.submit(request, [](const StreamUpdate&) {}).status();
  };
  const auto without = make(model, options, drafter_of("ngram"));
  for (const VerifyPolicy& policy : {VerifyPolicy::adaptive(), VerifyPolicy::causal()}) {
    const Status refused = submit(*without, policy);
    EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
    for (const std::string& part :
         {"speculation: " + policy.to_string(), std::string("fixed:4"), std::string("cost table"),
          std::string("want off, fixed:K or threshold:T")}) {
      EXPECT_NE(refused.message().find(part), std::string::npos) << refused.message();
    }
  }
  EXPECT_FALSE(without->has_work());
  EXPECT_TRUE(submit(*without, VerifyPolicy::from_threshold(0.5f)).ok());
  // With a table, and where nobody drafts anyway.
  EXPECT_TRUE(submit(*make(model, options), VerifyPolicy::adaptive()).ok());
  options.costs = costs;
  EXPECT_TRUE(submit(*make(model, options, drafter_of("ngram")), VerifyPolicy::adaptive()).ok());
  // Measured for requests that ask for what the engine itself does not do.
  options.costs.reset();
  options.always_costs = true;
  const auto always = make(model, options, drafter_of("ngram"));
  EXPECT_NE(always->costs(), nullptr);
  EXPECT_TRUE(submit(*always, VerifyPolicy::adaptive()).ok());
  EXPECT_TRUE(submit(*always, VerifyPolicy::causal()).ok());
  while (always->has_work()) always->step();
  EXPECT_EQ(make(model, options)->costs(), nullptr) << "nobody drafts";
}

}  // namespace
}  // namespace dspark
