// Routing by hand, and mixtures of experts against a plain sum over experts.

#include "models/moe.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "kernels/row_math.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

std::vector<int32_t> chosen(const MoeConfig& config, const MoeWeights& weights, std::vector<float> logits,
                            std::vector<float>* row_weights = nullptr, const int32_t* fixed = nullptr) {
  std::vector<float> scratch(logits.size());
  std::vector<int32_t> ids(static_cast<size_t>(config.n_used), -1);
  std::vector<float> values(ids.size());
  route_row(config, weights, logits.data(), fixed, scratch.data(), ids.data(), values.data());
  if (row_weights != nullptr) *row_weights = values;
  return ids;
}

MoeConfig config_of(int32_t n_experts, int32_t n_used, ExpertGating gating) {
  MoeConfig config;
  config.n_experts = n_experts;
  config.n_used = n_used;
  config.gating = gating;
  return config;
}

TEST(Routing, TiesGoToTheLowerExpert) {
  const MoeConfig config = config_of(6, 3, ExpertGating::kSoftmax);
  EXPECT_EQ(chosen(config, {}, {1, 2, 2, 2, 2, 1}), (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(chosen(config, {}, {0, 0, 0, 0, 0, 0}), (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(chosen(config, {}, {0, 0, 0, 0, 0, 5}), (std::vector<int32_t>{0, 1, 5}));
}

TEST(Routing, WeightsOfTheSoftmaxAreOverAllExperts) {
  MoeConfig config = config_of(3, 2, ExpertGating::kSoftmax);
  const std::vector<float> logits = {std::log(1.0f), std::log(3.0f), std::log(4.0f)};
  std::vector<float> w;
  EXPECT_EQ(chosen(config, {}, logits, &w), (std::vector<int32_t>{1, 2}));
  EXPECT_NEAR(w[0], 3.0f / 8, 1e-6f);
  EXPECT_NEAR(w[1], 4.0f / 8, 1e-6f);
  config.renormalise = true;
  config.weight_scale = 2.0f;
  chosen(config, {}, logits, &w);
  EXPECT_NEAR(w[0], 2.0f * 3 / 7, 1e-6f);
  EXPECT_NEAR(w[1], 2.0f * 4 / 7, 1e-6f);
}

TEST(Routing, TheBiasChoosesButDoesNotWeigh) {
  MoeConfig config = config_of(4, 1, ExpertGating::kSigmoid);
  MoeWeights weights;
  weights.choice_bias = {0.0f, 0.0f, 0.0f, 1.0f};
  std::vector<float> w;
  EXPECT_EQ(chosen(config, weights, {2, 1, 0, 0}, &w), (std::vector<int32_t>{3}));
  EXPECT_NEAR(w[0], 0.5f, 1e-6f);
}

TEST(Routing, OnlyExpertsOfTheBestGroupsAreLookedAt) {
  MoeConfig config = config_of(6, 2, ExpertGating::kSigmoid);
  config.n_groups = 3;
  config.n_groups_used = 1;
  // Group 1 has the best pair although group 0 has the best expert.
  EXPECT_EQ(chosen(config, {}, {3, -9, 2, 2, 1, 1}), (std::vector<int32_t>{2, 3}));
  // Equal groups: the lower one.
  EXPECT_EQ(chosen(config, {}, {1, 1, 1, 1, 1, 1}), (std::vector<int32_t>{0, 1}));
}

TEST(Routing, SqrtSoftplusAndGivenExperts) {
  const MoeConfig config = config_of(4, 2, ExpertGating::kSqrtSoftplus);
  const int32_t fixed[] = {3, 1};
  std::vector<float> w;
  EXPECT_EQ(chosen(config, {}, {9, 0, 9, -2}, &w, fixed), (std::vector<int32_t>{1, 3}));
  EXPECT_NEAR(w[0], std::sqrt(std::log(2.0f)), 1e-6f);
  EXPECT_NEAR(w[1], std::sqrt(std::log1p(std::exp(-2.0f))), 1e-6f);
}

// Activations of a broken model must not send anybody out of bounds.
TEST(Routing, NotANumberStillGivesDifferentExpertsInRange) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (ExpertGating gating : {ExpertGating::kSoftmax, ExpertGating::kSigmoid, ExpertGating::kSqrtSoftplus}) {
    MoeConfig config = config_of(4, 3, gating);
    for (int32_t groups : {1, 2}) {
      config.n_groups = groups;
      config.n_groups_used = groups;
      EXPECT_EQ(chosen(config, {}, {nan, nan, nan, nan}), (std::vector<int32_t>{0, 1, 2}));
    }
  }
}

class RandomExperts : public testing::TestWithParam<DType> {
 protected:
  static constexpr int32_t kDim = 64, kWidth = 96, kExperts = 7, kUsed = 3;

  PackedMatrix pack(int64_t n_out, int64_t n_in, bool exact) {
    std::vector<float> values(static_cast<size_t>(n_out * n_in));
    for (float& v : values) v = normal_(random_) * 0.2f;
    TensorView view{"w", exact ? DType::kF32 : GetParam(), {n_out, n_in}, nullptr, 0};
    bytes_.emplace_back(dtype_row_bytes(view.dtype, n_in) * static_cast<size_t>(n_out));
    view.n_bytes = bytes_.back().size();
    view.data = bytes_.back().data();
    for (int64_t row = 0; row < n_out && can_encode(view.dtype); ++row) {
      encode_row(view.dtype, values.data() + row * n_in,
                 bytes_.back().data() + static_cast<size_t>(row) * view.row_bytes(), n_in);
    }
    if (!can_encode(view.dtype)) {  // MXFP4: any nibbles, scales of about 1/8
      for (uint8_t& byte : bytes_.back()) byte = static_cast<uint8_t>(random_());
      for (size_t i = 0; i < bytes_.back().size(); i += 17) bytes_.back()[i] = 124;
    }
    Result<PackedMatrix> packed = pack_matrix(pool_, view);
    EXPECT_TRUE(packed.ok()) << packed.status().to_string();
    return *std::move(packed);
  }

  void SetUp() override {
    config_ = config_of(kExperts, kUsed, ExpertGating::kSoftmax);
    config_.expert_dim = kWidth;
    config_.shared_dim = 32;
    config_.clamp = 0.5f;
    weights_.router = pack(kExperts, kDim, true);
    for (int32_t e = 0; e < kExperts; ++e) {
      weights_.experts.push_back(
          {pack(kWidth, kDim, false), pack(kWidth, kDim, false), pack(kDim, kWidth, false)});
    }
    weights_.shared = {pack(32, kDim, false), pack(32, kDim, false), pack(kDim, 32, false)};
    x_.resize(kRows * kDim);
    for (float& v : x_) v = normal_(random_);
  }

  std::vector<float> run(MoeBlock& block, ThreadPool& pool, int64_t first, int64_t n) {
    std::vector<float> out(static_cast<size_t>(n * kDim));
    EXPECT_TRUE(block.grow(config_, kDim, n));
    MoeArgs args;
    args.router_in = args.x = x_.data() + first * kDim;
    args.out = out.data();
    args.n_rows = n;
    block.run(pool, config_, weights_, args);
    return out;
  }

  // One product of one row.
  std::vector<float> product(const PackedMatrix& w, const float* x) {
    Activations activations;
    activations.assign(pool_, x, 1, w.n_in, w.n_in, uses_int8_activations(w.kind));
    std::vector<float> y(static_cast<size_t>(w.n_out));
    const MatmulJob job{&w, y.data(), w.n_out, nullptr};
    matmul(pool_, {&job, 1}, activations);
    return y;
  }

  std::vector<float> expert(const ExpertWeights& w, const float* x) {
    std::vector<float> gate = product(w.gate, x), up = product(w.up, x);
    for (float& v : gate) v = std::min(v, config_.clamp);
    for (float& v : up) v = std::clamp(v, -config_.clamp, config_.clamp);
    gated_activation_row(gate.data(), gate.data(), up.data(), static_cast<int64_t>(gate.size()),
                         GateActivation::kSilu);
    return product(w.down, gate.data());
  }

  static constexpr int64_t kRows = 41;
  ThreadPool pool_{2};
  std::mt19937 random_{7};
  std::normal_distribution<float> normal_;
  std::vector<std::vector<uint8_t>> bytes_;
  MoeConfig config_;
  MoeWeights weights_;
  std::vector<float> x_;
};

TEST_P(RandomExperts, EqualThePlainSum) {
  MoeBlock block;
  const std::vector<float> got = run(block, pool_, 0, kRows);
  for (int64_t row = 0; row < kRows; ++row) {
    const float* x = x_.data() + row * kDim;
    std::vector<float> w;
    const std::vector<int32_t> ids = chosen(config_, weights_, product(weights_.router, x), &w);
    std::vector<float> want(kDim, 0.0f);
    for (size_t k = 0; k < ids.size(); ++k) {
      const std::vector<float> y = expert(weights_.experts[static_cast<size_t>(ids[k])], x);
      for (size_t i = 0; i < want.size(); ++i) want[i] += w[k] * y[i];
    }
    const std::vector<float> shared = expert(weights_.shared, x);
    for (size_t i = 0; i < want.size(); ++i) want[i] += shared[i];
    EXPECT_EQ(std::memcmp(want.data(), got.data() + row * kDim, kDim * sizeof(float)), 0) << "row " << row;
  }
}

TEST_P(RandomExperts, RowsDoNotDependOnTheBatchOrOnThreads) {
  MoeBlock block;
  const std::vector<float> all = run(block, pool_, 0, kRows);
  ThreadPool one(1), four(4);
  for (ThreadPool* pool : {&one, &four}) {
    for (int64_t n : {1, 2, 5, 9, 20}) {
      for (int64_t first = 0; first + n <= kRows; first += n) {
        const std::vector<float> part = run(block, *pool, first, n);
        EXPECT_EQ(std::memcmp(part.data(), all.data() + first * kDim, part.size() * sizeof(float)), 0)
            << n << " rows from " << first;
      }
    }
  }
}

// An expert without rows is not read: its weights may be anything, even nothing.
TEST_P(RandomExperts, OnlyChosenExpertsAreRead) {
  MoeBlock block;
  const std::vector<float> whole = run(block, pool_, 3, 1);
  const std::vector<int32_t> ids = chosen(config_, weights_, product(weights_.router, x_.data() + 3 * kDim));
  for (int32_t e = 0; e < kExperts; ++e) {
    if (std::find(ids.begin(), ids.end(), e) == ids.end()) weights_.experts[static_cast<size_t>(e)] = {};
  }
  const std::vector<float> again = run(block, pool_, 3, 1);
  EXPECT_EQ(std::memcmp(whole.data(), again.data(), whole.size() * sizeof(float)), 0);
}

INSTANTIATE_TEST_SUITE_P(Types, RandomExperts,
                         testing::Values(DType::kF32, DType::kBF16, DType::kQ4_0, DType::kQ8_0,
                                         DType::kMXFP4),
                         [](const auto& param) { return std::string(dtype_name(param.param)); });

}  // namespace
}  // namespace dspark
