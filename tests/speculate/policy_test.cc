// Verify policies and the counters of speculation.

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "speculate/golden_json.h"
#include "speculate/scheduler.h"
#include "speculate/stats.h"

namespace dspark {
namespace {

using nlohmann::json;

TEST(VerifyPolicy, ParsesWhatItPrints) {
  for (const char* text : {"off", "fixed:0", "fixed:1", "fixed:16", "fixed:64", "threshold:0",
                           "threshold:0.6", "threshold:1", "threshold:0.123", "causal", "adaptive"}) {
    const auto policy = VerifyPolicy::parse(text);
    ASSERT_TRUE(policy.ok()) << text;
    EXPECT_EQ(policy->to_string(), text);
  }
  EXPECT_EQ(VerifyPolicy::parse("fixed:7")->draft_tokens(), 7);
  EXPECT_EQ(VerifyPolicy::parse("off")->draft_tokens(), 0);
  EXPECT_EQ(VerifyPolicy::parse("threshold:0.5")->draft_tokens(), kMaxDraftTokens);
  EXPECT_EQ(VerifyPolicy::parse("threshold:5e-1")->threshold, 0.5f);
}

TEST(VerifyPolicy, RefusesTheRestByName) {
  for (const char* text : {"",
                           "fixed",
                           "fixed:",
                           "fixed:-1",
                           "fixed:65",
                           "fixed:3x",
                           "fixed: 3",
                           "on",
                           "fixed:99999999999999999999",
                           "Off",
                           "off:1",
                           "fixed:1:2",
                           "threshold",
                           "threshold:",
                           "threshold:-0.1",
                           "threshold:1.01",
                           "threshold:nan",
                           "threshold:inf",
                           "threshold:0.5x",
                           "threshold: 0.5",
                           "threshold:1e-999",
                           "adaptive:2",
                           "causal:"}) {
    const auto policy = VerifyPolicy::parse(text);
    ASSERT_FALSE(policy.ok()) << text;
    EXPECT_EQ(policy.status().code(), StatusCode::kInvalidArgument) << text;
    EXPECT_NE(policy.status().message().find("'" + std::string(text) + "'"), std::string::npos);
  }
}

TEST(VerifyPolicy, ValidatesWhatWasNotParsed) {
  EXPECT_TRUE(VerifyPolicy::off().validate().ok());
  EXPECT_TRUE(VerifyPolicy::fixed(64).validate().ok());
  EXPECT_TRUE(VerifyPolicy::from_threshold(1.0f).validate().ok());
  for (const VerifyPolicy& policy :
       {VerifyPolicy::fixed(-1), VerifyPolicy::fixed(65), VerifyPolicy::from_threshold(-0.1f),
        VerifyPolicy::from_threshold(1.5f), VerifyPolicy::from_threshold(std::nanf(""))}) {
    EXPECT_EQ(policy.validate().code(), StatusCode::kInvalidArgument);
  }
}

TEST(VerifyPolicy, ThresholdKeepsThePrefixBeforeTheFirstLowConfidence) {
  const std::vector<float> confidence = {0.9f, 0.5f, 0.4f, 0.8f};
  const auto length = [&](float t) { return verify_length(VerifyPolicy::from_threshold(t), 4, confidence); };
  EXPECT_EQ(length(0.0f), 4);
  EXPECT_EQ(length(0.4f), 4);  // strictly below
  EXPECT_EQ(length(0.5f), 2);
  EXPECT_EQ(length(0.6f), 1);
  EXPECT_EQ(length(1.0f), 0);
  EXPECT_EQ(threshold_length(confidence, -3.0f), 4);
  EXPECT_EQ(verify_length(VerifyPolicy::from_threshold(0.6f), 4), 4);  // no confidence head
  EXPECT_EQ(verify_length(VerifyPolicy::fixed(3), 4, confidence), 3);
  EXPECT_EQ(verify_length(VerifyPolicy::off(), 4, confidence), 0);
}

TEST(VerifyPolicy, LengthsAndRowCap) {
  EXPECT_EQ(verify_length(VerifyPolicy::off(), 5), 0);
  EXPECT_EQ(verify_length(VerifyPolicy::fixed(3), 5), 3);
  EXPECT_EQ(verify_length(VerifyPolicy::fixed(3), 2), 2);
  std::vector<int32_t> lengths = {4, 0, 7, 7};
  cap_verify_rows(lengths, 100);
  EXPECT_EQ(lengths, (std::vector<int32_t>{4, 0, 7, 7}));
  cap_verify_rows(lengths, 15);  // 22 rows: seven fewer
  EXPECT_EQ(lengths, (std::vector<int32_t>{4, 0, 4, 3}));
  cap_verify_rows(lengths, 4);
  EXPECT_EQ(lengths, (std::vector<int32_t>{0, 0, 0, 0}));
  std::mt19937 rng(5);
  for (int round = 0; round < 200; ++round) {
    std::vector<int32_t> random(rng() % 20 + 1);
    for (int32_t& l : random) l = static_cast<int32_t>(rng() % 17);
    const auto before = random;
    const auto n = static_cast<int64_t>(random.size());
    const int64_t limit = n + static_cast<int64_t>(rng() % 60);
    cap_verify_rows(random, limit);
    const int64_t total = std::accumulate(random.begin(), random.end(), n);
    EXPECT_EQ(total, std::min(limit, std::accumulate(before.begin(), before.end(), n)));
    for (size_t i = 0; i < random.size(); ++i) EXPECT_LE(random[i], before[i]);
  }
}

void expect_rate(const json& want, double got) {
  if (want.is_null()) {
    EXPECT_LT(got, 0.0);
  } else {
    EXPECT_NEAR(got, want.get<double>(), 1e-12);
  }
}

TEST(SpeculationStats, ReferenceCases) {
  for (const json& file : test::fixture_and_golden("statistics.json", "draft/rules/statistics.json")) {
    ASSERT_GE(file.size(), 10u);
    for (const json& c : file) {
      SpeculationStats total;
      for (const json& sample : c["samples"]) {
        SpeculationStats one;
        for (const json& r : sample) {
          RoundRecord round;
          round.proposal_length = r["proposal_length"];
          round.accepted = r["accepted"];
          round.acceptance_length = r["acceptance_length"];
          round.verified = round.proposal_length;
          round.drafted = c["max_proposal"];
          one.add(round);
        }
        total.add(one);
      }
      const json& want = c["expect"];
      EXPECT_EQ(total.rounds, want["rounds"].get<int64_t>());
      EXPECT_NEAR(total.accept_len(), want["accept_len"].get<double>(), 1e-12);
      EXPECT_NEAR(total.propose_mean(), want["propose_mean"].get<double>(), 1e-12);
      EXPECT_NEAR(total.verify_rate(), want["verify_rate"].get<double>(), 1e-12);
      for (int j = 0; j < c["max_proposal"].get<int>(); ++j) {
        const auto at = static_cast<size_t>(j);
        expect_rate(want["accept_rate_at"][at], total.accept_rate_at(j));
        expect_rate(want["conditional_acceptance_at"][at], total.conditional_acceptance_at(j));
      }
      EXPECT_EQ(total.trimmed, total.drafted - total.verified);
      EXPECT_GE(total.verified, total.accepted);
    }
  }
}

TEST(SpeculationStats, RoundsThatVerifiedNothingAreCountedApart) {
  SpeculationStats one;
  one.add(make_round_record(0, 0, 0));
  one.add(make_round_record(4, 0, 0));
  one.add(make_round_record(4, 2, 0));
  EXPECT_EQ(one.rounds, 3);
  EXPECT_EQ(one.verified_rounds, 1);
  EXPECT_DOUBLE_EQ(one.accept_len(), 1.0);  // tau is over all rounds
  SpeculationStats total;
  total.add(one);
  total.add(one);
  EXPECT_EQ(total.verified_rounds, 2);
}

}  // namespace
}  // namespace dspark
