// Order and meaning of logit processing, against the reference cases and against a brute-force sort.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "speculate/golden_json.h"
#include "speculate/logits_processor.h"
#include "speculate/row_mass.h"

namespace dspark {
namespace {

using nlohmann::json;

SamplingParams params_of(const json& c) {
  SamplingParams p;
  p.temperature = c.value("temperature", 1.0f);
  p.top_k = c.value("top_k", 0);
  p.top_p = c.value("top_p", 1.0f);
  p.min_p = c.value("min_p", 0.0f);
  p.repetition_penalty = c.value("repetition_penalty", 1.0f);
  p.presence_penalty = c.value("presence_penalty", 0.0f);
  p.frequency_penalty = c.value("frequency_penalty", 0.0f);
  if (c.contains("logit_bias")) {
    for (const auto& [id, value] : c["logit_bias"].items()) {
      p.logit_bias.emplace_back(std::stoi(id), value.get<float>());
    }
  }
  return p;
}

/// Probabilities of step 10, as a full row.
std::vector<double> probabilities(std::vector<float> logits, const SamplingParams& params,
                                  const TokenCounts& counts) {
  SamplerScratch scratch;
  apply_bias_and_penalties(logits, params, &counts);
  std::vector<double> p(logits.size(), 0.0);
  if (params.greedy()) {
    p[static_cast<size_t>(argmax(logits))] = 1.0;
    return p;
  }
  filter_candidates(logits, params, scratch);
  double sum = 0.0;
  for (const Candidate& c : scratch.candidates) sum += c.weight;
  for (const Candidate& c : scratch.candidates) p[static_cast<size_t>(c.id)] = c.weight / sum;
  return p;
}

TEST(Sampling, ReferenceCases) {
  for (const json& file : test::fixture_and_golden("sampling.json", "sampling.json")) {
    ASSERT_GE(file["cases"].size(), 300u);
    const double tolerance = file["tolerance"];
    for (const json& c : file["cases"]) {
      SCOPED_TRACE(c["name"].get<std::string>());
      const auto logits = c["logits"].get<std::vector<float>>();
      const SamplingParams params = params_of(c);
      ASSERT_TRUE(params.validate(static_cast<int32_t>(logits.size())).ok());
      TokenCounts counts;
      counts.reset(c.value("prompt_ids", std::vector<int32_t>()));
      for (int32_t id : c.value("output_ids", std::vector<int32_t>())) counts.push(id);
      const std::vector<double> p = probabilities(logits, params, counts);
      SamplerScratch scratch;
      std::vector<float> row(logits.size());
      target_probabilities(logits, params, &counts, scratch, row);
      std::vector<int32_t> kept;
      for (size_t v = 0; v < p.size(); ++v) {
        EXPECT_NEAR(p[v], c["expected"][v].get<double>(), tolerance) << "token " << v;
        EXPECT_NEAR(static_cast<double>(row[v]), c["expected"][v].get<double>(), tolerance) << "token " << v;
        if (p[v] >= 1e-9) kept.push_back(static_cast<int32_t>(v));
      }
      EXPECT_EQ(kept, c["kept"].get<std::vector<int32_t>>());
    }
  }
}

/// The definition with full sorts, in float64, on rows too large to trust by eye.
std::vector<int32_t> brute_survivors(const std::vector<float>& logits, const SamplingParams& params) {
  std::vector<Candidate> all;
  const float largest = *std::max_element(logits.begin(), logits.end());
  for (size_t v = 0; v < logits.size(); ++v) {
    all.push_back(
        {static_cast<int32_t>(v), logits[v], coupled_weight(logits[v], largest, params.temperature)});
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  std::erase_if(all, [&](const Candidate& c) { return c.weight < static_cast<double>(params.min_p); });
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < all.size()) {
    const float kth = all[static_cast<size_t>(params.top_k) - 1].logit;
    std::erase_if(all, [kth](const Candidate& c) { return c.logit < kth; });
  }
  double mass = 0.0;
  for (const Candidate& c : all) mass += c.weight;
  std::vector<int32_t> kept;
  double before = 0.0;
  for (const Candidate& c : all) {
    if (!kept.empty() && params.top_p < 1.0f && before >= static_cast<double>(params.top_p) * mass) break;
    if (c.weight > 0.0) kept.push_back(c.id);
    before += c.weight;
  }
  std::sort(kept.begin(), kept.end());
  return kept;
}

TEST(Sampling, LargeRowsEqualFullSort) {
  std::mt19937 rng(7);
  SamplerScratch scratch;
  for (int round = 0; round < 60; ++round) {
    std::vector<float> logits(static_cast<size_t>(rng() % 5000 + 1));
    std::normal_distribution<float> normal(0.0f, 3.0f);
    const bool coarse = rng() % 2 == 0;  // many ties
    for (float& l : logits) l = coarse ? std::round(normal(rng)) : normal(rng);
    SamplingParams params;
    params.temperature = 0.3f + 0.1f * static_cast<float>(rng() % 15);
    if (rng() % 2 == 0) params.top_k = static_cast<int32_t>(rng() % 600 + 1);
    if (rng() % 2 == 0) params.min_p = 0.001f * static_cast<float>(rng() % 200 + 1);
    if (rng() % 2 == 0) params.top_p = 0.013f * static_cast<float>(rng() % 75 + 1);
    filter_candidates(logits, params, scratch);
    std::vector<int32_t> kept;
    for (const Candidate& c : scratch.candidates) kept.push_back(c.id);
    ASSERT_EQ(kept, brute_survivors(logits, params))
        << "n " << logits.size() << " k " << params.top_k << " p " << params.top_p << " min " << params.min_p;
  }
}

TEST(Sampling, RowMassIsTheSumOfWeights) {
  std::mt19937 rng(8);
  for (const size_t n : {1u, 31u, 256u, 257u, 5000u}) {
    for (const float temperature : {0.001f, 0.3f, 1.0f, 20.0f}) {
      std::normal_distribution<float> normal(-5.0f, 4.0f);
      std::vector<float> logits(n);
      for (float& l : logits) l = normal(rng);
      const float largest = *std::max_element(logits.begin(), logits.end());
      logits.push_back(-std::numeric_limits<float>::infinity());
      logits.push_back(std::numeric_limits<float>::quiet_NaN());
      double sum = 0.0;
      for (float l : logits) sum += coupled_weight(l, largest, temperature);
      EXPECT_NEAR(row_mass(logits, largest, temperature) / sum, 1.0, 1e-6) << n << " " << temperature;
    }
  }
}

TEST(Sampling, RowProbabilitiesAreTheSoftmax) {
  std::mt19937 rng(9);
  for (const size_t n : {1u, 31u, 256u, 257u, 50000u}) {
    for (const float temperature : {0.001f, 0.3f, 1.0f, 20.0f}) {
      std::normal_distribution<float> normal(-5.0f, 4.0f);
      std::vector<float> logits(n);
      for (float& l : logits) l = normal(rng);
      const float largest = *std::max_element(logits.begin(), logits.end());
      logits.push_back(-std::numeric_limits<float>::infinity());
      logits.push_back(std::numeric_limits<float>::quiet_NaN());
      double mass = 0.0, sum = 0.0;
      for (float l : logits) mass += coupled_weight(l, largest, temperature);
      std::vector<float> row(logits.size());
      ASSERT_TRUE(row_probabilities(logits, temperature, row));
      for (size_t v = 0; v < row.size(); ++v) {
        const double want = coupled_weight(logits[v], largest, temperature) / mass;
        sum += static_cast<double>(row[v]);
        if (want * mass > std::exp(-20.0)) {
          ASSERT_NEAR(static_cast<double>(row[v]) / want, 1.0, 2e-6);
        } else {
          ASSERT_NEAR(static_cast<double>(row[v]), want, 1e-12);
        }
      }
      EXPECT_NEAR(sum, 1.0, 1e-6);
      const std::vector<float> apart = row;
      std::copy(logits.begin(), logits.end(), row.begin());
      ASSERT_TRUE(row_probabilities(row, temperature, row));  // in place
      EXPECT_EQ(row, apart);
    }
  }
}

TEST(Sampling, TargetProbabilitiesOfOddRows) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  SamplerScratch scratch;
  std::vector<float> row(3);
  const auto expect = [&](std::vector<float> logits, const SamplingParams& params, std::vector<float> want) {
    target_probabilities(logits, params, nullptr, scratch, row);
    EXPECT_EQ(row, want);
  };
  for (SamplingParams params : {SamplingParams(), SamplingParams{.top_k = 2}}) {
    expect({-inf, -inf, -inf}, params, {1, 0, 0});  // as choose_token picks
    expect({nan, nan, -inf}, params, {0, 0, 1});
    expect({nan, -inf, 0.5f}, params, {0, 0, 1});
    expect({0, inf, 0.5f}, params, {0, 1, 0});
    expect({0, inf, inf}, params, {0, 0.5f, 0.5f});
  }
  expect({1, 4, 4}, {.temperature = 0.0f}, {0, 1, 0});
  expect({1, 4, 4}, {.temperature = 0.0f, .logit_bias = {{0, 5.0f}}}, {1, 0, 0});
  expect({1, 4, 4}, {.logit_bias = {{0, 3.0f}, {2, -inf}}}, {0.5f, 0.5f, 0});
}

TEST(Sampling, PenaltiesFollowPushAndPop) {
  SamplingParams params;
  params.repetition_penalty = 1.3f;
  params.presence_penalty = 0.4f;
  params.frequency_penalty = 0.2f;
  std::mt19937 rng(3);
  TokenCounts counts;
  std::vector<int32_t> prompt, output;
  for (int i = 0; i < 700; ++i) prompt.push_back(static_cast<int32_t>(rng() % 5000));
  counts.reset(prompt);
  for (int step = 0; step < 300; ++step) {
    const auto token = static_cast<int32_t>(rng() % 5000);
    counts.push(token);
    if (rng() % 3 == 0) {
      counts.pop(token);
    } else {
      output.push_back(token);
    }
  }
  TokenCounts fresh;
  fresh.reset(prompt);
  for (int32_t token : output) fresh.push(token);
  std::vector<float> a(5000), b;
  for (float& l : a) l = static_cast<float>(rng() % 100) - 50.0f;
  b = a;
  const std::vector<float> original = a;
  apply_bias_and_penalties(a, params, &counts);
  apply_bias_and_penalties(b, params, &fresh);
  EXPECT_EQ(a, b);
  EXPECT_NE(a, original);
}

TEST(Sampling, GreedyTakesLowestOfTiesAndSurvivesOddRows) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(argmax(std::vector<float>{1, 4, 4, 0}), 1);
  EXPECT_EQ(argmax(std::vector<float>{nan, -1, nan, -0.5f}), 3);
  EXPECT_EQ(argmax(std::vector<float>{-inf, -inf}), 0);
  EXPECT_EQ(argmax(std::vector<float>{nan, nan}), 0);
  std::vector<float> row(1000, -1.0f);
  for (size_t at : {0u, 31u, 32u, 511u, 999u}) {
    row[at] = 2.0f;
    EXPECT_EQ(argmax(row), static_cast<int32_t>(at));
    row[at] = -1.0f;
  }
  SamplerScratch scratch;
  for (SamplingParams params : {SamplingParams(), SamplingParams{.top_k = 2}}) {
    EXPECT_EQ(choose_token(std::vector<float>{-inf, -inf, -inf}, params, nullptr, 3, scratch), 0);
    EXPECT_EQ(choose_token(std::vector<float>{nan, -inf, 0.5f}, params, nullptr, 3, scratch), 2);
    EXPECT_EQ(choose_token(std::vector<float>{0, inf, 0.5f}, params, nullptr, 3, scratch), 1);
  }
}

