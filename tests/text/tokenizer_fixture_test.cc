// Small vocabularies against the `tokenizers` and `sentencepiece` libraries (tests/data/tokenizer/README.md).

#include <filesystem>
#include <fstream>

#include "text/detokenizer.h"
#include "text/tokenizer_fixtures.h"
#include "text/utf8.h"

namespace dspark::test {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

// Runs every variant of a fixture: a line with "variant" and "patch", then its cases.
void check_variants(const std::string& name, int min_variants) {
  const json base = read_json_file(tokenizer_data(name + ".json"));
  int n_variants = 0;
  std::string variant;
  std::unique_ptr<Tokenizer> tokenizer;
  for (const json& line : read_json_lines(tokenizer_data(name + ".jsonl"))) {
    if (line.contains("variant")) {
      variant = line["variant"];
      json file = base;
      file.merge_patch(line["patch"]);
      Result<Tokenizer> made = tokenizer_from(file);
      ASSERT_TRUE(made.ok()) << variant << ": " << made.status().message();
      tokenizer = std::make_unique<Tokenizer>(std::move(made).value());
      ++n_variants;
      continue;
    }
    ASSERT_NE(tokenizer, nullptr);
    const std::string text = line["text"];
    const Ids ids = tokenizer->encode(text, line["add_special"], true);
    EXPECT_EQ(ids, line["ids"].get<Ids>()) << variant << ": " << line["text"].dump();
    EXPECT_EQ(to_valid_utf8(tokenizer->decode(ids, true)), line.value("decoded", text))
        << variant << ": " << line;
  }
  EXPECT_GE(n_variants, min_variants);
}

TEST(TokenizerFixture, ByteLevelJson) {
  check_variants("byte_level", 18);
}

TEST(TokenizerFixture, ByteFallbackJson) {
  check_variants("byte_fallback", 6);
}

TEST(TokenizerFixture, SentencePieceScores) {
  const Result<Tokenizer> tokenizer = Tokenizer::from_gguf(sentencepiece_gguf());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  int n = 0;
  for (const json& line : read_json_lines(tokenizer_data("sentencepiece.jsonl"))) {
    const std::string text = line["text"];
    const Ids ids = tokenizer->encode(text, false, false);
    EXPECT_EQ(ids, line["ids"].get<Ids>()) << line;
    EXPECT_EQ(tokenizer->decode(ids, false), text);
    ++n;
  }
  EXPECT_GT(n, 100);
}

// The GGUF reader must agree with the tokenizer.json reader on the same vocabulary.
TEST(TokenizerFixture, GgufAgreesWithJson) {
  const json base = read_json_file(tokenizer_data("byte_level.json"));
  const std::map<std::string, std::string> pre_of = {
      {"smollm", "smollm"}, {"gpt2", "gpt-2"}, {"llama3", "llama-bpe"}};
  std::unique_ptr<Tokenizer> tokenizer;
  int n = 0;
  for (const json& line : read_json_lines(tokenizer_data("byte_level.jsonl"))) {
    if (line.contains("variant")) {
      tokenizer.reset();
      const auto pre = pre_of.find(line["variant"]);
      if (pre == pre_of.end()) continue;
      Result<Tokenizer> made = Tokenizer::from_gguf(gguf_of(base, pre->second));
      ASSERT_TRUE(made.ok()) << made.status().message();
      tokenizer = std::make_unique<Tokenizer>(std::move(made).value());
      continue;
    }
    if (tokenizer == nullptr) continue;
    EXPECT_EQ(tokenizer->encode(line["text"].get<std::string>(), line["add_special"], true),
              line["ids"].get<Ids>())
        << line;
    ++n;
  }
  EXPECT_GT(n, 300);
}

TEST(TokenizerFixture, SpecialTokensOfGguf) {
  MetadataMap metadata = gguf_of(read_json_file(tokenizer_data("byte_level.json")), "smollm");
  metadata["tokenizer.ggml.add_bos_token"] = true;
  metadata["tokenizer.ggml.add_eos_token"] = true;
  metadata["tokenizer.chat_template"] = std::string("{{ x }}");
  const Result<Tokenizer> t = Tokenizer::from_gguf(metadata);
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(t->bos_id(), 1);
  EXPECT_EQ(t->eos_id(), 2);
  EXPECT_EQ(t->eot_id(), 2);
  EXPECT_EQ(t->pad_id(), -1);
  EXPECT_EQ(t->stop_ids(), (Ids{0, 2}));
  EXPECT_TRUE(t->is_stop(0));
  EXPECT_FALSE(t->is_stop(1));
  EXPECT_TRUE(t->is_special(1));
  EXPECT_FALSE(t->is_special(100));
  EXPECT_TRUE(t->add_bos());
  EXPECT_TRUE(t->add_eos());
  EXPECT_EQ(t->chat_template(), "{{ x }}");
  EXPECT_EQ(t->find_token("<|im_end|>"), 2);
  EXPECT_EQ(t->find_token("no such token"), -1);
  EXPECT_EQ(t->encode("", true, true), (Ids{1, 2}));
  EXPECT_EQ(t->encode("<|im_end|>", false, true), Ids{2});
  const Ids plain = t->encode("<|im_end|>", false, false);
  EXPECT_GT(plain.size(), 1u);
  EXPECT_EQ(t->decode(plain, true), "<|im_end|>");
  EXPECT_EQ(t->decode(Ids{2}, false), "<|im_end|>");
  EXPECT_EQ(t->decode(Ids{2}, true), "");
  EXPECT_EQ(t->decode(Ids{-1, t->vocab_size(), INT32_MAX, INT32_MIN}, false), "");
  EXPECT_TRUE(t->is_unused(-1));
  EXPECT_TRUE(t->is_unused(t->vocab_size()));
  EXPECT_FALSE(t->is_special(-1));
}

TEST(TokenizerFixture, PaddingRowsShowNothing) {
  MetadataMap metadata = gguf_of(read_json_file(tokenizer_data("byte_level.json")), "smollm");
  auto& tokens = std::get<std::vector<std::string>>(metadata["tokenizer.ggml.tokens"]);
  tokens.push_back("[PAD1]");
  std::get<std::vector<int64_t>>(metadata["tokenizer.ggml.token_type"]).push_back(5);
  const Result<Tokenizer> t = Tokenizer::from_gguf(metadata);
  ASSERT_TRUE(t.ok()) << t.status().message();
  const int32_t pad = t->vocab_size() - 1;
  EXPECT_TRUE(t->is_unused(pad));
  EXPECT_EQ(t->token_bytes(pad), "");
  EXPECT_EQ(t->decode(Ids{pad}, false), "");
  EXPECT_GT(t->encode("[PAD1]", false, true).size(), 1u);
}

// An end token marked as visible must not be reachable from a user's text.
TEST(TokenizerFixture, EndMarkersAreSpecial) {
  MetadataMap metadata = sentencepiece_gguf();
  const Result<Tokenizer> before = Tokenizer::from_gguf(metadata);
  ASSERT_TRUE(before.ok());
  std::get<std::vector<int64_t>>(metadata["tokenizer.ggml.token_type"])[5] = 4;  // <end_of_turn>
  const Result<Tokenizer> t = Tokenizer::from_gguf(metadata);
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_TRUE(t->is_special(5));
  EXPECT_EQ(t->encode("<end_of_turn>", false, true), Ids{5});
  EXPECT_EQ(t->encode("<end_of_turn>", false, false), before->encode("<end_of_turn>", false, false));
  EXPECT_EQ(t->stop_ids(), (Ids{1, 5}));
}

TEST(TokenizerFixture, SpacePrefix) {
  MetadataMap metadata = sentencepiece_gguf();
  const Result<Tokenizer> without = Tokenizer::from_gguf(metadata);
  metadata["tokenizer.ggml.add_space_prefix"] = true;
  const Result<Tokenizer> with = Tokenizer::from_gguf(metadata);
  ASSERT_TRUE(without.ok() && with.ok());
  const Ids ids = with->encode("hello", false, false);
  EXPECT_EQ(ids, without->encode(" hello", false, false));
  EXPECT_EQ(with->decode(ids, true), "hello");
  EXPECT_EQ(without->decode(ids, true), " hello");
  StreamingDetokenizer stream(*with);
  std::string text;
  for (int32_t id : ids) text += stream.push(id);
  EXPECT_EQ(text + stream.flush(), "hello");
}

// What a tool answered is not the model's to write.
TEST(TokenizerFixture, ToolResponsesEndAnAnswer) {
  json base = read_json_file(tokenizer_data("byte_level.json"));
  json token = base["added_tokens"][0];
  const auto id = static_cast<int32_t>(base["model"]["vocab"].size());
  token["id"] = id;
  token["content"] = "<|tool_response>";
  token["special"] = true;
  base["added_tokens"].push_back(token);
  const Result<Tokenizer> t = tokenizer_from(base, json::object(), json::object());
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(t->find_token("<|tool_response>"), id);
  EXPECT_TRUE(t->is_stop(id));
  EXPECT_NE(t->eot_id(), id);
}

TEST(TokenizerFixture, ConfigFilesOfAFolder) {
  const json base = read_json_file(tokenizer_data("byte_level.json"));
  const json config = {
      {"bos_token", {{"content", "<|im_start|>"}}},
      {"eos_token", "<|endoftext|>"},
      {"add_bos_token", true},
      {"chat_template",
       {{{"name", "tool_use"}, {"template", "T"}}, {{"name", "default"}, {"template", "D"}}}}};
  const json generation = {{"eos_token_id", {0, 5}}};
  Result<Tokenizer> t = tokenizer_from(base, config, generation);
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(t->bos_id(), 1);
  EXPECT_EQ(t->eos_id(), 0);
  EXPECT_EQ(t->stop_ids(), (Ids{0, 2, 5}));
  EXPECT_EQ(t->chat_template(), "D");
  EXPECT_EQ(t->encode("", true, true), Ids{1});
  const std::string text = base.dump();
  HfTokenizerFiles files;
  files.tokenizer = text;
  files.chat_template = "from a file";
  t = Tokenizer::from_json(files, json(), json());
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(t->chat_template(), "from a file");
  EXPECT_EQ(t->bos_id(), -1);
}

TEST(TokenizerFixture, LoadsFromAFolder) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(::testing::TempDir()) / "tokenizer_folder";
  fs::remove_all(folder);
  fs::copy(data_dir() / "formats" / "models" / "tiny_sharded", folder);
  Result<Checkpoint> checkpoint = Checkpoint::open(folder.string());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  Result<Tokenizer> t = Tokenizer::load(*checkpoint);
  ASSERT_FALSE(t.ok());
  EXPECT_NE(t.status().message().find("tokenizer.json"), std::string::npos) << t.status().message();

  fs::copy_file(tokenizer_data("byte_level.json"), folder / "tokenizer.json");
  std::ofstream(folder / "tokenizer_config.json")
      << R"({"bos_token": "<|im_start|>", "chat_template": "old"})";
  std::ofstream(folder / "chat_template.jinja") << "new";
  t = Tokenizer::load(*checkpoint);
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(t->bos_id(), 1);
  EXPECT_EQ(t->chat_template(), "new");
  EXPECT_EQ(t->stop_ids(), (Ids{0, 1, 2}));  // generation_config.json: 1 and 2; by name: 0 and 2
  EXPECT_EQ(t->decode(t->encode("a folder", false, false), false), "a folder");
  fs::remove_all(folder);
}

}  // namespace
}  // namespace dspark::test
