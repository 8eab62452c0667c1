// What drafters without a confidence head say about their drafts must not look at the draft it is about.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "draft/draft_harness.h"
#include "draft/ngram.h"
#include "draft/random_draft.h"

namespace dspark {
namespace {

TEST(DraftEvidence, DependsOnTheDraftsBeforeAndNotOnTheDraftItself) {
  ThreadPool pool(2);
  DraftConfig config = test::small_draft_config();
  config.confidence = config.confidence_with_markov = false;
  test::RandomDraft random(config, DType::kF32, 3);
  const auto drafter =
      BlockDrafter::create(random.checkpoint(), random.target(pool, true), pool, test::exact_options());
  ASSERT_TRUE(drafter.ok()) << drafter.status().to_string();
  const auto features = test::random_features(random.config(), 30, 8);
  const auto n_taps = static_cast<int32_t>(random.config().taps.size());
  const CommitEvent event = test::feature_event(0, 0, features, n_taps, random.config().dim);
  (*drafter)->commit({&event, 1});
  std::map<std::vector<int32_t>, float> by_prefix;  // drafts before -> evidence
  std::set<int32_t> first_drafts;
  std::set<float> second_evidence;
  SamplingParams sampling;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    sampling.seed = seed;
    const DraftBlock block = test::propose_one(**drafter, 0, 77, 30, 3, sampling, AcceptRule::kRejection);
    EXPECT_FALSE(block.has_confidence);
    ASSERT_EQ(block.evidence_kind, DraftEvidence::kPeakLogit);
    std::vector<int32_t> prefix;
    for (int32_t k = 0; k < 3; ++k) {
      const float evidence = block.evidence[block.at(0, k)];
      EXPECT_TRUE(std::isfinite(evidence));
      const auto [known, is_new] = by_prefix.emplace(prefix, evidence);
      EXPECT_EQ(known->second, evidence) << "draft " << k << " changed what is said about it";
      prefix.push_back(block.drafts(0)[static_cast<size_t>(k)]);
    }
    first_drafts.insert(prefix[0]);
    second_evidence.insert(block.evidence[block.at(0, 1)]);
  }
  EXPECT_GT(first_drafts.size(), 5u);  // drafts did differ, and what follows depends on them
  EXPECT_GT(second_evidence.size(), 5u);
}

TEST(DraftEvidence, PeakLogitIsThatOfTheLargestProbability) {
  PickScratch scratch;
  const std::vector<float> few = {0.0f, 1.0f, -2.0f};
  PickRow row{few, {}, {}};
  const double others = std::exp(-1.0) + std::exp(-3.0);
  EXPECT_NEAR(peak_logit(row, scratch), -std::log(others), 1e-5);
  const std::vector<float> alone = {5.0f};
  row = {alone, {}, {}};
  EXPECT_EQ(peak_logit(row, scratch), 12.0f);
  std::vector<float> many(10000, -100.0f);  // judged by chunks: one large value in each of two
  many[10] = many[9000] = 1.0f;
  row = {many, {}, {}};
  EXPECT_NEAR(peak_logit(row, scratch), 0.0, 1e-5);
  EXPECT_FALSE(row.chunk_max.empty());
}

TEST(DraftProbability, IsTheSoftmaxAtTheToken) {
  PickScratch scratch;
  const std::vector<float> logits = {0.0f, 1.0f, -2.0f};
  const std::vector<int32_t> ids = {4, 7, 20};
  const double sum = 1.0 + std::exp(1.0) + std::exp(-2.0);
  EXPECT_NEAR(row_probability({logits, {}, {}}, 1, scratch), std::exp(1.0) / sum, 1e-6);
  EXPECT_NEAR(row_probability({logits, {}, ids}, 20, scratch), std::exp(-2.0) / sum, 1e-6);
  for (const int32_t unknown : {-1, 1, 21}) {
    EXPECT_EQ(row_probability({logits, {}, ids}, unknown, scratch), -1.0f);
  }
  EXPECT_EQ(row_probability({logits, {}, {}}, 3, scratch), -1.0f);
}

TEST(DraftEvidence, LookupTellsTheLengthOfItsMatch) {
  NgramDrafter drafter(NgramOptions{});
  const std::vector<int32_t> tokens = {1, 2, 3, 4, 5, 9, 9, 2, 3, 4};
  CommitEvent event;
  event.tokens = tokens;
  drafter.commit({&event, 1});
  const DraftRequest request{.slot = 0, .anchor = 4, .position = 9, .max_tokens = 3};
  DraftBlock block;
  block.reset(1, 3);
  ASSERT_TRUE(drafter.propose({&request, 1}, block).ok());
  ASSERT_GT(block.n_tokens[0], 0);
  EXPECT_EQ(block.drafts(0)[0], 5);
  EXPECT_EQ(block.evidence_kind, DraftEvidence::kMatchLength);
  EXPECT_EQ(block.evidence[0], 3.0f);
}

}  // namespace
}  // namespace dspark
