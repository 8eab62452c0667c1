// Logits, residual streams and greedy text of tiny checkpoints, against transformers in float32; the fixtures
// tiny_* against a reference in double precision (tests/data/models/make_tiny_fixtures.py).

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/harness.h"
#include "support/case_count.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

using test::ExpectedSequence;
using test::GoldenCase;
using test::Outputs;
using test::Session;

constexpr float kLogitTolerance = 2e-4f;
constexpr float kHiddenTolerance = 2e-4f;  // relative to the largest magnitude of the layer
// Rounding keys and values to bf16 alone moves peaked attention by this much (the logits' spread is about 3).
constexpr float kServingLogitTolerance = 0.5f;
constexpr double kServingMeanTolerance = 0.05;
constexpr float kClearMargin = 1e-3f;  // below it two float engines may choose differently
constexpr int kMaxPositions = 512;

class GoldenModel : public testing::TestWithParam<GoldenCase> {
 protected:
  void load(bool float_activations) {
    model_ = test::open_model(GetParam().model, pool_, float_activations);
    ASSERT_NE(model_, nullptr);
    std::vector<int32_t> layers(static_cast<size_t>(model_->config().n_layers) + 1);
    std::iota(layers.begin(), layers.end(), 0);
    model_->set_capture_layers(layers);
    expected_ = test::read_expected(GetParam().expected);
  }

  ThreadPool pool_{2};
  std::unique_ptr<TargetModel> model_;
  std::vector<ExpectedSequence> expected_;
};

void expect_streams(const ExpectedSequence& expected, const Outputs& got, size_t n_streams) {
  ASSERT_EQ(got.captured.size(), expected.hidden.size());
  const size_t n = expected.hidden.size() / n_streams;
  for (size_t stream = 0; stream < n_streams; ++stream) {
    const float* want = expected.hidden.data() + stream * n;
    const float scale = test::max_abs(want, n);
    EXPECT_LE(test::max_abs_diff(got.captured.data() + stream * n, want, n), kHiddenTolerance * scale)
        << "residual stream " << stream;
  }
}

// DeepSeek V4 has several residual streams; a drafter (and this test) sees their mean.
void average_streams(const ModelConfig& config, ExpectedSequence& expected) {
  const auto n_streams = static_cast<size_t>(config.v4.n_streams), dim = static_cast<size_t>(config.dim);
  if (n_streams == 0) return;
  std::vector<float> means;
  for (size_t at = 0; at < expected.hidden.size(); at += n_streams * dim) {
    for (size_t i = 0; i < dim; ++i) {
      float sum = 0.0f;
      for (size_t s = 0; s < n_streams; ++s) sum += expected.hidden[at + s * dim + i];
      means.push_back(sum / static_cast<float>(n_streams));
    }
  }
  expected.hidden = means;
}

TEST_P(GoldenModel, LogitsAndStreamsMatchTheReference) {
  load(true);
  for (const ExpectedSequence& expected : expected_) {
    SCOPED_TRACE(testing::Message() << "sequence of " << expected.input_ids.size());
    Session session(*model_, KvDType::kF32, 1, kMaxPositions);
    const Outputs got = session.forward(0, expected.input_ids);
    ASSERT_EQ(got.logits.size(), expected.logits.size());
    EXPECT_LE(test::max_abs_diff(got.logits.data(), expected.logits.data(), got.logits.size()),
              kLogitTolerance);
    ASSERT_EQ(got.final_norm.size(), expected.final_norm.size());
    const size_t n = got.final_norm.size();
    EXPECT_LE(test::max_abs_diff(got.final_norm.data(), expected.final_norm.data(), n),
              kHiddenTolerance * test::max_abs(expected.final_norm.data(), n));
    ExpectedSequence means = expected;
    average_streams(model_->config(), means);
    expect_streams(means, got, static_cast<size_t>(model_->config().n_layers) + 1);
  }
}

TEST_P(GoldenModel, GreedyTextMatchesWhileTheMarginIsClear) {
  load(true);
  const auto vocab = static_cast<size_t>(model_->config().vocab_size);
  for (const ExpectedSequence& expected : expected_) {
    Session session(*model_, KvDType::kF32, 1, kMaxPositions);
    Outputs out = session.forward(0, expected.input_ids);
    for (size_t step = 0; step < expected.greedy_ids.size(); ++step) {
      if (expected.greedy_margin[step] < kClearMargin) break;
      const int32_t token = test::argmax(out.logits.data() + out.logits.size() - vocab, vocab);
      ASSERT_EQ(token, expected.greedy_ids[step])
          << "step " << step << " after " << expected.input_ids.size() << " tokens";
      out = session.forward(0, {token});
    }
  }
}

// Mixtures: a rounded router chooses other experts now and then, and then that row (and what attends to it)
// is far off. The typical row is as near as in a dense model: the median over rows of the mean difference.
void expect_typical_row_near(const ExpectedSequence& expected, const Outputs& got, size_t vocab) {
  std::vector<double> means;
  for (size_t at = 0; at < got.logits.size(); at += vocab) {
    double total = 0.0;
    for (size_t v = at; v < at + vocab; ++v) total += std::fabs(got.logits[v] - expected.logits[v]);
    means.push_back(total / static_cast<double>(vocab));
  }
  std::sort(means.begin(), means.end());
  EXPECT_LE(means[means.size() / 2], kServingMeanTolerance) << "of " << means.size() << " rows";
}

// The serving path keeps stored bf16 weights and a bf16 cache: near the reference, not on it.
TEST_P(GoldenModel, ServingPathStaysNearTheReference) {
  load(false);
  for (const ExpectedSequence& expected : expected_) {
    Session session(*model_, KvDType::kBF16, 1, kMaxPositions);
    const Outputs got = session.forward(0, expected.input_ids);
    ASSERT_EQ(got.logits.size(), expected.logits.size());
    const size_t n = got.logits.size();
    if (model_->config().moe.n_experts > 0) {
      expect_typical_row_near(expected, got, static_cast<size_t>(model_->config().vocab_size));
      continue;
    }
    double total = 0.0;
    for (size_t i = 0; i < n; ++i) total += std::fabs(got.logits[i] - expected.logits[i]);
    EXPECT_LE(total / static_cast<double>(n), kServingMeanTolerance);
    EXPECT_LE(test::max_abs_diff(got.logits.data(), expected.logits.data(), n), kServingLogitTolerance);
  }
}

// The whole reference set is run: a case less fails here, a case that the decoder does not know fails above.
TEST(GoldenSet, IsWhole) {
  if (test::golden_dir().empty()) GTEST_SKIP() << "no reference set beside this clone; the fixtures ran";
  size_t n_folders = 0, n_files = 0;
  for (const GoldenCase& golden : test::golden_cases()) {
    if (golden.name.starts_with("fixture_")) continue;
    ++(golden.name.ends_with("_gguf") ? n_files : n_folders);
  }
  test::report_cases("folders", n_folders);
  test::report_cases("gguf_files", n_files);
  EXPECT_GE(n_folders, 32u);
  EXPECT_GE(n_files, 9u);
}

std::string case_name(const testing::TestParamInfo<GoldenCase>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenModel, testing::ValuesIn(test::golden_cases()), case_name);

}  // namespace
}  // namespace dspark
