// Where formats differ and files go wrong: the right reading, or an error that names the key or the tensor.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "draft/draft_checkpoint.h"
#include "draft/draft_to_gguf.h"
#include "draft_edit.h"

namespace dspark {
namespace {

using nlohmann::json;
using test::drop;
using test::fixture;
using test::Folder;
using test::Gguf;
using test::open_file;
using test::StoredTensor;
using test::tensor_named;

TEST(DraftTraps, LayerIds) {
  Folder folder("dspark_vanilla");  // a target of 6 layers
  const size_t n = folder.config["target_layer_ids"].size();
  ASSERT_EQ(n, 3u);
  const auto error = [&](std::vector<int> ids) {
    folder.config["target_layer_ids"] = std::move(ids);
    return folder.error();
  };
  EXPECT_MENTIONS(error({1, 3, 3}), "'target_layer_ids': layer 3 after 3");
  EXPECT_MENTIONS(error({3, 1, 4}), "'target_layer_ids': layer 1 after 3");
  EXPECT_MENTIONS(error({1, 3, 5}), "layer 5, but the target has 6 layers");
  EXPECT_MENTIONS(error({1, 3, 60}), "layer 60, but the target has 6 layers");
  EXPECT_MENTIONS(error({-2, 3, 4}), "holds -2");
  EXPECT_MENTIONS(error({1, 3}), "tensor 'fc.weight' has shape [32, 96], expected [32, 64]");
  folder.config["target_layer_ids"] = {-1, 3, 4};  // the embedding's output is allowed
  EXPECT_EQ(folder.read().taps, (std::vector<int32_t>{0, 4, 5}));
  Folder eagle("eagle3");
  eagle.config["target_layer_ids"] = {-1, 1, 2, 3, 4};
  EXPECT_MENTIONS(eagle.error(), "holds -1, expected whole numbers from 0 up");
}

TEST(DraftTraps, HeadsAndIds) {
  Folder folder("dspark_vanilla");
  const json whole = folder.config;
  const auto error = [&](const char* key, const json& value) {
    folder.config = whole;
    folder.config[key] = value;
    return folder.error();
  };
  EXPECT_MENTIONS(error("markov_head_type", "lstm"), "'markov_head_type' is 'lstm'");
  EXPECT_MENTIONS(error("markov_head_type", "gated"), "'markov_head.gate_proj.weight' is missing");
  EXPECT_MENTIONS(error("markov_rank", 0), "'markov_head_type' is \"vanilla\", but 'markov_rank' is 0");
  EXPECT_MENTIONS(error("markov_rank", 4),
                  "'markov_head.markov_w1.weight' has shape [96, 8], expected [96, 4]");
  EXPECT_MENTIONS(error("confidence_head_with_markov", false),
                  "'confidence_head.proj.weight' has shape [1, 40]");
  EXPECT_MENTIONS(error("enable_confidence_head", false), "unknown tensor 'confidence_head.proj.");
  EXPECT_MENTIONS(error("mask_token_id", 96), "'mask_token_id' is 96, expected a whole number from 0 to 95");
  EXPECT_MENTIONS(error("attention_bias", true), "'layers.0.self_attn.q_proj.bias' is missing");
  EXPECT_MENTIONS(error("model_type", "llama"), "'model_type' is 'llama'");
  EXPECT_MENTIONS(error("architectures", {"Qwen3ForCausalLM"}), "not a drafter");
  EXPECT_MENTIONS(error("architectures", {"LlamaForCausalLMEagle3"}), "'LlamaForCausalLMEagle3'");
  folder.config = whole;
  folder.config["markov_head_type"] = "Vanilla";  // in any case
  EXPECT_EQ(folder.read().head, SequentialHead::kVanilla);
  folder.config["qk_norm"] = false;
  EXPECT_MENTIONS(folder.error(), "unknown tensor 'layers.0.self_attn.");
  std::erase_if(folder.tensors, [](const StoredTensor& t) {
    return t.name.find("_norm.weight") != std::string::npos && t.name.find("self_attn") != std::string::npos;
  });
  EXPECT_FALSE(folder.read().qk_norm);
}

void set_d2t(std::vector<StoredTensor>& tensors, const std::vector<int64_t>& rows) {
  StoredTensor& d2t = tensor_named(tensors, "d2t");
  d2t.bytes.resize(rows.size() * sizeof(int64_t));
  std::memcpy(d2t.bytes.data(), rows.data(), d2t.bytes.size());
  d2t.shape = {static_cast<int64_t>(rows.size())};
}

std::vector<int64_t> offsets_of(const std::vector<int32_t>& ids) {
  std::vector<int64_t> rows;
  for (size_t i = 0; i < ids.size(); ++i) rows.push_back(ids[i] - static_cast<int64_t>(i));
  return rows;
}

TEST(DraftTraps, ReducedVocabulary) {
  Folder folder("speculators_v160");
  const std::vector<int32_t> ids = folder.read().d2t;
  ASSERT_EQ(ids.size(), 160u);
  const std::vector<StoredTensor> whole = folder.tensors;
  const std::vector<int64_t> absolute(ids.begin(), ids.end());
  set_d2t(folder.tensors, absolute);  // t2d tells
  EXPECT_EQ(folder.read().d2t, ids);
  folder.tensors = whole;
  drop(folder.tensors, "t2d");
  EXPECT_EQ(folder.read().d2t, ids);
  set_d2t(folder.tensors, absolute);  // as offsets they leave the vocabulary
  EXPECT_EQ(folder.read().d2t, ids);
  std::vector<int64_t> both(160);  // ids 0..159, or offsets to 0, 2, 4, ...
  for (size_t i = 0; i < both.size(); ++i) both[i] = static_cast<int64_t>(i);
  set_d2t(folder.tensors, both);
  EXPECT_MENTIONS(folder.error(), "may hold offsets or target ids");

  folder.tensors = whole;
  tensor_named(folder.tensors, "t2d").bytes[static_cast<size_t>(ids[7])] = 0;
  EXPECT_MENTIONS(folder.error(), "t2d says");
  folder.tensors = whole;
  std::vector<int64_t> bad = offsets_of(ids);
  bad[5] = bad[4] - 1;  // the id of row 4 again
  set_d2t(folder.tensors, bad);
  EXPECT_MENTIONS(folder.error(), "row 5 gives target id");
  bad = offsets_of(ids);
  bad.back() = 400;
  set_d2t(folder.tensors, bad);
  EXPECT_MENTIONS(folder.error(), "outside the vocabulary of 320");
  bad.back() = INT64_MAX;
  set_d2t(folder.tensors, bad);
  EXPECT_MENTIONS(folder.error(), "outside the vocabulary of 320");
  bad = offsets_of(ids);
  bad.pop_back();
  set_d2t(folder.tensors, bad);
  EXPECT_MENTIONS(folder.error(), "tensor 'd2t' has shape [159], expected [160]");
  folder.tensors = whole;
  drop(folder.tensors, "d2t");
  EXPECT_MENTIONS(folder.error(), "tensor 'd2t' is missing");
  folder.tensors = whole;
  folder.config["draft_vocab_size"] = 320;
  EXPECT_MENTIONS(folder.error(), "tensor 'd2t' maps a reduced vocabulary");
  folder.config["draft_vocab_size"] = 321;
  EXPECT_MENTIONS(folder.error(), "'draft_vocab_size' is 321");
}

TEST(DraftTraps, ReducedVocabularyInGguf) {
  Gguf file("dflash_v160.gguf");
  const std::vector<int32_t> ids = file.read().d2t;
  ASSERT_EQ(ids.size(), 160u);
  set_d2t(file.tensors, offsets_of(ids));  // what a careless converter leaves
  EXPECT_EQ(file.read().d2t, ids);
  std::vector<int32_t> lowest(160);  // could be offsets too, but GGUF means ids
  for (size_t i = 0; i < lowest.size(); ++i) lowest[i] = static_cast<int32_t>(i);
  set_d2t(file.tensors, {lowest.begin(), lowest.end()});
  EXPECT_EQ(file.read().d2t, lowest);
  std::vector<int64_t> bad(ids.begin(), ids.end());
  std::swap(bad[3], bad[4]);
  set_d2t(file.tensors, bad);
  EXPECT_MENTIONS(file.error(), "tensor 'd2t': row 4");
  bad.resize(321, 0);
  set_d2t(file.tensors, bad);
  EXPECT_MENTIONS(file.error(), "tensor 'd2t' has shape [321]");
}

TEST(DraftTraps, Speculators) {
  Folder folder("speculators_v160");
  const json whole = folder.config;
  folder.config["sample_from_anchor"] = false;  // slot 0 unused
  EXPECT_EQ(folder.read().n_drafts(), 6);
  folder.config.erase("sample_from_anchor");
  EXPECT_MENTIONS(folder.error(), "'sample_from_anchor' is missing; engines disagree");
  folder.config = whole;
  folder.config["aux_hidden_state_layer_ids"] = {0, 4, 6};
  EXPECT_EQ(folder.read().taps, (std::vector<int32_t>{0, 4, 6}));
  folder.config["aux_hidden_state_layer_ids"] = {-1, 4, 6};
  EXPECT_MENTIONS(folder.error(), "'aux_hidden_state_layer_ids' holds -1");
  for (const char* type : {"eagle3", "mtp", "peagle", "dflash2"}) {
    folder.config = whole;
    folder.config["speculators_model_type"] = type;
    EXPECT_MENTIONS(folder.error(), std::string("'speculators_model_type' is '") + type + "'");
  }
  folder.config = whole;
  folder.config.erase("speculators_model_type");
  folder.config["architectures"] = {"DSparkDraftModel"};
  EXPECT_EQ(folder.read().kind, DraftKind::kDSpark);
  folder.config = whole;
  folder.config["target_hidden_size"] = 128;
  EXPECT_MENTIONS(folder.error(), "'target_hidden_size'");
  folder.config = whole;
  json& layers = folder.config["transformer_layer_config"];
  layers["layer_types"] = json::array({"sliding_attention", "sliding_attention", "sliding_attention"});
  EXPECT_MENTIONS(folder.error(), "'sliding_window' is missing");
  layers["sliding_window"] = 64;
  layers["rope_parameters"] = {{"sliding_attention", {{"rope_theta", 500.0}, {"rope_type", "default"}}},
                               {"full_attention", {{"rope_theta", 1e6}, {"rope_type", "default"}}}};
  const DraftConfig windowed = folder.read();
  EXPECT_EQ(windowed.window, 64);
  EXPECT_TRUE(windowed.causal);
  EXPECT_EQ(windowed.rope_theta, 500.0);
  folder.config["sliding_window_non_causal"] = true;
  EXPECT_FALSE(folder.read().causal);
  layers["layer_types"][1] = "full_attention";
  EXPECT_MENTIONS(folder.error(), "'layer_types' mixes");
  // Without the heads the same layers are DFlash.
  folder.config = whole;
  folder.config["speculators_model_type"] = "dflash";
  std::erase_if(folder.tensors, [](const StoredTensor& t) {
    return t.name.starts_with("markov_head") || t.name.starts_with("confidence_head");
  });
  EXPECT_EQ(folder.read().kind, DraftKind::kDFlash);
}

TEST(DraftTraps, OriginalDFlashNestsItsSettings) {
  Folder folder("dflash");
  for (const char* key : {"mask_token_id", "target_layer_ids"}) {
    folder.config["dflash_config"][key] = folder.config[key];
    folder.config.erase(key);
  }
  for (const char* key : {"markov_rank", "enable_confidence_head", "num_anchors"}) folder.config.erase(key);
  folder.config["architectures"] = {"DFlashDraftModel"};
  drop(folder.tensors, "embed_tokens.weight");
  drop(folder.tensors, "lm_head.weight");
  const DraftConfig config = folder.read();
  EXPECT_EQ(config.kind, DraftKind::kDFlash);
  EXPECT_FALSE(config.anchor_predicts);
  EXPECT_EQ(config.n_drafts(), config.block_size - 1);
  EXPECT_EQ(config.taps.size(), 3u);
  EXPECT_EQ(config.short_block, 0);
  folder.config["short_block_size"] = 3;
  EXPECT_EQ(folder.read().n_short_drafts(), 2);
  folder.config["short_block_size"] = 1;
  EXPECT_MENTIONS(folder.error(), "'short_block_size': found 1 slots");
  folder.config.erase("short_block_size");
  folder.config["dflash_config"]["attention_value_scale"] = 0.6;
  EXPECT_MENTIONS(folder.error(), "dflash_config: unknown key 'attention_value_scale'");
  folder.config.erase("dflash_config");
  EXPECT_MENTIONS(folder.error(), "'dflash_config' is missing");
}

TEST(DraftTraps, ShortBlocksInFolders) {
  Folder folder("dspark_vanilla");  // blocks of 5
  EXPECT_EQ(folder.read().short_block, 0);
  for (const int32_t n : {0, 1, 3, 5}) {
    folder.config["short_block_size"] = n;
    EXPECT_EQ(folder.read().short_block, n);
  }
  folder.config["short_block_size"] = 3;
  EXPECT_EQ(folder.read().n_short_drafts(), 3);
  folder.config["sample_from_anchor"] = false;
  EXPECT_EQ(folder.read().n_short_drafts(), 2);
  folder.config["short_block_size"] = 1;
  EXPECT_MENTIONS(folder.error(),
                  "'short_block_size': found 1 slots, expected 0 (no short blocks) or 2 to 5");
  for (const json& value : {json(6), json(-1), json("3"), json(2.5)}) {
    folder.config["short_block_size"] = value;
    EXPECT_MENTIONS(folder.error(), "'short_block_size' is " + value.dump() + ", expected a whole number");
  }
}

TEST(DraftTraps, ShortBlocksInGguf) {
  const Gguf file("dflash_v160.gguf");  // blocks of 7
  const auto with = [](uint32_t n) {
    return [n](GgufWriter& w) { w.set_u32("dspark.short_block_size", n); };
  };
  EXPECT_EQ(file.read().short_block, 0);
  EXPECT_EQ(file.read(with(3)).short_block, 3);
  EXPECT_EQ(file.read(with(7)).short_block, 7);
  EXPECT_MENTIONS(file.error(with(8)), "dspark.short_block_size: found 8 slots, expected 0");
  EXPECT_MENTIONS(file.error([](GgufWriter& w) { w.set_string("dspark.short_block_size", "3"); }),
                  "dspark.short_block_size");
  EXPECT_MENTIONS(file.error([](GgufWriter& w) { w.set_u64("dspark.short_block_size", UINT64_MAX); }),
                  "dspark.short_block_size");
}

TEST(DraftTraps, GgufOptions) {
  const Gguf file("dflash_embd_without_output.gguf");
  const auto error = [&](const char* key, float value) {
    return file.error([&](GgufWriter& w) { w.set_f32(key, value); });
  };
  EXPECT_MENTIONS(error("dflash.attention.value_scale", 0.5f), "dflash.attention.value_scale is 0.5");
  EXPECT_MENTIONS(error("dflash.logit_scale", 2.0f), "dflash.logit_scale");
  EXPECT_MENTIONS(error("dflash.something_new", 2.0f), "key 'dflash.something_new' is not understood");
  EXPECT_MENTIONS(error("dflash.selector_rank", 8.0f), "DFlash2");
  EXPECT_MENTIONS(error("dflash.hyper_connection.count", 4.0f), "DeepSeek-V4");
  EXPECT_MENTIONS(error("dflash.final_logit_softcapping", -1.0f), "final_logit_softcapping");
  const auto partial = [](GgufWriter& w) { w.set_u32("dflash.rope.dimension_count", 8); };
  EXPECT_MENTIONS(file.error(partial), "dflash.rope.dimension_count is 8, only 32");
  const auto mask = [](GgufWriter& w) { w.set_u32("tokenizer.ggml.mask_token_id", 320); };
  EXPECT_MENTIONS(file.error(mask), "mask_token_id is 320, expected a token below 320");
  const auto order = [](GgufWriter& w) { w.set_i32s("dflash.target_layers", std::vector<int32_t>{2, 2, 6}); };
  EXPECT_MENTIONS(file.error(order), "dflash.target_layers: layer 2 after 2");
  const auto no_confidence = [](GgufWriter& w) { w.set_bool("dflash.has_confidence_head", false); };
  EXPECT_MENTIONS(file.error(no_confidence), "has_confidence_head is false, but tensor 'conf_proj.weight'");
  const auto other = [](GgufWriter& w) { w.set_string("general.architecture", "eagle3"); };
  EXPECT_MENTIONS(file.error(other), "'eagle3'");
  const auto target = [](GgufWriter& w) { w.set_string("general.architecture", "qwen3"); };
  EXPECT_MENTIONS(file.error(target), "not a drafter");

  const DraftConfig read = file.read([](GgufWriter& w) {
    w.remove("dflash.sample_from_anchor");  // a Markov head says the same
    w.set_i32s("dflash.target_layers", std::vector<int32_t>{0, 4, 6});
    w.set_bool("dflash.attention.causal", true);
    w.set_f32("dflash.final_logit_softcapping", 30.0f);
    w.set_i32s("dflash.rope.dimension_sections", std::vector<int32_t>{16, 0, 0, 0});
    w.set_u32("dflash.attention.sliding_window", 100);
    w.set_bools("dflash.attention.sliding_window_pattern", {true, true, true});
  });
  EXPECT_TRUE(read.anchor_predicts);
  EXPECT_EQ(read.taps, (std::vector<int32_t>{0, 4, 6}));
  EXPECT_TRUE(read.causal);
  EXPECT_EQ(read.final_softcap, 30.0f);
  EXPECT_EQ(read.window, 100);
  const auto mixed = [](GgufWriter& w) {
    w.set_u32("dflash.attention.sliding_window", 100);
    w.set_bools("dflash.attention.sliding_window_pattern", {true, false, true});
  };
  EXPECT_MENTIONS(file.error(mixed), "mixes sliding and full");
}

TEST(DraftTraps, GgufTensorsThatChangeTheModel) {
  Gguf file("dflash_v160.gguf");
  const std::vector<StoredTensor> whole = file.tensors;
  file.tensors.push_back({"blk.0.attn_sinks.weight", DType::kF32, {4}, std::vector<uint8_t>(16)});
  EXPECT_MENTIONS(file.error(), "unknown tensor 'blk.0.attn_sinks.weight'");
  file.tensors = whole;
  std::vector<float> divisors(16, 1e30f);
  std::fill_n(divisors.begin(), 4, 1.0f);
  StoredTensor freqs{"rope_freqs.weight", DType::kF32, {16}, std::vector<uint8_t>(64)};
  std::memcpy(freqs.bytes.data(), divisors.data(), 64);
  file.tensors.push_back(freqs);
  const DraftConfig partial = file.read();
  EXPECT_GT(partial.rope.inv_freq[3], 0.0f);
  EXPECT_EQ(partial.rope.inv_freq[4], 0.0f);
  divisors[2] = -1.0f;
  std::memcpy(file.tensors.back().bytes.data(), divisors.data(), 64);
  EXPECT_MENTIONS(file.error(), "'rope_freqs.weight' holds -1 at 2");
  file.tensors.back().shape = {4, 4};
  EXPECT_MENTIONS(file.error(), "'rope_freqs.weight'");
  // Plain DFlash without the key: drafts come from slot 1 on.
  file.tensors = whole;
  for (const char* name : {"markov_w1.weight", "markov_w2.weight", "conf_proj.weight", "conf_proj.bias"}) {
    drop(file.tensors, name);
  }
  const DraftConfig dflash = file.read([](GgufWriter& w) {
    w.remove("dflash.sample_from_anchor");
    w.set_bool("dflash.has_confidence_head", false);
  });
  EXPECT_EQ(dflash.kind, DraftKind::kDFlash);
  EXPECT_FALSE(dflash.anchor_predicts);
  EXPECT_EQ(dflash.vocab_size, 320);  // from the tokenizer
  const DraftConfig from_anchor =
      file.read([](GgufWriter& w) { w.set_bool("dflash.has_confidence_head", false); });
  EXPECT_TRUE(from_anchor.anchor_predicts);  // the key is honoured
}

/// The drafter `c` in the words of ik_llama.cpp.
void set_ik_keys(GgufWriter& writer, const Checkpoint& source, const DraftConfig& c) {
  for (const RawMeta& raw : source.raw_metadata()) {
    if (raw.key.starts_with("dflash.")) writer.remove(raw.key);
  }
  writer.remove("tokenizer.ggml.mask_token_id");
  writer.set_string("general.architecture", "dflash-draft");
  const auto set = [&](const char* key, int32_t value) {
    writer.set_u32(std::string("dflash-draft.") + key, static_cast<uint32_t>(value));
  };
  set("block_count", c.n_layers);
  set("context_length", c.context_length);
  set("embedding_length", c.dim);
  set("feed_forward_length", c.ffn_dim);
  set("attention.head_count", c.n_heads);
  set("attention.head_count_kv", c.n_kv_heads);
  set("attention.key_length", c.head_dim);
  set("attention.value_length", c.head_dim);
  set("rope.dimension_count", c.head_dim);
  set("dflash.block_size", c.block_size);
  set("dflash.mask_token_id", c.mask_token_id);
  set("dflash.n_target_features", 3 * c.dim);
  writer.set_bool("dflash-draft.attention.causal", false);
  writer.set_f32("dflash-draft.attention.layer_norm_rms_epsilon", c.norm_eps);
  writer.set_f32("dflash-draft.rope.freq_base", static_cast<float>(c.rope_theta));
  writer.set_u32s("dflash-draft.dflash.target_layer_ids", std::vector<uint32_t>{1, 3, 5});  // outputs
}

TEST(DraftTraps, IkLlamaFiles) {
  Gguf file("dflash_embd_without_output.gguf");
  const auto original = file.open();
  ASSERT_TRUE(original.ok());
  drop(file.tensors, "token_embd.weight");
  for (StoredTensor& tensor : file.tensors) {
    if (tensor.name == "fc.weight") tensor.name = "dflash_fc.weight";
    if (tensor.name == "enc.output_norm.weight") tensor.name = "dflash_hidden_norm.weight";
    const size_t norm = tensor.name.find("ffn_norm");
    if (norm != std::string::npos) tensor.name.replace(norm, 8, "post_attention_norm");
  }
  const auto keys = [&](GgufWriter& w) { set_ik_keys(w, file.file, original->config); };
  const auto read = file.open(keys);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(read->config.source, DraftSource::kIkLlamaGguf);
  test::expect_same_drafter(original->config, read->config);
  EXPECT_EQ(read->tensors.size(), original->tensors.size() - 1);
  for (const auto& [name, tensor] : read->tensors) {
    EXPECT_EQ(test::floats(*read, name), test::floats(*original, name)) << name;
  }
  const auto error = [&](const std::function<void(GgufWriter&)>& change) {
    return file.error([&](GgufWriter& w) {
      keys(w);
      change(w);
    });
  };
  const auto features = [](GgufWriter& w) { w.set_u32("dflash-draft.dflash.n_target_features", 7); };
  EXPECT_MENTIONS(error(features), "n_target_features is 7, only 192");
  const auto laguna = [](GgufWriter& w) { w.set_bool("dflash-draft.dflash.laguna", true); };
  EXPECT_MENTIONS(error(laguna), "laguna");
  const auto rotary = [](GgufWriter& w) { w.set_f32("dflash-draft.dflash.backbone_rotary_base", 5e6f); };
  EXPECT_MENTIONS(error(rotary), "backbone_rotary_base");
  const auto many = [](GgufWriter& w) {
    w.set_u32s("dflash-draft.dflash.target_layer_ids", std::vector<uint32_t>{1, 2, 3, 4, 5, 6, 7, 8, 9});
  };
  EXPECT_MENTIONS(error(many), "has 9 layers, at most 8");
  const auto twice = [](GgufWriter& w) {
    w.set_u32s("dflash-draft.dflash.target_layer_ids", std::vector<uint32_t>{1, 3, 3});
  };
  EXPECT_MENTIONS(error(twice), "layer 3 after 3");
  // Without a Markov head ik reads from slot 1.
  for (const char* name : {"markov_w1.weight", "markov_w2.weight", "conf_proj.weight", "conf_proj.bias"}) {
    drop(file.tensors, name);
  }
  EXPECT_FALSE(file.read(keys).anchor_predicts);
}

TEST(DraftTraps, GemmaMarksMustBeThere) {
  // A GGUF drafter with norms behind its layers but without the numbers Gemma multiplies in.
  const auto gemma = open_draft_checkpoint(fixture("gemma4_dspark_vanilla").string());
  ASSERT_TRUE(gemma.ok());
  test::TempFolder temp;
  ThreadPool pool(1);
  DraftGgufOptions options;
  options.types.type = DType::kBF16;
  ASSERT_TRUE(draft_to_gguf(*gemma, temp.file("gemma.gguf"), options, pool, {}).ok());
  const Checkpoint file = open_file(temp.file("gemma.gguf"));
  const auto tensors = test::load_tensors(file);
  for (const char* key : {"dflash.attention.scale", "dflash.embedding_scale", "dflash.hidden_activation"}) {
    test::write_gguf(temp.file("changed.gguf"), file, tensors, [&](GgufWriter& w) { w.remove(key); });
    const auto changed = open_draft_checkpoint(temp.file("changed.gguf"));
    ASSERT_FALSE(changed.ok());
    EXPECT_MENTIONS(changed.status().message(), key);
  }
}

TEST(DraftTraps, TargetsThatDoNotFit) {
  const auto draft = open_draft_checkpoint(fixture("dspark_vanilla").string());
  ASSERT_TRUE(draft.ok());
  ModelConfig target;
  target.dim = 32;
  target.vocab_size = 96;
  target.n_layers = 6;
  EXPECT_TRUE(check_draft_fits(draft->config, target).ok());
  target.n_layers = 4;
  target.vocab_size = 95;
  const std::string message = check_draft_fits(draft->config, target).message();
  EXPECT_MENTIONS(message, "it wants 96 tokens (vocabulary), the target has 95");
  EXPECT_MENTIONS(message, "it wants 6 layers, the target has 4");
}

}  // namespace
}  // namespace dspark
