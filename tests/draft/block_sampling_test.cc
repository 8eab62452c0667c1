// How drafts are picked: seeded like the target, or sampled with their distributions kept; shortlists;
// calibration.

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "draft/draft_harness.h"
#include "draft/random_draft.h"
#include "speculate/logits_processor.h"

namespace dspark {
namespace {

using test::RandomDraft;

class BlockSampling : public testing::Test {
 protected:
  std::unique_ptr<BlockDrafter> make(DraftConfig config, int32_t shortlist = 0) {
    random_ = std::make_unique<RandomDraft>(std::move(config), DType::kF32, 3);
    BlockDrafterOptions options = test::exact_options();
    options.shortlist = shortlist;
    auto drafter = BlockDrafter::create(random_->checkpoint(), random_->target(pool_, true), pool_, options);
    EXPECT_TRUE(drafter.ok()) << drafter.status().to_string();
    const auto n_taps = static_cast<int32_t>(random_->config().taps.size());
    const std::vector<float> features = test::random_features(random_->config(), kLength, 8);
    const CommitEvent event = test::feature_event(0, 0, features, n_taps, random_->config().dim);
    (*drafter)->commit({&event, 1});
    (*drafter)->set_trace(&trace_);
    return std::move(*drafter);
  }

  std::vector<float> logits_row(size_t k) const {
    const auto n = static_cast<size_t>(random_->config().draft_vocab_size);
    const auto at = trace_.step_logits.begin() + static_cast<std::ptrdiff_t>(k * n);
    return {at, at + static_cast<std::ptrdiff_t>(n)};
  }

  static constexpr int32_t kLength = 30;
  static constexpr int32_t kAnchor = 77;
  ThreadPool pool_{2};
  std::unique_ptr<RandomDraft> random_;
  DraftTrace trace_;
};

DraftConfig reduced() {
  DraftConfig c = test::small_draft_config();
  test::reduce_vocabulary(c, 300);
  return c;
}

TEST_F(BlockSampling, CoupledDraftsAreTheTargetsOwnPicksFromTheDraftDistribution) {
  const auto drafter = make(reduced());
  SamplerScratch scratch;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    SamplingParams sampling;
    sampling.seed = seed;
    sampling.temperature = seed % 2 == 0 ? 1.0f : 0.5f;
    if (seed % 4 == 1) sampling.top_k = 5;
    if (seed % 4 == 2) sampling.top_p = 0.7f;
    if (seed % 8 == 3) sampling.min_p = 0.1f;
    const DraftBlock block = test::propose_one(*drafter, 0, kAnchor, kLength, 5, sampling);
    EXPECT_EQ(block.draft_vocab, 0);
    for (size_t k = 0; k < 5; ++k) {
      std::vector<float> row(600, -INFINITY);  // the draft's logits at the target's ids
      const std::vector<float> z = logits_row(k);
      for (size_t v = 0; v < z.size(); ++v) row[static_cast<size_t>(random_->config().d2t[v])] = z[v];
      const auto position = kLength + 1 + static_cast<int64_t>(k);
      EXPECT_EQ(block.drafts(0)[k], choose_token(row, sampling, nullptr, position, scratch));
    }
  }
}

TEST_F(BlockSampling, KeepsTheDistributionItSampledFrom) {
  const auto drafter = make(reduced());
  SamplingParams sampling;
  sampling.temperature = 0.8f;
  std::map<int32_t, int> counts;
  std::vector<float> first;
  constexpr int kDraws = 4000;
  for (int i = 0; i < kDraws; ++i) {
    sampling.seed = static_cast<uint64_t>(i);
    const DraftBlock block =
        test::propose_one(*drafter, 0, kAnchor, kLength, 3, sampling, AcceptRule::kRejection);
    ASSERT_EQ(block.draft_vocab, 300);
    ASSERT_EQ(block.has_probs[0], 1);
    ++counts[block.drafts(0)[0]];
    if (i > 2) continue;
    for (int32_t k = 0; k < 3; ++k) {
      const DraftDistribution q = block.distribution(0, k);
      const std::vector<float> z = logits_row(static_cast<size_t>(k));
      const float largest = *std::max_element(z.begin(), z.end());
      double sum = 0.0, kept = 0.0;
      for (float v : z) sum += std::exp((static_cast<double>(v) - static_cast<double>(largest)) / 0.8);
      for (size_t v = 0; v < z.size(); ++v) {
        const double p = std::exp((static_cast<double>(z[v]) - static_cast<double>(largest)) / 0.8) / sum;
        EXPECT_NEAR(static_cast<double>(q.probs[v]), p, 1e-6);
        kept += static_cast<double>(q.probs[v]);
      }
      EXPECT_NEAR(kept, 1.0, 1e-5);
      EXPECT_GT(draft_probability(q, block.drafts(0)[static_cast<size_t>(k)]), 0.0);
    }
    first.assign(block.distribution(0, 0).probs.begin(), block.distribution(0, 0).probs.end());
  }
  // Pearson's statistic over ids expected at least ten times; for some 60 of them 140 is beyond 1e-7.
  double chi_square = 0.0;
  int n_cells = 0;
  for (size_t v = 0; v < first.size(); ++v) {
    const double expected = static_cast<double>(first[v]) * kDraws;
    if (expected < 10.0) continue;
    const double d = counts[random_->config().d2t[v]] - expected;
    chi_square += d * d / expected;
    ++n_cells;
  }
  EXPECT_GT(n_cells, 20);
  EXPECT_LT(chi_square, n_cells + 8.0 * std::sqrt(2.0 * n_cells));
}

TEST_F(BlockSampling, FiltersShapeTheDistribution) {
  const auto drafter = make(reduced());
  SamplingParams sampling;
  sampling.top_k = 4;
  const DraftBlock block = test::propose_one(*drafter, 0, kAnchor, kLength, 5, sampling, AcceptRule::kBlock);
  for (int32_t k = 0; k < 5; ++k) {
    const DraftDistribution q = block.distribution(0, k);
    EXPECT_EQ(std::count_if(q.probs.begin(), q.probs.end(), [](float p) { return p > 0.0f; }), 4);
    double sum = 0.0;
    for (float p : q.probs) sum += static_cast<double>(p);
    EXPECT_NEAR(sum, 1.0, 1e-6);
    EXPECT_GT(draft_probability(q, block.drafts(0)[static_cast<size_t>(k)]), 0.0);
  }
}

TEST_F(BlockSampling, NoDistributionsForGreedyOrCoupledNeighbours) {
  const auto drafter = make(test::small_draft_config());
  SamplingParams greedy, warm;
  greedy.temperature = 0.0f;
  const auto n_taps = static_cast<int32_t>(random_->config().taps.size());
  const std::vector<float> features = test::random_features(random_->config(), kLength, 9);
  for (int32_t slot : {1, 2}) {
    const CommitEvent event = test::feature_event(slot, 0, features, n_taps, random_->config().dim);
    drafter->commit({&event, 1});
  }
  const DraftRequest requests[] = {{0, kAnchor, kLength, 5, &greedy, AcceptRule::kRejection},
                                   {1, kAnchor, kLength, 5, &warm, AcceptRule::kRejection},
                                   {2, kAnchor, kLength, 5, &warm, AcceptRule::kCoupled}};
  DraftBlock block;
  block.reset(3, 5);
  ASSERT_TRUE(drafter->propose(requests, block).ok());
  EXPECT_EQ(block.has_probs, (std::vector<uint8_t>{0, 1, 0}));
  EXPECT_TRUE(block.distribution(0, 0).probs.empty());
  EXPECT_EQ(block.distribution(1, 0).probs.size(), 600u);
}

TEST_F(BlockSampling, ShortlistKeepsTheBestAndNothingElse) {
  constexpr int32_t kShort = 24;
  const auto exact = make(reduced());
  SamplingParams sampling;
  test::propose_one(*exact, 0, kAnchor, kLength, 1, sampling);
  const std::vector<float> base = trace_.base_logits, full = logits_row(0);
  std::vector<size_t> order(base.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return base[a] > base[b]; });
  const auto drafter = make(reduced(), kShort);
  for (AcceptRule rule : {AcceptRule::kCoupled, AcceptRule::kRejection}) {
    const DraftBlock block = test::propose_one(*drafter, 0, kAnchor, kLength, 1, sampling, rule);
    const std::vector<float> listed = logits_row(0);
    double sum = 0.0;
    for (size_t i = 0; i < order.size(); ++i) {
      const size_t v = order[i];
      if (i < kShort) {
        EXPECT_NEAR(listed[v], full[v], 1e-4);
      } else {
        EXPECT_EQ(listed[v], -INFINITY);
      }
      if (rule == AcceptRule::kCoupled) continue;
      const float p = block.distribution(0, 0).probs[v];
      EXPECT_EQ(p > 0.0f, i < kShort);
      sum += static_cast<double>(p);
    }
    if (rule == AcceptRule::kRejection) {
      EXPECT_NEAR(sum, 1.0, 1e-5);
    }
  }
}

