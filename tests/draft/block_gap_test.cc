// Sequences whose first context rows were never made: they draft from the rows behind the gap.

#include <gtest/gtest.h>

#include "draft/draft_harness.h"
#include "draft/random_draft.h"

namespace dspark {
namespace {

constexpr int32_t kRows = 200;

class BlockGap : public testing::Test {
 protected:
  std::unique_ptr<BlockDrafter> make(bool float_activations) {
    BlockDrafterOptions options = test::exact_options();
    options.context_length = 400;
    options.float_activations = float_activations;
    auto drafter =
        BlockDrafter::create(random_.checkpoint(), random_.target(pool_, float_activations), pool_, options);
    EXPECT_TRUE(drafter.ok()) << drafter.status().to_string();
    return std::move(*drafter);
  }
  /// Rows [first, first + n) of the features as those of positions `at` and behind.
  void commit(BlockDrafter& drafter, int32_t slot, int32_t at, int32_t first, int32_t n,
              std::span<const int32_t> pages = {}) {
    const std::vector<float> rows = test::feature_rows(features_, n_taps(), config_.dim, first, n);
    CommitEvent event = test::feature_event(slot, at, rows, n_taps(), config_.dim);
    event.pages = pages;
    drafter.commit({&event, 1});
  }
  void expect_near(const DraftBlock& a, const DraftBlock& b) {
    ASSERT_EQ(a.n_tokens, b.n_tokens);
    EXPECT_EQ(a.n_tokens[0], 5);
    EXPECT_EQ(a.tokens, b.tokens);
    for (size_t i = 0; i < a.confidence_logits.size(); ++i) {
      EXPECT_NEAR(a.confidence_logits[i], b.confidence_logits[i], 1e-3) << i;
    }
  }
  int32_t n_taps() const { return static_cast<int32_t>(config_.taps.size()); }

  ThreadPool pool_{2};
  SamplingParams sampling_{.temperature = 0.0f};  // draws depend on the position
  DraftConfig config_ = test::small_draft_config();
  test::RandomDraft random_{config_, DType::kQ8_0, 3};
  std::vector<float> features_ = test::random_features(config_, kRows, 9);
};

// Rotary positions are relative: the rows behind a gap say what they would say as a text of their own.
TEST_F(BlockGap, DraftsAreThoseOfTheRowsBehindIt) {
  const auto gap = make(true), own = make(true);
  commit(*gap, 0, 0, 0, 20);
  commit(*gap, 0, 40, 40, 30);  // rows 20 to 39 never come: the sequence begins with row 64
  EXPECT_EQ(gap->first_row(0), 64);
  commit(*gap, 0, 70, 70, 30);
  commit(*own, 0, 0, 64, 36);
  expect_near(test::propose_one(*gap, 0, 7, 100, 5, sampling_),
              test::propose_one(*own, 0, 7, 36, 5, sampling_));
  // A second gap moves the beginning on.
  commit(*gap, 0, 128, 128, 40);
  EXPECT_EQ(gap->first_row(0), 128);
  own->release(0);
  commit(*own, 0, 0, 128, 40);
  expect_near(test::propose_one(*gap, 0, 3, 168, 5, sampling_),
              test::propose_one(*own, 0, 3, 40, 5, sampling_));
  gap->release(0);
  EXPECT_EQ(gap->first_row(0), 0);
}

TEST_F(BlockGap, BitsDoNotDependOnWhenRowsCome) {
  const auto whole = make(false), pieces = make(false);
  commit(*whole, 1, 10, 10, 140);
  for (int32_t n = 10; n < 150; n += 7) commit(*pieces, 1, n, n, std::min(7, 150 - n));
  EXPECT_EQ(whole->first_row(1), 32);
  EXPECT_EQ(pieces->first_row(1), 32);
  const DraftBlock a = test::propose_one(*whole, 1, 7, 150, 5, sampling_);
  const DraftBlock b = test::propose_one(*pieces, 1, 7, 150, 5, sampling_);
  EXPECT_EQ(a.n_tokens[0], 5);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_TRUE(test::same_bits(a.confidence_logits, b.confidence_logits));
}

TEST_F(BlockGap, NoDraftsBeforeThereIsARow) {
  const auto drafter = make(false);
  commit(*drafter, 0, 33, 33, 31);  // up to the end of the page that the gap ends in
  EXPECT_EQ(test::propose_one(*drafter, 0, 7, 64, 5, sampling_).n_tokens[0], 0);
  EXPECT_EQ(drafter->n_rows_waiting(0), 0);
  commit(*drafter, 0, 64, 64, 1);
  EXPECT_EQ(test::propose_one(*drafter, 0, 7, 65, 5, sampling_).n_tokens[0], 5);
  // What came before is not enough where the newest rows are missing.
  EXPECT_EQ(test::propose_one(*drafter, 0, 7, 70, 5, sampling_).n_tokens[0], 0);
}

TEST_F(BlockGap, SharedPagesMayHaveNoRows) {
  const auto shared = make(false), own = make(false);
  ASSERT_TRUE(shared->use_pages(8).ok());
  const std::vector<int32_t> first = {3, 1, 4}, second = {3, 1, 6};
  commit(*shared, 0, 0, 0, 64, first);
  shared->complete_rows();
  AttachEvent event;
  const std::vector<int32_t> tokens(64, 5);
  event.slot = 1;
  event.tokens = tokens;
  event.pages = std::span(second).first(2);
  event.n_pages_without_rows = 1;
  shared->attach(event);
  commit(*shared, 1, 64, 64, 10, second);
  commit(*own, 1, 20, 20, 54);
  EXPECT_EQ(shared->first_row(1), 32);
  EXPECT_EQ(own->first_row(1), 32);
  DraftRequest request{1, 7, 74, 5, &sampling_};
  request.pages = second;
  DraftBlock a;
  a.reset(1, 5);
  ASSERT_TRUE(shared->propose({&request, 1}, a).ok());
  const DraftBlock b = test::propose_one(*own, 1, 7, 74, 5, sampling_);
  EXPECT_EQ(a.n_tokens[0], 5);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_TRUE(test::same_bits(a.confidence_logits, b.confidence_logits));
}

}  // namespace
}  // namespace dspark
