// The tokenizers of the real models, where models/cache holds them, against recorded ids: all cases of the
// reference set when it is there, and the sample in tests/data/tokenizer/real otherwise. Without a model's
// file its tests are skipped, and the small vocabularies of tokenizer_fixture_test.cc are what is tested.

#include "text/detokenizer.h"
#include "text/tokenizer_fixtures.h"
#include "text/utf8.h"

namespace dspark::test {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

struct RealModel {
  const char* file;
  const char* name;
};

constexpr RealModel kModels[] = {
    {"SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct"},
    {"gemma-3-270m-q4_k_m.gguf", "gemma-3-270m"},
    {"qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "qwen2.5-coder-0.5b-instruct"},
};

std::filesystem::path case_dir() {
  const std::filesystem::path golden = golden_dir();
  return golden.empty() ? tokenizer_data("real") : golden / "tokenizer";
}

std::string from_hex(const std::string& hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return out;
}

std::string input_of(const json& c) {
  return c.contains("hex") ? from_hex(c["hex"]) : c["text"].get<std::string>();
}

// The recorded ids, except where the other reference is right: "</s>" is an ordinary token of Qwen.
Ids expected_ids(const json& c, const std::string& model) {
  const bool take_other = model.rfind("qwen", 0) == 0 && c.contains("hf_ids");
  return c[take_other ? "hf_ids" : "ids"].get<Ids>();
}

std::string expected_text(const json& c, const std::string& key, const std::string& fallback) {
  if (c.contains(key + "_hex")) return from_hex(c[key + "_hex"]);
  if (!c.contains(key)) return fallback;
  return c[key].is_boolean() ? input_of(c) : c[key].get<std::string>();
}

void check_case(const Tokenizer& tokenizer, const json& c, const std::string& model) {
  const std::string text = input_of(c);
  const Ids ids = tokenizer.encode(text, c["add_special"], c["parse_special"]);
  if (c.contains("error")) return;  // the reference refuses this text; here it only must not crash
  ASSERT_EQ(ids, expected_ids(c, model)) << model << ": " << c;
  if (ids != c["ids"].get<Ids>()) {
    EXPECT_EQ(tokenizer.decode(ids, true), text) << c;
    return;
  }
  const std::string with_special = expected_text(c, "detok", "");
  EXPECT_EQ(tokenizer.decode(ids, false), with_special) << model << ": " << c;
  EXPECT_EQ(tokenizer.decode(ids, true), expected_text(c, "detok_plain", with_special)) << model << ": " << c;
  StreamingDetokenizer stream(tokenizer, false);
  std::string streamed;
  for (int32_t id : ids) {
    const std::string piece = stream.push(id);
    ASSERT_TRUE(is_valid_utf8(piece)) << c;
    streamed += piece;
  }
  EXPECT_EQ(streamed + stream.flush(), to_valid_utf8(with_special)) << c;
}

std::string not_fetched(const RealModel& model) {
  return std::string(model.file) + " is not in models/cache: run scripts/fetch-models (this test needs it)";
}

class RealTokenizer : public ::testing::TestWithParam<RealModel> {};

TEST_P(RealTokenizer, Cases) {
  const std::filesystem::path file = model_file(GetParam().file);
  const std::vector<json> cases = read_json_lines(case_dir() / (std::string(GetParam().name) + ".jsonl"));
  EXPECT_GT(cases.size(), 100u);
  if (file.empty()) GTEST_SKIP() << not_fetched(GetParam());
  const Result<Checkpoint> checkpoint = Checkpoint::open(file.string());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  const Result<Tokenizer> tokenizer = Tokenizer::load(*checkpoint);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  for (const json& c : cases) check_case(*tokenizer, c, GetParam().name);
}

TEST_P(RealTokenizer, SpecialTokens) {
  const std::filesystem::path file = model_file(GetParam().file);
  const json want = read_json_file(case_dir() / "special.json")[GetParam().name];
  ASSERT_TRUE(want.contains("vocab_size"));
  if (file.empty()) GTEST_SKIP() << not_fetched(GetParam());
  const Result<Checkpoint> checkpoint = Checkpoint::open(file.string());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  const Result<Tokenizer> t = Tokenizer::load(*checkpoint);
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ(t->vocab_size(), want["vocab_size"]);
  EXPECT_EQ(t->bos_id(), want["bos"]);
  EXPECT_EQ(t->eos_id(), want["eos"]);
  EXPECT_EQ(t->pad_id(), want["pad"]);
  EXPECT_EQ(t->add_bos(), want["add_bos"]);
  EXPECT_EQ(t->add_eos(), want["add_eos"]);
  EXPECT_EQ(t->stop_ids(), want["recommended_stop_ids"].get<Ids>());
  EXPECT_TRUE(t->is_stop(want["eot"]));
  for (const auto& [text, id] : want["specials"].items()) {
    EXPECT_EQ(t->find_token(text), id) << text;
    EXPECT_EQ(t->encode(text, false, true), Ids{id.get<int32_t>()}) << text;
    EXPECT_EQ(t->decode(Ids{id.get<int32_t>()}, false), text);
  }
}

std::string test_name(const ::testing::TestParamInfo<RealModel>& param) {
  std::string name = param.param.name;
  for (char& c : name) {
    if (c == '-' || c == '.') c = '_';
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(Models, RealTokenizer, ::testing::ValuesIn(kModels), test_name);

}  // namespace
}  // namespace dspark::test
