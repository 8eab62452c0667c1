// Context rows that wait for a pass while nothing is drafted: their bits are those of rows written at once,
// and those of a sequence that ends are never written.

#include <gtest/gtest.h>

#include "draft/draft_harness.h"
#include "draft/random_draft.h"

namespace dspark {
namespace {

class BlockWaiting : public testing::Test {
 protected:
  std::unique_ptr<BlockDrafter> make() {
    BlockDrafterOptions options = test::exact_options();
    options.context_length = 400;
    options.float_activations = false;
    auto drafter = BlockDrafter::create(random_.checkpoint(), random_.target(pool_, false), pool_, options);
    EXPECT_TRUE(drafter.ok()) << drafter.status().to_string();
    return std::move(*drafter);
  }
  void commit(BlockDrafter& drafter, int32_t slot, int32_t first, int32_t n,
              std::span<const int32_t> pages = {}) {
    const std::vector<float> rows = test::feature_rows(features_, n_taps(), config_.dim, first, n);
    CommitEvent event = test::feature_event(slot, first, rows, n_taps(), config_.dim);
    event.pages = pages;
    drafter.commit({&event, 1});
  }
  void expect_same_rows(const BlockDrafter& a, const BlockDrafter& b, int32_t slot) {
    for (int32_t layer = 0; layer < config_.n_layers; ++layer) {
      for (const bool values : {false, true}) {
        EXPECT_TRUE(test::same_bits(test::cached_rows(a, slot, layer, values),
                                    test::cached_rows(b, slot, layer, values)));
      }
    }
  }
  int32_t n_taps() const { return static_cast<int32_t>(config_.taps.size()); }

  ThreadPool pool_{2};
  DraftConfig config_ = test::small_draft_config();
  test::RandomDraft random_{config_, DType::kQ8_0, 3};
  std::vector<float> features_ = test::random_features(config_, 300, 9);
};

TEST_F(BlockWaiting, RowsThatWaitedAreThoseWrittenAtOnce) {
  const auto waits = make(), at_once = make();
  for (const int32_t slot : {0, 2}) {
    commit(*waits, slot, 0, 80);
    commit(*at_once, slot, 0, 80);
  }
  int32_t longest_wait = 0;
  SamplingParams sampling;
  for (int32_t n = 80; n < 290; ++n) {
    for (const int32_t slot : {0, 2}) {
      commit(*waits, slot, n, 1);
      commit(*at_once, slot, n, 1);
    }
    at_once->complete_rows();
    EXPECT_EQ(at_once->n_rows_waiting(0) + at_once->n_rows_waiting(2), 0);
    EXPECT_EQ(at_once->n_rows_in_pages(0), n + 1);
    EXPECT_EQ(waits->n_rows_in_pages(0) + waits->n_rows_waiting(0), n + 1);
    longest_wait = std::max(longest_wait, waits->n_rows_waiting(2));
    if (n != 150 && n != 289) continue;
    EXPECT_GT(waits->n_rows_waiting(0), 0);
    const DraftBlock drafted = test::propose_one(*waits, 0, 7, n + 1, 5, sampling);
    const DraftBlock expected = test::propose_one(*at_once, 0, 7, n + 1, 5, sampling);
    EXPECT_EQ(waits->n_rows_waiting(0) + waits->n_rows_waiting(2), 0);
    EXPECT_EQ(drafted.n_tokens[0], 5);
    EXPECT_EQ(drafted.tokens, expected.tokens);
    EXPECT_TRUE(test::same_bits(drafted.confidence_logits, expected.confidence_logits));
    expect_same_rows(*waits, *at_once, 0);
    expect_same_rows(*waits, *at_once, 2);
  }
  EXPECT_EQ(longest_wait, 32);  // the 64th row of both is the last to wait for the next commit
}

// What a prompt leaves waiting is written when the step is over, or else with the next commit.
TEST_F(BlockWaiting, ManyRowsWaitUntilTheStepIsOver) {
  const auto drafter = make();
  commit(*drafter, 0, 0, 100);
  EXPECT_EQ(drafter->n_rows_waiting(0), 100);
  drafter->catch_up();
  EXPECT_EQ(drafter->n_rows_waiting(0), 0);
  commit(*drafter, 0, 100, 63);
  drafter->catch_up();
  EXPECT_EQ(drafter->n_rows_waiting(0), 63) << "not enough";
  commit(*drafter, 0, 163, 1);
  commit(*drafter, 0, 164, 1);
  EXPECT_EQ(drafter->n_rows_waiting(0), 1);
}

TEST_F(BlockWaiting, WhoEndsWritesNothingMore) {
  const auto drafter = make(), alone = make();
  ASSERT_TRUE(drafter->use_pages(8).ok());
  ASSERT_TRUE(alone->use_pages(8).ok());
  const std::vector<int32_t> pages = {3, 1}, others = {1, 3};
  commit(*drafter, 0, 0, 40, pages);
  commit(*drafter, 1, 0, 20, std::vector<int32_t>{5});
  EXPECT_EQ(drafter->n_rows_waiting(0), 40);
  drafter->release(0);
  EXPECT_EQ(drafter->n_rows_waiting(0), 0);
  EXPECT_EQ(drafter->n_rows_waiting(1), 20);
  // The pages go to another sequence, whose rows come in the same pass as those left over.
  commit(*drafter, 2, 0, 50, others);
  commit(*alone, 2, 0, 50, others);
  drafter->complete_rows();
  alone->complete_rows();
  EXPECT_EQ(drafter->n_rows_in_pages(2), 50);
  EXPECT_EQ(drafter->n_rows_in_pages(1), 20);
  expect_same_rows(*drafter, *alone, 2);
}

}  // namespace
}  // namespace dspark
