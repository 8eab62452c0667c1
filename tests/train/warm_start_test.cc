// A drafter's first layer against the target's layer that it was made of: with the target's own rows in place
// of embeddings and features it computes what the target computes.

#include "train/warm_start.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "train/backbone.h"
#include "train/train_state.h"
#include "train_cases.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using at::Tensor;

/// A target with the rows that it is known to compute.
struct KnownTarget {
  TrainTarget target;
  Tensor hidden;      // fp32 [layers + 1, rows, dim] of one sequence
  Tensor final_norm;  // fp32 [rows, dim]
};

KnownTarget open_target(const std::string& name, const std::string& file) {
  KnownTarget out;
  const fs::path folder = test::data_dir() / "models" / name;
  auto target = open_train_target((folder / file).string());
  EXPECT_TRUE(target.ok()) << target.status().to_string();
  if (target.ok()) out.target = std::move(*target);
  const auto expected = Checkpoint::open((folder / "expected.safetensors").string());
  EXPECT_TRUE(expected.ok());
  if (!expected.ok()) return out;
  out.hidden = *decode_tensor(*expected->find("seq3.hidden"));
  out.final_norm = *decode_tensor(*expected->find("seq3.final_norm"));
  return out;
}

std::vector<uint16_t> bf16_bits(const Tensor& rows) {
  const Tensor rounded = rows.to(at::kBFloat16).contiguous();
  const auto* bits = static_cast<const uint16_t*>(rounded.const_data_ptr());
  return {bits, bits + rounded.numel()};
}

class WarmStart : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("dspark-warm-" + std::to_string(getpid()));
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  /// A cache of the known sequence whose only tap is the input of layer `source`.
  SampleSources cache_of(const KnownTarget& known, int32_t source) const {
    const std::string folder = (root_ / std::to_string(n_caches_++)).string();
    TargetCacheInfo info;
    info.hidden_size = known.target.config.dim;
    info.target_layer_ids = {source - 1};
    auto writer = TargetCacheWriter::create(folder, info);
    EXPECT_TRUE(writer.ok()) << writer.status().to_string();
    TargetCacheSample sample;
    const auto n_rows = static_cast<size_t>(known.hidden.size(1));
    for (size_t i = 0; i < n_rows; ++i) sample.input_ids.push_back(static_cast<int32_t>(i));
    sample.attention_mask.assign(n_rows, 1);
    sample.loss_mask.assign(n_rows, 1);
    sample.target_hidden_states = bf16_bits(known.hidden[source]);
    sample.target_last_hidden = bf16_bits(known.final_norm);
    EXPECT_TRUE(writer->append(sample).ok());
    EXPECT_TRUE(writer->finish().ok());
    auto opened = open_cache_source(folder);
    EXPECT_TRUE(opened.ok()) << opened.status().to_string();
    SampleSources sources;
    if (opened.ok()) sources.push_back(std::move(*opened));
    return sources;
  }

  static TrainOptions options(bool warm, const std::string& kind = "dspark") {
    TrainOptions o;
    o.kind = kind;
    o.block_size = 1;
    o.markov_rank = 4;
    o.draft_vocab = 0;
    o.warm_start = warm;
    return o;
  }

  DraftModel start(const KnownTarget& known, bool warm, const std::string& kind = "dspark") const {
    const std::vector<int32_t> sources = warm_layers(known.target.config, 1);
    EXPECT_EQ(sources.size(), 1u);
    auto model = new_draft_model(options(warm, kind), known.target, cache_of(known, sources.front()));
    EXPECT_TRUE(model.ok()) << model.status().to_string();
    return model.ok() ? std::move(*model) : DraftModel();
  }

  fs::path root_;
  mutable int n_caches_ = 0;
};