TEST(Sampling, ValidateNamesTheField) {
  const auto message = [](SamplingParams p) { return p.validate(100).message(); };
  const auto expect_field = [&](SamplingParams p, const std::string& field) {
    EXPECT_EQ(p.validate(100).code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(message(p).rfind(field + ":", 0), 0u) << message(p);
  };
  EXPECT_TRUE(SamplingParams().validate(100).ok());
  expect_field({.temperature = -0.1f}, "temperature");
  expect_field({.temperature = std::nanf("")}, "temperature");
  expect_field({.top_k = -2}, "top_k");
  expect_field({.top_p = 1.01f}, "top_p");
  expect_field({.min_p = -0.01f}, "min_p");
  expect_field({.repetition_penalty = 0.0f}, "repetition_penalty");
  expect_field({.presence_penalty = std::numeric_limits<float>::infinity()}, "presence_penalty");
  expect_field({.frequency_penalty = 1e9f}, "frequency_penalty");
  expect_field({.logit_bias = {{100, 1.0f}}}, "logit_bias");
  expect_field({.logit_bias = {{-1, 1.0f}}}, "logit_bias");
  expect_field({.logit_bias = {{3, std::nanf("")}}}, "logit_bias");
  expect_field({.logit_bias = {{3, 1.0f}, {3, 2.0f}}}, "logit_bias");
}

}  // namespace
}  // namespace dspark
