// Learned drafters under constraints: they propose the best of what is allowed, and nothing else.

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "draft/draft_constraint.h"
#include "draft/draft_harness.h"
#include "draft/paired_drafter.h"
#include "draft/random_draft.h"

namespace dspark {
namespace {

using test::RandomDraft;

/// Allows every fifth token, which ones depends on the last token; behind `n_free` tokens only `last_id`.
class FifthTokens final : public ConstraintState {
 public:
  explicit FifthTokens(int32_t vocab_size, size_t n_free = 1000, int32_t last_id = -1)
      : vocab_size_(vocab_size), n_free_(n_free), last_id_(last_id), mask_(token_mask_words(vocab_size)) {}

  TokenMask allowed() override {
    std::fill(mask_.begin(), mask_.end(), 0u);
    for (int32_t t = 0; t < vocab_size_; ++t) {
      if (allows(t)) mask_[static_cast<size_t>(t) / 32] |= 1u << (t % 32);
    }
    return mask_;
  }
  bool allows(int32_t token) override {
    if (text_.size() >= n_free_) return token == last_id_;
    return (token + (text_.empty() ? 0 : text_.back())) % 5 == 2;
  }
  bool advance(int32_t token) override {
    if (!allows(token)) return false;
    text_.push_back(token);
    return true;
  }
  void rollback(int32_t n) override {
    ASSERT_LE(static_cast<size_t>(n), text_.size());
    text_.resize(text_.size() - static_cast<size_t>(n));
  }
  bool finished() const override { return false; }
  size_t length() const { return text_.size(); }

 private:
  int32_t vocab_size_;
  size_t n_free_;
  int32_t last_id_;
  std::vector<uint32_t> mask_;
  std::vector<int32_t> text_;
};

constexpr int32_t kRows = 30;
constexpr int32_t kAnchor = 77;

struct Flavour {
  SequentialHead head;
  int32_t draft_vocab;  // of 600
  int32_t shortlist;
};
void PrintTo(const Flavour& f, std::ostream* out) {
  *out << sequential_head_name(f.head) << " " << f.draft_vocab << " " << f.shortlist;
}

class DraftConstraint : public testing::TestWithParam<Flavour> {
 protected:
  void SetUp() override {
    DraftConfig c = test::small_draft_config();
    c.head = GetParam().head;
    if (c.head == SequentialHead::kNone) {
      c.markov_rank = 0;
      c.confidence_with_markov = false;
    }
    if (GetParam().draft_vocab < c.vocab_size) test::reduce_vocabulary(c, GetParam().draft_vocab);
    random_ = std::make_unique<RandomDraft>(std::move(c), DType::kF32, 3);
    BlockDrafterOptions options = test::exact_options();
    options.shortlist = GetParam().shortlist;
    options.max_sequences = 2;
    auto made = BlockDrafter::create(random_->checkpoint(), random_->target(pool_, true), pool_, options);
    ASSERT_TRUE(made.ok()) << made.status().to_string();
    drafter_ = std::move(*made);
    const auto n_taps = static_cast<int32_t>(random_->config().taps.size());
    for (int32_t slot = 0; slot < 2; ++slot) {
      const std::vector<float> features =
          test::random_features(random_->config(), kRows, 8 + static_cast<uint32_t>(slot));
      const CommitEvent event = test::feature_event(slot, 0, features, n_taps, random_->config().dim);
      drafter_->commit({&event, 1});
    }
    sampling_.temperature = 0.0f;
  }

  DraftRequest request(int32_t slot, ConstraintState* constraint) {
    DraftRequest request{slot, kAnchor, kRows, drafter_->max_block(), &sampling_, AcceptRule::kCoupled};
    request.constraint = constraint;
    return request;
  }
  std::vector<std::vector<int32_t>> propose(std::span<const DraftRequest> requests) {
    block_.reset(requests.size(), drafter_->max_block());
    EXPECT_TRUE(drafter_->propose(requests, block_).ok());
    std::vector<std::vector<int32_t>> drafts;
    for (size_t i = 0; i < requests.size(); ++i) {
      const std::span<const int32_t> row = block_.drafts(i);
      drafts.emplace_back(row.begin(), row.end());
    }
    return drafts;
  }
  /// Step logits of slot 0 without a constraint behind these drafts, (drafts, draft vocabulary).
  std::vector<float> free_logits(const std::vector<int32_t>& drafts) {
    DraftTrace trace;
    trace.forced_tokens = drafts;
    drafter_->set_trace(&trace);
    const DraftRequest free = request(0, nullptr);
    propose({&free, 1});
    drafter_->set_trace(nullptr);
    return trace.step_logits;
  }
  int32_t id_of(size_t column) const {
    const std::vector<int32_t>& d2t = random_->config().d2t;
    return d2t.empty() ? static_cast<int32_t>(column) : d2t[column];
  }

