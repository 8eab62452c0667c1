// Rejection sampling and block verification in the engine keep the target's distribution: the first tokens of
// many seeded texts are counted and compared with what plain decoding gives (chi-square). And a policy that
// looks at the draft it decides about does not; the test would notice.

#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "draft/hybrid_drafter.h"
#include "draft/test_drafters.h"
#include "engine/engine.h"
#include "engine/test_constraint.h"
#include "engine/text_distribution.h"

namespace dspark {
namespace {

using test::Confidence;
using test::deviation;
using test::kPrompt;
using test::kTexts;
using test::kTokens;
using test::kVocab;
using test::sampling_params;
using test::SamplingDrafter;
using test::Text;

struct Outcome {
  std::map<Text, int64_t> counts;
  SpeculationStats stats;
  int64_t judged_in_parallel = 0;  // of all steps
};

using MakeDrafter = std::function<std::unique_ptr<Drafter>()>;

/// What FakeModel's passes take where lengths are planned: stairs, as in the paper's counter-example. A first
/// draft pays only together with a second one, so a look at the second's confidence, which depends on what
/// the first came out as, would decide about the first.
double stair_seconds(int64_t n_rows) {
  return 1e-6 * (40.0 + 25.0 * static_cast<double>(n_rows / 2) - (n_rows % 2 == 0 ? 1.0 : 0.0));
}
/// Algorithm 1 stops in front of a stair.
double slope_seconds(int64_t n_rows) {
  return 1e-6 * (20.0 + 20.0 * static_cast<double>(n_rows));
}

CostTable cost_table(double (*seconds)(int64_t)) {
  CostTable costs;
  for (int32_t n = 1; n <= 40; ++n) costs.verify.push_back({n, seconds(n)});
  costs.draft = {{1, 3e-6}};
  return costs;
}

Outcome count_texts(AcceptRule rule, const VerifyPolicy& policy, const MakeDrafter& make_drafter,
                    int32_t max_sequences = 8, int32_t n_texts = kTexts, int n_threads = 2) {
  test::FakeModel model(kVocab, 4096, n_threads);
  EngineOptions options;
  options.max_sequences = max_sequences;
  options.context_length = 32;
  options.kv_dtype = KvDType::kF32;
  options.policy = policy;
  options.accept_rule = rule;
  if (policy.needs_costs()) {
    const auto seconds = policy.kind == VerifyPolicy::Kind::kCausal ? slope_seconds : stair_seconds;
    options.costs = cost_table(seconds);
    model.pass_seconds = seconds;  // costs correct themselves by what passes take
    options.clock = model.time.clock();
  }
  auto engine = Engine::create(model, options, make_drafter());
  EXPECT_TRUE(engine.ok()) << engine.status().to_string();
  Outcome outcome;
  std::vector<Text> texts(static_cast<size_t>(n_texts));
  for (int32_t i = 0; i < n_texts; ++i) {
    GenerateRequest request;
    request.prompt = kPrompt;
    request.sampling = sampling_params();
    request.sampling.seed = 1000 + static_cast<uint64_t>(i);
    request.max_tokens = kTokens;
    Text& text = texts[static_cast<size_t>(i)];
    EXPECT_TRUE((*engine)
                    ->submit(request,
                             [&text](const StreamUpdate& update) {
                               for (const TokenEvent& event : update.tokens) text.push_back(event.token);
                             })
                    .ok());
    // A few at a time: the queue would otherwise be searched through again and again.
    while ((*engine)->has_work() && (i % 64 == 63 || i + 1 == n_texts)) {
      (*engine)->step();
      outcome.judged_in_parallel += (*engine)->last_step().judged_in_parallel;
    }
  }
  for (const Text& text : texts) ++outcome.counts[text];
  outcome.stats = (*engine)->stats().speculation;
  return outcome;
}

Outcome count_texts(AcceptRule rule, const VerifyPolicy& policy, bool sure, Confidence confidence) {
  return count_texts(rule, policy, [=] { return std::make_unique<SamplingDrafter>(sure, confidence); });
}

TEST(EngineDistribution, ThreadsThatJudgeChangeNothing) {
  for (const AcceptRule rule : {AcceptRule::kCoupled, AcceptRule::kRejection, AcceptRule::kBlock}) {
    const auto run = [&](int32_t max_sequences, int n_threads) {
      const auto make = [] { return std::make_unique<SamplingDrafter>(false, Confidence::kCausal); };
      return count_texts(rule, VerifyPolicy::fixed(3), make, max_sequences, 512, n_threads);
    };
    const Outcome alone = run(8, 1);
    EXPECT_GT(alone.counts.size(), 20u);
    EXPECT_EQ(alone.judged_in_parallel, 0);
    EXPECT_EQ(run(1, 4).judged_in_parallel, 0);
    for (const int n_threads : {2, 4}) {
      const Outcome outcome = run(8, n_threads);
      EXPECT_EQ(outcome.counts, alone.counts) << accept_rule_name(rule) << ", " << n_threads << " threads";
      EXPECT_GT(outcome.judged_in_parallel, 0);
    }
  }
}

constexpr int32_t kWideVocab = 5000;  // several blocks of every walk over a row, and a part of one

/// Requests that need different buffers, under all rules; the last one under a constraint.
std::vector<GenerateRequest> mixed_requests() {
  std::vector<GenerateRequest> requests(8);
  for (size_t i = 0; i < requests.size(); ++i) {
    GenerateRequest& request = requests[i];
    for (int32_t k = 0; k < 6; ++k) request.prompt.push_back(static_cast<int32_t>(500 * i) + 7 * k);
    request.sampling.temperature = 0.8f;
    request.sampling.seed = 40 + i;
    request.max_tokens = 24;
  }
  requests[1].sampling.top_k = 40;
  requests[2].sampling.top_p = 0.1f;
  requests[2].accept_rule = AcceptRule::kRejection;
  requests[3].sampling.min_p = 0.5f;
  requests[3].accept_rule = AcceptRule::kBlock;
  requests[4].sampling.logit_bias = {{11, 4.0f}, {4999, 9.0f}};
  requests[4].sampling.presence_penalty = 0.5f;
  requests[5].sampling.top_k = 3;
  requests[5].sampling.repetition_penalty = 1.2f;
  requests[5].accept_rule = AcceptRule::kBlock;
  requests[6].sampling.frequency_penalty = 0.7f;
  requests[6].accept_rule = AcceptRule::kRejection;
  requests[7].sampling.top_k = 40;
  requests[7].constraint = std::make_shared<test::TestConstraint>(kWideVocab, 60);
  return requests;
}

struct MixedRun {
  std::vector<Text> texts;  // prompts included
  SpeculationStats stats;
  int32_t most_in_parallel = 0;
};

/// Runs them together. known: texts that drafts are taken from, wrong once in four tokens; empty: no drafts.
MixedRun run_mixed(int n_threads, const std::vector<Text>& known) {
  const std::vector<GenerateRequest> requests = mixed_requests();
  test::FakeModel model(kWideVocab, 256, n_threads);
  EngineOptions options;
  options.max_sequences = static_cast<int32_t>(requests.size());
  options.context_length = 256;
  options.kv_dtype = KvDType::kF32;
  options.policy = VerifyPolicy::fixed(3);
  std::unique_ptr<Drafter> drafter;
  if (!known.empty()) drafter = test::oracle_drafter(known, kWideVocab, 0, 4);
  auto engine = Engine::create(model, options, std::move(drafter));
  EXPECT_TRUE(engine.ok()) << engine.status().to_string();
  MixedRun run;
  run.texts.resize(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    run.texts[i] = requests[i].prompt;
    const auto append = [&text = run.texts[i]](const StreamUpdate& update) {
      for (const TokenEvent& event : update.tokens) text.push_back(event.token);
    };
    EXPECT_TRUE((*engine)->submit(requests[i], append).ok());
  }
  while ((*engine)->has_work()) {
    (*engine)->step();
    run.most_in_parallel = std::max(run.most_in_parallel, (*engine)->last_step().judged_in_parallel);
  }
  run.stats = (*engine)->stats().speculation;
  return run;
}

TEST(EngineDistribution, ThreadsThatJudgeMixedRequestsChangeNothing) {
  const MixedRun plain = run_mixed(1, {});
  const MixedRun alone = run_mixed(1, plain.texts);
  EXPECT_EQ(alone.most_in_parallel, 0);
  EXPECT_GT(alone.stats.accepted, 20);
  EXPECT_GT(alone.stats.verified - alone.stats.accepted, 20);
  for (const size_t coupled : {0u, 1u, 4u, 7u}) EXPECT_EQ(alone.texts[coupled], plain.texts[coupled]);
  for (const int n_threads : {2, 4}) {
    const MixedRun run = run_mixed(n_threads, plain.texts);
    EXPECT_EQ(run.texts, alone.texts) << n_threads << " threads";
    EXPECT_EQ(run.most_in_parallel, 7);  // all but the constrained one
  }
}

TEST(EngineDistribution, RulesKeepTheTargets) {
  const VerifyPolicy threshold = VerifyPolicy::from_threshold(0.5f);
  for (const AcceptRule rule : {AcceptRule::kCoupled, AcceptRule::kRejection, AcceptRule::kBlock}) {
    for (const bool sure : {false, true}) {
      for (const VerifyPolicy& policy : {VerifyPolicy::fixed(3), VerifyPolicy::fixed(1), threshold}) {
        SCOPED_TRACE(std::string(accept_rule_name(rule)) + " " + policy.to_string() +
                     (sure ? " certain drafts" : " sampled drafts"));
        const Outcome outcome = count_texts(rule, policy, sure, Confidence::kCausal);
        EXPECT_LT(deviation(outcome.counts), 4.0);
        EXPECT_GT(outcome.stats.accepted, kTexts / 10);
        EXPECT_GT(outcome.stats.verified - outcome.stats.accepted, kTexts / 10);
      }
    }
  }
}

/// The same with confidences that know the draft they speak of.
TEST(EngineDistribution, AnticipationBiasesRejectionAndIsNoticed) {
  const VerifyPolicy threshold = VerifyPolicy::from_threshold(0.5f);
  const auto run = [&](AcceptRule rule) {
    return deviation(count_texts(rule, threshold, false, Confidence::kAnticipating).counts);
  };
  EXPECT_GT(run(AcceptRule::kRejection), 20.0);
  EXPECT_GT(run(AcceptRule::kBlock), 20.0);
  EXPECT_LT(run(AcceptRule::kCoupled), 4.0);
}

/// What plain decoding gives with the probability rules is the target's distribution too, and the same seed
/// gives the same text.
TEST(EngineDistribution, PlainDecodingUnderRejection) {
  const Outcome once = count_texts(AcceptRule::kRejection, VerifyPolicy::off(), false, Confidence::kNone);
  EXPECT_LT(deviation(once.counts), 4.0);
  const Outcome again = count_texts(AcceptRule::kRejection, VerifyPolicy::off(), false, Confidence::kNone);
  EXPECT_EQ(once.counts, again.counts);
}

/// Who drafts where lengths are planned.
struct PlannedDrafter {
  const char* name;
  Confidence confidence;  // without a head the engine, or the hybrid drafter, estimates
  bool is_hybrid;
};
constexpr PlannedDrafter kBlock = {"block", Confidence::kCausal, false};
constexpr PlannedDrafter kHybrid = {"hybrid", Confidence::kCausal, true};  // what users get by default
constexpr PlannedDrafter kEstimated[] = {{"block by position", Confidence::kNone, false},
                                         {"block by peaks", Confidence::kPeakLogit, false},
                                         {"hybrid by peaks", Confidence::kPeakLogit, true}};
constexpr int32_t kPlannedTexts = 8000;

void expect_planned(AcceptRule rule, const VerifyPolicy& policy, const PlannedDrafter& wanted,
                    int32_t n_sequences) {
  SCOPED_TRACE(std::string(accept_rule_name(rule)) + " " + policy.to_string() + ", " + wanted.name + ", " +
               std::to_string(n_sequences) + " sequences");
  const bool stairs = policy.kind == VerifyPolicy::Kind::kAdaptive;
  const auto drafter = [&]() -> std::unique_ptr<Drafter> {
    auto block = std::make_unique<SamplingDrafter>(false, wanted.confidence, stairs ? 0.02f : 0.2f,
                                                   stairs ? 0.5f : 0.8f);
    if (!wanted.is_hybrid) return block;
    return std::make_unique<HybridDrafter>(std::move(block), HybridOptions{});
  };
  const Outcome outcome = count_texts(rule, policy, drafter, n_sequences, kPlannedTexts);
  EXPECT_LT(deviation(outcome.counts), 4.0);
  EXPECT_GT(outcome.stats.accepted, kPlannedTexts / 100);
  EXPECT_GT(outcome.stats.trimmed, kPlannedTexts / 100);
  EXPECT_GT(outcome.stats.proposal_tokens - outcome.stats.accepted, kPlannedTexts / 100);
  if (wanted.is_hybrid) {
    // Rare in texts this short, and by survival alone hardly ever the better one.
    if (stairs) {
      EXPECT_GT(outcome.stats.lookup_proposed, 0);
    }
    EXPECT_GT(outcome.stats.proposal_tokens - outcome.stats.lookup_proposed, kPlannedTexts / 200);
  }
}

/// Lengths planned for all sequences of a step, whose confidences look back at their drafts. With one
/// sequence per step, and with several.
TEST(EngineDistribution, PlannedLengthsKeepTheTargets) {
  for (const AcceptRule rule : {AcceptRule::kRejection, AcceptRule::kBlock}) {
    for (const PlannedDrafter& drafter : {kBlock, kHybrid}) {
      expect_planned(rule, VerifyPolicy::adaptive(), drafter, 1);
      expect_planned(rule, VerifyPolicy::adaptive(), drafter, 3);
      expect_planned(rule, VerifyPolicy::causal(), drafter, 3);
    }
  }
}

/// The same without a confidence head. A third row of two sequences is nearly free: one draft is worth it
/// whatever is thought of it, and the estimates decide whose.
TEST(EngineDistribution, LengthsPlannedByEstimatesKeepTheTargets) {
  for (const AcceptRule rule : {AcceptRule::kRejection, AcceptRule::kBlock}) {
    for (const PlannedDrafter& drafter : kEstimated) {
      expect_planned(rule, VerifyPolicy::adaptive(), drafter, 2);
    }
  }
}

/// Sampled blocks, looked-up tokens and the choice between them.
TEST(EngineDistribution, HybridProposalsKeepTheTargets) {
  for (const AcceptRule rule : {AcceptRule::kCoupled, AcceptRule::kRejection, AcceptRule::kBlock}) {
    SCOPED_TRACE(accept_rule_name(rule));
    const auto drafter = [] {
      auto model = std::make_unique<SamplingDrafter>(false, Confidence::kCausal, 0.02f);
      return std::make_unique<HybridDrafter>(std::move(model), HybridOptions{});
    };
    const Outcome outcome = count_texts(rule, VerifyPolicy::fixed(3), drafter);
    EXPECT_LT(deviation(outcome.counts), 4.0);
    EXPECT_GT(outcome.stats.lookup_accepted, kTexts / 100);
    EXPECT_GT(outcome.stats.accepted - outcome.stats.lookup_accepted, kTexts / 100);
  }
}

/// Copies of a request in the same steps: their texts are drawn independently, so that two begin alike as
/// often as two draws from the target do.
TEST(EngineDistribution, EqualSeedsShareNoNumbers) {
  constexpr int32_t kPairs = 6000;
  test::FakeModel model(kVocab);
  EngineOptions options;
  options.max_sequences = 2;
  options.context_length = 32;
  options.kv_dtype = KvDType::kF32;
  options.policy = VerifyPolicy::fixed(3);
  options.accept_rule = AcceptRule::kRejection;
  auto engine = Engine::create(model, options, std::make_unique<SamplingDrafter>(false, Confidence::kNone));
  ASSERT_TRUE(engine.ok());
  int32_t n_alike = 0;
  for (uint64_t seed = 0; seed < kPairs; ++seed) {
    Text texts[2];
    for (Text& text : texts) {
      GenerateRequest request;
      request.prompt = kPrompt;
      request.sampling = sampling_params();
      request.sampling.seed = seed;
      request.max_tokens = 2;
      ASSERT_TRUE((*engine)
                      ->submit(request,
                               [&text](const StreamUpdate& update) {
                                 for (const TokenEvent& event : update.tokens) text.push_back(event.token);
                               })
                      .ok());
    }
    while ((*engine)->has_work()) (*engine)->step();
    n_alike += texts[0] == texts[1] ? 1 : 0;
  }
  std::map<Text, double> pairs;
  test::add_texts(kPrompt, 1.0, pairs, 2);
  double alike = 0.0;
  for (const auto& [text, probability] : pairs) alike += probability * probability;
  const double spread = std::sqrt(kPairs * alike * (1.0 - alike));
  EXPECT_NEAR(n_alike, kPairs * alike, 4.5 * spread);
}

}  // namespace
}  // namespace dspark
