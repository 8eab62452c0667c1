// In steady state neither commit() nor propose() of a block drafter takes memory from the heap.

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "draft/draft_harness.h"
#include "draft/random_draft.h"
#include "support/allocation_count.h"

namespace dspark {
namespace {

/// A drafter as a server runs it, for texts of up to 1,000 tokens.
std::unique_ptr<BlockDrafter> quantised_drafter(test::RandomDraft& random, ThreadPool& pool,
                                                int32_t shortlist = 0) {
  BlockDrafterOptions options = test::exact_options();
  options.context_length = 1000;
  options.float_activations = false;
  options.shortlist = shortlist;
  return std::move(*BlockDrafter::create(random.checkpoint(), random.target(pool, false), pool, options));
}

class BlockAllocations : public testing::TestWithParam<int32_t> {};

TEST_P(BlockAllocations, SteadyRoundsAllocateNothing) {
  ThreadPool pool(2);
  DraftConfig config = test::small_draft_config();
  config.head = SequentialHead::kRnn;
  test::reduce_vocabulary(config, 300);
  test::RandomDraft random(config, DType::kQ8_0, 3);
  const auto drafter = quantised_drafter(random, pool, GetParam());
  const auto n_taps = static_cast<int32_t>(config.taps.size());
  const std::vector<float> features = test::random_features(config, 6, 1);
  SamplingParams sampling[4];
  sampling[0].temperature = 0.0f;
  sampling[1].top_p = 0.9f;
  sampling[2].top_k = 20;
  DraftBlock block;
  int64_t n_drafts = 0;
  const auto round = [&](int32_t n) {
    CommitEvent events[4];
    DraftRequest requests[4];
    for (int32_t slot = 0; slot < 4; ++slot) {
      events[slot] = test::feature_event(slot, n, features, n_taps, config.dim);
      const AcceptRule rule = slot == 3 ? AcceptRule::kRejection : AcceptRule::kCoupled;
      requests[slot] = {slot, 7, n + 6, 5, &sampling[slot], rule};
    }
    drafter->commit(events);
    block.reset(4, 5);
    ASSERT_TRUE(drafter->propose(requests, block).ok());
    for (size_t slot = 0; slot < 4; ++slot) n_drafts += block.n_tokens[slot];
  };
  int32_t n = 0;
  for (; n < 300; n += 6) round(n);  // every buffer reaches its size
  const int64_t before = test::n_allocations();
  for (; n < 600; n += 6) round(n);
  EXPECT_EQ(test::n_allocations() - before, 0);
  EXPECT_EQ(n_drafts, 100 * 4 * 5);
}

/// Requests of all lengths in changing company, some of which have short blocks.
TEST(BlockShortAllocations, SteadyRoundsAllocateNothing) {
  ThreadPool pool(2);
  DraftConfig config = test::small_draft_config();
  config.short_block = 2;
  config.head = SequentialHead::kRnn;
  test::reduce_vocabulary(config, 300);
  test::RandomDraft random(config, DType::kQ8_0, 3);
  const auto drafter = quantised_drafter(random, pool);
  const auto n_taps = static_cast<int32_t>(config.taps.size());
  const std::vector<float> features = test::random_features(config, 6, 1);
  SamplingParams greedy;
  greedy.temperature = 0.0f;
  DraftBlock block;
  int64_t n_missing = 0;
  const auto round = [&](int32_t n) {
    CommitEvent events[4];
    DraftRequest requests[4];
    for (int32_t slot = 0; slot < 4; ++slot) {
      events[slot] = test::feature_event(slot, n, features, n_taps, config.dim);
      requests[slot] = {slot, 7, n + 6, 1 + (slot + n / 6) % 5, &greedy};
    }
    drafter->commit(events);
    block.reset(4, 5);
    ASSERT_TRUE(drafter->propose(requests, block).ok());
    for (size_t slot = 0; slot < 4; ++slot) n_missing += requests[slot].max_tokens - block.n_tokens[slot];
  };
  int32_t n = 0;
  for (; n < 300; n += 6) round(n);
  const int64_t before = test::n_allocations();
  for (; n < 600; n += 6) round(n);
  EXPECT_EQ(test::n_allocations() - before, 0);
  EXPECT_EQ(n_missing, 0);
}

/// Single tokens of four sequences that do not draft: rows wait, and go in a pass now and then.
TEST(BlockWaitingAllocations, StepsAllocateNothing) {
  ThreadPool pool(2);
  const DraftConfig config = test::small_draft_config();
  test::RandomDraft random(config, DType::kQ8_0, 3);
  const auto drafter = quantised_drafter(random, pool);
  const auto n_taps = static_cast<int32_t>(config.taps.size());
  const std::vector<float> features = test::random_features(config, 1, 1);
  const auto step = [&](int32_t n) {
    CommitEvent events[4];
    for (int32_t slot = 0; slot < 4; ++slot)
      events[slot] = test::feature_event(slot, n, features, n_taps, config.dim);
    drafter->commit(events);
  };
  int32_t n = 0;
  for (; n < 100; ++n) step(n);
  const int64_t before = test::n_allocations();
  for (; n < 900; ++n) step(n);
  EXPECT_EQ(test::n_allocations() - before, 0);
  EXPECT_EQ(drafter->context_rows(3), 900);
  EXPECT_LT(drafter->n_rows_waiting(3), 16);
}

/// Every buffer has its size behind a prompt, whatever comes next: drafting that pauses for the first time is
/// a matter of timing, and finds lists of waiting rows that were short before.
TEST(BlockWaitingAllocations, TheFirstPauseAllocatesNothing) {
  ThreadPool pool(2);
  const DraftConfig config = test::small_draft_config();
  test::RandomDraft random(config, DType::kQ8_0, 3);
  const auto drafter = quantised_drafter(random, pool);
  const auto n_taps = static_cast<int32_t>(config.taps.size());
  const auto commit = [&](int32_t n, const std::vector<float>& features) {
    const CommitEvent event = test::feature_event(0, n, features, n_taps, config.dim);
    drafter->commit({&event, 1});
  };
  const std::vector<float> prompt = test::random_features(config, 10, 1);
  const std::vector<float> token = test::random_features(config, 1, 1);
  commit(0, prompt);
  drafter->complete_rows();
  const int64_t before = test::n_allocations();
  int32_t n = 10;
  for (; n < 73; ++n) commit(n, token);
  ASSERT_EQ(drafter->n_rows_waiting(0), 63);
  commit(n, prompt);  // the largest commit meets the longest wait
  EXPECT_EQ(drafter->n_rows_waiting(0), 0) << "the buffers are full";
  for (n += 10; n < 300; ++n) commit(n, token);
  EXPECT_EQ(test::n_allocations() - before, 0);
  EXPECT_EQ(drafter->context_rows(0), 300);
}

INSTANTIATE_TEST_SUITE_P(Shortlists, BlockAllocations, testing::Values(0, 32));

}  // namespace
}  // namespace dspark
