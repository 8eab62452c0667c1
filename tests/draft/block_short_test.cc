// Short blocks: few drafts come from a block of that size, as if the drafter had no longer one, and more from
// the whole block, as if it had no short one; for every sequence by its own request. Compared bit by bit.

#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "draft/draft_harness.h"
#include "draft/random_draft.h"
#include "draft/round_result.h"

namespace dspark {
namespace {

using test::expect_same;
using test::RoundResult;
using test::same_bits;

constexpr int32_t kBlock = 7, kShort = 3;

struct Flavour {
  const char* name;
  void (*change)(DraftConfig&);
  DType dtype = DType::kF32;
  KvDType kv_dtype = KvDType::kF32;
  bool float_activations = true;
  int32_t shortlist = 0;
};
void PrintTo(const Flavour& flavour, std::ostream* out) {
  *out << flavour.name;
}

const Flavour kFlavours[] = {
    {"vanilla", [](DraftConfig&) {}},
    {"quantised", [](DraftConfig&) {}, DType::kQ8_0, KvDType::kQ8_0, false},
    {"rnn", [](DraftConfig& c) { c.head = SequentialHead::kRnn; }, DType::kQ8_0, KvDType::kBF16, false},
    {"shortlist", [](DraftConfig&) {}, DType::kQ8_0, KvDType::kBF16, false, 40},
    {"dflash",
     [](DraftConfig& c) {
       c.kind = DraftKind::kDFlash;
       c.head = SequentialHead::kNone;
       c.markov_rank = 0;
       c.confidence = c.confidence_with_markov = false;
     }},
    {"anchor_slot_unused", [](DraftConfig& c) { c.anchor_predicts = false; }},
    {"window", [](DraftConfig& c) { c.window = 6; }},
    {"causal_window",
     [](DraftConfig& c) {
       c.causal = true;
       c.window = 6;
     }},
};

DraftConfig config_of(const Flavour& flavour, int32_t block_size, int32_t short_block) {
  DraftConfig c = test::small_draft_config();
  flavour.change(c);
  c.block_size = block_size;
  c.short_block = short_block;
  return c;
}

constexpr int32_t kLengths[] = {9, 33, 62, 31};  // contexts; the blocks of the last two cross a page

using Asked = std::pair<int32_t, int32_t>;  // slot, drafts

/// A drafter of random weights, the same ones whatever the size of its blocks, that has read four texts.
class Drafting {
 public:
  Drafting(const Flavour& flavour, int32_t block_size, int32_t short_block, ThreadPool& pool)
      : random_(config_of(flavour, block_size, short_block), flavour.dtype, 3) {
    BlockDrafterOptions options = test::exact_options();
    options.kv_dtype = flavour.kv_dtype;
    options.float_activations = flavour.float_activations;
    options.shortlist = flavour.shortlist;
    auto made = BlockDrafter::create(random_.checkpoint(), random_.target(pool, options.float_activations),
                                     pool, options);
    EXPECT_TRUE(made.ok()) << made.status().to_string();
    drafter_ = std::move(*made);
    drafter_->set_trace(&trace_);
    const DraftConfig& c = random_.config();
    for (int32_t slot = 0; slot < 4; ++slot) {
      const std::vector<float> features =
          test::random_features(c, kLengths[slot], static_cast<uint32_t>(slot));
      const CommitEvent event =
          test::feature_event(slot, 0, features, static_cast<int32_t>(c.taps.size()), c.dim);
      drafter_->commit({&event, 1});
      sampling_[slot].temperature = slot % 2 == 0 ? 0.0f : 0.8f;
      sampling_[slot].seed = static_cast<uint64_t>(slot);
    }
  }
  Drafting(const Drafting&) = delete;
  Drafting& operator=(const Drafting&) = delete;

  /// One round for some of the texts.
  std::vector<RoundResult> round(std::span<const Asked> asked) {
    std::vector<DraftRequest> requests;
    int32_t longest = 0;
    for (const auto& [slot, n] : asked) {
      requests.push_back({slot, 11 + slot, kLengths[slot], n, &sampling_[slot], AcceptRule::kCoupled});
      longest = std::max(longest, n);
    }
    DraftBlock block;
    block.reset(requests.size(), longest);
    EXPECT_TRUE(drafter_->propose(requests, block).ok());
    std::vector<RoundResult> results(requests.size());
    const auto vocab = static_cast<size_t>(random_.config().draft_vocab_size);
    size_t row = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      const std::span<const int32_t> drafts = block.drafts(i);
      results[i].tokens.assign(drafts.begin(), drafts.end());
      const auto at = trace_.step_logits.begin() + static_cast<std::ptrdiff_t>(row * vocab);
      results[i].logits.assign(at, at + static_cast<std::ptrdiff_t>(drafts.size() * vocab));
      const auto first = block.confidence_logits.begin() + static_cast<std::ptrdiff_t>(i) * block.stride;
      results[i].confidence.assign(first, first + static_cast<std::ptrdiff_t>(drafts.size()));
      row += drafts.size();
    }
    return results;
  }
  RoundResult round(int32_t slot, int32_t n_drafts) {
    const Asked one(slot, n_drafts);
    return round(std::span(&one, 1)).front();
  }

