// In steady state a step of the engine takes no memory from the heap.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "draft/ngram.h"
#include "draft/test_drafters.h"
#include "engine/accept_scratch.h"
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

/// One row under a rule, as the engine judges it; certain drafts.
void judge_row(AcceptRule rule, std::span<const float> row, const SamplingParams& params,
               const TokenCounts& counts, AcceptScratch& scratch) {
  if (rule == AcceptRule::kCoupled) {
    choose_token(row, params, &counts, 9, scratch.sampler);
    return;
  }
  scratch.probabilities.resize(row.size());
  const auto target_row = [&](int32_t) -> std::span<const float> {
    target_probabilities(row, params, &counts, scratch.sampler, scratch.probabilities);
    return scratch.probabilities;
  };
  const auto draft_row = [](int32_t) { return DraftDistribution{}; };
  const std::array<int32_t, 2> drafts = {4, 5};
  const RoundNoise noise{1, 8};
  if (rule == AcceptRule::kBlock) {
    accept_block(drafts, target_row, draft_row, noise, scratch.draws);
  } else {
    accept_rejection(drafts, target_row, draft_row, noise, scratch.draws);
  }
}

/// Judging on the threads of the pool: what it needs was reserved, whatever the request asks for. Rows are
/// flat, so that filters keep many tokens, or have a token at +infinity.
TEST(EngineAllocations, NorDoesAReservedScratch) {
  constexpr size_t kWide = 5000;
  std::mt19937 rng(3);
  std::normal_distribution<float> normal(0.0f, 0.1f);
  std::vector<float> flat(kWide);
  for (float& logit : flat) logit = normal(rng);
  std::vector<float> infinite = flat;
  infinite[11] = std::numeric_limits<float>::infinity();
  TokenCounts counts;
  counts.reset(std::array<int32_t, 3>{1, 2, 3});
  for (const AcceptRule rule : {AcceptRule::kCoupled, AcceptRule::kRejection, AcceptRule::kBlock}) {
    for (unsigned options = 0; options < 32; ++options) {
      SamplingParams params;
      if ((options & 1) != 0) params.frequency_penalty = 0.5f;
      if ((options & 2) != 0) params.logit_bias = {{3, 1.0f}};
      if ((options & 4) != 0) params.top_k = 3000;
      if ((options & 8) != 0) params.top_p = 0.9f;
      if ((options & 16) != 0) params.min_p = 0.01f;
      for (const std::vector<float>* row : {&flat, &infinite}) {
        AcceptScratch scratch;
        scratch.reserve(rule, params, kWide);
        const int64_t before = test::n_allocations();
        judge_row(rule, *row, params, counts, scratch);
        EXPECT_EQ(test::n_allocations(), before) << accept_rule_name(rule) << " options " << options;
      }
    }
  }
}

/// Counts behind the penalties are pushed on those threads too.
TEST(EngineAllocations, NorDoReservedCounts) {
  constexpr int kPushes = 7;
  TokenCounts counts;
  counts.reset(std::array<int32_t, 3>{1, 2, 3});
  int64_t n_taken = 0;
  int32_t next = 10;
  for (int step = 0; step < 500; ++step) {
    const int64_t before = test::n_allocations();
    counts.reserve(kPushes);
    const int64_t reserved = test::n_allocations();
    n_taken += reserved - before;
    for (int i = 0; i < kPushes; ++i) counts.push(next++);
    ASSERT_EQ(test::n_allocations(), reserved) << "step " << step;
  }
  EXPECT_EQ(counts.entries().size(), 3u + 500 * kPushes);
  EXPECT_LT(n_taken, 40);  // it doubles
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
