// Losses, metrics, gradients and three optimiser steps against the reference implementation, in fp32.

#include <gtest/gtest.h>

#include <cmath>

#include "train/anchors.h"
#include "train/backbone.h"
#include "train/heads.h"
#include "train/optimizer.h"
#include "train/paired_step.h"
#include "train_cases.h"

namespace dspark {
namespace {

using nlohmann::json;

constexpr double kRelativeLoss = 1e-5;

void expect_close(const char* what, double found, double expected) {
  EXPECT_NEAR(found, expected, kRelativeLoss * std::max(1.0, std::abs(expected))) << what;
}

class TrainGolden : public testing::TestWithParam<std::string> {};

LossWeights loss_weights(const json& step) {
  LossWeights weights;
  weights.ce = step["alphas"][0].get<double>();
  weights.l1 = step["alphas"][1].get<double>();
  weights.confidence = step["alphas"][2].get<double>();
  weights.decay = step["loss_decay_gamma"].get<double>();
  return weights;
}

StepMetrics run_step(const test::TrainCase& data, const json& step) {
  if (is_paired(data.model.config.kind)) {
    const PairedBatch batch =
        build_paired_batch(test::anchor_sets(data, step), data.model.config, 0, at::kCPU);
    const at::Tensor log_sum = target_log_sum(data.target.head, batch.target_hidden);
    return train_paired_step(data.model.config, data.model.all(), data.target, batch, log_sum, 1.0,
                             Precision::kFloat32);
  }
  const StepBatch batch = build_step_batch(test::anchor_sets(data, step), data.model.config, 0, at::kCPU);
  const at::Tensor log_sum = target_log_sum(data.target.head, batch.target_hidden);
  return train_step(data.model.config, data.model.all(), data.target, batch, log_sum, loss_weights(step), 1.0,
                    Precision::kFloat32);
}

void expect_metrics(const StepMetrics& found, const json& expected) {
  expect_close("loss", found.loss, expected["loss"]);
  if (expected.contains("ce_loss")) expect_close("ce", found.ce, expected["ce_loss"]);
  expect_close("tau", found.tau, expected["tau_probabilistic"]);
  for (size_t slot = 0; slot < found.accept_rate.size(); ++slot) {
    expect_close("accept rate", found.accept_rate[slot], expected["accept_rate@" + std::to_string(slot)]);
  }
  for (size_t k = 0; k < found.step_loss.size(); ++k) {
    expect_close("step loss", found.step_loss[k], expected["ploss_" + std::to_string(k)]);
  }
  if (expected.contains("valid_tokens@0")) {
    EXPECT_EQ(found.n_blocks, expected["valid_tokens@0"].get<int64_t>());
  }
  if (expected.contains("l1_loss")) expect_close("l1", found.l1, expected["l1_loss"]);
  if (!expected.contains("confidence_loss")) return;
  expect_close("confidence", found.confidence, expected["confidence_loss"]);
  expect_close("confidence error", found.confidence_abs_error, expected["confidence_abs_error"]);
  expect_close("confidence bias", found.confidence_bias, expected["confidence_bias"]);
}

TEST_P(TrainGolden, GradientsOfTheFirstStep) {
  const test::TrainCase data = test::open_train_case(GetParam());
  ASSERT_FALSE(data.model.trainable.empty());
  const json& step = data.expected["steps"][0];
  expect_metrics(run_step(data, step), step["metrics"]);
  for (const auto& [name, tensor] : data.model.trainable) {
    const auto expected = data.gradients.find("grad." + name);
    ASSERT_NE(expected, data.gradients.end()) << name;
    ASSERT_TRUE(tensor.grad().defined()) << name;
    const at::Tensor excess = (tensor.grad() - expected->second).abs() - 1e-4 * expected->second.abs();
    EXPECT_LE(excess.max().item<float>(), 1e-5f) << name;
  }
}

TEST_P(TrainGolden, ThreeOptimiserSteps) {
  test::TrainCase data = test::open_train_case(GetParam());
  ASSERT_FALSE(data.model.trainable.empty());
  AdamW adam(data.model.trainable, {});
  // Adam divides by the gradient's size: where it is noise, so is the direction of the step.
  TensorMap noisy;
  double largest_lr = 0;
  for (const json& step : data.expected["steps"]) {
    zero_gradients(data.model.trainable);
    expect_metrics(run_step(data, step), step["metrics"]);
    for (const auto& [name, tensor] : data.model.trainable) {
      const at::Tensor small = tensor.grad().abs() < 1e-6;
      noisy[name] = noisy.count(name) != 0 ? noisy[name].logical_or(small) : small;
    }
    expect_close("gradient norm", clip_gradients(data.model.trainable, 1.0), step["grad_norm_before_clip"]);
    adam.step(data.model.trainable, step["lr"].get<double>());
    largest_lr = std::max(largest_lr, step["lr"].get<double>());
  }
  for (const auto& [name, tensor] : data.model.trainable) {
    const auto expected = data.after.find(name);
    ASSERT_NE(expected, data.after.end()) << name;
    const at::Tensor difference = (tensor.detach() - expected->second).abs();
    const at::Tensor allowed =
        at::where(noisy[name], at::full_like(difference, 6 * largest_lr), at::full_like(difference, 2e-6));
    EXPECT_LE((difference - allowed).max().item<float>(), 0.0f) << name;
  }
}

/// AdamW alone: the reference's gradients in, the reference's parameters out, after every step.
TEST_P(TrainGolden, OptimiserAloneFollowsTheReference) {
  const auto file = test::train_cases_dir() / GetParam() / "optimizer_steps.safetensors";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "not part of this case";
  const TensorMap steps = test::read_tensors(file);
  test::TrainCase data = test::open_train_case(GetParam());
  ASSERT_FALSE(data.model.trainable.empty());
  AdamW adam(data.model.trainable, {});
  for (size_t i = 0; i < data.expected["steps"].size(); ++i) {
    const std::string prefix = "step" + std::to_string(i) + ".";
    for (const auto& [name, tensor] : data.model.trainable) {
      const auto grad = steps.find(prefix + "clipped_grad." + name);
      ASSERT_NE(grad, steps.end()) << name;
      tensor.mutable_grad() = grad->second.clone();
    }
    adam.step(data.model.trainable, data.expected["steps"][i]["lr"].get<double>());
    for (const auto& [name, tensor] : data.model.trainable) {
      const at::Tensor& expected = steps.at(prefix + "param." + name);
      EXPECT_LE((tensor.detach() - expected).abs().max().item<float>(), 2e-7f) << prefix << name;
    }
  }
}

class TrainGoldenBlocks : public TrainGolden {};

TEST_P(TrainGoldenBlocks, AnchorsAreCandidatesAndLabelsAreValid) {
  const test::TrainCase data = test::open_train_case(GetParam());
  const int32_t block = data.model.config.block_size;
  for (const json& step : data.expected["steps"]) {
    for (size_t i = 0; i < step["samples"].size(); ++i) {
      TargetCacheSample sample;
      data.cache.read_tokens(step["samples"][i].get<int64_t>(), sample);
      const std::vector<int32_t> candidates = anchor_candidates(sample.loss_mask);
      for (size_t a = 0; a < step["anchors"][i].size(); ++a) {
        if (step["block_keep"][i][a].get<int>() == 0) continue;
        const auto anchor = step["anchors"][i][a].get<int32_t>();
        EXPECT_TRUE(std::binary_search(candidates.begin(), candidates.end(), anchor));
        int32_t expected_slots = 0;
        for (const json& valid : step["eval_mask"][i][a]) expected_slots += valid.get<int32_t>();
        EXPECT_EQ(valid_slots(sample.loss_mask, anchor, block), expected_slots);
      }
    }
  }
}

TEST_P(TrainGolden, LearningRates) {
  const test::TrainCase data = test::open_train_case(GetParam());
  const json& expected = data.expected["lr_schedule"];
  const auto total = data.expected["total_steps"].get<int64_t>();
  for (size_t step = 0; step < expected.size(); ++step) {
    EXPECT_NEAR(learning_rate_at_step(data.expected["lr0"], data.expected["warmup_ratio"],
                                      static_cast<int64_t>(step), total),
                expected[step].get<double>(), 1e-9)
        << step;
  }
}

/// The cases at hand: all seven with the full set, a few with the fixtures.
std::vector<std::string> case_names(bool blocks_only) {
  std::vector<std::string> names;
  for (const char* name : {"dspark_vanilla", "dspark_gated", "dspark_rnn", "dspark_noconf", "dflash",
                           "gemma4_dspark_vanilla", "eagle3"}) {
    if (blocks_only && std::string(name) == "eagle3") continue;
    if (std::filesystem::exists(test::train_cases_dir() / name / "expected.json")) names.push_back(name);
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(Cases, TrainGolden, testing::ValuesIn(case_names(false)));
INSTANTIATE_TEST_SUITE_P(Cases, TrainGoldenBlocks, testing::ValuesIn(case_names(true)));

}  // namespace
}  // namespace dspark
