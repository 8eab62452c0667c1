// Three released models against float32 references: perplexity, argmax, top logits, greedy text.
//
// The files are large and fetched apart: scripts/fetch-models puts them into models/cache. Each test says
// when its file is not there.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "models/harness.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

using nlohmann::json;
using test::Outputs;
using test::Session;

struct Tolerance {
  double mean_nll;
  double perplexity_ratio;  // over all texts together, either way
  double argmax_agreement;
  double argmax_tie;  // two logits closer than this may change places without counting as a difference
  double top5_logit;
  double greedy_margin;  // steps of greedy text whose best two logits are closer are not compared
};
constexpr Tolerance kFloatPath = {1e-3, 1.001, 1.0, 1e-2, 5e-3, 1e-2};
constexpr Tolerance kServingPath = {0.03, 1.01, 0.93, 0.0, 1.5, 1.0};
constexpr size_t kMinFloatSteps = 380;  // of 384 greedy steps: all but the ties

struct RealCase {
  const char* reference;  // .json in the golden set's real/, or in tests/data/real
  const char* model;      // as scripts/fetch-models names it
  size_t min_steps;       // greedy steps with the serving path's margin, nearly all that the reference has
};

class RealModel : public testing::TestWithParam<RealCase> {
 protected:
  void SetUp() override {
    const std::string file = std::string(GetParam().reference) + ".json";
    std::filesystem::path path = test::data_dir() / "real" / file;
    if (const auto golden = test::golden_dir(); !golden.empty()) path = golden / "real" / file;
    std::ifstream in(path);
    ASSERT_TRUE(in) << path;
    reference_ = json::parse(in);
    model_path_ = test::model_file(GetParam().model);
    if (model_path_.empty()) {
      GTEST_SKIP() << GetParam().model
                   << " is not in models/cache: run scripts/fetch-models (this test needs it)";
    }
  }

  void check_texts(const Tolerance& tolerance, KvDType cache);
  void check_greedy(const Tolerance& tolerance, KvDType cache, size_t min_steps);

  json reference_;
  std::filesystem::path model_path_;
  ThreadPool pool_{default_thread_count()};
  std::unique_ptr<TargetModel> model_;
};

double log_sum_exp(const float* logits, size_t n) {
  const double top = *std::max_element(logits, logits + n);
  double sum = 0.0;
  for (size_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(logits[i]) - top);
  return top + std::log(sum);
}

// Runs a text in chunks (the logits of a whole text over a large vocabulary would not fit nicely).
template <typename Visit>
void for_each_row(Session& session, const std::vector<int32_t>& ids, size_t vocab, Visit&& visit) {
  constexpr size_t kChunk = 32;
  for (size_t begin = 0; begin < ids.size(); begin += kChunk) {
    const size_t n = std::min(kChunk, ids.size() - begin);
    const auto first = ids.begin() + static_cast<ptrdiff_t>(begin);
    const Outputs out = session.forward(0, {first, first + static_cast<ptrdiff_t>(n)});
    for (size_t i = 0; i < n; ++i) visit(begin + i, out.logits.data() + i * vocab);
  }
}

// returns: the largest difference.
double check_top5(const json& top5, size_t pos, const float* logits, double tolerance) {
  double largest = 0.0;
  for (const json& entry : top5) {
    if (entry.at("pos").get<size_t>() != pos) continue;
    for (size_t k = 0; k < entry.at("ids").size(); ++k) {
      const double got = logits[entry.at("ids")[k].get<size_t>()], want = entry.at("logits")[k].get<double>();
      EXPECT_NEAR(got, want, tolerance) << "logit " << k << " at position " << pos;
      largest = std::max(largest, std::fabs(got - want));
    }
  }
  return largest;
}

