// Gemma 4: both ways of writing per-layer sizes, layers that share keys and values, refusals by name.

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "models/config_readers.h"
#include "models/harness.h"
#include "models/tiny_model.h"

namespace dspark {
namespace {

using test::Session;
using test::TemporaryFolder;
using test::TinyGguf;
using test::TinyHf;
using json = nlohmann::json;

// Three layers s F F; the full ones have one key/value head of 16 and no v projection.
TinyHf gemma4() {
  TinyHf model;
  model.config = {{"model_type", "gemma4_text"},
                  {"hidden_size", 32},
                  {"intermediate_size", 48},
                  {"num_hidden_layers", 3},
                  {"num_attention_heads", 4},
                  {"num_key_value_heads", 2},
                  {"head_dim", 8},
                  {"global_head_dim", 16},
                  {"num_global_key_value_heads", 1},
                  {"attention_k_eq_v", true},
                  {"layer_types", {"sliding_attention", "full_attention", "full_attention"}},
                  {"sliding_window", 4},
                  {"vocab_size", 40},
                  {"hidden_size_per_layer_input", 0},
                  {"max_position_embeddings", 128}};
  model.tensors = {{"model.embed_tokens.weight", {40, 32}}, {"model.norm.weight", {32}}};
  for (int layer = 0; layer < 3; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const int hd = layer == 0 ? 8 : 16;
    const test::TinyTensor tensors[] = {
        {"input_layernorm.weight", {32}},
        {"post_attention_layernorm.weight", {32}},
        {"pre_feedforward_layernorm.weight", {32}},
        {"post_feedforward_layernorm.weight", {32}},
        {"layer_scalar", {1}},
        {"self_attn.q_proj.weight", {4 * hd, 32}},
        {"self_attn.k_proj.weight", {16, 32}},
        {"self_attn.o_proj.weight", {32, 4 * hd}},
        {"self_attn.q_norm.weight", {hd}},
        {"self_attn.k_norm.weight", {hd}},
        {"mlp.gate_proj.weight", {48, 32}},
        {"mlp.up_proj.weight", {48, 32}},
        {"mlp.down_proj.weight", {32, 48}},
    };
    for (test::TinyTensor tensor : tensors) {
      tensor.name = prefix + tensor.name;
      model.tensors.push_back(tensor);
    }
  }
  model.tensors.push_back({"model.layers.0.self_attn.v_proj.weight", {16, 32}});
  return model;
}

template <typename Model>
Result<ModelConfig> read(const Model& model) {
  TemporaryFolder folder;
  Result<Checkpoint> checkpoint = Checkpoint::open(model.write(folder).string());
  if (!checkpoint.ok()) return checkpoint.status();
  return read_model_config(*checkpoint);
}

template <typename Model>
ModelConfig read_ok(const Model& model) {
  Result<ModelConfig> config = read(model);
  EXPECT_TRUE(config.ok()) << config.status().to_string();
  return config.ok() ? *config : ModelConfig{};
}

template <typename Model>
std::vector<float> logits_of(const Model& model, const std::vector<int32_t>& tokens) {
  TemporaryFolder folder;
  ThreadPool pool(1);
  const auto target = test::open_model(model.write(folder), pool, true);
  if (target == nullptr) return {};
  Session session(*target, KvDType::kF32, 1, 64);
  return session.forward(0, tokens).logits;
}

void expect_sizes(const ModelConfig& config) {
  ASSERT_EQ(config.layers.size(), 3u);
  for (int32_t i = 0; i < 3; ++i) {
    const LayerConfig& layer = config.layer(i);
    EXPECT_EQ(layer.window, i == 0 ? 4 : 0);
    EXPECT_EQ(layer.head_dim, i == 0 ? 8 : 16);
    EXPECT_EQ(layer.n_kv_heads, i == 0 ? 2 : 1);
    EXPECT_EQ(layer.k_eq_v, i != 0);
    EXPECT_EQ(layer.ffn_dim, 48);
    EXPECT_FALSE(config.shares_kv(i));
  }
}

TEST(Gemma4Config, SizesOfReleasedKeys) {
  const ModelConfig config = read_ok(gemma4());
  EXPECT_EQ(config.arch, "gemma4");
  EXPECT_TRUE(config.sandwich_norms && config.qk_norm && config.v_norm && config.layer_scalar);
  EXPECT_TRUE(config.tied_head);
  EXPECT_FALSE(config.norm_plus_one);
  EXPECT_EQ(config.attention_scale, 1.0f);
  EXPECT_EQ(config.activation, GateActivation::kGeluTanh);
  expect_sizes(config);
  // A quarter of the eight pairs of a full head turns, with exponents over the whole head.
  EXPECT_EQ(config.ropes[0].inv_freq.size(), 8u);
  EXPECT_EQ(config.ropes[0].inv_freq[0], 1.0f);
  EXPECT_FLOAT_EQ(config.ropes[0].inv_freq[1], static_cast<float>(std::pow(1e6, -2.0 / 16)));
  for (size_t j = 2; j < 8; ++j) EXPECT_EQ(config.ropes[0].inv_freq[j], 0.0f);
  EXPECT_FLOAT_EQ(config.ropes[1].inv_freq[1], 0.1f);
}

TEST(Gemma4Config, PerLayerConfigSaysTheSame) {
  TinyHf model = gemma4();
  model.config.erase("global_head_dim");
  model.config.erase("num_global_key_value_heads");
  const json full = {{"head_dim", 16}, {"num_key_value_heads", 1}};
  model.config["per_layer_config"] = {{"1", full}, {"2", full}};
  expect_sizes(read_ok(model));
}

TEST(Gemma4Config, GlobalKvHeadsNeedSharedProjections) {
  TinyHf model = gemma4();
  model.config["attention_k_eq_v"] = false;
  EXPECT_EQ(read_ok(model).layer(2).n_kv_heads, 2);
}

TEST(Gemma4Config, TheLastLayerIsAlwaysFull) {
  TinyHf model = gemma4();
  model.config["layer_types"][2] = "sliding_attention";
  EXPECT_EQ(read_ok(model).layer(2).window, 0);
}

TEST(Gemma4Config, EmbeddingScaleIsRoundedAsTheWeightsAre) {
  EXPECT_EQ(gemma4_embedding_scale(3840, DType::kBF16), 62.0f);
  EXPECT_EQ(gemma4_embedding_scale(3840, DType::kQ4_K), 62.0f);
  EXPECT_EQ(gemma4_embedding_scale(3840, DType::kF32), std::sqrt(3840.0f));
  EXPECT_EQ(read_ok(gemma4()).embedding_scale, std::sqrt(32.0f));
}

// Five layers s s F s F, the last two sharing.
TinyHf sharing() {
  TinyHf model = gemma4();
  model.config["num_hidden_layers"] = 5;
  model.config["layer_types"] = {"sliding_attention", "sliding_attention", "full_attention",
                                 "sliding_attention", "full_attention"};
  model.config["num_kv_shared_layers"] = 2;
  model.config["use_double_wide_mlp"] = true;
  return model;
}

TEST(Gemma4Config, SharingLayersReadTheLastOfTheirKind) {
  const ModelConfig config = read_ok(sharing());
  EXPECT_FALSE(config.shares_kv(0) || config.shares_kv(1) || config.shares_kv(2));
  EXPECT_EQ(config.layer(3).kv_layer, 1);
  EXPECT_EQ(config.layer(4).kv_layer, 2);
  EXPECT_EQ(config.layer(2).ffn_dim, 48);
  EXPECT_EQ(config.layer(3).ffn_dim, 96);
}

TEST(Gemma4Model, KeysOfSharingLayersAreIgnored) {
  TinyHf model = gemma4();
  model.config["num_kv_shared_layers"] = 1;
  const std::vector<int32_t> tokens = {1, 5, 9, 2, 7, 3, 30, 11};
  const std::vector<float> with_leftovers = logits_of(model, tokens);
  model.remove("model.layers.2.self_attn.k_proj.weight");
  model.remove("model.layers.2.self_attn.k_norm.weight");
  const std::vector<float> clean = logits_of(model, tokens);
  ASSERT_FALSE(clean.empty());
  EXPECT_EQ(with_leftovers, clean);
}

TEST(Gemma4Model, OnlyLayersWithKeysHaveACache) {
  TinyHf model = gemma4();
  model.config["num_kv_shared_layers"] = 1;
  TemporaryFolder folder;
  ThreadPool pool(1);
  const auto target = test::open_model(model.write(folder), pool, true);
  ASSERT_NE(target, nullptr);
  const std::vector<KvLayerShape> shapes = target->kv_shapes();
  ASSERT_EQ(shapes.size(), 2u);
  EXPECT_EQ(shapes[0].n_kv_heads, 2);
  EXPECT_EQ(shapes[0].head_dim, 8);
  EXPECT_EQ(shapes[1].n_kv_heads, 1);
  EXPECT_EQ(shapes[1].head_dim, 16);
}

struct Refusal {
  const char* name;
  std::function<void(TinyHf&)> damage;
  StatusCode code;
  std::vector<std::string> parts;
};
void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << refusal.name;
}

class Gemma4Refusal : public testing::TestWithParam<Refusal> {};

TEST_P(Gemma4Refusal, NamesTheReason) {
  TinyHf model = gemma4();
  GetParam().damage(model);
  TemporaryFolder folder;
  ThreadPool pool(1);
  const Status status = TargetModel::open(model.write(folder).string(), pool).status();
  EXPECT_EQ(status.code(), GetParam().code) << status.to_string();
  for (const std::string& part : GetParam().parts) {
    EXPECT_NE(status.message().find(part), std::string::npos) << part << " in: " << status.message();
  }
}

Refusal setting(const char* name, const char* key, json value, StatusCode code,
                std::vector<std::string> parts) {
  return {name, [key, value](TinyHf& m) { m.config[key] = value; }, code, std::move(parts)};
}

constexpr StatusCode kBad = StatusCode::kInvalidArgument;
constexpr StatusCode kUnsupported = StatusCode::kUnsupported;

const Refusal kRefusals[] = {
    setting("Experts", "enable_moe_block", true, kBad, {"num_local_experts", "missing"}),
    setting("Bidirectional", "use_bidirectional_attention", "all", kUnsupported,
            {"use_bidirectional_attention", "all"}),
    setting("PerLayerUnknownKey", "per_layer_config", {{"1", {{"num_attention_heads", 2}}}}, kUnsupported,
            {"per_layer_config", "'1'", "num_attention_heads"}),
    setting("PerLayerOutside", "per_layer_config", {{"3", {{"head_dim", 16}}}}, kBad,
            {"per_layer_config", "'3'"}),
    setting("PerLayerNotANumber", "per_layer_config", {{"x", {{"head_dim", 16}}}}, kBad,
            {"per_layer_config", "'x'"}),
    setting("PerLayerHeadsDiffer", "per_layer_config", {{"1", {{"head_dim", 24}}}}, kUnsupported,
            {"layer 1", "24", "16"}),
    setting("PerLayerZeroHeads", "per_layer_config", {{"1", {{"num_key_value_heads", 0}}}}, kBad,
            {"'num_key_value_heads' is 0"}),
    setting("PerLayerList", "per_layer_config", json::array(), kBad, {"per_layer_config"}),
    setting("AllShare", "num_kv_shared_layers", 3, kBad, {"num_kv_shared_layers", "3"}),
    setting("NoLayerToShareWith", "num_kv_shared_layers", 2, kBad, {"num_kv_shared_layers", "full"}),
    setting("OtherPerLayerVocabulary", "hidden_size_per_layer_input", 16, kUnsupported,
            {"vocab_size_per_layer_input", "40"}),
    setting("RotatedShare", "rope_parameters",
            {{"full_attention", {{"rope_type", "proportional"}, {"partial_rotary_factor", 1.5}}}}, kBad,
            {"partial_rotary_factor", "1.5"}),
    {"MissingScalar",
     [](TinyHf& m) { m.remove("model.layers.1.layer_scalar"); },
     kBad,
     {"missing", "model.layers.1.layer_scalar"}},
    {"ValueProjectionThatShouldNotBe",
     [](TinyHf& m) {
       m.tensors.push_back({"model.layers.1.self_attn.v_proj.weight", {16, 32}});
     },
     kUnsupported,
     {"model.layers.1.self_attn.v_proj.weight"}},
    {"FullHeadSize",
     [](TinyHf& m) { m.config["global_head_dim"] = 8; },
     kBad,
     {"self_attn.q_proj.weight", "[64, 32]", "[32, 32]"}},
};

INSTANTIATE_TEST_SUITE_P(All, Gemma4Refusal, testing::ValuesIn(kRefusals),
                         [](const auto& param) { return std::string(param.param.name); });

// The keys of a GGUF file; tensors do not matter to the reader, but for those it asks about.
TinyGguf gguf_keys() {
  TinyGguf model = TinyGguf::llama();
  std::erase_if(model.meta, [](const auto& entry) { return entry.first.starts_with("llama.rope"); });
  for (auto& [key, value] : model.meta) {
    if (key.starts_with("llama.")) key = "gemma4." + key.substr(6);
  }
  model.set("general.architecture", std::string("gemma4"));
  model.set("gemma4.block_count", 2u);
  model.set("gemma4.attention.head_count_kv", std::vector<int32_t>{2, 1});
  model.set("gemma4.feed_forward_length", std::vector<int32_t>{64, 128});
  model.set("gemma4.attention.sliding_window", 4u);
  model.set("gemma4.attention.sliding_window_pattern", 2u);
  model.set("gemma4.attention.key_length", 16u);
  model.set("gemma4.attention.value_length", 16u);
  model.set("gemma4.attention.key_length_swa", 8u);
  model.set("gemma4.attention.value_length_swa", 8u);
  model.set("gemma4.rope.dimension_count", 16u);
  model.set("gemma4.rope.dimension_count_swa", 8u);
  model.set("gemma4.rope.freq_base", 1e6f);
  model.set("gemma4.rope.freq_base_swa", 1e4f);
  model.remove("blk.1.attn_v.weight");
  model.tensors.push_back({"rope_freqs.weight", {8}, DType::kF32, true});
  return model;
}

TEST(Gemma4Gguf, NumbersPerLayer) {
  const ModelConfig config = read_ok(gguf_keys());
  ASSERT_EQ(config.layers.size(), 2u);
  EXPECT_EQ(config.layer(0).head_dim, 8);
  EXPECT_EQ(config.layer(0).n_kv_heads, 2);
  EXPECT_EQ(config.layer(0).ffn_dim, 64);
  EXPECT_FALSE(config.layer(0).k_eq_v);
  EXPECT_EQ(config.layer(1).head_dim, 16);
  EXPECT_EQ(config.layer(1).n_kv_heads, 1);
  EXPECT_EQ(config.layer(1).ffn_dim, 128);
  EXPECT_TRUE(config.layer(1).k_eq_v);  // no attn_v there
  EXPECT_EQ(config.attention_scale, 1.0f);
}

TEST(Gemma4Gguf, RefusalsNameTheKey) {
  const auto expect = [](const TinyGguf& model, std::initializer_list<const char*> parts) {
    const Status status = read(model).status();
    EXPECT_FALSE(status.ok());
    for (const char* part : parts) {
      EXPECT_NE(status.message().find(part), std::string::npos) << part << " in: " << status.message();
    }
  };
  TinyGguf model = gguf_keys();
  model.set("gemma4.feed_forward_length", std::vector<int32_t>{64, 64, 64});
  expect(model, {"gemma4.feed_forward_length", "3", "2"});
  model = gguf_keys();
  model.remove_key("gemma4.feed_forward_length");
  expect(model, {"gemma4.feed_forward_length", "missing"});
  model = gguf_keys();
  model.set("gemma4.attention.head_count_kv", std::vector<int32_t>{2, 0});
  expect(model, {"gemma4.attention.head_count_kv[1]", "0"});
  model = gguf_keys();
  model.set("gemma4.attention.value_length_swa", 16u);
  expect(model, {"gemma4.attention.value_length_swa", "16", "8"});
  model = gguf_keys();
  model.remove("rope_freqs.weight");
  expect(model, {"rope_freqs.weight", "missing"});
  model = gguf_keys();
  model.set("gemma4.expert_count", 8u);
  expect(model, {"gemma4.expert_used_count", "missing"});
  model = gguf_keys();
  model.set("gemma4.attention.shared_kv_layers", 1u);
  expect(model, {"gemma4.attention.shared_kv_layers", "full"});
}

}  // namespace
}  // namespace dspark