/// Size of the difference between the drafter's rows and the target's behind layer `source`, as a share of
/// what the layer does to its rows.
double layer_error(DraftModel& model, const KnownTarget& known, int32_t source) {
  const at::NoGradGuard no_grad;
  const DraftConfig& config = model.config;
  model.trainable.at("fc.weight").copy_(at::eye(config.dim));
  model.trainable.at("norm.weight").fill_(1.0);
  const Tensor input = known.hidden[source];
  AnchorSet set;
  const auto n_rows = static_cast<int32_t>(input.size(0));
  for (int32_t i = 0; i < n_rows; ++i) set.sample.input_ids.push_back(i);
  set.sample.loss_mask.assign(static_cast<size_t>(n_rows), 1);
  set.sample.target_hidden_states = bf16_bits(input);
  set.sample.target_last_hidden = bf16_bits(known.final_norm);
  for (int32_t i = 1; i + 1 < n_rows; ++i) set.anchors.push_back(i);
  StepBatch batch = build_step_batch({set}, config, 0, at::kCPU);
  batch.features = input.slice(0, 0, set.anchors.back());
  const Tensor found = backbone_forward(config, model.all(), input / double{config.embedding_scale}, batch,
                                        Precision::kFloat32);
  const auto rows = [&](int32_t layer) {
    return rms_norm(known.hidden[layer].slice(0, 1, n_rows - 1), {}, config.norm_eps);
  };
  const Tensor expected = rows(source + 1);
  return ((found.squeeze(1) - expected).norm() / (expected - rows(source)).norm()).item<double>();
}

struct Case {
  const char* name;
  const char* file;
  double most;  // error that the approximations may make
};

/// Exact where the target has norms of heads and none behind attention and MLP.
class WarmLayer : public WarmStart, public testing::WithParamInterface<Case> {};

TEST_P(WarmLayer, ComputesWhatTheTargetsLayerComputes) {
  const KnownTarget known = open_target(GetParam().name, GetParam().file);
  ASSERT_TRUE(known.hidden.defined());
  const int32_t source = warm_layers(known.target.config, 1).front();
  DraftModel warm = start(known, true);
  DraftModel random = start(known, false);
  const double error = layer_error(warm, known, source);
  RecordProperty("error", std::to_string(error));
  EXPECT_LT(error, GetParam().most);
  EXPECT_GT(layer_error(random, known, source), 0.8);
}

