// Whole speculative generations of the reference, round by round, through the engine: anchors, drafts,
// verified and accepted counts, confidences, stops, and the evaluator's counters over all rounds.

#include <gtest/gtest.h>

#include <atomic>

#include "draft/factory.h"
#include "engine/draft_golden.h"
#include "engine/generation.h"
#include "engine/golden_metrics.h"
#include "models/model.h"
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
  test::expect_summary(greedy, expected.at("summary_greedy_threshold0"));
  const auto metrics = expected.find("confidence_metrics_greedy_threshold0");
  EXPECT_EQ(metrics == expected.end(), calibration.n_positions() == 0);
  if (metrics != expected.end()) test::expect_calibration(calibration, *metrics);
}

INSTANTIATE_TEST_SUITE_P(Golden, DraftGenerations, testing::ValuesIn(test::draft_goldens()),
                         [](const auto& one) { return one.param.name; });

/// Target and drafter as llama.cpp's converter wrote them, and what its server drafted and accepted.
struct GgufPair {
  const char* target;
  const char* drafter;
  const char* rounds;  // folder in drafts/ with the text
  int64_t drafted;
  int64_t accepted;
};
void PrintTo(const GgufPair& pair, std::ostream* out) {
  *out << pair.drafter;
}

// Of the fourth llama.cpp accepts 2 of 287, because it takes the wrong head; read right it is the second.
constexpr GgufPair kGgufPairs[] = {
    {"target_llama", "llama_dspark_vanilla", "llama_dspark_vanilla", 45, 40},
    {"target_qwen3", "qwen3_dspark_vanilla", "qwen3_dspark_vanilla", 41, 41},
    {"target_qwen3", "qwen3_dspark_vanilla_v160", "qwen3_dspark_vanilla", 41, 41},
    {"target_qwen3", "qwen3_dspark_vanilla_embd_without_output", "qwen3_dspark_vanilla", 41, 41},
    {"target_qwen3", "qwen3_dflash_zero_markov", "qwen3_dflash", 41, 41}};

class DraftGgufs : public testing::TestWithParam<GgufPair> {};

/// Without load_model: the files' tokenizer is a dummy with a merge of tokens that are not there.
TEST_P(DraftGgufs, TextAndCountsAreThoseOfLlamaCpp) {
  const GgufPair& pair = GetParam();
  if (test::golden_dir().empty()) GTEST_SKIP() << "no golden set";
  const auto root = test::golden_dir() / "draft";
  const auto path = [&root](const char* name) {
    return (root / "gguf" / (std::string(name) + ".bf16.gguf")).string();
  };
  ThreadPool pool(2);
  const auto target = TargetModel::open(path(pair.target), pool, {.float_activations = true});
  ASSERT_TRUE(target.ok()) << target.status().to_string();
  EngineOptions options = golden_options();
  options.policy = VerifyPolicy::fixed(kMaxDraftTokens);
  DrafterContext context;
  context.target = target->get();
  context.pool = &pool;
  context.context_length = options.context_length;
  context.kv_dtype = options.kv_dtype;
  context.float_activations = true;
  auto drafter = make_drafter(path(pair.drafter), context);
  ASSERT_TRUE(drafter.ok()) << drafter.status().to_string();
  const auto engine = Engine::create(**target, options, std::move(drafter).value());
  ASSERT_TRUE(engine.ok()) << engine.status().to_string();

  const Json expected = DraftGolden{pair.rounds, root / "drafts" / pair.rounds, {}}.expected();
  const Json& want = expected.at("generations").at(0);
  ASSERT_EQ(want.at("case"), "greedy_p0");
  GenerateRequest request;
  request.prompt = want.at("prompt").get<std::vector<int32_t>>();
  request.sampling.temperature = 0.0f;
  request.stop_token_ids = want.at("stop_token_ids").get<std::vector<int32_t>>();
  request.max_tokens = want.at("max_new_tokens").get<int32_t>();
  const auto result = generate(**engine, request);
  ASSERT_TRUE(result.ok()) << result.status().to_string();
  EXPECT_EQ(result->tokens, want.at("output").get<std::vector<int32_t>>());
  const SpeculationStats& stats = (*engine)->stats().speculation;
  EXPECT_EQ(stats.verified, pair.drafted);
  EXPECT_EQ(stats.accepted, pair.accepted);
}

INSTANTIATE_TEST_SUITE_P(Golden, DraftGgufs, testing::ValuesIn(kGgufPairs),
                         [](const auto& one) { return std::string(one.param.drafter); });

}  // namespace
}  // namespace dspark
