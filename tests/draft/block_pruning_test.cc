// Steps of the sequential head that read only what can be picked: the same drafts as those that read all.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "draft/draft_harness.h"
#include "draft/random_draft.h"

namespace dspark {
namespace {

struct PruningCase {
  DType dtype;
  bool float_activations;
  int32_t draft_vocab;  // 0: the whole vocabulary
};
void PrintTo(const PruningCase& c, std::ostream* out) {
  *out << dtype_name(c.dtype) << (c.float_activations ? " float " : " int8 ") << c.draft_vocab;
}

/// What the trace's step logits of draft k say about a token of the target.
double softmax_at(const DraftTrace& trace, const DraftConfig& config, int32_t k, int32_t token) {
  const auto n = static_cast<size_t>(config.draft_vocab_size);
  const std::span<const float> row = std::span(trace.step_logits).subspan(static_cast<size_t>(k) * n, n);
  const float largest = *std::ranges::max_element(row);
  double sum = 0.0, own = 0.0;
  for (size_t v = 0; v < n; ++v) {
    const double weight = std::exp(static_cast<double>(row[v]) - static_cast<double>(largest));
    const int32_t id = config.d2t.empty() ? static_cast<int32_t>(v) : config.d2t[v];
    sum += weight;
    if (id == token) own = weight;
  }
  return own / sum;
}

class BlockPruning : public testing::TestWithParam<PruningCase> {};

TEST_P(BlockPruning, DraftsAreThoseOfFullSteps) {
  constexpr int32_t kSlots = 5, kRows = 6;
  ThreadPool pool(2);
  DraftConfig config = test::small_draft_config();
  config.vocab_size = config.draft_vocab_size = 2000;
  if (GetParam().draft_vocab > 0) test::reduce_vocabulary(config, GetParam().draft_vocab);
  test::RandomDraft random(config, GetParam().dtype, 7);
  BlockDrafterOptions options = test::exact_options();
  options.max_sequences = kSlots;
  options.float_activations = GetParam().float_activations;
  auto made = BlockDrafter::create(random.checkpoint(), random.target(pool, options.float_activations), pool,
                                   options);
  ASSERT_TRUE(made.ok()) << made.status().to_string();
  BlockDrafter& drafter = **made;
  SamplingParams sampling[kSlots];
  DraftTrace trace;
  for (int32_t round = 0; round < 12; ++round) {
    std::vector<DraftRequest> requests;
    for (int32_t slot = 0; slot < kSlots; ++slot) {
      const std::vector<float> features =
          test::random_features(config, kRows, static_cast<uint32_t>(100 * round + slot));
      const CommitEvent event = test::feature_event(slot, kRows * round, features,
                                                    static_cast<int32_t>(config.taps.size()), config.dim);
      drafter.commit({&event, 1});
      // Greedy, sampled, and sampled so coldly that little can be picked; in some rounds one sequence alone.
      sampling[slot].temperature = slot % 3 == 0 ? 0.0f : slot % 3 == 1 ? 0.8f : 0.05f;
      sampling[slot].seed = static_cast<uint64_t>(slot);
      if (round % 3 == 2 && slot > 0) continue;
      requests.push_back({slot, 11 + slot, kRows * (round + 1), 5, &sampling[slot], AcceptRule::kCoupled});
    }
    const auto propose = [&](DraftTrace* recorder) {
      drafter.set_trace(recorder);
      DraftBlock block;
      block.reset(requests.size(), 5);
      EXPECT_TRUE(drafter.propose(requests, block).ok());
      drafter.set_trace(nullptr);
      return block;
    };
    const DraftBlock full = propose(&trace);  // a trace wants every logit
    propose(nullptr);                         // makes the tokens known
    const DraftBlock pruned = propose(nullptr);
    EXPECT_EQ(pruned.tokens, full.tokens) << "round " << round;
    EXPECT_EQ(pruned.confidence_logits, full.confidence_logits) << "round " << round;
    EXPECT_EQ(pruned.n_tokens, full.n_tokens);
    // Who wants the drafts' probabilities gets them, and the same drafts: no step of theirs is pruned.
    const int64_t n_pruned = drafter.sequential_head().n_pruned_steps();
    for (DraftRequest& request : requests) request.wants_probability = true;
    const DraftBlock told = propose(nullptr);
    EXPECT_EQ(drafter.sequential_head().n_pruned_steps(), n_pruned);
    EXPECT_EQ(told.tokens, full.tokens) << "round " << round;
    EXPECT_EQ(pruned.probability, std::vector<float>(pruned.tokens.size(), -1.0f));
    for (int32_t k = 0; k < 5; ++k) {
      const double p = softmax_at(trace, config, k, full.drafts(0)[static_cast<size_t>(k)]);
      EXPECT_NEAR(told.probability[told.at(0, k)], p, 1e-5) << "round " << round << " draft " << k;
    }
  }
  const SequentialDecoder& head = drafter.sequential_head();
  EXPECT_GE(head.n_pruned_steps(), 15);
  EXPECT_LT(head.n_pruned_chunks(), head.n_pruned_steps() * head.n_chunks());
}

INSTANTIATE_TEST_SUITE_P(Types, BlockPruning,
                         testing::Values(PruningCase{DType::kQ8_0, false, 0},
                                         PruningCase{DType::kBF16, false, 0},
                                         PruningCase{DType::kQ8_0, false, 1003},
                                         PruningCase{DType::kQ8_0, true, 900}));

}  // namespace
}  // namespace dspark