INSTANTIATE_TEST_SUITE_P(Targets, WarmLayer,
                         testing::Values(Case{"qwen3_qknorm", "", 1e-3},
                                         Case{"qwen2_bias_tied", "model.gguf", 0.3},
                                         Case{"llama_bias_mha", "", 0.4},
                                         Case{"gemma3_text_legacy_cfg", "model.gguf", 0.25}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_F(WarmStart, BiasesAreTakenOverFromEveryFormat) {
  const KnownTarget gguf = open_target("llama_bias_mha", "model.gguf");  // rotary pairs interleaved
  const KnownTarget folder = open_target("llama_bias_mha", "");
  const DraftModel a = start(gguf, true);
  const DraftModel b = start(folder, true);
  ASSERT_TRUE(a.config.attention_bias);
  for (const char* side : {"q", "k", "v", "o"}) {
    const std::string name = std::string("layers.0.self_attn.") + side + "_proj.bias";
    ASSERT_EQ(a.trainable.count(name), 1u) << name;
    EXPECT_GT(a.trainable.at(name).abs().max().item<float>(), 0.0f) << name;
  }
  ASSERT_EQ(a.trainable.size(), b.trainable.size());
  for (const auto& [name, tensor] : a.trainable) {
    EXPECT_TRUE(at::allclose(tensor, b.trainable.at(name), 1e-3, 1e-4)) << name;
  }
}

TEST_F(WarmStart, ExportedDraftersKeepBiasesAndActivation) {
  for (const char* name : {"qwen2_bias_tied", "gemma3_text_legacy_cfg"}) {
    const KnownTarget known = open_target(name, "model.gguf");
    const DraftModel model = start(known, true);
    const std::string folder = (root_ / name).string();
    ASSERT_TRUE(export_draft(folder, model.config, model.trainable, model.buffers).ok());
    const auto opened = open_draft_checkpoint(folder);
    ASSERT_TRUE(opened.ok()) << opened.status().to_string();
    const DraftConfig& config = opened->config;
    const bool gemma = known.target.config.sandwich_norms;
    EXPECT_EQ(config.attention_bias, !gemma);
    EXPECT_EQ(opened->find("layers.0.self_attn.k_proj.bias") != nullptr, !gemma);
    EXPECT_EQ(config.activation, gemma ? GateActivation::kGeluTanh : GateActivation::kSilu);
    EXPECT_FLOAT_EQ(config.embedding_scale, known.target.config.embedding_scale);
    EXPECT_FLOAT_EQ(config.attention_scale, known.target.config.attention_scale);
    EXPECT_EQ(config.rope.inv_freq, draft_rope(known.target.config).inv_freq);
    EXPECT_EQ(config.backbone, DraftBackbone::kQwen3);
    EXPECT_TRUE(check_draft_fits(config, known.target.config).ok());
  }
}

/// Layers of the kinds without blocks: those of a block drafter, where the embedding is not read.
TEST_F(WarmStart, PairedKindsTakeTheSameLayer) {
  for (const char* name : {"qwen2_bias_tied", "gemma3_text_legacy_cfg"}) {
    const KnownTarget known = open_target(name, "model.gguf");
    const DraftModel block = start(known, true);
    const int64_t dim = block.config.dim;
    for (const std::string kind : {"eagle3", "mtp"}) {
      SCOPED_TRACE(name + (" " + kind));
      const DraftModel model = start(known, true, kind);
      for (const char* side : {"q", "k", "v"}) {
        const std::string proj = std::string("layers.0.self_attn.") + side + "_proj.";
        const Tensor& weight = model.trainable.at(proj + "weight");
        ASSERT_EQ(weight.size(1), kind == "eagle3" ? 2 * dim : dim);
        EXPECT_TRUE(at::equal(weight.slice(1, weight.size(1) - dim), block.trainable.at(proj + "weight")));
        ASSERT_EQ(model.trainable.count(proj + "bias"), block.trainable.count(proj + "bias"));
        if (model.config.attention_bias) {
          EXPECT_TRUE(at::equal(model.trainable.at(proj + "bias"), block.trainable.at(proj + "bias")));
        }
      }
      if (kind == "eagle3") continue;  // its file wants five taps, this cache has one
      const std::string folder = (root_ / (name + kind)).string();
      ASSERT_TRUE(export_draft(folder, model.config, model.trainable, model.buffers).ok());
      const auto opened = open_draft_checkpoint(folder);
      ASSERT_TRUE(opened.ok()) << opened.status().to_string();
      EXPECT_EQ(opened->config.attention_bias, model.config.attention_bias);
      EXPECT_EQ(opened->config.activation, model.config.activation);
      EXPECT_FLOAT_EQ(opened->config.attention_scale, model.config.attention_scale);
      EXPECT_EQ(opened->config.rope.inv_freq, model.config.rope.inv_freq);
      EXPECT_TRUE(check_draft_fits(opened->config, known.target.config).ok());
    }
  }
}

TEST(WarmLayers, AreTheLastOnesWithFullAttention) {
  ModelConfig config;
  config.n_layers = 6;
  config.head_dim = 4;
  config.layers.resize(6);
  config.ropes.resize(2);
  config.ropes[0].inv_freq = {1, 2};
  config.ropes[1].inv_freq = {3, 4};
  using Layers = std::vector<int32_t>;
  EXPECT_EQ(warm_layers(config, 2), (Layers{4, 5}));
  EXPECT_EQ(warm_layers(config, 9), (Layers{0, 1, 2, 3, 4, 5}));
  for (size_t i : {0, 1, 3, 4, 5}) config.layers[i] = {8, 1};  // windows
  EXPECT_EQ(warm_layers(config, 1), (Layers{2}));
  EXPECT_EQ(warm_layers(config, 3), (Layers{2}));
  EXPECT_EQ(draft_rope(config).inv_freq, config.ropes[0].inv_freq);
  config.layers[2] = {8, 0};
  EXPECT_EQ(warm_layers(config, 2), (Layers{4, 5})) << "windows everywhere";
  EXPECT_EQ(warm_layers(config, 6), (Layers{0, 1, 3, 4, 5})) << "one rotary table";
  EXPECT_EQ(draft_rope(config).inv_freq, config.ropes[1].inv_freq);
  config.ropes[1].inv_freq = {3, 4, 5};  // heads of another size
  EXPECT_EQ(draft_rope(config).inv_freq, config.ropes[0].inv_freq);
}

TEST_F(WarmStart, Gemma4NeedsRandomLayers) {
  KnownTarget known = open_target("gemma3_text_legacy_cfg", "model.gguf");
  known.target.config.layer_scalar = true;
  const auto model = new_draft_model(options(true), known.target, cache_of(known, 2));
  ASSERT_FALSE(model.ok());
  EXPECT_NE(model.status().message().find("--no-warm-start"), std::string::npos);
}

}  // namespace
}  // namespace dspark