TEST_F(BlockSampling, TiesAndAConstantRowPickTheLowestId) {
  std::vector<float> row(700, 1.0f);
  PickScratch scratch;
  EXPECT_EQ(pick_greedy({row, {}, {}}, scratch), 0);
  row[300] = row[600] = 2.0f;
  EXPECT_EQ(pick_greedy({row, {}, {}}, scratch), 300);
  std::vector<float> probs(row.size());
  SamplingParams sampling;
  std::fill(row.begin(), row.end(), -INFINITY);
  EXPECT_EQ(pick_sampled({row, {}, {}}, sampling, 0.5, probs, scratch), 0);
  EXPECT_EQ(probs[0], 1.0f);
  EXPECT_EQ(pick_coupled({row, {}, {}}, sampling, 3, scratch), 0);
}

TEST_F(BlockSampling, CalibrationDividesLogitsByPosition) {
  const auto drafter = make(test::small_draft_config());
  const double temperatures[] = {2.0, 0.5, 1.0};
  ASSERT_TRUE(drafter->set_calibration(temperatures).ok());
  SamplingParams sampling;
  const DraftBlock block = test::propose_one(*drafter, 0, kAnchor, kLength, 5, sampling);
  for (size_t k = 0; k < 5; ++k) {
    const double z = static_cast<double>(block.confidence_logits[k]) / (k < 3 ? temperatures[k] : 1.0);
    EXPECT_NEAR(static_cast<double>(block.confidence[k]), 1.0 / (1.0 + std::exp(-z)), 1e-6);
  }
  const double bad[] = {1.0, 0.0};
  EXPECT_EQ(drafter->set_calibration(bad).code(), StatusCode::kInvalidArgument);
  DraftConfig without = test::small_draft_config();
  without.confidence = without.confidence_with_markov = false;
  EXPECT_EQ(make(without)->set_calibration(temperatures).code(), StatusCode::kUnsupported);
}

}  // namespace
}  // namespace dspark
