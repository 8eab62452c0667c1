// tokenizer.json -> tokenizer.ggml.* keys.

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/thread_pool.h"
#include "formats/quantize_model.h"
#include "formats/temp_folder.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

json byte_level(bool use_regex) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

json split_then_bytes(const char* pattern) {
  return {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}},
        byte_level(false)}}};
}

constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// A model folder with a tokenizer that a test may change.
class TokenizerModel {
 public:
  TokenizerModel() {
    const fs::path source = test::data_dir() / "quantize" / "qwen3_qknorm";
    for (const char* name : {"model.safetensors", "config.json"})
      fs::copy_file(source / name, temp.path() / name);
    tokenizer = {{"added_tokens",
                  {{{"id", 6}, {"content", "<|end|>"}, {"special", true}},
                   {{"id", 7}, {"content", "<tool>"}, {"special", false}}}},
                 {"normalizer", {{"type", "NFC"}}},
                 {"pre_tokenizer", split_then_bytes(kQwen2)},
                 {"model",
                  {{"type", "BPE"},
                   {"ignore_merges", false},
                   {"vocab", {{"a", 0}, {"b", 1}, {"\u0120", 2}, {"ab", 3}, {"\u0120ab", 4}, {"!", 5}}},
                   {"merges", {"a b", "\u0120 ab"}}}}};
    config = {{"eos_token", "<|end|>"},
              {"pad_token", {{"content", "<tool>"}}},
              {"chat_template", "{{ messages }}"}};
  }
  Status convert() {
    temp.write("tokenizer.json", tokenizer.dump());
    temp.write("tokenizer_config.json", config.dump());
    Result<Checkpoint> input = Checkpoint::open(temp.path().string());
    if (!input.ok()) return input.status();
    ThreadPool pool(1);
    const std::string path = temp.file("out.gguf");
    const Result<QuantizeReport> report = quantize_model(*input, path, QuantizeOptions{}, pool, nullptr);
    if (!report.ok()) return report.status();
    notes = report->notes;
    Result<Checkpoint> reopened = Checkpoint::open(path);
    if (!reopened.ok()) return reopened.status();
    out = std::move(reopened).value();
    return ok_status();
  }
  template <typename T>
  std::vector<T> list(const char* key) const {
    const MetaValue* value = out.meta(key);
    return value == nullptr ? std::vector<T>() : std::get<std::vector<T>>(*value);
  }
  test::TempFolder temp;
  json tokenizer;
  json config;
  Checkpoint out;
  std::vector<std::string> notes;
};

