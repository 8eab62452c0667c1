// What a block drafter computes for a sequence depends on that sequence alone: not on its neighbours, on
// threads, on how its features came, or on how many drafts were asked for. Compared bit by bit.

#include <gtest/gtest.h>

#include <numeric>
#include <tuple>

#include "draft/draft_harness.h"
#include "draft/random_draft.h"
#include "draft/round_result.h"

namespace dspark {
namespace {

using test::expect_same;
using test::RandomDraft;
using test::RoundResult;
using test::same_bits;

struct Flavour {
  SequentialHead head;
  DType dtype;
  KvDType kv_dtype;
  bool float_activations;
  int32_t shortlist;
};
void PrintTo(const Flavour& f, std::ostream* out) {
  *out << sequential_head_name(f.head) << " " << dtype_name(f.dtype);
}

const Flavour kFlavours[] = {
    {SequentialHead::kVanilla, DType::kF32, KvDType::kF32, true, 0},
    {SequentialHead::kVanilla, DType::kQ8_0, KvDType::kQ8_0, false, 0},
    {SequentialHead::kGated, DType::kBF16, KvDType::kBF16, false, 0},
    {SequentialHead::kRnn, DType::kQ8_0, KvDType::kBF16, false, 0},
    {SequentialHead::kVanilla, DType::kQ8_0, KvDType::kBF16, false, 40},
    {SequentialHead::kNone, DType::kBF16, KvDType::kBF16, false, 0},
};

class BlockBatch : public testing::TestWithParam<Flavour> {
 protected:
  static DraftConfig config() {
    DraftConfig c = test::small_draft_config();
    c.head = GetParam().head;
    if (c.head == SequentialHead::kNone) {
      c.markov_rank = 0;
      c.confidence_with_markov = false;
    }
    return c;
  }

  std::unique_ptr<BlockDrafter> make(ThreadPool& pool) {
    BlockDrafterOptions options = test::exact_options();
    options.kv_dtype = GetParam().kv_dtype;
    options.float_activations = GetParam().float_activations;
    options.shortlist = GetParam().shortlist;
    auto drafter = BlockDrafter::create(random_.checkpoint(), random_.target(pool, options.float_activations),
                                        pool, options);
    EXPECT_TRUE(drafter.ok()) << drafter.status().to_string();
    (*drafter)->set_trace(&trace_);
    return std::move(*drafter);
  }

  void commit(BlockDrafter& drafter, int32_t slot, int32_t position, const std::vector<float>& features) {
    const CommitEvent event = test::feature_event(slot, position, features, n_taps_, dim_);
    drafter.commit({&event, 1});
  }

  std::vector<RoundResult> propose(BlockDrafter& drafter, std::span<const DraftRequest> requests) {
    DraftBlock block;
    block.reset(requests.size(), drafter.max_block());
    EXPECT_TRUE(drafter.propose(requests, block).ok());
    std::vector<RoundResult> results(requests.size());
    size_t row = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      RoundResult& result = results[i];
      const std::span<const int32_t> drafts = block.drafts(i);
      result.tokens.assign(drafts.begin(), drafts.end());
      const auto vocab = static_cast<size_t>(drafter.config().draft_vocab_size);
      const auto at = trace_.step_logits.begin() + static_cast<std::ptrdiff_t>(row * vocab);
      result.logits.assign(at, at + static_cast<std::ptrdiff_t>(drafts.size() * vocab));
      const auto first = block.confidence_logits.begin() + static_cast<std::ptrdiff_t>(i) * block.stride;
      result.confidence.assign(first, first + static_cast<std::ptrdiff_t>(drafts.size()));
      row += drafts.size();
    }
    return results;
  }

  DraftRequest request(int32_t slot, int32_t position, int32_t max_tokens = 64) {
    return {
        slot, 11 + slot, position, max_tokens, &sampling_[static_cast<size_t>(slot)], AcceptRule::kCoupled};
  }

  void SetUp() override {
    for (size_t i = 0; i < std::size(sampling_); ++i) {
      sampling_[i].temperature = i % 2 == 0 ? 0.0f : 0.8f;
      sampling_[i].seed = i;
    }
  }

