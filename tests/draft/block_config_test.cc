// Configurations that no reference file has, against a plain float64 computation: slots behind the anchor,
// masks inside the block, windows, biases, reduced vocabularies, missing q/k norms.

#include <gtest/gtest.h>

#include "draft/draft_harness.h"
#include "draft/random_draft.h"
#include "draft/reference_block.h"

namespace dspark {
namespace {

using test::RandomDraft;
using test::ReferenceBlock;
using test::ReferenceRound;

struct ConfigCase {
  const char* name;
  void (*change)(DraftConfig&);
  bool own_head = false;
};
void PrintTo(const ConfigCase& c, std::ostream* out) {
  *out << c.name;
}

const ConfigCase kCases[] = {
    {"plain", [](DraftConfig&) {}},
    {"dflash",
     [](DraftConfig& c) {
       c.kind = DraftKind::kDFlash;
       c.head = SequentialHead::kNone;
       c.markov_rank = 0;
       c.confidence = c.confidence_with_markov = false;
     }},
    {"anchor_slot_unused", [](DraftConfig& c) { c.anchor_predicts = false; }},
    {"gated", [](DraftConfig& c) { c.head = SequentialHead::kGated; }},
    {"rnn_hidden_confidence",
     [](DraftConfig& c) {
       c.head = SequentialHead::kRnn;
       c.confidence_with_markov = false;
     }},
    {"no_qk_norm_biases",
     [](DraftConfig& c) {
       c.qk_norm = false;
       c.attention_bias = true;
     }},
    {"causal", [](DraftConfig& c) { c.causal = true; }},
    {"window", [](DraftConfig& c) { c.window = 6; }},
    {"causal_window",
     [](DraftConfig& c) {
       c.causal = true;
       c.window = 6;
     }},
    {"gemma4",
     [](DraftConfig& c) {
       c.backbone = DraftBackbone::kGemma4;
       c.sandwich_norms = true;
       c.activation = GateActivation::kGeluTanh;
       c.attention_scale = 1.0f;
       c.embedding_scale = 8.0f;
       c.final_softcap = 5.0f;
       for (size_t i = 4; i < c.rope.inv_freq.size(); ++i) c.rope.inv_freq[i] = 0.0f;
     }},
    {"gemma4_k_eq_v",
     [](DraftConfig& c) {
       c.backbone = DraftBackbone::kGemma4;
       c.sandwich_norms = c.k_eq_v = true;
       c.attention_scale = 1.0f;
     }},
    {"reduced_own_head", [](DraftConfig& c) { test::reduce_vocabulary(c, 300); }, true},
    {"reduced_target_head", [](DraftConfig& c) { test::reduce_vocabulary(c, 171); }},
    {"five_layers", [](DraftConfig& c) { c.n_layers = 5; }},
};

float max_diff(const test::Rows& want, const std::vector<float>& got) {
  size_t at = 0;
  float largest = 0.0f;
  for (const test::Row& row : want) {
    for (double v : row) {
      if (at == got.size()) return INFINITY;
      const float d = std::fabs(static_cast<float>(v) - got[at++]);
      if (!(d <= largest)) largest = d;
    }
  }
  return at == got.size() ? largest : INFINITY;
}

class BlockConfig : public testing::TestWithParam<ConfigCase> {};

TEST_P(BlockConfig, EqualsAPlainComputation) {
  ThreadPool pool(2);
  DraftConfig config = test::small_draft_config();
  GetParam().change(config);
  RandomDraft random(config, DType::kF32, 7, GetParam().own_head);
  const DraftTarget target = random.target(pool, true);
  auto drafter = BlockDrafter::create(random.checkpoint(), target, pool, test::exact_options());
  ASSERT_TRUE(drafter.ok()) << drafter.status().to_string();
  EXPECT_EQ((*drafter)->max_block(), config.anchor_predicts ? 5 : 4);
  const ReferenceBlock reference(random.checkpoint(), target);
  DraftTrace trace;
  (*drafter)->set_trace(&trace);
  SamplingParams greedy;
  greedy.temperature = 0.0f;
  const auto n_taps = static_cast<int32_t>(config.taps.size());
  std::vector<float> features;
  int32_t n = 0;
  for (const int32_t n_new : {13, 1, 22}) {  // the last round crosses a page
    const std::vector<float> fresh = test::random_features(config, n_new, static_cast<uint32_t>(n_new));
    const CommitEvent event = test::feature_event(2, n, fresh, n_taps, config.dim);
    (*drafter)->commit({&event, 1});
    features = test::join_features(features, fresh, n_taps);
    n += n_new;
    const DraftBlock block = test::propose_one(**drafter, 2, 17, n, (*drafter)->max_block(), greedy);
    const std::vector<int32_t> drafts(block.drafts(0).begin(), block.drafts(0).end());
    ASSERT_EQ(drafts.size(), static_cast<size_t>(config.n_drafts()));
    const ReferenceRound want = reference.round(features, n, 17, drafts);
    EXPECT_LE(max_diff(want.hidden, trace.hidden), 2e-4f);
    EXPECT_LE(max_diff(want.base_logits, trace.base_logits), 2e-4f);
    EXPECT_LE(max_diff(want.step_logits, trace.step_logits), 2e-4f);
    if (config.confidence) {
      EXPECT_LE(max_diff({want.confidence_logits}, trace.confidence_logits), 2e-4f);
    }
    for (size_t k = 0; k < drafts.size(); ++k) {
      const test::Row& z = want.step_logits[k];
      const auto best = static_cast<size_t>(std::max_element(z.begin(), z.end()) - z.begin());
      EXPECT_EQ(drafts[k], config.d2t.empty() ? static_cast<int32_t>(best) : config.d2t[best]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Configs, BlockConfig, testing::ValuesIn(kCases),
                         [](const auto& instance) { return std::string(instance.param.name); });

}  // namespace
}  // namespace dspark