TEST(HfTokenizer, ByteLevelBpe) {
  TokenizerModel m;
  const Status status = m.convert();
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_TRUE(m.notes.empty());
  EXPECT_EQ(m.out.meta_string("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(m.out.meta_string("tokenizer.ggml.pre"), "qwen2");
  const auto tokens = m.list<std::string>("tokenizer.ggml.tokens");
  ASSERT_EQ(tokens.size(), 64u);  // one per row of the embedding
  EXPECT_EQ(tokens[4], "\u0120ab");
  EXPECT_EQ(tokens[6], "<|end|>");
  EXPECT_EQ(tokens[63], "[PAD63]");
  const auto types = m.list<int64_t>("tokenizer.ggml.token_type");
  ASSERT_EQ(types.size(), 64u);
  EXPECT_EQ(types[0], 1);
  EXPECT_EQ(types[6], 3);
  EXPECT_EQ(types[7], 4);
  EXPECT_EQ(types[8], 5);
  EXPECT_EQ(m.list<std::string>("tokenizer.ggml.merges"), (std::vector<std::string>{"a b", "\u0120 ab"}));
  EXPECT_EQ(m.out.meta_int("tokenizer.ggml.eos_token_id"), 6);
  EXPECT_EQ(m.out.meta_int("tokenizer.ggml.padding_token_id"), 7);
  EXPECT_EQ(m.out.meta_int("tokenizer.ggml.bos_token_id"), 1);  // from config.json
  EXPECT_EQ(m.out.meta_bool("tokenizer.ggml.add_bos_token"), false);
  EXPECT_EQ(m.out.meta_string("tokenizer.chat_template"), "{{ messages }}");
}

TEST(HfTokenizer, PreTokenizerNames) {
  const auto name_of = [](const json& pre, bool ignore_merges) {
    TokenizerModel m;
    m.tokenizer["pre_tokenizer"] = pre;
    m.tokenizer["model"]["ignore_merges"] = ignore_merges;
    const Status status = m.convert();
    EXPECT_TRUE(status.ok()) << status.message();
    if (m.out.meta_string("tokenizer.ggml.model") == "no_vocab") return std::string("no_vocab");
    return m.out.meta_string("tokenizer.ggml.pre").value_or("?");
  };
  EXPECT_EQ(name_of(byte_level(true), false), "gpt-2");
  EXPECT_EQ(name_of(byte_level(false), false), "no_vocab");
  EXPECT_EQ(name_of(split_then_bytes(kLlama3), true), "llama-bpe");
  EXPECT_EQ(name_of(split_then_bytes(kLlama3), false), "no_vocab");
  EXPECT_EQ(name_of(split_then_bytes(kQwen2), true), "no_vocab");
  EXPECT_EQ(name_of(split_then_bytes("\\w+"), false), "no_vocab");
  const json digits = {{"type", "Digits"}, {"individual_digits", true}};
  EXPECT_EQ(name_of({{"type", "Sequence"}, {"pretokenizers", {digits, byte_level(true)}}}, false), "smollm");
  EXPECT_EQ(name_of(nullptr, false), "no_vocab");
}

TEST(HfTokenizer, OtherKindsSayNoVocabAndWhy) {
  TokenizerModel unigram;
  unigram.tokenizer["model"] = {{"type", "Unigram"}, {"vocab", json::array()}};
  ASSERT_TRUE(unigram.convert().ok());
  EXPECT_EQ(unigram.out.meta_string("tokenizer.ggml.model"), "no_vocab");
  EXPECT_EQ(unigram.out.meta("tokenizer.ggml.tokens"), nullptr);
  ASSERT_EQ(unigram.notes.size(), 1u);
  EXPECT_NE(unigram.notes[0].find("its model is not BPE"), std::string::npos);
  TokenizerModel fallback;
  fallback.tokenizer["model"]["byte_fallback"] = true;
  ASSERT_TRUE(fallback.convert().ok());
  ASSERT_EQ(fallback.notes.size(), 1u);
  EXPECT_NE(fallback.notes[0].find("byte fallback"), std::string::npos);
}

TEST(HfTokenizer, BosFromThePostProcessorMergesAsPairsAndJinjaFile) {
  TokenizerModel m;
  m.tokenizer["model"]["merges"] = json::array({json::array({"a", "b"}), json::array({"\u0120", "ab"})});
  m.tokenizer["post_processor"] = {
      {"type", "Sequence"},
      {"processors",
       {byte_level(false),
        {{"type", "TemplateProcessing"},
         {"single",
          {{{"SpecialToken", {{"id", "<|end|>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}}}}}}}}}};
  m.config["bos_token"] = "<|end|>";
  m.config["chat_template"] = json::array({{{"name", "default"}, {"template", "old"}}});
  m.temp.write("chat_template.jinja", "new");
  m.temp.write("generation_config.json", R"({"eos_token_id": [6, 5]})");
  const Status status = m.convert();
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(m.list<std::string>("tokenizer.ggml.merges"), (std::vector<std::string>{"a b", "\u0120 ab"}));
  EXPECT_EQ(m.out.meta_bool("tokenizer.ggml.add_bos_token"), true);
  EXPECT_EQ(m.out.meta_bool("tokenizer.ggml.add_eos_token"), false);
  EXPECT_EQ(m.out.meta_int("tokenizer.ggml.bos_token_id"), 6);
  EXPECT_EQ(m.out.meta_int("tokenizer.ggml.eos_token_id"), 6);
  EXPECT_EQ(m.out.meta_int("tokenizer.ggml.eot_token_id"), 5);
  EXPECT_EQ(m.out.meta_string("tokenizer.chat_template"), "new");
}

TEST(HfTokenizer, BrokenFilesAreNamed) {
  const auto expect_error = [](const std::function<void(json&)>& edit, const char* part) {
    SCOPED_TRACE(part);
    TokenizerModel m;
    edit(m.tokenizer);
    const Status status = m.convert();
    EXPECT_EQ(status.code(), StatusCode::kCorruptData);
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    EXPECT_NE(status.message().find("tokenizer.json"), std::string::npos) << status.message();
  };
  expect_error([](json& t) { t["model"]["vocab"]["z"] = 64; }, "id 64, expected 0 to 63");
  expect_error([](json& t) { t["model"]["vocab"]["z"] = -1; }, "id -1");
  expect_error([](json& t) { t["model"]["vocab"]["z"] = "7"; }, "expected 0 to 63");
  expect_error([](json& t) { t["model"]["vocab"]["z"] = 3; }, "belongs to both");
  expect_error([](json& t) { t["model"]["merges"][1] = 5; }, "merge 1 is neither");
  expect_error([](json& t) { t["added_tokens"][0].erase("content"); }, "no 'content'");
}

}  // namespace
}  // namespace dspark
