// Systematic damage to drafters: every tensor and every key that counts, missing and changed.

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "draft/draft_checkpoint.h"
#include "draft_edit.h"

namespace dspark {
namespace {

using nlohmann::json;
using test::Folder;
using test::Gguf;
using test::StoredTensor;

const char* const kFolders[] = {"dspark_vanilla", "dspark_gated",          "dspark_rnn",      "dflash",
                                "eagle3",         "gemma4_dspark_vanilla", "speculators_v160"};
const char* const kFiles[] = {"dflash_v160.gguf", "dflash_embd_without_output.gguf"};

bool is_optional(const std::string& name) {
  return name == "embed_tokens.weight" || name == "lm_head.weight" || name == "token_embd.weight" ||
         name == "output.weight" || name == "t2d";
}

/// Drops, renames and reshapes each tensor in turn. `open` reads what `tensors` holds at that moment.
template <typename Drafter>
void mutate_tensors(Drafter& drafter) {
  const std::vector<StoredTensor> whole = drafter.tensors;
  for (size_t i = 0; i < whole.size(); ++i) {
    SCOPED_TRACE(whole[i].name);
    drafter.tensors.erase(drafter.tensors.begin() + static_cast<std::ptrdiff_t>(i));
    const auto without = drafter.open();
    EXPECT_EQ(without.ok(), is_optional(whole[i].name)) << without.status().message();
    // What a file has tells what it is: without a matrix of the head the others are the strange ones.
    if (!without.ok() && whole[i].name.find("markov") == std::string::npos && whole[i].name != "d2t") {
      const std::string layer = whole[i].name.substr(0, whole[i].name.find('.'));
      EXPECT_MENTIONS(without.status().message(), layer);
    }
    drafter.tensors = whole;
    drafter.tensors[i].name = "strange.weight";
    const std::string renamed = drafter.error();
    EXPECT_MENTIONS(renamed,
                    renamed.find("'d2t' is missing") != std::string::npos ? "d2t" : "strange.weight");
    drafter.tensors = whole;
    drafter.tensors[i].shape.insert(drafter.tensors[i].shape.begin(), 1);
    EXPECT_MENTIONS(drafter.error(), "'" + whole[i].name + "'");
    drafter.tensors = whole;
    drafter.tensors[i].dtype = DType::kI8;
    drafter.tensors[i].bytes.resize(1);
    drafter.tensors[i].shape = {1};
    EXPECT_MENTIONS(drafter.error(), "'" + whole[i].name + "'");
    drafter.tensors = whole;
  }
}

TEST(DraftMalformed, EveryTensorOfAFolderCounts) {
  for (const char* name : kFolders) {
    SCOPED_TRACE(name);
    Folder folder(name);
    mutate_tensors(folder);
  }
}

TEST(DraftMalformed, EveryTensorOfAGgufFileCounts) {
  for (const char* name : kFiles) {
    SCOPED_TRACE(name);
    Gguf file(name);
    mutate_tensors(file);
  }
}

/// Keys that decide something and have no default.
bool is_required(std::string_view key, std::string_view drafter) {
  constexpr std::string_view kAlways[] = {
      "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers",
      "vocab_size",  "rms_norm_eps",      "rope_parameters",     "max_position_embeddings"};
  constexpr std::string_view kSpeculators[] = {"sample_from_anchor", "aux_hidden_state_layer_ids",
                                               "mask_token_id",      "block_size",
                                               "draft_vocab_size",   "transformer_layer_config"};
  constexpr std::string_view kDeepSpec[] = {"num_target_layers", "architectures", "target_layer_ids"};
  constexpr std::string_view kBlock[] = {"block_size", "mask_token_id", "markov_rank",
                                         "enable_confidence_head"};
  constexpr std::string_view kHeads[] = {"markov_head_type", "confidence_head_with_markov"};
  const auto among = [&](const auto& keys) {
    return std::find(std::begin(keys), std::end(keys), key) != std::end(keys);
  };
  if (among(kAlways)) return true;
  if (key == "head_dim") return drafter != "gemma4_dspark_vanilla";
  if (key == "global_head_dim") return drafter == "gemma4_dspark_vanilla";
  if (drafter == "speculators_v160") return among(kSpeculators);
  if (among(kDeepSpec)) return true;
  if (drafter == "eagle3") return key == "ttt_length";
  return among(kBlock) || (drafter != "dflash" && among(kHeads));
}

/// Every key of `object` (a part of folder.config) removed and set to nonsense.
void mutate_keys(Folder& folder, const json::json_pointer& place, const std::string& drafter,
                 int& n_refused) {
  const json whole = folder.config;
  const json values = {nullptr,
                       true,
                       "nonsense",
                       -1,
                       0,
                       1e300,
                       -1e300,
                       18446744073709551615u,
                       INT64_MIN,
                       json::array(),
                       json::array({-5}),
                       json::object()};
  for (const auto& [key, old] : whole.at(place).items()) {
    SCOPED_TRACE(key);
    folder.config = whole;
    folder.config.at(place).erase(key);
    const auto without = folder.open();
    if (is_required(key, drafter)) {
      ASSERT_FALSE(without.ok());
      if (key != "architectures") {
        EXPECT_MENTIONS(without.status().message(), "'" + key + "'");
      }
    }
    for (const json& value : values) {
      folder.config = whole;
      folder.config.at(place)[key] = value;
      const auto changed = folder.open();
      if (changed.ok()) continue;  // not a key that counts, or a value that says the same
      ++n_refused;
      const std::string message = changed.status().message();
      EXPECT_TRUE(message.find("config.json: ") != std::string::npos ||
                  message.find("tensor ") != std::string::npos)
          << value << ": " << message;
    }
  }
  folder.config = whole;
}

TEST(DraftMalformed, EveryKeyOfAFolderIsChecked) {
  for (const char* name : kFolders) {
    SCOPED_TRACE(name);
    Folder folder(name);
    int n_refused = 0;
    mutate_keys(folder, json::json_pointer(), name, n_refused);
    if (folder.config.contains("transformer_layer_config")) {
      mutate_keys(folder, json::json_pointer("/transformer_layer_config"), name, n_refused);
    }
    EXPECT_GT(n_refused, 100);
  }
}

TEST(DraftMalformed, EveryKeyOfAGgufFileIsChecked) {
  for (const char* name : kFiles) {
    SCOPED_TRACE(name);
    Gguf file(name);
    for (const auto& [key, value] : file.file.metadata()) {
      SCOPED_TRACE(key);
      const std::string& k = key;
      const bool counts = key.starts_with("dflash.") || key == "general.architecture" ||
                          key == "tokenizer.ggml.mask_token_id";
      if (!counts) continue;
      constexpr std::string_view kDefaulted[] = {"dflash.attention.head_count_kv",  // as many as query heads
                                                 "dflash.attention.value_length", "dflash.rope.freq_base",
                                                 "dflash.sample_from_anchor", "dflash.has_confidence_head"};
      const bool has_default =
          std::find(std::begin(kDefaulted), std::end(kDefaulted), key) != std::end(kDefaulted);
      const auto without = file.open([&](GgufWriter& w) { w.remove(k); });
      if (!has_default) {
        ASSERT_FALSE(without.ok());
        if (key != "general.architecture") {
          EXPECT_MENTIONS(without.status().message(), key);
        }
      }
      EXPECT_FALSE(file.open([&](GgufWriter& w) { w.set_string(k, "nonsense"); }).ok());
      EXPECT_FALSE(file.open([&](GgufWriter& w) { w.set_i32s(k, std::vector<int32_t>{-7, -7}); }).ok());
      if (key != "dflash.rope.freq_base" && key != "dflash.attention.layer_norm_rms_epsilon") {
        EXPECT_FALSE(file.open([&](GgufWriter& w) { w.set_u64(k, UINT64_MAX); }).ok());
      }
    }
  }
}

}  // namespace
}  // namespace dspark
