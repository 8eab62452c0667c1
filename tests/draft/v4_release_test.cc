// DeepSeek V4 as released: its tensors written down from the format's description, independently of the
// tables in src/, with their FP8 and FP4 types and scales, held against what loading asks for, against the
// published numbers of elements per type, and against what a plan says without them.

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "draft/capacity_plan.h"
#include "draft/sparse_folder.h"
#include "draft/v4_drafter.h"
#include "models/model_shapes.h"
#include "models/stored_form.h"

namespace dspark {
namespace {

using test::HeaderTensor;

constexpr int64_t kVocab = 129280, kHead = 512, kStreams = 4, kOutRank = 1024, kUsed = 6;
constexpr int64_t kIndexHeads = 64, kIndexDim = 128, kHashLayers = 3, kStages = 3, kTaps = 3;

/// What differs between the two releases.
struct Release {
  const char* config;
  int64_t dim, layers, heads, q_rank, out_groups, experts, expert_dim, markov_rank;
  bool slides_first;  // layers 0 and 1 slide; else they are heavily compressed
  // Elements as the statistics of the published files count them (FP4 unpacked, scales left out).
  int64_t bf16, fp8, fp4, all;
  int64_t rate(int64_t layer) const {
    return layer < 2 ? (slides_first ? 0 : 128) : layer % 2 == 0 ? 4 : 128;
  }
};
void PrintTo(const Release& release, std::ostream* out) {
  *out << release.config;
}

class Header {
 public:
  explicit Header(const Release& release) : r_(release) {}

  std::vector<HeaderTensor> write() {
    add("embed.weight", "BF16", {kVocab, r_.dim});
    add("head.weight", "BF16", {kVocab, r_.dim});
    add("norm.weight", "BF16", {r_.dim});
    head_mix("hc_head");
    for (int64_t i = 0; i < r_.layers; ++i) {
      block("layers." + std::to_string(i) + ".", r_.rate(i), i < kHashLayers);
    }
    for (int64_t i = 0; i < kStages; ++i) block("mtp." + std::to_string(i) + ".", 0, false);
    fp8("mtp.0.main_proj", r_.dim, kTaps * r_.dim);
    add("mtp.0.main_norm.weight", "BF16", {r_.dim});
    const std::string last = "mtp." + std::to_string(kStages - 1) + ".";
    head_mix(last + "hc_head");
    add(last + "norm.weight", "BF16", {r_.dim});
    add(last + "markov_head.markov_w1.weight", "BF16", {kVocab, r_.markov_rank});
    add(last + "markov_head.markov_w2.weight", "BF16", {kVocab, r_.markov_rank});
    add(last + "confidence_head.proj.weight", "BF16", {1, r_.dim + r_.markov_rank});
    return std::move(tensors_);
  }

