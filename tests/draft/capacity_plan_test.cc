// Plans of the published pairs from hand-written configs: parameter counts, names and shapes of synthetic
// checkpoints (true headers over sparse files), memory and roofs.

#include "draft/capacity_plan.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "draft/draft_checkpoint.h"
#include "draft/draft_tensors.h"
#include "draft/sparse_folder.h"
#include "draft/v4_drafter.h"
#include "models/model_shapes.h"
#include "models/stored_form.h"

namespace dspark {
namespace {

Checkpoint open_config(const std::string& name) {
  Result<Checkpoint> file = Checkpoint::open_config((test::data_dir() / "plan" / name).string());
  EXPECT_TRUE(file.ok()) << file.status().to_string();
  return *std::move(file);
}

CapacityPlan plan_of(const std::string& target, const std::string& draft, const PlanOptions& options = {}) {
  const Checkpoint target_file = open_config(target);
  const Checkpoint draft_file = open_config(draft);
  Result<CapacityPlan> plan = plan_capacity(target_file, &draft_file, options);
  EXPECT_TRUE(plan.ok()) << plan.status().to_string();
  return plan.ok() ? *plan : CapacityPlan();
}

struct Pair {
  const char* target;
  const char* draft;
  int64_t target_parameters;
  int64_t draft_parameters;
};
void PrintTo(const Pair& pair, std::ostream* out) {
  *out << pair.target;
}

class PublishedPair : public testing::TestWithParam<Pair> {};

TEST_P(PublishedPair, HasThePublishedNumberOfParameters) {
  const Pair& pair = GetParam();
  const CapacityPlan plan = plan_of(pair.target, pair.draft);
  ASSERT_TRUE(plan.draft.has_value());
  EXPECT_EQ(plan.draft->parameters, pair.draft_parameters);
  EXPECT_EQ(plan.target.parameters, pair.target_parameters);
  EXPECT_EQ(plan.block, 7);
  EXPECT_GT(plan.total_bytes, 2.0 * static_cast<double>(plan.target.parameters + plan.draft->parameters));
}

void expect_names_and_shapes(const std::string& name, std::vector<ExpectedTensor> tensors) {
  const Checkpoint config_file = open_config(name);
  const Result<ModelConfig> config = read_model_config(config_file);
  ASSERT_TRUE(config.ok()) << config.status().to_string();
  {
    const test::SparseFolder whole(name, test::in_bf16(tensors));
    const Result<Checkpoint> file = Checkpoint::open(whole.path().string());
    ASSERT_TRUE(file.ok()) << file.status().to_string();
    const Status checked = check_tensors(*file, *config);
    EXPECT_TRUE(checked.ok()) << checked.to_string();
  }
  const std::string lost = tensors.back().name;
  tensors.pop_back();
  const test::SparseFolder less(name, test::in_bf16(tensors));
  const Result<Checkpoint> file = Checkpoint::open(less.path().string());
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_NE(check_tensors(*file, *config).message().find(lost), std::string::npos);
}

TEST_P(PublishedPair, NamesAndShapesOfATrueHeaderAreAccepted) {
  const Pair& pair = GetParam();
  const Checkpoint target_file = open_config(pair.target);
  const Result<ModelConfig> config = read_model_config(target_file);
  ASSERT_TRUE(config.ok()) << config.status().to_string();
  expect_names_and_shapes(pair.target, expected_tensors(target_file, *config));

  const Result<DraftConfig> draft = read_draft_config(open_config(pair.draft));
  ASSERT_TRUE(draft.ok()) << draft.status().to_string();
  std::vector<ExpectedTensor> tensors;
  for (const DraftTensor& tensor : draft_tensors(*draft)) tensors.push_back({tensor.name, tensor.shape});
  const test::SparseFolder folder(pair.draft, test::in_bf16(tensors));
  const Result<DraftCheckpoint> opened = open_draft_checkpoint(folder.path().string());
  EXPECT_TRUE(opened.ok()) << opened.status().to_string();
}

INSTANTIATE_TEST_SUITE_P(
    Pairs, PublishedPair,
    testing::Values(Pair{"qwen3_4b", "dspark_qwen3_4b_block7", 4022468096, 1393133569},
                    Pair{"qwen3_8b", "dspark_qwen3_8b_block7", 8190735360, 2371081729},
                    Pair{"qwen3_14b", "dspark_qwen3_14b_block7", 14768307200, 3416263169},
                    Pair{"gemma4_12b", "dspark_gemma4_12b_block7", 11907350320, 3430444550}),
    [](const auto& param) { return std::string(param.param.target); });

TEST(PlanV4, CountsTargetAndDrafterInside) {
  const auto active = [](const CapacityPlan& plan) {
    return static_cast<double>(plan.target.active_parameters) / 1e9;
  };
  // 284 billion, 13 of them active, as released; the exact counts are in v4_release_test.cc.
  const CapacityPlan flash = plan_of("deepseek_v4_flash", "deepseek_v4_flash");
  EXPECT_NEAR(static_cast<double>(flash.target.parameters) / 1e9, 284.0, 1.5);
  EXPECT_NEAR(active(flash), 13.0, 1.0);
  EXPECT_EQ(flash.block, 5);
  ASSERT_TRUE(flash.draft.has_value());
  EXPECT_GT(flash.draft->parameters, int64_t{3} * 257 * 3 * 4096 * 2048);
  // 1.6 trillion, 49 billion active.
  const CapacityPlan pro = plan_of("deepseek_v4_pro", "deepseek_v4_pro");
  EXPECT_NEAR(static_cast<double>(pro.target.parameters) / 1e9, 1600.0, 50.0);
  EXPECT_NEAR(active(pro), 49.0, 1.0);
}

TEST(Plan, RoofsFollowFromWhatIsRead) {
  PlanOptions options;
  options.context = 1024;
  const CapacityPlan one = plan_of("qwen3_4b", "dspark_qwen3_4b_block7", options);
  // 36 layers, 8 heads of 128, key and value, two bytes each.
  EXPECT_DOUBLE_EQ(one.target.cache_bytes_per_token, 36.0 * 8 * 128 * 2 * 2);
  EXPECT_DOUBLE_EQ(one.draft->cache_bytes_per_token, 20480.0);
  EXPECT_DOUBLE_EQ(one.plain_roof(one.step_bytes, options), 1.0);
  EXPECT_DOUBLE_EQ(one.draft_roof(one.round_bytes, options), options.accept_length);
  options.weight_bits = 4.5;
  const CapacityPlan small = plan_of("qwen3_4b", "dspark_qwen3_4b_block7", options);
  EXPECT_LT(small.target.weight_bytes, 0.3 * one.target.weight_bytes);
  options.batch = 8;
  const CapacityPlan batch = plan_of("qwen3_4b", "dspark_qwen3_4b_block7", options);
  EXPECT_DOUBLE_EQ(batch.target.cache_bytes, 8 * small.target.cache_bytes);
  EXPECT_GT(batch.plain_roof(1e9, options), 4 * small.plain_roof(1e9, {}));
}

// Rows of a batch reach more and more experts: the curve of a mixture is not flat.
TEST(Plan, ExpertsCostMoreWithMoreRows) {
  PlanOptions options;
  options.context = 128;
  const CapacityPlan one = plan_of("deepseek_v4_flash", "deepseek_v4_flash", options);
  options.batch = 8;
  const CapacityPlan eight = plan_of("deepseek_v4_flash", "deepseek_v4_flash", options);
  EXPECT_GT(eight.step_bytes, 2 * one.step_bytes);
  EXPECT_GT(one.round_bytes, 1.5 * one.step_bytes);
}

TEST(Plan, WrongPairsAndOptionsAreRefused) {
  const Checkpoint target = open_config("qwen3_4b");
  const Checkpoint draft = open_config("dspark_qwen3_8b_block7");
  EXPECT_FALSE(plan_capacity(target, &draft, {}).ok());
  EXPECT_FALSE(plan_capacity(target, &target, {}).ok());
  PlanOptions options;
  options.context = 0;
  EXPECT_FALSE(plan_capacity(target, nullptr, options).ok());
}

}  // namespace
}  // namespace dspark
