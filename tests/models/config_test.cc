// What the config readers make of released key names, transformers 5 key names and GGUF keys.

#include "models/config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "models/harness.h"
#include "models/tiny_model.h"

namespace dspark {
namespace {

using test::TemporaryFolder;
using test::TinyGguf;
using test::TinyHf;

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

TEST(HfConfig, Llama) {
  const ModelConfig config = read_ok(TinyHf::llama());
  EXPECT_EQ(config.arch, "llama");
  EXPECT_EQ(config.n_layers, 2);
  EXPECT_EQ(config.dim, 32);
  EXPECT_EQ(config.n_heads, 4);
  EXPECT_EQ(config.n_kv_heads, 2);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.ffn_dim, 48);
  EXPECT_EQ(config.vocab_size, 40);
  EXPECT_EQ(config.context_length, 128);
  EXPECT_FLOAT_EQ(config.attention_scale, 1.0f / std::sqrt(8.0f));
  EXPECT_FALSE(config.tied_head);
  EXPECT_FALSE(config.qk_norm || config.qkv_bias || config.sandwich_norms || config.qk_interleaved);
  EXPECT_EQ(config.eos_ids, std::vector<int32_t>{2});
}

TEST(HfConfig, AbsentHeadSizeFollowsFromTheWidth) {
  TinyHf model = TinyHf::llama();
  model.config.erase("head_dim");
  model.config["num_key_value_heads"] = nullptr;  // null counts as absent
  const ModelConfig config = read_ok(model);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.n_kv_heads, 4);
}

TEST(HfConfig, RopeUnderBothKeyNames) {
  TinyHf released = TinyHf::llama();
  released.config["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  TinyHf newer = TinyHf::llama();
  newer.config.erase("rope_theta");
  newer.config["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 2.0}, {"rope_theta", 10000.0}};
  const ModelConfig a = read_ok(released);
  const ModelConfig b = read_ok(newer);
  EXPECT_FLOAT_EQ(a.ropes[0].inv_freq[0], 0.5f);
  EXPECT_EQ(a.ropes[0].inv_freq, b.ropes[0].inv_freq);
}

TEST(HfConfig, Qwen2SlidesFromMaxWindowLayersOn) {
  TinyHf model = TinyHf::llama();
  model.config["model_type"] = "qwen2";
  model.config["sliding_window"] = 16;
  model.config["max_window_layers"] = 1;
  ModelConfig config = read_ok(model);
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_FALSE(config.o_bias);
  EXPECT_EQ(config.layers[0].window, 0);
  EXPECT_EQ(config.layers[1].window, 0);  // use_sliding_window is off by default
  model.config["use_sliding_window"] = true;
  config = read_ok(model);
  EXPECT_EQ(config.layers[0].window, 0);
  EXPECT_EQ(config.layers[1].window, 16);
}

TinyHf gemma() {
  TinyHf model = TinyHf::llama();
  model.config["model_type"] = "gemma3_text";
  model.config.erase("hidden_act");
  model.config["hidden_activation"] = "gelu_pytorch_tanh";
  model.config["query_pre_attn_scalar"] = 16;
  model.config["sliding_window"] = 8;
  model.config["sliding_window_pattern"] = 2;
  model.config["rope_theta"] = 1e6;
  model.config["rope_local_base_freq"] = 1e4;
  model.config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  model.config["final_logit_softcapping"] = 30.0;
  return model;
}

TEST(HfConfig, Gemma3ReleasedKeys) {
  const ModelConfig config = read_ok(gemma());
  EXPECT_TRUE(config.sandwich_norms && config.norm_plus_one && config.qk_norm);
  EXPECT_EQ(config.activation, GateActivation::kGeluTanh);
  EXPECT_FLOAT_EQ(config.embedding_scale, std::sqrt(32.0f));
  EXPECT_FLOAT_EQ(config.attention_scale, 0.25f);
  EXPECT_FLOAT_EQ(config.final_softcap, 30.0f);
  EXPECT_FLOAT_EQ(config.attention_softcap, 0.0f);
  EXPECT_EQ(config.layers[0].window, 8);
  EXPECT_EQ(config.layers[1].window, 0);
  EXPECT_FLOAT_EQ(config.ropes[static_cast<size_t>(config.layers[0].rope_idx)].inv_freq[1], 0.1f);
  EXPECT_FLOAT_EQ(config.ropes[static_cast<size_t>(config.layers[1].rope_idx)].inv_freq[0], 0.125f);
}

TEST(HfConfig, Gemma3NewerKeysAndLayerTypes) {
  TinyHf model = gemma();
  for (const char* key : {"rope_theta", "rope_local_base_freq", "rope_scaling", "sliding_window_pattern"}) {
    model.config.erase(key);
  }
  model.config["_sliding_window_pattern"] = 6;  // layer_types wins
  model.config["layer_types"] = {"full_attention", "sliding_attention"};
  model.config["rope_parameters"] = {{"full_attention", {{"rope_type", "default"}, {"rope_theta", 1e6}}},
                                     {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 1e4}}}};
  const ModelConfig config = read_ok(model);
  EXPECT_EQ(config.layers[0].window, 0);
  EXPECT_EQ(config.layers[1].window, 8);
  EXPECT_FLOAT_EQ(config.ropes[static_cast<size_t>(config.layers[0].rope_idx)].inv_freq[2], 1e-3f);
  EXPECT_FLOAT_EQ(config.ropes[static_cast<size_t>(config.layers[1].rope_idx)].inv_freq[2], 1e-2f);
}