 private:
  void add(const std::string& name, const char* dtype, std::vector<int64_t> shape) {
    tensors_.push_back({name, dtype, std::move(shape)});
  }
  void fp8(const std::string& name, int64_t n_out, int64_t n_in) {
    add(name + ".weight", "F8_E4M3", {n_out, n_in});
    add(name + ".scale", "F8_E8M0", {(n_out + 127) / 128, (n_in + 127) / 128});
  }
  void fp4(const std::string& name, int64_t n_out, int64_t n_in) {
    add(name + ".weight", "I8", {n_out, n_in / 2});
    add(name + ".scale", "F8_E8M0", {n_out, n_in / 32});
  }
  void head_mix(const std::string& p) {
    add(p + "_fn", "F32", {kStreams, kStreams * r_.dim});
    add(p + "_base", "F32", {kStreams});
    add(p + "_scale", "F32", {1});
  }
  void compressor(const std::string& p, int64_t rate, int64_t width) {
    const int64_t wide = rate == 4 ? 2 * width : width;
    add(p + "wkv.weight", "BF16", {wide, r_.dim});
    add(p + "wgate.weight", "BF16", {wide, r_.dim});
    add(p + "ape", "F32", {rate, wide});
    add(p + "norm.weight", "BF16", {width});
  }
  void attention(const std::string& p, int64_t rate) {
    fp8(p + "wq_a", r_.q_rank, r_.dim);
    add(p + "q_norm.weight", "BF16", {r_.q_rank});
    fp8(p + "wq_b", r_.heads * kHead, r_.q_rank);
    fp8(p + "wkv", kHead, r_.dim);
    add(p + "kv_norm.weight", "BF16", {kHead});
    fp8(p + "wo_a", r_.out_groups * kOutRank, r_.heads * kHead / r_.out_groups);
    fp8(p + "wo_b", r_.dim, r_.out_groups * kOutRank);
    add(p + "attn_sink", "F32", {r_.heads});
    if (rate > 0) compressor(p + "compressor.", rate, kHead);
    if (rate != 4) return;
    fp8(p + "indexer.wq_b", kIndexHeads * kIndexDim, r_.q_rank);
    add(p + "indexer.weights_proj.weight", "BF16", {kIndexHeads, r_.dim});
    compressor(p + "indexer.compressor.", rate, kIndexDim);
  }
  void block(const std::string& p, int64_t rate, bool hash_routed) {
    add(p + "attn_norm.weight", "BF16", {r_.dim});
    add(p + "ffn_norm.weight", "BF16", {r_.dim});
    for (const char* mix : {"hc_attn", "hc_ffn"}) {
      add(p + mix + "_fn", "F32", {(2 + kStreams) * kStreams, kStreams * r_.dim});
      add(p + mix + "_base", "F32", {(2 + kStreams) * kStreams});
      add(p + mix + "_scale", "F32", {3});
    }
    attention(p + "attn.", rate);
    add(p + "ffn.gate.weight", "BF16", {r_.experts, r_.dim});
    if (hash_routed) {
      add(p + "ffn.gate.tid2eid", "I64", {kVocab, kUsed});
    } else {
      add(p + "ffn.gate.bias", "F32", {r_.experts});
    }
    for (int64_t e = 0; e < r_.experts; ++e) {
      const std::string expert = p + "ffn.experts." + std::to_string(e) + ".";
      fp4(expert + "w1", r_.expert_dim, r_.dim);
      fp4(expert + "w2", r_.dim, r_.expert_dim);
      fp4(expert + "w3", r_.expert_dim, r_.dim);
    }
    fp8(p + "ffn.shared_experts.w1", r_.expert_dim, r_.dim);
    fp8(p + "ffn.shared_experts.w2", r_.dim, r_.expert_dim);
    fp8(p + "ffn.shared_experts.w3", r_.expert_dim, r_.dim);
  }

  const Release& r_;
  std::vector<HeaderTensor> tensors_;
};

Checkpoint open_config(const Release& release) {
  auto file = Checkpoint::open_config((test::data_dir() / "plan" / release.config).string());
  EXPECT_TRUE(file.ok()) << file.status().to_string();
  return *std::move(file);
}

class V4Release : public testing::TestWithParam<Release> {
 protected:
  void SetUp() override {
    tensors_ = Header(GetParam()).write();
    const Checkpoint config = open_config(GetParam());
    auto model = read_model_config(config);
    ASSERT_TRUE(model.ok()) << model.status().to_string();
    model_ = *std::move(model);
    auto draft = plan_draft_config(config, &model_);
    ASSERT_TRUE(draft.ok()) << draft.status().to_string();
    draft_ = *std::move(draft);
  }
  std::vector<ExpectedTensor> asked(const Checkpoint& file) const {
    std::vector<ExpectedTensor> all = expected_tensors(file, model_);
    for (ExpectedTensor& tensor : v4_draft_tensors(file, model_, draft_)) all.push_back(std::move(tensor));
    return all;
  }