  /// Rows that the backbone had in the newest round.
  size_t n_rows() const {
    const DraftConfig& c = random_.config();
    return trace_.layer_out.size() / (static_cast<size_t>(c.n_layers) * static_cast<size_t>(c.dim));
  }
  const BlockDrafter& drafter() const { return *drafter_; }

 private:
  test::RandomDraft random_;
  SamplingParams sampling_[4];
  DraftTrace trace_;
  std::unique_ptr<BlockDrafter> drafter_;
};

class BlockShort : public testing::TestWithParam<Flavour> {};

TEST_P(BlockShort, IsABlockOfThatSize) {
  ThreadPool pool(2);
  Drafting both(GetParam(), kBlock, kShort, pool), small(GetParam(), kShort, 0, pool),
      whole(GetParam(), kBlock, 0, pool);
  const DraftConfig& c = both.drafter().config();
  EXPECT_EQ(both.drafter().short_block(), c.anchor_predicts ? 3 : 2);
  EXPECT_EQ(both.drafter().max_block(), c.n_drafts());
  EXPECT_EQ(whole.drafter().short_block(), 0);
  for (int32_t slot = 0; slot < 4; ++slot) {
    for (int32_t n = 1; n <= c.n_drafts(); ++n) {
      SCOPED_TRACE(testing::Message() << n << " drafts for slot " << slot);
      const bool is_short = n <= both.drafter().short_block();
      const RoundResult got = both.round(slot, n);
      ASSERT_EQ(got.tokens.size(), static_cast<size_t>(n));
      EXPECT_EQ(both.n_rows(), static_cast<size_t>(is_short ? kShort : kBlock));
      expect_same(got, (is_short ? small : whole).round(slot, n));
      // Rows of a block see each other, unless there is a mask.
      if (is_short) {
        EXPECT_EQ(same_bits(got.logits, whole.round(slot, n).logits), c.causal);
      }
    }
  }
}

TEST_P(BlockShort, DoesNotDependOnNeighbours) {
  const std::vector<std::vector<Asked>> rounds = {{{0, 2}, {1, 6}, {2, 3}},
                                                  {{3, 1}, {2, 6}, {1, 2}, {0, 5}},
                                                  {{2, 2}, {3, 1}},
                                                  {{1, 6}, {0, 6}},
                                                  {{1, 6}, {0, 2}, {3, 1}}};
  for (const int n_threads : {1, 2}) {
    ThreadPool pool(n_threads);
    Drafting alone(GetParam(), kBlock, kShort, pool), together(GetParam(), kBlock, kShort, pool);
    for (const std::vector<Asked>& asked : rounds) {
      const std::vector<RoundResult> got = together.round(asked);
      size_t n_rows = 0;
      for (size_t i = 0; i < asked.size(); ++i) {
        SCOPED_TRACE(testing::Message() << asked[i].second << " drafts for slot " << asked[i].first);
        ASSERT_EQ(got[i].tokens.size(), static_cast<size_t>(asked[i].second));
        expect_same(got[i], alone.round(asked[i].first, asked[i].second));
        n_rows += alone.n_rows();
      }
      EXPECT_EQ(together.n_rows(), n_rows);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Flavours, BlockShort, testing::ValuesIn(kFlavours),
                         [](const auto& instance) { return std::string(instance.param.name); });

TEST(BlockShortSize, MustFit) {
  ThreadPool pool(1);
  const auto message = [&](int32_t short_block, bool anchor_predicts) {
    DraftConfig config = test::small_draft_config();  // blocks of 5
    config.short_block = short_block;
    config.anchor_predicts = anchor_predicts;
    test::RandomDraft random(config, DType::kF32, 3);
    return BlockDrafter::create(random.checkpoint(), random.target(pool, true), pool, test::exact_options())
        .status()
        .message();
  };
  EXPECT_EQ(message(0, true), "");
  EXPECT_EQ(message(1, true), "");
  EXPECT_EQ(message(5, true), "");
  EXPECT_EQ(message(2, false), "");
  EXPECT_NE(message(6, true).find("found 6 slots, expected 0 (no short blocks) or 1 to 5"), std::string::npos)
      << message(6, true);
  EXPECT_NE(message(-1, true).find("found -1 slots"), std::string::npos);
  EXPECT_NE(message(1, false).find("2 to 5"), std::string::npos) << "one slot that predicts nothing";
}

}  // namespace
}  // namespace dspark
