// In steady state a step of the engine takes no memory from the heap.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "draft/ngram.h"
#include "draft/test_drafters.h"
#include "engine/engine.h"
#include "engine/fake_model.h"
#include "engine/loader.h"
#include "support/allocation_count.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

/// Drafts without memory of their own: the anchor's successors in id order, sometimes right; with
/// distributions and confidences.
class CountingDrafter final : public Drafter {
 public:
  std::string_view name() const override { return "counting"; }
  int32_t max_block() const override { return 6; }
  Status propose(std::span<const DraftRequest> requests, DraftBlock& out) override {
    out.keep_probs(40, {});
    out.has_confidence = true;
    for (size_t i = 0; i < requests.size(); ++i) {
      out.n_tokens[i] = requests[i].max_tokens;
      out.has_probs[i] = requests[i].rule == AcceptRule::kCoupled ? 0 : 1;
      for (int32_t j = 0; j < requests[i].max_tokens; ++j) {
        const int32_t draft = (requests[i].anchor + j + 1) % 40;
        out.row(i)[static_cast<size_t>(j)] = draft;
        std::ranges::fill(out.probs_row(i, j), 0.25f / 40.0f);
        out.probs_row(i, j)[static_cast<size_t>(draft)] += 0.75f;
      }
    }
    return ok_status();
  }
  void commit(std::span<const CommitEvent>) override {}
  void release(int32_t) override {}
};

/// Four requests of different sampling, one rule after the other; is_mixed: each with a policy of its own.
void submit_four(Engine& engine, int64_t& n_tokens, bool is_mixed = false) {
  constexpr AcceptRule kRules[] = {AcceptRule::kCoupled, AcceptRule::kRejection, AcceptRule::kBlock,
                                   AcceptRule::kCoupled};
  const VerifyPolicy policies[] = {VerifyPolicy::adaptive(), VerifyPolicy::causal(), VerifyPolicy::fixed(3),
                                   VerifyPolicy::adaptive()};
  for (int i = 0; i < 4; ++i) {
    GenerateRequest request;
    request.prompt.assign(static_cast<size_t>(10 + i), i);
    request.sampling.temperature = i == 0 ? 0.0f : 0.9f;
    if (i == 2) request.sampling.top_p = 0.8f;
    if (i == 3) request.sampling.top_k = 10;
    request.accept_rule = kRules[i];
    if (is_mixed) request.speculation = policies[i];
    request.ignore_eos = true;
    if (engine.options().token_bytes) request.stop_strings = {"no such text"};
    const auto count = [&n_tokens](const StreamUpdate& update) {
      n_tokens += static_cast<int64_t>(update.tokens.size());
    };
    ASSERT_TRUE(engine.submit(request, count).ok());
  }
}

/// What the steps of a window did.
struct Window {
  int64_t n_tokens = 0;
  int64_t n_verified = 0;  // drafts
};

/// Allocations of `n_steps` steps behind `n_warm` others, in which every buffer reaches its size. Nobody may
/// end in them: the engine's sums tell of ended requests only, so what was verified is counted step by step.
Window expect_no_allocations(Engine& engine, int n_warm, int n_steps, bool is_mixed = false) {
  Window window;
  submit_four(engine, window.n_tokens, is_mixed);
  for (int step = 0; step < n_warm; ++step) engine.step();
  const int64_t before = test::n_allocations();
  window.n_tokens = 0;
  for (int step = 0; step < n_steps; ++step) {
    engine.step();
    window.n_verified += engine.last_step().decode_rows - engine.last_step().decode_sequences;
  }
  EXPECT_EQ(test::n_allocations() - before, 0);
  EXPECT_GE(window.n_tokens, 4 * n_steps);
  EXPECT_EQ(engine.last_step().decode_sequences, 4);
  return window;
}

/// An engine over the fake model that takes its costs from a table and its time from the model.
Result<std::unique_ptr<Engine>> fake_engine(test::FakeModel& model, const VerifyPolicy& policy,
                                            std::unique_ptr<Drafter> drafter) {
  EngineOptions options;
  options.max_sequences = 4;
  options.context_length = 1200;
  options.kv_dtype = KvDType::kF32;
  options.policy = policy;
  options.token_bytes = [](int32_t token, std::string& out) { out += static_cast<char>('a' + token % 26); };
  model.pass_seconds = [](int64_t n_rows) { return 1e-3 + 1e-5 * static_cast<double>(n_rows); };
  options.clock = model.time.clock();
  options.costs = CostTable{
      .verify = {{1, 1.01e-3}, {64, 1.64e-3}}, .draft = {{1, 1e-5}}, .draft_short = {}, .context_curve = {}};
  return Engine::create(model, options, std::move(drafter));
}