  RandomDraft random_{config(), GetParam().dtype, 3};
  int32_t n_taps_ = static_cast<int32_t>(random_.config().taps.size());
  int32_t dim_ = random_.config().dim;
  SamplingParams sampling_[4];
  DraftTrace trace_;
};

TEST_P(BlockBatch, TogetherAsAlone) {
  const int32_t lengths[] = {9, 33, 70, 31};
  std::vector<std::vector<float>> features;
  for (int32_t slot = 0; slot < 4; ++slot) {
    features.push_back(test::random_features(random_.config(), lengths[slot], static_cast<uint32_t>(slot)));
  }
  std::vector<RoundResult> alone;
  for (int threads : {1, 2}) {
    ThreadPool pool(threads);
    const auto single = make(pool);
    const auto together = make(pool);
    std::vector<CommitEvent> events;
    std::vector<DraftRequest> requests;
    for (int32_t slot = 0; slot < 4; ++slot) {
      commit(*single, 0, 0, features[static_cast<size_t>(slot)]);
      DraftRequest one = request(slot, lengths[slot]);
      one.slot = 0;
      const RoundResult result = propose(*single, {&one, 1})[0];
      single->release(0);
      ASSERT_EQ(result.tokens.size(), 5u);
      if (threads == 1) alone.push_back(result);
      expect_same(result, alone[static_cast<size_t>(slot)]);
      events.push_back(test::feature_event(slot, 0, features[static_cast<size_t>(slot)], n_taps_, dim_));
      requests.push_back(request(slot, lengths[slot]));
    }
    together->commit(events);
    std::swap(requests[0], requests[2]);
    const std::vector<RoundResult> results = propose(*together, requests);
    for (size_t i = 0; i < 4; ++i) expect_same(results[i], alone[static_cast<size_t>(requests[i].slot)]);
  }
}

TEST_P(BlockBatch, FeaturesInPiecesAsAtOnce) {
  ThreadPool pool(2);
  const auto pieces = make(pool);
  const auto at_once = make(pool);
  std::mt19937 rng(5);
  const std::vector<float> features = test::random_features(random_.config(), 120, 9);
  int32_t n = 0;
  for (int round = 0; n < 110; ++round) {
    const auto n_new = static_cast<int32_t>(round == 0 ? 20 : 1 + rng() % 6);
    commit(*pieces, 1, n, test::feature_rows(features, n_taps_, dim_, n, n_new));
    n += n_new;
    commit(*at_once, 1, 0, test::feature_rows(features, n_taps_, dim_, 0, n));
    ASSERT_EQ(pieces->context_rows(1), n);
    const DraftRequest one = request(1, n);
    expect_same(propose(*pieces, {&one, 1})[0], propose(*at_once, {&one, 1})[0]);
    if (GetParam().kv_dtype == KvDType::kF32) {
      for (int32_t layer = 0; layer < random_.config().n_layers; ++layer) {
        for (bool values : {false, true}) {
          EXPECT_TRUE(same_bits(test::cached_rows(*pieces, 1, layer, values),
                                test::cached_rows(*at_once, 1, layer, values)));
        }
      }
    }
    at_once->release(1);
  }
}

TEST_P(BlockBatch, FewerDraftsAreAPrefix) {
  ThreadPool pool(2);
  const auto drafter = make(pool);
  commit(*drafter, 0, 0, test::random_features(random_.config(), 40, 21));
  commit(*drafter, 1, 0, test::random_features(random_.config(), 25, 22));
  const DraftRequest all[] = {request(0, 40), request(1, 25)};
  const std::vector<RoundResult> want = propose(*drafter, all);
  const auto vocab = static_cast<size_t>(random_.config().draft_vocab_size);
  for (int32_t n : {1, 2, 3, 4, 5}) {
    DraftRequest fewer[] = {all[0], all[1]};
    fewer[0].max_tokens = n;
    const std::vector<RoundResult> got = propose(*drafter, fewer);
    expect_same(got[1], want[1]);
    RoundResult prefix = want[0];
    prefix.tokens.resize(static_cast<size_t>(n));
    prefix.logits.resize(static_cast<size_t>(n) * vocab);
    prefix.confidence.resize(static_cast<size_t>(n));
    expect_same(got[0], prefix);
  }
}

std::string flavour_name(const testing::TestParamInfo<Flavour>& info) {
  const Flavour& f = info.param;
  return std::string(sequential_head_name(f.head)) + "_" + dtype_name(f.dtype) +
         (f.shortlist > 0 ? "_shortlist" : "");
}

INSTANTIATE_TEST_SUITE_P(Flavours, BlockBatch, testing::ValuesIn(kFlavours), flavour_name);

/// A drafter that draws on fewer pages than all sequences could fill.
TEST(BlockPages, ScarcePagesAndLostFeatures) {
  ThreadPool pool(1);
  RandomDraft random(test::small_draft_config(), DType::kF32, 3);
  const DraftConfig& c = random.config();
  const auto n_taps = static_cast<int32_t>(c.taps.size());
  BlockDrafterOptions options = test::exact_options();
  options.max_sequences = 2;
  options.context_length = 640;
  options.cache_tokens = 128;
  auto drafter =
      std::move(*BlockDrafter::create(random.checkpoint(), random.target(pool, true), pool, options));
  const int32_t n_pages = drafter->allocator().n_pages();
  EXPECT_LT(n_pages, 2 * PageAllocator::pages_for(640));
  const SamplingParams sampling;
  const auto commit = [&](int32_t slot, int32_t position, int32_t n) {
    const std::vector<float> features = test::random_features(c, n, 1);
    const CommitEvent event = test::feature_event(slot, position, features, n_taps, c.dim);
    drafter->commit({&event, 1});
  };
  const auto n_drafts = [&](int32_t slot, int32_t position) {
    return test::propose_one(*drafter, slot, 5, position, 5, sampling).n_tokens[0];
  };
  commit(0, 0, 64);
  commit(1, 0, 64);
  EXPECT_EQ(n_drafts(0, 64), 5);
  EXPECT_EQ(n_drafts(1, 64), 5);
  EXPECT_EQ(n_drafts(1, 63), 0) << "a position without its features";
  EXPECT_EQ(n_drafts(7, 64), 0) << "a slot that does not exist";
  EXPECT_EQ(drafter->allocator().n_free(), n_pages - 4) << "rows of a block outlived their pass";
  commit(1, 64, 500);  // does not fit
  EXPECT_EQ(n_drafts(1, 564), 0);
  commit(1, 564, 1);
  EXPECT_EQ(n_drafts(1, 565), 0) << "drafted from a cache with a hole";
  EXPECT_EQ(n_drafts(0, 64), 5);
  drafter->release(1);
  commit(1, 0, 10);
  EXPECT_EQ(n_drafts(1, 10), 5);
  drafter->release(0);
  drafter->release(1);
  EXPECT_EQ(drafter->allocator().n_free(), n_pages);
  commit(0, 3, 4);  // the first three rows never came
  EXPECT_EQ(n_drafts(0, 7), 0);
}

TEST(BlockPages, ALongPromptComesInChunks) {
  ThreadPool pool(2);
  RandomDraft random(test::small_draft_config(), DType::kQ8_0, 3);
  const DraftConfig& c = random.config();
  const auto n_taps = static_cast<int32_t>(c.taps.size());
  BlockDrafterOptions options = test::exact_options();
  options.context_length = 900;
  options.float_activations = false;
  const DraftTarget target = random.target(pool, false);
  auto whole = std::move(*BlockDrafter::create(random.checkpoint(), target, pool, options));
  auto parts = std::move(*BlockDrafter::create(random.checkpoint(), target, pool, options));
  const std::vector<float> features = test::random_features(c, 700, 2);
  const std::vector<float> other = test::random_features(c, 300, 4);
  const CommitEvent both[] = {test::feature_event(0, 0, other, n_taps, c.dim),
                              test::feature_event(1, 0, features, n_taps, c.dim)};
  whole->commit(both);
  for (int32_t n = 0; n < 700; n += 35) {
    const std::vector<float> part = test::feature_rows(features, n_taps, c.dim, n, 35);
    const CommitEvent event = test::feature_event(1, n, part, n_taps, c.dim);
    parts->commit({&event, 1});
  }
  for (BlockDrafter* drafter : {whole.get(), parts.get()}) drafter->complete_rows();
  for (int32_t layer = 0; layer < c.n_layers; ++layer) {
    EXPECT_TRUE(
        same_bits(test::cached_rows(*whole, 1, layer, false), test::cached_rows(*parts, 1, layer, false)));
    EXPECT_TRUE(
        same_bits(test::cached_rows(*whole, 1, layer, true), test::cached_rows(*parts, 1, layer, true)));
  }
}

// Cost tables are kept under it: what a pass costs is not a matter of how long the cache is.
TEST(BlockDrafterSize, WeightsAreCountedWithoutTheCache) {
  RandomDraft random(test::small_draft_config(), DType::kQ8_0, 3);
  ThreadPool pool(1);
  const auto bytes_with = [&](int32_t context_length) {
    BlockDrafterOptions options = test::exact_options();
    options.context_length = context_length;
    return (*BlockDrafter::create(random.checkpoint(), random.target(pool, false), pool, options))
        ->weight_bytes();
  };
  EXPECT_GT(bytes_with(100), 0u);
  EXPECT_EQ(bytes_with(100), bytes_with(1000));
}

}  // namespace
}  // namespace dspark
