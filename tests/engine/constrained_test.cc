// Constraints and log-probabilities: the same under speculation as without.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "engine/generation.h"
#include "engine/soak.h"
#include "engine/test_constraint.h"
#include "engine/text_distribution.h"

namespace dspark {
namespace {

using test::constrained_output;
using test::TestConstraint;

TEST(Constrained, TextIsTheSameWithAndWithoutSpeculation) {
  std::mt19937 rng(8);
  std::map<FinishReason, int> reasons;
  SpeculationStats total;
  for (int round = 0; round < 40; ++round) {
    std::vector<std::shared_ptr<TestConstraint>> constraints;
    std::vector<GenerateRequest> requests;
    std::vector<test::Expected> expected;
    std::vector<std::vector<int32_t>> texts;
    for (int i = 0; i < 5; ++i) {
      GenerateRequest request = test::random_request(rng);
      request.stop_strings.clear();
      request.stop_token_ids.clear();
      request.ignore_eos = true;
      request.max_tokens = 40;
      constraints.push_back(std::make_shared<TestConstraint>(test::kFakeVocab, rng() % 60 + 1,
                                                             rng() % 4 == 0 ? rng() % 30 : 1000));
      request.constraint = constraints.back();
      expected.push_back(constrained_output(request, *constraints.back()));
      texts.push_back(request.prompt);
      texts.back().insert(texts.back().end(), expected.back().tokens.begin(), expected.back().tokens.end());
      requests.push_back(request);
      ++reasons[expected.back().reason];
    }
    for (int variant = 0; variant < 4; ++variant) {
      test::FakeModel model(test::kFakeVocab, 256);
      EngineOptions options;
      options.context_length = 256;
      options.kv_dtype = KvDType::kF32;
      options.max_sequences = variant + 1;
      options.kv_tokens = 300;
      options.policy = VerifyPolicy::fixed(6);
      std::unique_ptr<Drafter> drafter;
      if (variant == 1) drafter = test::oracle_drafter(texts, test::kFakeVocab, 0, 5);
      if (variant == 2) drafter = test::garbage_drafter(rng(), test::kFakeVocab);
      if (variant == 3) drafter = std::make_unique<test::PageDrafter>(test::fake_continuation(2), 1);
      auto engine = Engine::create(model, options, std::move(drafter));
      ASSERT_TRUE(engine.ok());
      std::vector<std::vector<int32_t>> got(requests.size());
      std::vector<FinishReason> ends(requests.size());
      for (size_t i = 0; i < requests.size(); ++i) {
        ASSERT_TRUE((*engine)
                        ->submit(requests[i],
                                 [&, i](const StreamUpdate& update) {
                                   for (const TokenEvent& event : update.tokens)
                                     got[i].push_back(event.token);
                                   ends[i] = update.finish_reason;
                                 })
                        .ok());
      }
      while ((*engine)->has_work()) (*engine)->step();
      ASSERT_TRUE((*engine)->check_integrity().ok());
      for (size_t i = 0; i < requests.size(); ++i) {
        ASSERT_EQ(got[i], expected[i].tokens) << "round " << round << " variant " << variant;
        ASSERT_EQ(ends[i], expected[i].reason);
      }
      total.add((*engine)->stats().speculation);
    }
  }
  EXPECT_GT(total.accepted, 300);
  EXPECT_GT(total.verified - total.accepted, 300);
  EXPECT_GT(reasons[FinishReason::kStop], 20);
  EXPECT_GT(reasons[FinishReason::kLength], 20);
  EXPECT_GT(reasons[FinishReason::kConstraint], 10);
}

/// Probabilities of all constrained texts of kTokens tokens.
void add_constrained(const TestConstraint& constraint, const test::Text& output, double probability,
                     std::map<test::Text, double>& out) {
  if (output.size() == static_cast<size_t>(test::kTokens)) {
    out[output] = probability;
    return;
  }
  test::Text tokens = test::kPrompt;
  TokenCounts counts;
  counts.reset(tokens);
  for (const int32_t token : output) {
    tokens.push_back(token);
    counts.push(token);
  }
  std::vector<float> logits, probs(test::kVocab);
  test::FakeModel::append_logits_after(tokens, test::kVocab, logits);
  for (int32_t t = 0; t < test::kVocab; ++t) {
    if (!constraint.allows(output, t)) logits[static_cast<size_t>(t)] = -INFINITY;
  }
  SamplerScratch scratch;
  target_probabilities(logits, test::sampling_params(), &counts, scratch, probs);
  for (int32_t t = 0; t < test::kVocab; ++t) {
    if (!constraint.allows(output, t)) continue;
    test::Text longer = output;
    longer.push_back(t);
    add_constrained(constraint, longer, probability * static_cast<double>(probs[static_cast<size_t>(t)]),
                    out);
  }
}

TEST(Constrained, ProbabilityRulesKeepTheDistribution) {
  const auto constraint = std::make_shared<TestConstraint>(test::kVocab, 50);
  std::map<test::Text, double> expected;
  add_constrained(*constraint, {}, 1.0, expected);
  ASSERT_GT(expected.size(), 20u);
  for (const AcceptRule rule : {AcceptRule::kRejection, AcceptRule::kBlock}) {
    for (const bool sure : {false, true}) {
      test::FakeModel model(test::kVocab);
      EngineOptions options;
      options.max_sequences = 8;
      options.context_length = 32;
      options.kv_dtype = KvDType::kF32;
      options.policy = VerifyPolicy::fixed(3);
      options.accept_rule = rule;
      auto engine = Engine::create(model, options,
                                   std::make_unique<test::SamplingDrafter>(sure, test::Confidence::kNone));
      ASSERT_TRUE(engine.ok());
      constexpr int32_t kN = 20000;
      std::vector<test::Text> texts(kN);
      for (int32_t i = 0; i < kN; ++i) {
        GenerateRequest request;
        request.prompt = test::kPrompt;
        request.sampling = test::sampling_params();
        request.sampling.seed = 5000 + static_cast<uint64_t>(i);
        request.max_tokens = test::kTokens;
        request.constraint = constraint;
        ASSERT_TRUE((*engine)
                        ->submit(request,
                                 [&text = texts[static_cast<size_t>(i)]](const StreamUpdate& update) {
                                   for (const TokenEvent& event : update.tokens) text.push_back(event.token);
                                 })
                        .ok());
        while ((*engine)->has_work() && (i % 64 == 63 || i + 1 == kN)) (*engine)->step();
      }
      std::map<test::Text, int64_t> counts;
      for (const test::Text& text : texts) ++counts[text];
      double chi2 = 0.0;
      int n_cells = 0;
      for (const auto& [text, count] : counts) {
        ASSERT_EQ(expected.count(text), 1u) << "a forbidden text";
      }
      for (const auto& [text, probability] : expected) {
        const double want = probability * kN;
        if (want < 8.0) continue;
        const double difference = static_cast<double>(counts[text]) - want;
        chi2 += difference * difference / want;
        ++n_cells;
      }
      const double degrees = n_cells - 1;
      EXPECT_LT((chi2 - degrees) / std::sqrt(2.0 * degrees), 4.5) << accept_rule_name(rule) << sure;
      EXPECT_GT((*engine)->stats().speculation.accepted, kN / 20);
    }
  }
}

struct Logprobs {
  std::vector<TokenEvent> events;
  std::vector<TokenLogprob> top;
};

Logprobs logprobs_of(Engine& engine, const GenerateRequest& request) {
  Logprobs got;
  const auto result = generate(engine, request, [&got](const StreamUpdate& update) {
    EXPECT_EQ(update.top_logprobs.size(), update.tokens.size() * 5);
    got.events.insert(got.events.end(), update.tokens.begin(), update.tokens.end());
    got.top.insert(got.top.end(), update.top_logprobs.begin(), update.top_logprobs.end());
  });
  EXPECT_TRUE(result.ok());
  return got;
}

TEST(Logprobs, AreTheModelsOwnAndTheSameBitsUnderSpeculation) {
  for (const bool constrained : {false, true}) {
    GenerateRequest request;
    request.prompt = {4, 9, 1};
    request.max_tokens = 60;
    request.ignore_eos = true;
    request.n_logprobs = 5;
    request.sampling.temperature = 0.7f;
    request.sampling.top_k = 8;
    request.sampling.repetition_penalty = 1.3f;
    if (constrained) request.constraint = std::make_shared<TestConstraint>(test::kFakeVocab, 1000);
    std::vector<Logprobs> all;
    std::vector<std::vector<int32_t>> texts;
    for (int variant = 0; variant < 3; ++variant) {
      test::FakeModel model;
      EngineOptions options;
      options.context_length = 128;
      options.kv_dtype = KvDType::kF32;
      options.policy = VerifyPolicy::fixed(5);
      std::unique_ptr<Drafter> drafter;
      if (variant > 0) drafter = test::oracle_drafter(texts, test::kFakeVocab, 0, variant == 2 ? 3 : 0);
      auto engine = Engine::create(model, options, std::move(drafter));
      ASSERT_TRUE(engine.ok());
      all.push_back(logprobs_of(**engine, request));
      if (variant > 0) {
        EXPECT_GT((*engine)->stats().speculation.accepted, 10);
        continue;
      }
      texts.push_back(request.prompt);
      for (const TokenEvent& event : all[0].events) texts[0].push_back(event.token);
    }
    ASSERT_EQ(all[0].events.size(), 60u);
    for (size_t i = 0; i < 60; ++i) {
      std::vector<float> row;
      const auto end = texts[0].begin() + static_cast<std::ptrdiff_t>(3 + i);
      test::FakeModel::append_logits_after({texts[0].begin(), end}, test::kFakeVocab, row);
      double mass = 0.0;
      for (const float logit : row) mass += std::exp(static_cast<double>(logit));
      const auto want = [&](int32_t t) {
        return static_cast<double>(row[static_cast<size_t>(t)]) - std::log(mass);
      };
      EXPECT_NEAR(all[0].events[i].logprob, want(all[0].events[i].token), 1e-4);
      for (size_t k = 0; k < 5; ++k) {
        const TokenLogprob& entry = all[0].top[i * 5 + k];
        EXPECT_NEAR(entry.logprob, want(entry.token), 1e-4);
        const auto n_larger = std::count_if(row.begin(), row.end(), [&](float logit) {
          return logit > row[static_cast<size_t>(entry.token)];
        });
        EXPECT_EQ(n_larger, static_cast<std::ptrdiff_t>(k));
      }
      for (size_t variant : {1u, 2u}) {
        ASSERT_EQ(all[variant].events[i].token, all[0].events[i].token);
        EXPECT_EQ(std::memcmp(&all[variant].events[i].logprob, &all[0].events[i].logprob, sizeof(float)), 0);
      }
    }
    for (size_t variant : {1u, 2u}) {
      ASSERT_EQ(all[variant].top.size(), all[0].top.size());
      EXPECT_EQ(
          std::memcmp(all[variant].top.data(), all[0].top.data(), all[0].top.size() * sizeof(TokenLogprob)),
          0);
    }
  }
}

}  // namespace
}  // namespace dspark