TEST(EngineAllocations, SteadyStateStepsAllocateNothing) {
  for (const VerifyPolicy& policy : {VerifyPolicy::fixed(6), VerifyPolicy::from_threshold(0.5f),
                                     VerifyPolicy::adaptive(), VerifyPolicy::causal()}) {
    SCOPED_TRACE(policy.to_string());
    test::FakeModel model;
    auto engine = fake_engine(model, policy, std::make_unique<CountingDrafter>());
    ASSERT_TRUE(engine.ok());
    expect_no_allocations(**engine, 200, 200);
  }
}

TEST(EngineAllocations, NorDoTheyWithPoliciesOfDifferentKinds) {
  test::FakeModel model;
  auto engine = fake_engine(model, VerifyPolicy::adaptive(), std::make_unique<CountingDrafter>());
  ASSERT_TRUE(engine.ok());
  expect_no_allocations(**engine, 200, 200, true);
  EXPECT_EQ((*engine)->last_step().planned_rounds, 3);
  EXPECT_EQ((*engine)->last_step().neighbours.n_sequences, 1);
}

/// The window begins where an index that was not reserved would have grown, and reaches beyond the next time.
TEST(EngineAllocations, NorDoTheyWithPromptLookup) {
  for (const VerifyPolicy& policy : {VerifyPolicy::fixed(4), VerifyPolicy::adaptive()}) {
    SCOPED_TRACE(policy.to_string());
    test::FakeModel model;
    auto engine = fake_engine(model, policy, std::make_unique<NgramDrafter>(NgramOptions{.reserve = 1200}));
    ASSERT_TRUE(engine.ok());
    const int64_t n_tokens = expect_no_allocations(**engine, 100, 250).n_tokens;
    if (!policy.needs_costs()) {  // the text repeats little, and adaptive soon drafts no more
      EXPECT_GT(n_tokens, 4 * 250);
    }
  }
}

/// Steps of a fixture's target with its drafter, from a new engine on: contexts grow all the time, and where
/// lookup proposes too the largest batch may come late.
void expect_no_allocations_of(const std::string& target, const std::string& draft, const VerifyPolicy& policy,
                              bool hybrid) {
  const auto root = test::data_dir() / "draft";
  auto loaded = load_model((root / "targets" / target).string(),
                           {.n_threads = 2, .float_activations = false, .on_stage = {}});
  ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
  EngineOptions options;
  options.max_sequences = 4;
  options.context_length = 1024;  // room for 50 steps in which every draft is accepted, 16 of a hybrid
  options.policy = policy;
  // Drafts are free: they are made and verified whatever they bring, and however fast this machine is.
  options.costs = CostTable{
      .verify = {{1, 1e-3}, {200, 1.001e-3}}, .draft = {{1, 1e-9}}, .draft_short = {}, .context_curve = {}};
  options.clock = [] { return std::chrono::steady_clock::time_point(); };
  auto drafter = load_drafter(
      *loaded, options, {.spec = (root / "drafts" / draft).string(), .calibration = {}, .hybrid = hybrid});
  ASSERT_TRUE(drafter.ok()) << drafter.status().to_string();
  auto engine = make_engine(*loaded, options, std::move(drafter).value());
  ASSERT_TRUE(engine.ok()) << engine.status().to_string();
  const Window window = expect_no_allocations(**engine, 25, 25);
  EXPECT_GT(window.n_verified, 0);
}

TEST(EngineAllocations, NorDoTheyWithALearnedDrafter) {
  const std::pair<const char*, const char*> pairs[] = {{"llama", "llama_dspark_vanilla"},
                                                       {"qwen3", "qwen3_eagle3"}};
  for (const auto& [target, draft] : pairs) {
    for (const bool hybrid : {false, true}) {
      for (const VerifyPolicy& policy : {VerifyPolicy::fixed(7), VerifyPolicy::adaptive()}) {
        SCOPED_TRACE(std::string(draft) + (hybrid ? " hybrid " : " alone ") + policy.to_string());
        expect_no_allocations_of(target, draft, policy, hybrid);
      }
    }
  }
}

}  // namespace
}  // namespace dspark