  ThreadPool pool_{2};
  std::unique_ptr<RandomDraft> random_;
  std::unique_ptr<BlockDrafter> drafter_;
  SamplingParams sampling_;
  DraftBlock block_;
};

TEST_P(DraftConstraint, DraftsTheBestOfWhatIsAllowed) {
  const auto n_columns = static_cast<size_t>(random_->config().draft_vocab_size);
  FifthTokens constraint(random_->config().vocab_size);
  const DraftRequest constrained = request(0, &constraint);
  const std::vector<int32_t> drafts = propose({&constrained, 1})[0];
  EXPECT_EQ(constraint.length(), 0u) << "stands where the text ends";
  ASSERT_GE(drafts.size(), 3u);
  const std::vector<float> logits = free_logits(drafts);
  for (size_t k = 0; k < drafts.size(); ++k) {
    int32_t best = -1;
    float most = -INFINITY;
    for (size_t column = 0; column < n_columns; ++column) {
      const float z = logits[k * n_columns + column];  // -infinity outside a shortlist
      if (constraint.allows(id_of(column)) && z > most) {
        best = id_of(column);
        most = z;
      }
    }
    EXPECT_EQ(drafts[k], best) << "draft " << k;
    ASSERT_TRUE(constraint.advance(drafts[k]));
  }
}

TEST_P(DraftConstraint, EndsWhereNothingIsAllowedAndLeavesNeighboursAlone) {
  const DraftRequest alone = request(1, nullptr);
  const std::vector<int32_t> neighbour = propose({&alone, 1})[0];
  const int32_t outside = GetParam().draft_vocab < 600 ? 1 : -1;  // not of the draft vocabulary
  FifthTokens constraint(random_->config().vocab_size, 2, outside);
  const DraftRequest both[] = {request(0, &constraint), request(1, nullptr)};
  const auto drafts = propose(both);
  EXPECT_EQ(drafts[0].size(), 2u);
  EXPECT_EQ(drafts[1], neighbour);
  EXPECT_EQ(constraint.length(), 0u);
}

TEST_P(DraftConstraint, SamplesFromTheAllowedPartOfTheDistribution) {
  FifthTokens constraint(random_->config().vocab_size);
  sampling_.temperature = 1.0f;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    sampling_.seed = seed;
    if (seed == 10) sampling_.top_k = 7;
    DraftRequest constrained = request(0, &constraint);
    constrained.rule = AcceptRule::kRejection;
    const std::vector<int32_t> drafts = propose({&constrained, 1})[0];
    ASSERT_GE(drafts.size(), 1u);
    for (size_t k = 0; k < drafts.size(); ++k) {
      const std::span<const float> probs = block_.probs_row(0, static_cast<int32_t>(k));
      double sum = 0.0;
      for (size_t column = 0; column < probs.size(); ++column) {
        sum += static_cast<double>(probs[column]);
        if (!constraint.allows(id_of(column))) {
          ASSERT_EQ(probs[column], 0.0f) << "column " << column;
        }
      }
      EXPECT_NEAR(sum, 1.0, 1e-4);
      ASSERT_TRUE(constraint.advance(drafts[k]));
    }
    constraint.rollback(static_cast<int32_t>(drafts.size()));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Heads, DraftConstraint,
    testing::Values(Flavour{SequentialHead::kVanilla, 600, 0}, Flavour{SequentialHead::kVanilla, 300, 0},
                    Flavour{SequentialHead::kVanilla, 300, 200}, Flavour{SequentialHead::kGated, 600, 0},
                    Flavour{SequentialHead::kRnn, 300, 0}, Flavour{SequentialHead::kNone, 600, 0}));

// Eagle3 and MTP, which draft token by token with a pass for each.
class PairedConstraint : public testing::TestWithParam<DraftKind> {};

TEST_P(PairedConstraint, DraftsOnlyWhatIsAllowed) {
  ThreadPool pool(2);
  DraftConfig config = test::small_draft_config();
  config.kind = GetParam();
  config.n_layers = 1;
  config.head = SequentialHead::kNone;
  config.markov_rank = 0;
  config.confidence = config.confidence_with_markov = false;
  if (GetParam() == DraftKind::kMtp) config.taps = {6};
  RandomDraft random(config, DType::kF32, 3);
  DraftTarget target = random.target(pool, false);
  const std::vector<float> target_norm(static_cast<size_t>(config.dim), 1.0f);
  target.shared.final_norm = target_norm;
  PairedDrafterOptions options;
  options.max_sequences = 2;
  options.context_length = 100;
  auto drafter = std::move(*PairedDrafter::create(random.checkpoint(), target, pool, options));
  const auto n_taps = static_cast<int32_t>(config.taps.size());
  const std::vector<float> features = test::random_features(config, 6, 1);
  const std::vector<int32_t> tokens = {3, 14, 15, 92, 65, 35, 89};
  SamplingParams sampling;
  sampling.temperature = 0.0f;
  for (int32_t slot = 0; slot < 2; ++slot) {
    CommitEvent event = test::feature_event(slot, 0, features, n_taps, config.dim);
    event.tokens = tokens;
    drafter->commit({&event, 1});
  }
  const int32_t most = drafter->max_block();
  DraftRequest requests[] = {{0, 89, 6, most, &sampling}, {1, 89, 6, most, &sampling}};
  DraftBlock block;
  block.reset(2, most);
  ASSERT_TRUE(drafter->propose(requests, block).ok());
  const std::vector<int32_t> neighbour(block.drafts(1).begin(), block.drafts(1).end());
  ASSERT_EQ(neighbour.size(), static_cast<size_t>(most));

  for (const size_t n_free : {size_t{1000}, size_t{0}, size_t{1}}) {
    FifthTokens constraint(config.vocab_size, n_free);
    requests[0].constraint = &constraint;
    block.reset(2, most);
    ASSERT_TRUE(drafter->propose(requests, block).ok());
    EXPECT_EQ(constraint.length(), 0u);
    EXPECT_EQ(block.drafts(0).size(), std::min(n_free, static_cast<size_t>(most)));
    for (const int32_t draft : block.drafts(0)) EXPECT_TRUE(constraint.advance(draft));
    EXPECT_TRUE(std::ranges::equal(block.drafts(1), neighbour));
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, PairedConstraint, testing::Values(DraftKind::kEagle3, DraftKind::kMtp),
                         [](const auto& param) { return std::string(draft_kind_name(param.param)); });

}  // namespace
}  // namespace dspark
