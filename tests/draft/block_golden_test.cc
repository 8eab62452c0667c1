// Every round of the reference drafters, tensor by tensor, in fp32.

#include <gtest/gtest.h>

#include "draft/draft_harness.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

using test::ExpectedDraft;
using test::GoldenDraft;
using test::max_abs_diff;

constexpr float kTolerance = 2e-4f;  // of the reference set, for fp32

class BlockGolden : public testing::TestWithParam<GoldenDraft> {
 protected:
  void SetUp() override {
    drafter_ = test::load_block_draft(GetParam(), target_, pool_, test::exact_options());
    ASSERT_NE(drafter_, nullptr);
    drafter_->set_trace(&trace_);
    n_taps_ = static_cast<int32_t>(drafter_->config().taps.size());
    dim_ = drafter_->config().dim;
  }

  // Features of round i; context rows end up at positions below its anchor.
  void commit(int32_t round_idx) {
    const std::vector<float> features = expected_.features(round_idx, n_taps_, dim_);
    CommitEvent event = test::feature_event(0, 0, features, n_taps_, dim_);
    event.feature_position = expected_.rounds()[static_cast<size_t>(round_idx)].n - event.n_features;
    drafter_->commit({&event, 1});
  }

  DraftBlock propose(int32_t round_idx) {
    const test::ExpectedRound& round = expected_.rounds()[static_cast<size_t>(round_idx)];
    SamplingParams greedy;
    greedy.temperature = 0.0f;
    return test::propose_one(*drafter_, 0, round.anchor, round.n, drafter_->max_block(), greedy);
  }

  ThreadPool pool_{2};
  test::TestTarget target_{GetParam().target, pool_, true};
  ExpectedDraft expected_{GetParam().folder};
  std::unique_ptr<BlockDrafter> drafter_;
  DraftTrace trace_;
  int32_t n_taps_ = 0;
  int32_t dim_ = 0;
};

TEST_P(BlockGolden, FirstRoundInsideOut) {
  commit(0);
  EXPECT_LE(max_abs_diff(trace_.context_rows, expected_.floats("round0.context_rows")), kTolerance);
  for (int32_t layer = 0; layer < drafter_->config().n_layers; ++layer) {
    const std::string name = std::to_string(layer);
    EXPECT_LE(
        max_abs_diff(test::cached_rows(*drafter_, 0, layer, false), expected_.floats("r0.cache_k" + name)),
        kTolerance);
    EXPECT_LE(
        max_abs_diff(test::cached_rows(*drafter_, 0, layer, true), expected_.floats("r0.cache_v" + name)),
        kTolerance);
  }
  propose(0);
  const size_t n = trace_.layer_out.size() / static_cast<size_t>(drafter_->config().n_layers);
  for (size_t layer = 0; layer < static_cast<size_t>(drafter_->config().n_layers); ++layer) {
    const auto first = trace_.layer_out.begin() + static_cast<std::ptrdiff_t>(layer * n);
    EXPECT_LE(max_abs_diff({first, first + static_cast<std::ptrdiff_t>(n)},
                           expected_.floats("r0.layer" + std::to_string(layer) + "_out")),
              kTolerance)
        << "layer " << layer;
  }
  // The block's own rows are gone again.
  EXPECT_EQ(drafter_->context_rows(0), expected_.rounds()[0].n);
  EXPECT_LE(max_abs_diff(test::cached_rows(*drafter_, 0, 0, false), expected_.floats("r0.cache_k0")),
            kTolerance);
}

TEST_P(BlockGolden, EveryRound) {
  ASSERT_GE(expected_.rounds().size(), 3u);
  for (size_t i = 0; i < expected_.rounds().size(); ++i) {
    SCOPED_TRACE(testing::Message() << "round " << i);
    const std::string prefix = "r" + std::to_string(i) + ".";
    commit(static_cast<int32_t>(i));
    const DraftBlock block = propose(static_cast<int32_t>(i));
    EXPECT_LE(max_abs_diff(trace_.hidden, expected_.floats(prefix + "hidden")), kTolerance);
    EXPECT_LE(max_abs_diff(trace_.base_logits, expected_.floats(prefix + "U")), kTolerance);
    EXPECT_LE(max_abs_diff(trace_.step_logits, expected_.floats(prefix + "Z")), kTolerance);
    const std::span<const int32_t> drafts = block.drafts(0);
    EXPECT_EQ(std::vector<int32_t>(drafts.begin(), drafts.end()), expected_.rounds()[i].drafts);
    EXPECT_EQ(block.has_confidence, expected_.has(prefix + "confidence_logits"));
    if (!block.has_confidence) continue;
    EXPECT_LE(max_abs_diff(trace_.confidence_logits, expected_.floats(prefix + "confidence_logits")),
              kTolerance);
    EXPECT_EQ(block.confidence_logits, trace_.confidence_logits);
    for (size_t k = 0; k < drafts.size(); ++k) {
      EXPECT_NEAR(block.confidence[k], 1.0 / (1.0 + std::exp(-double{block.confidence_logits[k]})), 1e-6);
    }
  }
}

TEST_P(BlockGolden, TeacherForced) {
  commit(0);
  for (const char* tag : {"tf_target", "tf_other"}) {
    SCOPED_TRACE(tag);
    trace_.forced_tokens = expected_.tokens(std::string(tag) + ".tokens");
    propose(0);
    EXPECT_LE(max_abs_diff(trace_.step_logits, expected_.floats(std::string(tag) + ".Z")), kTolerance);
    if (!drafter_->config().confidence) continue;
    EXPECT_LE(
        max_abs_diff(trace_.confidence_logits, expected_.floats(std::string(tag) + ".confidence_logits")),
        kTolerance);
  }
}

std::string case_name(const testing::TestParamInfo<GoldenDraft>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Drafts, BlockGolden, testing::ValuesIn(test::golden_block_drafts()), case_name);

}  // namespace
}  // namespace dspark
