// In steady state neither commit() nor propose() of an Eagle3 or MTP drafter takes memory from the heap.

#include <gtest/gtest.h>

#include "draft/draft_harness.h"
#include "draft/paired_drafter.h"
#include "draft/random_draft.h"
#include "support/allocation_count.h"

namespace dspark {
namespace {

class PairedAllocations : public testing::TestWithParam<DraftKind> {};

TEST_P(PairedAllocations, SteadyRoundsAllocateNothing) {
  ThreadPool pool(2);
  DraftConfig config = test::small_draft_config();
  config.kind = GetParam();
  config.n_layers = 1;
  config.head = SequentialHead::kNone;
  config.markov_rank = 0;
  config.confidence = config.confidence_with_markov = false;
  if (GetParam() == DraftKind::kMtp) config.taps = {6};
  test::RandomDraft random(config, DType::kQ8_0, 3);
  DraftTarget target = random.target(pool, false);
  const std::vector<float> target_norm(static_cast<size_t>(config.dim), 1.0f);
  target.shared.final_norm = target_norm;
  PairedDrafterOptions options;
  options.max_sequences = 4;
  options.context_length = 1000;
  auto drafter = std::move(*PairedDrafter::create(random.checkpoint(), target, pool, options));
  const auto n_taps = static_cast<int32_t>(config.taps.size());
  const std::vector<float> features = test::random_features(config, 6, 1);
  const std::vector<int32_t> tokens = {3, 14, 15, 92, 65, 35, 89};
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
      events[slot].token_position = n == 0 ? 0 : n + 1;
      events[slot].tokens = std::span(tokens).subspan(n == 0 ? 0 : 1);
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
  EXPECT_EQ(n_drafts, 100 * 4 * drafter->max_block());
}

INSTANTIATE_TEST_SUITE_P(Kinds, PairedAllocations, testing::Values(DraftKind::kEagle3, DraftKind::kMtp),
                         [](const auto& param) { return std::string(draft_kind_name(param.param)); });

}  // namespace
}  // namespace dspark
