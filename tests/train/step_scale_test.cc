// Columns of a drafter's first matrix that see inputs of different sizes.

#include "train/step_scale.h"

#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <string>

#include "train/optimizer.h"
#include "train/train_state.h"

namespace dspark {
namespace {

using at::Tensor;

uint16_t to_bf16(float value) {
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
}

/// Samples of `n_tokens` rows whose columns have known sizes and alternating signs.
class KnownSource final : public SampleSource {
 public:
  KnownSource(std::vector<float> sizes, int64_t n_samples) : sizes_(std::move(sizes)), n_samples_(n_samples) {
    info_.hidden_size = static_cast<int32_t>(sizes_.size() / 2);
    info_.target_layer_ids = {1, 3};
  }
  const std::string& name() const override { return name_; }
  const TargetCacheInfo& info() const override { return info_; }
  int64_t n_samples() const override { return n_samples_; }
  void read_tokens(int64_t, TargetCacheSample&) const override {}
  Status read(int64_t idx, TargetCacheSample& sample) override {
    last_read = idx;
    sample.target_hidden_states.clear();
    for (int row = 0; row < 5; ++row) {
      for (const float size : sizes_) {
        const float value = row == 0 ? 4096.0f : row % 2 == 0 ? size : -size;
        sample.target_hidden_states.push_back(to_bf16(value));
      }
    }
    return ok_status();
  }

  int64_t last_read = -1;

 private:
  std::string name_ = "known";
  TargetCacheInfo info_;
  std::vector<float> sizes_;
  int64_t n_samples_;
};

std::vector<float> scale_of(std::vector<float> sizes, int64_t n_samples = 3) {
  KnownSource source(std::move(sizes), n_samples);
  const Result<Tensor> scale = feature_scale(source);
  EXPECT_TRUE(scale.ok());
  return {scale->data_ptr<float>(), scale->data_ptr<float>() + scale->numel()};
}

TEST(FeatureScale, IsTheSizeOfAColumnAgainstTheMean) {
  // Mean 16; the row of the first token is left out.
  EXPECT_EQ(scale_of({1, 2, 4, 9, 32, 48}), (std::vector<float>{1 / 16.f, 1 / 8.f, 0.25f, 0.5f, 2, 4}));
  EXPECT_EQ(scale_of({3, 3, 3, 3}), (std::vector<float>{1, 1, 1, 1}));
}

TEST(FeatureScale, NeverLosesItsWay) {
  EXPECT_EQ(scale_of({0, 0, 0, 0}), (std::vector<float>{1, 1, 1, 1}));
  EXPECT_EQ(scale_of({0, 0, 0, 8}), (std::vector<float>{1 / 64.f, 1 / 64.f, 1 / 64.f, 4}));
  EXPECT_EQ(scale_of({1, 1, 1, 1}, 0), (std::vector<float>{1, 1, 1, 1}));
}

TEST(FeatureScale, LooksAtSamplesFromEverywhere) {
  KnownSource source({1, 1}, 1000);
  ASSERT_TRUE(feature_scale(source).ok());
  EXPECT_GT(source.last_read, 900);
}

/// The definition: the same steps with the weights of a matrix multiplied, and its gradients divided, by the
/// scale.
TEST(StepScale, MovesWeightsLikeThoseOfScaledInputs) {
  const Tensor scale = at::tensor({0.25f, 1.0f, 8.0f});
  const Tensor start = at::randn({4, 3});
  TensorMap own = {{"fc.weight", start.clone()}, {"norm", at::ones({3})}};
  TensorMap scaled = {{"fc.weight", start * scale}, {"norm", at::ones({3})}};
  AdamW own_adam(own, {}), scaled_adam(scaled, {});
  own_adam.scale({{"fc.weight", scale}});
  for (int step = 0; step < 6; ++step) {
    const Tensor gradient = at::randn({4, 3}) * 3, other = at::randn({3});
    own["fc.weight"].mutable_grad() = gradient.clone();
    own["norm"].mutable_grad() = other.clone();
    scaled["fc.weight"].mutable_grad() = gradient / scale;
    scaled["norm"].mutable_grad() = other.clone();
    own_adam.scale_gradients(own);
    EXPECT_EQ(clip_gradients(own, 1.0), clip_gradients(scaled, 1.0));
    own_adam.step(own, 1e-2);
    scaled_adam.step(scaled, 1e-2);
    EXPECT_TRUE(at::equal(own["fc.weight"] * scale, scaled["fc.weight"])) << step;
    EXPECT_TRUE(at::equal(own["norm"], scaled["norm"])) << step;
  }
  EXPECT_FALSE(at::equal(own["fc.weight"], start));
}

TEST(StepScale, MeasuresWeightsAgainstTheUsualSize) {
  KnownSource source({3, 3, 3, 3}, 2);
  const TensorMap params = {{"fc.weight", at::ones({2, 4})},
                            {"layers.0.mlp.up_proj.weight", at::full({3, 2}, -0.025f)},
                            {"layers.0.self_attn.k_proj.bias", at::full({3}, 50.0f)},
                            {"layers.0.self_attn.k_norm.weight", at::full({3}, 33.0f)},
                            {"layers.0.self_attn.q_proj.weight", at::zeros({3, 2})},
                            {"markov_head.markov_w1.weight", at::ones({3, 2})},
                            {"norm.weight", at::ones({2})}};
  const Result<TensorMap> scales = step_scales(params, source);
  ASSERT_TRUE(scales.ok());
  const auto number = [&](const char* name) { return scales->at(name).item<float>(); };
  EXPECT_EQ(scales->size(), 4u);
  EXPECT_TRUE(at::equal(scales->at("fc.weight"), at::ones({4})));
  EXPECT_EQ(number("layers.0.mlp.up_proj.weight"), 8.0f);  // moves an eighth of the learning rate
  EXPECT_EQ(number("layers.0.self_attn.k_norm.weight"), 1 / 32.0f);
  EXPECT_EQ(number("norm.weight"), 1.0f);
}

/// What a run with scales left is read back as it was; a scale that stops or destroys a weight is refused.
TEST(StepScale, IsKeptInTheStateAndChecked) {
  const std::string path = testing::TempDir() + "/step_scale_state.safetensors";
  const auto saved = [&](float scale) {
    TensorMap masters = {{"fc.weight", at::ones({4, 3})}};
    AdamW adam(masters, {});
    adam.scale({{"fc.weight", at::tensor({1.0f, scale, 0.5f})}});
    EXPECT_TRUE(save_state(path, masters, adam, {}, {}).ok());
    TensorMap average;
    TrainCounters counters;
    return load_state(path, masters, adam, average, counters);
  };
  EXPECT_TRUE(saved(2.0f).ok());
  for (const float bad :
       {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const Status status = saved(bad);
    EXPECT_EQ(status.code(), StatusCode::kCorruptData) << bad;
    EXPECT_NE(status.message().find("scale.fc.weight"), std::string::npos) << status.message();
  }
}

}  // namespace
}  // namespace dspark
