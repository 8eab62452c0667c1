// Sizes of tensors that are not there, from config.json alone.

#include "models/stored_form.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "models/tiny_model.h"

namespace dspark {
namespace {

using nlohmann::json;

const ExpectedTensor kProjection{"model.layers.3.self_attn.o_proj.weight", {256, 512}};
const ExpectedTensor kExpert{"model.layers.3.mlp.experts.7.up_proj.weight", {256, 512}};
const ExpectedTensor kHead{"lm_head.weight", {256, 512}};
const ExpectedTensor kNorm{"model.norm.weight", {512}};
constexpr double kElements = 256.0 * 512.0;
constexpr double kBlocks = 2.0 * 4.0;

class StoredFormsOf : public testing::Test {
 protected:
  StoredForms& of(const json& config) {
    std::ofstream(folder_.path() / "config.json") << config.dump();
    auto file = Checkpoint::open_config(folder_.path().string());
    EXPECT_TRUE(file.ok()) << file.status().to_string();
    file_ = *std::move(file);
    return forms_.emplace(file_);
  }
  test::TemporaryFolder folder_;
  Checkpoint file_;
  std::optional<StoredForms> forms_;
};

TEST_F(StoredFormsOf, WithoutQuantisationIsBf16) {
  const StoredForms& forms = of({{"model_type", "qwen3"}});
  EXPECT_EQ(forms.dtype(kProjection), DType::kBF16);
  EXPECT_EQ(forms.disk_bytes(kProjection), 2 * kElements);
  EXPECT_EQ(forms.memory_bytes(kProjection), 2 * kElements);
  EXPECT_EQ(forms.disk_bytes(kNorm), 2 * 512.0);
  EXPECT_EQ(forms.memory_bytes(kNorm), 4 * 512.0);
}

// DeepSeek V3: scales are any floats, so that decoded numbers need not be BF16.
TEST_F(StoredFormsOf, Fp8WithFloatScalesBecomesF32) {
  const StoredForms& forms =
      of({{"model_type", "deepseek_v3"},
          {"quantization_config", {{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}}}});
  for (const ExpectedTensor& tensor : {kProjection, kExpert}) {
    EXPECT_EQ(forms.dtype(tensor), DType::kF8_E4M3);
    EXPECT_EQ(forms.disk_bytes(tensor), kElements + 4 * kBlocks);
    EXPECT_EQ(forms.memory_bytes(tensor), 4 * kElements);
  }
  EXPECT_EQ(forms.dtype(kHead), DType::kBF16);
  EXPECT_EQ(forms.dtype(kNorm), DType::kBF16);
}

TEST_F(StoredFormsOf, Fp8WithPowersOfTwoBecomesBf16AndNamedModulesAreKept) {
  const StoredForms& forms = of({{"model_type", "qwen3_moe"},
                                 {"expert_dtype", "fp4"},  // means something in DeepSeek V4 only
                                 {"quantization_config",
                                  {{"quant_method", "fp8"},
                                   {"scale_fmt", "ue8m0"},
                                   {"modules_to_not_convert", {"layers.3.self_attn"}}}}});
  EXPECT_EQ(forms.dtype(kProjection), DType::kBF16);
  EXPECT_EQ(forms.dtype(kExpert), DType::kF8_E4M3);
  EXPECT_EQ(forms.disk_bytes(kExpert), kElements + kBlocks);
  EXPECT_EQ(forms.memory_bytes(kExpert), 2 * kElements);
}

TEST_F(StoredFormsOf, ExpertsOfV4AreWhatExpertDtypeSays) {
  const ExpectedTensor expert{"layers.0.ffn.experts.1.w2.weight", {256, 512}};
  json config = {{"model_type", "deepseek_v4"},
                 {"expert_dtype", "fp4"},
                 {"quantization_config", {{"quant_method", "fp8"}, {"scale_fmt", "ue8m0"}}}};
  EXPECT_EQ(of(config).dtype(expert), DType::kI8);
  EXPECT_EQ(of(config).disk_bytes(expert), kElements * 17 / 32);
  EXPECT_EQ(of(config).memory_bytes(expert), kElements * 17 / 32);
  config["expert_dtype"] = "fp8";
  EXPECT_EQ(of(config).dtype(expert), DType::kF8_E4M3);
  config.erase("expert_dtype");
  EXPECT_EQ(of(config).dtype(expert), DType::kF8_E4M3);
  config.erase("quantization_config");
  EXPECT_EQ(of(config).dtype(expert), DType::kBF16);
}

}  // namespace
}  // namespace dspark
