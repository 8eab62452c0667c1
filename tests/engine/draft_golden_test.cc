// Whole speculative generations of the reference, round by round, through the engine: anchors, drafts,
// verified and accepted counts, confidences, stops, and the evaluator's counters over all rounds.

#include <gtest/gtest.h>

#include <atomic>

#include "engine/draft_golden.h"
#include "engine/generation.h"
#include "speculate/calibration.h"
#include "speculate/confidence.h"

namespace dspark {
namespace {

using test::DraftGolden;
using Json = nlohmann::json;

constexpr float kTolerance = 2e-4f;

/// Copy of one RoundView.
struct Round {
  int32_t anchor_position = 0;
  RoundRecord counts;
  std::vector<int32_t> drafts;
  std::vector<float> confidence_logits;
  std::vector<int32_t> committed;
};

struct Generation {
  std::vector<int32_t> tokens;  // the prompt's own first
  std::vector<Round> rounds;
};

EngineOptions golden_options() {
  EngineOptions options;
  options.context_length = 256;
  options.kv_dtype = KvDType::kF32;
  return options;
}

/// The reference's loop: rounds go on while the anchor lies before prompt + max_new_tokens, and the last one
/// is not shortened.
Generation generate_rounds(Engine& engine, const Json& golden) {
  GenerateRequest request;
  request.prompt = golden.at("prompt").get<std::vector<int32_t>>();
  request.sampling.temperature = 0.0f;
  request.stop_token_ids = golden.at("stop_token_ids").get<std::vector<int32_t>>();
  request.ignore_eos = true;
  const double threshold = golden.at("confidence_threshold").get<double>();
  request.speculation = threshold > 0.0 ? VerifyPolicy::from_threshold(static_cast<float>(threshold))
                                        : VerifyPolicy::fixed(kMaxDraftTokens);
  const int32_t end =
      static_cast<int32_t>(request.prompt.size()) + golden.at("max_new_tokens").get<int32_t>();
  Generation out;
  std::atomic<bool> done = false;
  const auto record = [&](const StreamUpdate& update) {
    for (const TokenEvent& event : update.tokens) {
      out.tokens.push_back(event.token);
      done = done || event.position >= end;
    }
    if (update.round == nullptr) return;
    const RoundView& view = *update.round;
    Round round{view.anchor_position,
                view.counts,
                {view.drafts.begin(), view.drafts.end()},
                {view.confidence_logits.begin(), view.confidence_logits.end()},
                {}};
    for (const TokenEvent& event : update.tokens) round.committed.push_back(event.token);
    out.rounds.push_back(round);
  };
  const auto result = generate(engine, request, record, &done);
  EXPECT_TRUE(result.ok()) << result.status().to_string();
  return out;
}

void expect_round(const Round& got, const Json& want) {
  EXPECT_EQ(got.anchor_position, want.at("n").get<int32_t>());
  const auto drafts = want.at("drafts").get<std::vector<int32_t>>();
  const auto proposed = want.at("proposed").get<int32_t>();
  const bool stopped = want.at("stopped_inside_run").get<bool>();
  ASSERT_EQ(got.counts.verified, proposed);
  EXPECT_EQ(std::vector<int32_t>(got.drafts.begin(), got.drafts.begin() + proposed), drafts);
  EXPECT_EQ(got.counts.accepted, want.at("accepted").get<int32_t>());
  EXPECT_EQ(got.counts.proposal_length, want.at("effective_proposed").get<int32_t>());
  EXPECT_EQ(got.counts.acceptance_length, got.counts.accepted + (stopped ? 0 : 1));
  ASSERT_EQ(got.committed.size(), static_cast<size_t>(got.counts.acceptance_length));
  if (!stopped) {
    EXPECT_EQ(got.committed.back(), want.at("next_token").get<int32_t>());
  }
  if (want.at("confidence_logits").is_null()) return;
  const auto logits = want.at("confidence_logits").get<std::vector<float>>();
  ASSERT_GE(got.confidence_logits.size(), logits.size());
  for (size_t k = 0; k < logits.size(); ++k) EXPECT_NEAR(got.confidence_logits[k], logits[k], kTolerance);
}

void expect_generation(const Generation& got, const Json& want) {
  const auto output = want.at("output").get<std::vector<int32_t>>();
  ASSERT_GE(got.tokens.size(), output.size());
  EXPECT_EQ(
      std::vector<int32_t>(got.tokens.begin(), got.tokens.begin() + static_cast<ptrdiff_t>(output.size())),
      output);
  ASSERT_EQ(got.rounds.size(), want.at("rounds").size());
  for (size_t i = 0; i < got.rounds.size(); ++i) {
    SCOPED_TRACE("round " + std::to_string(i));
    expect_round(got.rounds[i], want.at("rounds")[i]);
    if (testing::Test::HasFatalFailure()) return;
  }
}

void expect_summary(const SpeculationStats& got, const Json& want) {
  EXPECT_EQ(got.rounds, want.at("proposal_count").get<int64_t>());
  EXPECT_EQ(got.committed_tokens, want.at("acceptance_length_sum").get<int64_t>());
  EXPECT_EQ(got.proposal_tokens, want.at("proposal_length_sum").get<int64_t>());
  EXPECT_NEAR(got.accept_len(), want.at("accept_len").get<double>(), 1e-12);
  EXPECT_NEAR(got.propose_mean(), want.at("propose_mean").get<double>(), 1e-12);
  EXPECT_NEAR(got.verify_rate(), want.at("verify_rate").get<double>(), 1e-12);
  for (size_t j = 0; j < want.at("accepted_at_pos").size(); ++j) {
    EXPECT_EQ(got.proposed_at[j], want.at("proposals_at_pos")[j].get<int64_t>()) << j;
    EXPECT_EQ(got.accepted_at[j], want.at("accepted_at_pos")[j].get<int64_t>()) << j;
    EXPECT_NEAR(got.accept_rate_at(static_cast<int>(j)), want.at("accept_rate_at")[j].get<double>(), 1e-12);
  }
}

void expect_calibration(const CalibrationStats& got, const Json& want) {
  const Json& positions = want.at("per_position");
  ASSERT_EQ(got.n_positions(), static_cast<int32_t>(positions.size()));
  for (int32_t j = 0; j < got.n_positions(); ++j) {
    const CalibrationMetrics metrics = got.at(j);
    const Json& position = positions[static_cast<size_t>(j)];
    EXPECT_EQ(metrics.count, std::lround(position.at("total_weight").get<double>()));
    EXPECT_NEAR(metrics.ece, position.at("ece").get<double>(), 1e-4);
    EXPECT_NEAR(metrics.brier, position.at("brier").get<double>(), 1e-4);
  }
}

class DraftGenerations : public testing::TestWithParam<DraftGolden> {};

TEST_P(DraftGenerations, EqualTheReferencesRoundByRound) {
  const DraftGolden& golden = GetParam();
  const Json expected = golden.expected();
  LoadedModel loaded = test::load_golden_target(golden);
  const auto engine = test::golden_engine(loaded, golden, golden_options());
  ASSERT_NE(engine, nullptr);
  SpeculationStats greedy;
  CalibrationStats calibration;
  for (const Json& want : expected.at("generations")) {
    const auto name = want.at("case").get<std::string>();
    SCOPED_TRACE(name);
    const Generation got = generate_rounds(*engine, want);
    expect_generation(got, want);
    if (name != "greedy_p0" && name != "greedy_p1" && name != "greedy_p2") continue;
    for (const Round& round : got.rounds) {
      greedy.add(round.counts);
      std::vector<double> confidence;
      for (float logit : round.confidence_logits) confidence.push_back(sigmoid(static_cast<double>(logit)));
      confidence.resize(std::min(confidence.size(), static_cast<size_t>(round.counts.proposal_length)));
      std::vector<double> products(confidence.size());
      survival(std::span<const double>(confidence), std::span<double>(products));
      calibration.add(products, round.counts.accepted);
    }
  }
  expect_summary(greedy, expected.at("summary_greedy_threshold0"));
  const auto metrics = expected.find("confidence_metrics_greedy_threshold0");
  EXPECT_EQ(metrics == expected.end(), calibration.n_positions() == 0);
  if (metrics != expected.end()) expect_calibration(calibration, *metrics);
}

INSTANTIATE_TEST_SUITE_P(Golden, DraftGenerations, testing::ValuesIn(test::draft_goldens()),
                         [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace dspark
