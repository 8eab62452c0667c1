// Eagle3 and MTP in training form: which rows count, and that they are what PairedDrafter computes.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "draft/draft_harness.h"
#include "draft/paired_drafter.h"
#include "draft/random_draft.h"
#include "train/layer.h"
#include "train/paired_step.h"
#include "train_cases.h"

namespace dspark {
namespace {

constexpr float kTolerance = 2e-4f;

enum class Shape { kEagle3Qwen3, kEagle3Gemma4, kMtp };

DraftConfig config_of(Shape shape) {
  DraftConfig c = test::small_draft_config();
  c.kind = shape == Shape::kMtp ? DraftKind::kMtp : DraftKind::kEagle3;
  c.n_layers = 1;
  c.head = SequentialHead::kNone;
  c.markov_rank = 0;
  c.confidence = c.confidence_with_markov = false;
  c.block_size = shape == Shape::kMtp ? 1 : 4;
  c.taps = shape == Shape::kMtp ? std::vector<int32_t>{6} : std::vector<int32_t>{1, 2, 3, 5};
  if (shape != Shape::kEagle3Gemma4) return c;
  c.backbone = DraftBackbone::kGemma4;
  c.k_eq_v = c.sandwich_norms = true;
  c.n_kv_heads = 1;
  c.activation = GateActivation::kGeluTanh;
  c.attention_scale = 1.0f;
  c.embedding_scale = 8.0f;
  c.final_softcap = 5.0f;
  std::fill(c.rope.inv_freq.begin() + 4, c.rope.inv_freq.end(), 0.0f);
  return c;
}

/// A sample whose numbers nobody reads.
TargetCacheSample sample_of(const DraftConfig& config, std::vector<int32_t> tokens,
                            std::vector<uint8_t> mask) {
  TargetCacheSample sample;
  sample.input_ids = std::move(tokens);
  sample.loss_mask = std::move(mask);
  sample.target_hidden_states.assign(sample.n_tokens() * config.taps.size() * static_cast<size_t>(config.dim),
                                     0);
  sample.target_last_hidden.assign(sample.n_tokens() * static_cast<size_t>(config.dim), 0);
  return sample;
}

std::vector<int64_t> values(const at::Tensor& x) {
  return {x.const_data_ptr<int64_t>(), x.const_data_ptr<int64_t>() + x.numel()};
}

TEST(PairedBatch, RowsThatCount) {
  const DraftConfig config = config_of(Shape::kEagle3Qwen3);  // four steps
  AnchorSet set;
  set.sample = sample_of(config, {10, 11, 12, 13, 14, 15, 16, 17}, {0, 0, 0, 0, 0, 1, 1, 1});
  AnchorSet longer;
  longer.sample = sample_of(config, std::vector<int32_t>(9, 5), std::vector<uint8_t>(9, 0));
  const PairedBatch batch = build_paired_batch({set, longer}, config, 1, at::kCPU);
  // Supervised and not the last: tokens 5 and 6, which rows 2 .. 6 reach within four steps.
  EXPECT_EQ(values(batch.positions), (std::vector<int64_t>{1, 2, 3, 4, 5, 6}));  // one row of context
  EXPECT_EQ(values(batch.tokens), (std::vector<int64_t>{12, 13, 14, 15, 16, 17}));
  EXPECT_EQ(values(batch.active), (std::vector<int64_t>{1, 2, 3, 4, 5}));
  EXPECT_EQ(batch.active_begin, (std::vector<int64_t>{0, 5, 5}));
  EXPECT_EQ(batch.n_padded, 18);
  ASSERT_EQ(batch.steps.size(), 4u);
  EXPECT_EQ(values(batch.steps[0].rows), (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(values(batch.steps[0].tokens), (std::vector<int64_t>{13, 14, 15, 16, 17}));
  EXPECT_EQ(values(batch.steps[0].labels), (std::vector<int64_t>{17, -1}));
  EXPECT_EQ(values(batch.steps[3].rows), (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(values(batch.steps[3].tokens), (std::vector<int64_t>{16, 17, 0, 0, 0}));
  EXPECT_EQ(batch.target_position.size(), 2u);  // positions 6 and 7, whatever the step
  EXPECT_EQ(values(batch.steps[0].target_rows), values(batch.steps[3].target_rows));
}

class TrainPaired : public testing::TestWithParam<Shape> {
 protected:
  DraftTarget target() {
    DraftTarget target = random_.target(pool_, true);
    target.shared.final_norm = target_norm_;
    target.norm_eps = 1e-5f;
    return target;
  }
  const DraftConfig& config() const { return random_.config(); }

  /// Tells a drafter a whole text, and lets it propose behind it.
  DraftBlock round(DraftTrace& trace) {
    PairedDrafterOptions options;
    options.context_length = 400;
    options.kv_dtype = KvDType::kF32;
    options.float_activations = true;
    auto drafter = PairedDrafter::create(random_.checkpoint(), target(), pool_, options);
    EXPECT_TRUE(drafter.ok()) << drafter.status().to_string();
    if (!drafter.ok()) return {};
    (*drafter)->set_trace(&trace);
    const auto n_rows = static_cast<int32_t>(tokens_.size()) - 1;
    CommitEvent event =
        test::feature_event(0, 0, features_, static_cast<int32_t>(config().taps.size()), config().dim);
    event.n_features = n_rows;
    event.tokens = tokens_;
    (*drafter)->commit({&event, 1});
    SamplingParams greedy;
    greedy.temperature = 0.0f;
    return test::propose_one(**drafter, 0, tokens_.back(), n_rows, 8, greedy);
  }

  void expect_rows(const at::Tensor& found, const std::vector<float>& expected, size_t row) {
    const auto width = static_cast<size_t>(found.numel());
    ASSERT_LE((row + 1) * width, expected.size());
    const at::Tensor rows =
        at::tensor(std::vector<float>(expected.begin() + row * width, expected.begin() + (row + 1) * width));
    EXPECT_LE((found.flatten() - rows).abs().max().item<float>(), kTolerance);
  }

  ThreadPool pool_{2};
  test::RandomDraft random_{config_of(GetParam()), DType::kBF16, 11};
  std::vector<float> target_norm_ = std::vector<float>(64, 1.25f);
  std::vector<int32_t> tokens_;
  std::vector<float> features_;
};

TEST_P(TrainPaired, EqualsInferenceRounds) {
  const DraftConfig& c = config();
  auto model = draft_model_from(random_.checkpoint());
  ASSERT_TRUE(model.ok()) << model.status().to_string();
  const DraftTarget shared = target();
  const FrozenTarget frozen =
      frozen_target(c, decode_tensor(shared.shared.embedding).value(),
                    decode_tensor(shared.shared.head_tensor).value(), Precision::kFloat32, at::kCPU);
  std::mt19937 rng(5);
  for (const int32_t n_rows : {1, 9, 40}) {
    SCOPED_TRACE(testing::Message() << n_rows << " rows");
    tokens_.clear();
    for (int32_t i = 0; i <= n_rows; ++i) tokens_.push_back(static_cast<int32_t>(rng() % 600));
    features_ = test::random_features(c, n_rows, static_cast<uint32_t>(n_rows));
    DraftTrace trace;
    const DraftBlock block = round(trace);
    ASSERT_EQ(block.n_tokens[0], c.n_drafts());

    // The same as one sample: text and drafts, the last row before the anchor active at every step.
    AnchorSet set;
    std::vector<int32_t> all = tokens_;
    for (const int32_t draft : block.drafts(0)) all.push_back(draft);
    set.sample = sample_of(c, all, std::vector<uint8_t>(all.size(), 1));
    PairedBatch batch = build_paired_batch({set}, c, 0, at::kCPU);
    at::Tensor carried = at::zeros(batch.carried.sizes());
    const auto n_taps = static_cast<int64_t>(c.taps.size());
    if (c.kind == DraftKind::kEagle3) {
      const at::Tensor streams = at::tensor(features_).view({n_taps, n_rows, c.dim});
      carried.slice(0, 0, n_rows).copy_(streams.permute({1, 0, 2}).reshape({n_rows, n_taps * c.dim}));
    } else {
      carried.slice(0, 0, n_rows).copy_(at::tensor(trace.context_rows).view({n_rows, c.dim}));
    }
    batch.carried = carried;
    const std::vector<at::Tensor> outputs =
        paired_forward(c, model->all(), frozen.embedding, batch, Precision::kFloat32);
    ASSERT_EQ(outputs.size(), static_cast<size_t>(c.n_drafts()));
    for (size_t k = 0; k < outputs.size(); ++k) {
      SCOPED_TRACE(testing::Message() << "step " << k);
      const at::Tensor row = outputs[k].slice(0, n_rows - 1, n_rows).detach();
      expect_rows(row, trace.layer_out, k);
      VocabInput input;
      input.hidden = rms_norm(row, model->trainable.at("norm.weight").detach(), c.norm_eps);
      input.weights = at::ones({1});
      expect_rows(draft_logits(frozen.head, input, Precision::kFloat32), trace.step_logits, k);
    }
  }
}

std::string shape_name(const testing::TestParamInfo<Shape>& shape) {
  if (shape.param == Shape::kMtp) return "Mtp";
  return shape.param == Shape::kEagle3Gemma4 ? "Eagle3Gemma4" : "Eagle3Qwen3";
}

INSTANTIATE_TEST_SUITE_P(Shapes, TrainPaired,
                         testing::Values(Shape::kEagle3Qwen3, Shape::kEagle3Gemma4, Shape::kMtp), shape_name);

}  // namespace
}  // namespace dspark