void RealModel::check_texts(const Tolerance& tolerance, KvDType cache) {
  const auto vocab = static_cast<size_t>(model_->config().vocab_size);
  double all_difference = 0.0;  // of the negative log likelihood, summed over all tokens
  double all_tokens = 0.0;
  for (const json& text : reference_.at("texts")) {
    SCOPED_TRACE(text.at("name").get<std::string>());
    const auto ids = text.at("ids").get<std::vector<int32_t>>();
    const json& argmax = text.at("argmax");
    Session session(*model_, cache, 1, static_cast<int>(ids.size()));
    double nll = 0.0, top5_difference = 0.0;
    size_t same = 0;
    for_each_row(session, ids, vocab, [&](size_t pos, const float* logits) {
      if (pos + 1 < ids.size()) {
        nll += log_sum_exp(logits, vocab) - static_cast<double>(logits[static_cast<size_t>(ids[pos + 1])]);
      }
      const int32_t best = test::argmax(logits, vocab);
      const auto want = argmax[pos].get<int32_t>();
      const float gap = logits[static_cast<size_t>(best)] - logits[static_cast<size_t>(want)];
      same += best == want || gap < tolerance.argmax_tie;
      top5_difference =
          std::max(top5_difference, check_top5(text.at("top5"), pos, logits, tolerance.top5_logit));
    });
    const auto n_predicted = static_cast<double>(ids.size() - 1);
    const double difference = nll / n_predicted - text.at("mean_nll").get<double>();
    const double agreement = static_cast<double>(same) / static_cast<double>(ids.size());
    EXPECT_LE(std::fabs(difference), tolerance.mean_nll);
    EXPECT_GE(agreement, tolerance.argmax_agreement);
    all_difference += difference * n_predicted;
    all_tokens += n_predicted;
    const auto name = text.at("name").get<std::string>();
    RecordProperty(name + "_nll_difference", std::to_string(difference));
    RecordProperty(name + "_argmax_agreement", std::to_string(agreement));
    RecordProperty(name + "_top5_difference", std::to_string(top5_difference));
  }
  const double ratio = std::exp(all_difference / all_tokens);
  RecordProperty("perplexity_ratio", std::to_string(ratio));
  EXPECT_LE(std::max(ratio, 1.0 / ratio), tolerance.perplexity_ratio);
}

// Every step follows the reference's own text, so that a near tie that falls the other way ends nothing.
void RealModel::check_greedy(const Tolerance& tolerance, KvDType cache, size_t min_steps) {
  const auto vocab = static_cast<size_t>(model_->config().vocab_size);
  size_t n_compared = 0;
  for (const json& greedy : reference_.at("greedy")) {
    SCOPED_TRACE(greedy.at("prompt").get<std::string>());
    auto ids = greedy.at("prompt_ids").get<std::vector<int32_t>>();
    const auto want = greedy.at("ids").get<std::vector<int32_t>>();
    const auto margin = greedy.at("margin").get<std::vector<double>>();
    ASSERT_EQ(margin.size(), want.size());
    const size_t first_row = ids.size() - 1;  // the row that gives the first step
    ids.insert(ids.end(), want.begin(), want.end() - 1);
    Session session(*model_, cache, 1, static_cast<int>(ids.size()));
    for_each_row(session, ids, vocab, [&](size_t pos, const float* logits) {
      if (pos < first_row || margin[pos - first_row] < tolerance.greedy_margin) return;
      const size_t step = pos - first_row;
      EXPECT_EQ(test::argmax(logits, vocab), want[step]) << "step " << step << ", margin " << margin[step];
      ++n_compared;
    });
  }
  EXPECT_GE(n_compared, min_steps);
  RecordProperty("greedy_steps_compared", std::to_string(n_compared));
}

TEST_P(RealModel, FloatPathMatchesTheReference) {
  model_ = test::open_model(model_path_, pool_, true);
  ASSERT_NE(model_, nullptr);
  check_texts(kFloatPath, KvDType::kF32);
  check_greedy(kFloatPath, KvDType::kF32, kMinFloatSteps);
}

TEST_P(RealModel, ServingPathStaysWithinItsTolerance) {
  model_ = test::open_model(model_path_, pool_, false);
  ASSERT_NE(model_, nullptr);
  check_texts(kServingPath, KvDType::kBF16);
  check_greedy(kServingPath, KvDType::kBF16, GetParam().min_steps);
}

TEST_P(RealModel, OnePrefillEqualsTokenByToken) {
  model_ = test::open_model(model_path_, pool_, false);
  ASSERT_NE(model_, nullptr);
  auto ids = reference_.at("texts")[0].at("ids").get<std::vector<int32_t>>();
  ids.resize(40);
  const auto vocab = static_cast<size_t>(model_->config().vocab_size);
  Session all(*model_, KvDType::kBF16, 1, 64);
  const Outputs whole = all.forward(0, ids);
  Session single(*model_, KvDType::kBF16, 1, 64);
  for (size_t i = 0; i < ids.size(); ++i) {
    const Outputs one = single.forward(0, {ids[i]});
    ASSERT_EQ(std::memcmp(one.logits.data(), whole.logits.data() + i * vocab, vocab * sizeof(float)), 0) << i;
  }
}

const RealCase kRealCases[] = {
    {"smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf", 240},
    {"gemma-3-270m", "gemma-3-270m-q4_k_m.gguf", 290},
    {"qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", 320},
};

INSTANTIATE_TEST_SUITE_P(Models, RealModel, testing::ValuesIn(kRealCases), [](const auto& param) {
  std::string name = param.param.reference;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '-' || c == '.'; }, '_');
  return name;
});

}  // namespace
}  // namespace dspark
