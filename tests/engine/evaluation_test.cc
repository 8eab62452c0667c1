// evaluate(), which `dspark eval` and `dspark calibrate` count with, against the reference's evaluator:
// answers, counters and all calibration metrics over its three greedy prompts, one at a time and all in one
// batch.

#include "engine/evaluation.h"

#include <gtest/gtest.h>

#include "engine/draft_golden.h"
#include "engine/golden_metrics.h"

namespace dspark {
namespace {

using test::DraftGolden;
using Json = nlohmann::json;

struct GreedyCases {
  std::vector<EvalPrompt> prompts;
  std::vector<std::vector<int32_t>> outputs;
  int32_t max_tokens = 0;
  std::vector<int32_t> stop_ids;
};

/// The generations that the reference's summary is made of.
GreedyCases greedy_cases(const Json& expected) {
  GreedyCases cases;
  for (const Json& generation : expected.at("generations")) {
    const auto name = generation.at("case").get<std::string>();
    if (name != "greedy_p0" && name != "greedy_p1" && name != "greedy_p2") continue;
    cases.prompts.push_back({generation.at("prompt").get<std::vector<int32_t>>(), 0});
    cases.outputs.push_back(generation.at("output").get<std::vector<int32_t>>());
    cases.max_tokens = generation.at("max_new_tokens").get<int32_t>();
    cases.stop_ids = generation.at("stop_token_ids").get<std::vector<int32_t>>();
  }
  return cases;
}

class Evaluation : public testing::TestWithParam<DraftGolden> {};

TEST_P(Evaluation, CountsAsTheReferenceDoes) {
  const DraftGolden& golden = GetParam();
  const Json expected = golden.expected();
  const GreedyCases cases = greedy_cases(expected);
  ASSERT_EQ(cases.prompts.size(), 3u);
  LoadedModel loaded = test::load_golden_target(golden);
  ASSERT_EQ(loaded.eos_ids, cases.stop_ids);
  EvalOptions eval;
  eval.sampling.temperature = 0.0f;
  eval.max_tokens = cases.max_tokens;
  for (const int32_t batch : {1, 3}) {
    SCOPED_TRACE("batch " + std::to_string(batch));
    EngineOptions options;
    options.max_sequences = batch;
    options.context_length = 256;
    options.kv_dtype = KvDType::kF32;
    options.policy = VerifyPolicy::fixed(kMaxDraftTokens);
    const auto engine = test::golden_engine(loaded, golden, options);
    ASSERT_NE(engine, nullptr);
    const auto answers = evaluate(*engine, cases.prompts, eval);
    ASSERT_TRUE(answers.ok()) << answers.status().to_string();
    SpeculationStats rounds;
    CalibrationStats calibration;
    for (size_t i = 0; i < answers->size(); ++i) {
      const EvalAnswer& answer = (*answers)[i];
      EXPECT_EQ(answer.tokens, cases.outputs[i]);
      const bool stops = cases.outputs[i].back() == cases.stop_ids.front();
      EXPECT_EQ(answer.finish_reason, stops ? FinishReason::kStop : FinishReason::kLength);
      add_rounds(answer, rounds);
      add_calibration(answer, calibration);
    }
    test::expect_summary(rounds, expected.at("summary_greedy_threshold0"));
    const auto metrics = expected.find("confidence_metrics_greedy_threshold0");
    EXPECT_EQ(metrics == expected.end(), calibration.n_positions() == 0);
    if (metrics != expected.end()) test::expect_calibration(calibration, *metrics);
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Evaluation, testing::ValuesIn(test::draft_goldens()),
                         [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace dspark