TEST(HfConfig, Gemma3NestedTextConfigWithClassDefaults) {
  TinyHf model = gemma();
  nlohmann::json text = model.config;
  for (const char* key : {"num_attention_heads", "num_key_value_heads", "head_dim", "tie_word_embeddings"})
    text.erase(key);
  model.config = {{"model_type", "gemma3"}, {"text_config", text}, {"eos_token_id", {1, 39, 1000}}};
  const ModelConfig config = read_ok(model);
  EXPECT_EQ(config.n_heads, 8);
  EXPECT_EQ(config.n_kv_heads, 4);
  EXPECT_EQ(config.head_dim, 256);
  EXPECT_TRUE(config.tied_head);
  EXPECT_EQ(config.eos_ids, (std::vector<int32_t>{1, 39}));  // an id outside the vocabulary cannot be drawn
}

TEST(GgufConfig, LlamaDefaults) {
  TinyGguf model = TinyGguf::llama();
  model.remove_key("llama.rope.freq_base");
  model.remove_key("llama.attention.head_count_kv");
  model.tensor("blk.0.attn_k.weight").shape = {32, 32};
  model.remove("output.weight");
  const ModelConfig config = read_ok(model);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.n_kv_heads, 4);
  EXPECT_EQ(config.vocab_size, 40);  // from the embedding
  EXPECT_TRUE(config.qk_interleaved);
  EXPECT_TRUE(config.tied_head);
  EXPECT_FLOAT_EQ(config.ropes[0].inv_freq[1], 0.1f);
}

TEST(GgufConfig, NumbersPerLayerCountWhenTheyAgree) {
  TinyGguf model = TinyGguf::llama();
  model.set("llama.attention.head_count_kv", std::vector<int32_t>{2, 2});
  EXPECT_EQ(read_ok(model).n_kv_heads, 2);
  model.set("llama.attention.head_count_kv", std::vector<int32_t>{2, 4});
  const Status error = read(model).status();
  EXPECT_EQ(error.code(), StatusCode::kUnsupported);
  EXPECT_NE(error.message().find("llama.attention.head_count_kv"), std::string::npos);
}

TEST(GgufConfig, Gemma3PatternAndBases) {
  TinyGguf model = TinyGguf::llama();
  for (auto& [key, value] : model.meta) {
    if (key.starts_with("llama.")) key = "gemma3." + key.substr(6);
  }
  model.set("general.architecture", std::string("gemma3"));
  model.set("gemma3.block_count", 12u);
  model.set("gemma3.rope.freq_base", 1e6f);
  model.set("gemma3.attention.sliding_window", 8u);
  ModelConfig config = read_ok(model);
  EXPECT_FALSE(config.norm_plus_one);  // GGUF holds 1 + w already
  EXPECT_FLOAT_EQ(config.attention_scale, 1.0f / std::sqrt(8.0f));
  for (size_t i = 0; i < 12; ++i) EXPECT_EQ(config.layers[i].window, (i + 1) % 6 == 0 ? 0 : 8) << i;
  EXPECT_FLOAT_EQ(config.ropes[1].inv_freq[2], 1e-2f);  // sliding layers: 10000 when the file is silent
  model.set("gemma3.attention.sliding_window_pattern", 2u);
  model.set("gemma3.block_count", 62u);  // the 27B: scale from the width, not from the head size
  model.set("gemma3.attention.head_count", 2u);
  model.set("gemma3.attention.key_length", 4u);
  model.set("gemma3.attention.value_length", 4u);
  config = read_ok(model);
  EXPECT_EQ(config.layers[0].window, 8);
  EXPECT_EQ(config.layers[1].window, 0);
  EXPECT_FLOAT_EQ(config.attention_scale, 0.25f);
}

}  // namespace
}  // namespace dspark