  std::vector<HeaderTensor> tensors_;
  ModelConfig model_;
  DraftConfig draft_;
};

TEST_P(V4Release, ElementsOfEveryTypeAreThePublishedOnes) {
  std::map<std::string, int64_t> n;
  int64_t all = 0;
  for (const HeaderTensor& tensor : tensors_) {
    if (tensor.name.ends_with(".scale")) continue;
    n[tensor.dtype] += tensor.n_elements() * (tensor.dtype == "I8" ? 2 : 1);
    all += tensor.n_elements() * (tensor.dtype == "I8" ? 2 : 1);
  }
  EXPECT_EQ(n["BF16"], GetParam().bf16);
  EXPECT_EQ(n["F8_E4M3"], GetParam().fp8);
  EXPECT_EQ(n["I8"], GetParam().fp4);
  EXPECT_EQ(all, GetParam().all);
}

TEST_P(V4Release, LoadingAsksForExactlyTheseTensors) {
  std::set<std::pair<std::string, std::vector<int64_t>>> written, wanted;
  for (const HeaderTensor& tensor : tensors_) {
    if (tensor.name.ends_with(".scale")) continue;
    std::vector<int64_t> shape = tensor.shape;
    if (tensor.dtype == "I8") shape[1] *= 2;
    written.emplace(tensor.name, std::move(shape));
  }
  const Checkpoint config = open_config(GetParam());
  for (const ExpectedTensor& tensor : asked(config)) wanted.emplace(tensor.name, tensor.shape);
  EXPECT_TRUE(written == wanted);
}

TEST_P(V4Release, ATrueHeaderIsAccepted) {
  const test::SparseFolder folder(GetParam().config, tensors_);
  const auto file = Checkpoint::open(folder.path().string());
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  const Status target = check_tensors(*file, model_);
  EXPECT_TRUE(target.ok()) << target.to_string();
  const Status draft = check_v4_draft_tensors(*file, model_, draft_);
  EXPECT_TRUE(draft.ok()) << draft.to_string();
}

TEST_P(V4Release, LostScalesAreNamed) {
  std::erase_if(tensors_, [](const HeaderTensor& tensor) {
    return tensor.name == "layers.3.ffn.experts.7.w2.scale" || tensor.name == "mtp.0.main_proj.scale";
  });
  const test::SparseFolder folder(GetParam().config, tensors_);
  const auto file = Checkpoint::open(folder.path().string());
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_NE(check_tensors(*file, model_).message().find("layers.3.ffn.experts.7.w2.weight"),
            std::string::npos);
  EXPECT_NE(check_v4_draft_tensors(*file, model_, draft_).message().find("mtp.0.main_proj.weight"),
            std::string::npos);
}

// The plan of a config alone is that of the files.
TEST_P(V4Release, ThePlanNeedsNoTensors) {
  int64_t bytes = 0;
  for (const HeaderTensor& tensor : tensors_) bytes += tensor.n_bytes();
  const Checkpoint config = open_config(GetParam());
  const auto plan = plan_capacity(config, &config, {});
  ASSERT_TRUE(plan.ok()) << plan.status().to_string();
  EXPECT_DOUBLE_EQ(plan->target.disk_bytes + plan->draft->disk_bytes, static_cast<double>(bytes));
  EXPECT_EQ(plan->target.parameters + plan->draft->parameters, GetParam().all);

  const test::SparseFolder folder(GetParam().config, tensors_);
  const auto file = Checkpoint::open(folder.path().string());
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  const auto with_tensors = plan_capacity(*file, &*file, {});
  ASSERT_TRUE(with_tensors.ok()) << with_tensors.status().to_string();
  EXPECT_DOUBLE_EQ(with_tensors->target.disk_bytes, plan->target.disk_bytes);
  EXPECT_DOUBLE_EQ(with_tensors->target.weight_bytes, plan->target.weight_bytes);
  EXPECT_DOUBLE_EQ(with_tensors->draft->disk_bytes, plan->draft->disk_bytes);
  EXPECT_DOUBLE_EQ(with_tensors->draft->weight_bytes, plan->draft->weight_bytes);

  // FP4 stays 4.25 bits, FP8 with scales that are powers of two becomes BF16.
  const Release& r = GetParam();
  const double rest =
      2.0 * static_cast<double>(r.bf16) + 4.0 * static_cast<double>(r.all - r.bf16 - r.fp8 - r.fp4);
  const double held = 4.25 / 8.0 * static_cast<double>(r.fp4) + 2.0 * static_cast<double>(r.fp8) + rest;
  EXPECT_NEAR(plan->target.weight_bytes + plan->draft->weight_bytes, held, 1e-4 * held);
}

INSTANTIATE_TEST_SUITE_P(Releases, V4Release,
                         testing::Values(Release{"deepseek_v4_flash", 4096, 43, 64, 1024, 8, 256, 2048, 256,
                                                 true, 1483567488, 6304038912, 296352743424, 304180418494},
                                         Release{"deepseek_v4_pro", 7168, 61, 128, 1536, 16, 384, 3072, 512,
                                                 false, 2954820352, 23952621568, 1623497637888,
                                                 1650497936906}),
                         [](const auto& param) { return std::string(param.param.config); });

}  // namespace
}  // namespace dspark
