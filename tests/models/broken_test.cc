// Files that are wrong in one place: one clear message that names the place, never a crash.

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "models/harness.h"
#include "models/tiny_model.h"

namespace dspark {
namespace {

using test::TemporaryFolder;
using test::TinyGguf;
using test::TinyHf;

template <typename Model>
Status load_status(const Model& model) {
  TemporaryFolder folder;
  ThreadPool pool(1);
  return TargetModel::open(model.write(folder).string(), pool).status();
}

struct BrokenHf {
  const char* name;
  std::function<void(TinyHf&)> damage;
  StatusCode code;
  std::vector<std::string> message_parts;
};
void PrintTo(const BrokenHf& broken, std::ostream* out) {
  *out << broken.name;
}

class BrokenHfModel : public testing::TestWithParam<BrokenHf> {};

TEST_P(BrokenHfModel, IsRefusedByName) {
  TinyHf model = TinyHf::llama();
  GetParam().damage(model);
  const Status status = load_status(model);
  EXPECT_EQ(status.code(), GetParam().code) << status.to_string();
  for (const std::string& part : GetParam().message_parts) {
    EXPECT_NE(status.message().find(part), std::string::npos) << part << " in: " << status.message();
  }
}

BrokenHf config_case(const char* name, const char* key, nlohmann::json value, std::string part,
                     StatusCode code = StatusCode::kInvalidArgument) {
  return {name, [key, value](TinyHf& m) { m.config[key] = value; }, code, {"config.json", std::move(part)}};
}

const BrokenHf kBrokenHf[] = {
    {"MissingTensor",
     [](TinyHf& m) { m.remove("model.layers.1.mlp.up_proj.weight"); },
     StatusCode::kInvalidArgument,
     {"missing", "model.layers.1.mlp.up_proj.weight"}},
    {"MissingHead",
     [](TinyHf& m) { m.remove("lm_head.weight"); },
     StatusCode::kInvalidArgument,
     {"missing", "lm_head.weight"}},
    {"WrongShape",
     [](TinyHf& m) {
       m.tensor("model.layers.0.self_attn.k_proj.weight").shape = {8, 32};
     },
     StatusCode::kInvalidArgument,
     {"model.layers.0.self_attn.k_proj.weight", "[8, 32]", "[16, 32]"}},
    {"NormOfTheWrongLength",
     [](TinyHf& m) { m.tensor("model.norm.weight").shape = {31}; },
     StatusCode::kInvalidArgument,
     {"model.norm.weight", "[31]", "[32]"}},
    {"UnknownTensor",
     [](TinyHf& m) {
       m.tensors.push_back({"model.layers.0.self_attn.q_norm.weight", {8}});
     },
     StatusCode::kUnsupported,
     {"llama", "model.layers.0.self_attn.q_norm.weight"}},
    {"LayerTooMany",
     [](TinyHf& m) {
       m.tensors.push_back({"model.layers.2.input_layernorm.weight", {32}});
     },
     StatusCode::kUnsupported,
     {"model.layers.2.input_layernorm.weight"}},
    {"VocabularyMismatch",
     [](TinyHf& m) { m.config["vocab_size"] = 41; },
     StatusCode::kInvalidArgument,
     {"model.embed_tokens.weight", "[40, 32]", "[41, 32]"}},
    config_case("UnknownModelType", "model_type", "mamba", "'mamba'", StatusCode::kUnsupported),
    config_case("NoModelType", "model_type", nullptr, "''", StatusCode::kUnsupported),
    config_case("ZeroHeads", "num_attention_heads", 0, "'num_attention_heads' is 0"),
    config_case("NegativeLayers", "num_hidden_layers", -1, "'num_hidden_layers' is -1"),
    config_case("AbsurdLayers", "num_hidden_layers", 2000000000, "'num_hidden_layers' is 2000000000"),
    config_case("HugeNumber", "hidden_size", 18446744073709551615ull,
                "'hidden_size' is 18446744073709551615"),
    config_case("FractionalWidth", "hidden_size", 32.5, "'hidden_size' is 32.5"),
    config_case("WidthAsText", "hidden_size", "32", "'hidden_size'"),
    config_case("MissingWidth", "hidden_size", nullptr, "'hidden_size' is missing"),
    config_case("OddHeadSize", "head_dim", 7, "'head_dim' is 7"),
    config_case("UnknownActivation", "hidden_act", "relu", "'relu'", StatusCode::kUnsupported),
    config_case("FlagAsNumber", "tie_word_embeddings", 1, "'tie_word_embeddings'"),
    config_case("ZeroRopeBase", "rope_theta", 0.0, "rope base is 0"),
    config_case("UnknownRopeType", "rope_scaling", {{"rope_type", "longrope"}, {"factor", 2.0}}, "'longrope'",
                StatusCode::kUnsupported),
    config_case("RopeWithoutFactor", "rope_scaling", {{"rope_type", "linear"}}, "'factor' is missing"),
    config_case("RopeScalingAsText", "rope_scaling", "linear", "'rope_scaling'"),
    config_case("PartialRotary", "rope_parameters",
                {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}, "partial_rotary_factor",
                StatusCode::kUnsupported),
    config_case("UnknownLayerType", "layer_types", {"full_attention", "linear_attention"}, "layer_types[1]",
                StatusCode::kUnsupported),
    config_case("LayerTypesTooShort", "layer_types", {"full_attention"}, "'layer_types'"),
    config_case("SlidingWithoutWindow", "layer_types", {"full_attention", "sliding_attention"},
                "'sliding_window' is missing"),
    config_case("Quantised", "quantization_config", {{"quant_method", "awq"}}, "quantization_config",
                StatusCode::kUnsupported),
    {"KvHeadsDoNotDivide",
     [](TinyHf& m) { m.config["num_key_value_heads"] = 3; },
     StatusCode::kInvalidArgument,
     {"4 attention heads", "3 key/value heads"}},
    {"MoreKvHeadsThanHeads",
     [](TinyHf& m) { m.config["num_key_value_heads"] = 8; },
     StatusCode::kInvalidArgument,
     {"8 key/value heads"}},
    {"BadEpsilon",
     [](TinyHf& m) { m.config["rms_norm_eps"] = 0.0; },
     StatusCode::kInvalidArgument,
     {"epsilon is 0"}},
};

INSTANTIATE_TEST_SUITE_P(Cases, BrokenHfModel, testing::ValuesIn(kBrokenHf),
                         [](const auto& param) { return std::string(param.param.name); });

struct BrokenGguf {
  const char* name;
  std::function<void(TinyGguf&)> damage;
  StatusCode code;
  std::vector<std::string> message_parts;
};
void PrintTo(const BrokenGguf& broken, std::ostream* out) {
  *out << broken.name;
}

class BrokenGgufModel : public testing::TestWithParam<BrokenGguf> {};

TEST_P(BrokenGgufModel, IsRefusedByName) {
  TinyGguf model = TinyGguf::llama();
  GetParam().damage(model);
  const Status status = load_status(model);
  EXPECT_EQ(status.code(), GetParam().code) << status.to_string();
  for (const std::string& part : GetParam().message_parts) {
    EXPECT_NE(status.message().find(part), std::string::npos) << part << " in: " << status.message();
  }
}

BrokenGguf meta_case(const char* name, const char* key, test::TinyMeta value, std::string part,
                     StatusCode code = StatusCode::kInvalidArgument) {
  return {name, [key, value](TinyGguf& m) { m.set(key, value); }, code, {key, std::move(part)}};
}

const BrokenGguf kBrokenGguf[] = {
    {"NoArchitecture",
     [](TinyGguf& m) { m.remove_key("general.architecture"); },
     StatusCode::kInvalidArgument,
     {"general.architecture"}},
    {"UnknownArchitecture",
     [](TinyGguf& m) { m.set("general.architecture", std::string("rwkv7")); },
     StatusCode::kUnsupported,
     {"'rwkv7'"}},
    {"MissingKey",
     [](TinyGguf& m) { m.remove_key("llama.block_count"); },
     StatusCode::kInvalidArgument,
     {"llama.block_count", "missing"}},
    meta_case("ZeroHeads", "llama.attention.head_count", 0u, "is 0"),
    meta_case("AbsurdLayers", "llama.block_count", 4000000000u, "is 4000000000"),
    meta_case("LayersAsText", "llama.block_count", std::string("2"), "not a whole number"),
    meta_case("EpsilonIsNotANumber", "llama.attention.layer_norm_rms_epsilon",
              std::numeric_limits<float>::quiet_NaN(), "not a finite number"),
    meta_case("UnknownRopeScaling", "llama.rope.scaling.type", std::string("longrope"), "'longrope'",
              StatusCode::kUnsupported),
    meta_case("ValueHeadsDiffer", "llama.attention.value_length", 16u, "16", StatusCode::kUnsupported),
    meta_case("PartialRotary", "llama.rope.dimension_count", 4u, "is 4", StatusCode::kUnsupported),
    meta_case("Experts", "llama.expert_count", 8u, "experts", StatusCode::kUnsupported),
    {"OddHeadSize",
     [](TinyGguf& m) {
       m.set("llama.attention.key_length", 7u);
       m.set("llama.attention.value_length", 7u);
     },
     StatusCode::kInvalidArgument,
     {"head size is 7"}},
    {"WidthIsNoMultipleOfHeads",
     [](TinyGguf& m) { m.set("llama.attention.head_count", 5u); },
     StatusCode::kInvalidArgument,
     {"llama.attention.key_length", "5 heads"}},
    {"KvHeadsDoNotDivide",
     [](TinyGguf& m) { m.set("llama.attention.head_count_kv", 3u); },
     StatusCode::kInvalidArgument,
     {"3 key/value heads"}},
    {"VocabularyMismatch",
     [](TinyGguf& m) { m.set("llama.vocab_size", 48u); },
     StatusCode::kInvalidArgument,
     {"token_embd.weight", "[40, 32]", "[48, 32]"}},
    {"MissingTensor",
     [](TinyGguf& m) { m.remove("blk.1.ffn_norm.weight"); },
     StatusCode::kInvalidArgument,
     {"missing", "blk.1.ffn_norm.weight"}},
    {"MissingEmbedding",
     [](TinyGguf& m) { m.remove("token_embd.weight"); },
     StatusCode::kInvalidArgument,
     {"llama.vocab_size"}},
    {"WrongShape",
     [](TinyGguf& m) {
       m.tensor("blk.0.attn_output.weight").shape = {16, 32};
     },
     StatusCode::kInvalidArgument,
     {"blk.0.attn_output.weight", "[16, 32]", "[32, 32]"}},
    {"UnknownTensor",
     [](TinyGguf& m) {
       m.tensors.push_back({"rope_factors_long.weight", {4}});
     },
     StatusCode::kUnsupported,
     {"rope_factors_long.weight"}},
    {"BiasInOneLayerOnly",
     [](TinyGguf& m) {
       m.tensors.push_back({"blk.0.attn_q.bias", {32}});
     },
     StatusCode::kInvalidArgument,
     {"missing", "blk.1.attn_q.bias"}},
    {"RopeDivisorsOfTheWrongLength",
     [](TinyGguf& m) {
       m.tensors.push_back({"rope_freqs.weight", {8}});
     },
     StatusCode::kInvalidArgument,
     {"rope_freqs.weight", "expected 4"}},
    {"NegativeRopeDivisor",
     [](TinyGguf& m) {
       m.tensors.push_back({"rope_freqs.weight", {4}});
     },
     StatusCode::kInvalidArgument,
     {"rope_freqs.weight[", "positive"}},
    {"IntegerWeights",
     [](TinyGguf& m) { m.tensor("blk.0.attn_norm.weight").dtype = DType::kI32; },
     StatusCode::kUnsupported,
     {"blk.0.attn_norm.weight", "I32"}},
};

INSTANTIATE_TEST_SUITE_P(Cases, BrokenGgufModel, testing::ValuesIn(kBrokenGguf),
                         [](const auto& param) { return std::string(param.param.name); });

TEST(LoadModel, ToleratesKnownLeftovers) {
  TinyHf model = TinyHf::llama();
  model.tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", {4}});
  EXPECT_TRUE(load_status(model).ok());
  model.config["tie_word_embeddings"] = true;  // lm_head.weight is then a copy of the embedding
  EXPECT_TRUE(load_status(model).ok());
}

TEST(LoadModel, FindsTheLanguageModelOfAMultimodalGemma) {
  for (const char* prefix : {"language_model.model.", "model.language_model."}) {
    TinyHf model = TinyHf::llama();
    model.config["model_type"] = "gemma3";
    model.config["hidden_act"] = "gelu_pytorch_tanh";
    model.config["tie_word_embeddings"] = true;
    model.remove("lm_head.weight");
    for (int layer = 0; layer < 2; ++layer) {
      const std::string at = "model.layers." + std::to_string(layer) + ".";
      model.tensors.push_back({at + "self_attn.q_norm.weight", {8}});
      model.tensors.push_back({at + "self_attn.k_norm.weight", {8}});
      model.tensors.push_back({at + "pre_feedforward_layernorm.weight", {32}});
      model.tensors.push_back({at + "post_feedforward_layernorm.weight", {32}});
    }
    for (test::TinyTensor& tensor : model.tensors) tensor.name = prefix + tensor.name.substr(6);
    model.tensors.push_back({"vision_tower.embeddings.weight", {2, 2}});
    const Status status = load_status(model);
    EXPECT_TRUE(status.ok()) << status.to_string();
  }
}

TEST(LoadModel, ANameOfNoFile) {
  ThreadPool pool(1);
  EXPECT_EQ(TargetModel::open("no/such/file.gguf", pool).status().code(), StatusCode::kNotFound);
}

TEST(LoadModel, ASafetensorsFileWithoutItsConfig) {
  TemporaryFolder folder;
  TinyHf::llama().write(folder);
  std::filesystem::remove(folder.path() / "config.json");
  ThreadPool pool(1);
  const Status status = TargetModel::open((folder.path() / "model.safetensors").string(), pool).status();
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find("config.json"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace dspark
