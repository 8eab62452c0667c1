// Every schema of tests/data/json_schema: random choices under its grammar give texts that are complete
// within the limit and that the schema accepts.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "constrain/fake_vocab.h"
#include "constrain/grammar_constraint.h"
#include "constrain/schema_validator.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

using test::FakeVocab;
using test::SchemaValidator;

constexpr int32_t kMaxTokens = 250;

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::filesystem::path> schema_files() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(test::data_dir() / "json_schema")) {
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// A text chosen at random, ended as soon as chance or the grammar wants it.
std::string random_text(const GrammarConstraint& constraint, const FakeVocab& vocab, uint32_t seed) {
  std::mt19937 random(seed);
  const std::vector<int32_t> ends{vocab.end_id};
  const auto state = constraint.start(ends);
  std::string text;
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < kMaxTokens && !state->finished(); ++i) {
    const TokenMask mask = state->allowed();
    ids.clear();
    for (int32_t id = 0; id < vocab.size(); ++id) {
      if (mask_allows(mask, id)) ids.push_back(id);
    }
    if (ids.empty()) return text + " <dead end>";
    const int32_t token = ids[random() % ids.size()];
    EXPECT_TRUE(state->advance(token));
    text += vocab.texts[static_cast<size_t>(token)];
  }
  return text;
}

TEST(JsonSchemaSuite, EveryTextIsValid) {
  const FakeVocab vocab;
  const auto trie = vocab.trie();
  const auto files = schema_files();
  ASSERT_GE(files.size(), 60u);
  // Texts for validators of other projects: one JSON array [schema name, text] per line.
  const char* dump_path = std::getenv("DSPARK_SCHEMA_TEXTS");
  std::ofstream dump;
  if (dump_path != nullptr) dump.open(dump_path);
  for (const auto& file : files) {
    const std::string source = read(file);
    const std::string name = file.stem().string();
    const Result<Grammar> grammar = Grammar::from_json_schema(source, name);
    ASSERT_TRUE(grammar.ok()) << grammar.status().message();
    const SchemaValidator validator(nlohmann::json::parse(source));
    const GrammarConstraint constraint(*grammar, trie, {kMaxTokens});
    for (uint32_t seed = 0; seed < 12; ++seed) {
      const std::string text = random_text(constraint, vocab, seed);
      const nlohmann::json value = nlohmann::json::parse(text, nullptr, false);
      ASSERT_FALSE(value.is_discarded()) << name << ": " << text;
      EXPECT_TRUE(validator.accepts(value)) << name << ": " << text;
      EXPECT_TRUE(grammar->matches(text)) << name << ": " << text;
      if (dump.is_open()) dump << nlohmann::json::array({name, text}).dump() << "\n";
    }
  }
}

// The validator finds fault where there is fault, or the test above says nothing.
TEST(JsonSchemaSuite, ValidatorRejects) {
  const std::map<std::string, std::string> wrong{{"string", "1"},
                                                 {"string_bounded", "\"ab\""},
                                                 {"pattern_anchored", "\"ABC-1\""},
                                                 {"integer_range", "6"},
                                                 {"number_exclusive", "0"},
                                                 {"enum_strings", "\"up\""},
                                                 {"object_flat", "{}"},
                                                 {"array_tuple", "[\"a\",1]"},
                                                 {"recursive_list", R"({"value":1,"next":2})"},
                                                 {"all_of", R"({"a":1})"},
                                                 {"any_of", "7"},
                                                 {"format_date", "\"2024-13-01\""},
                                                 {"ref_siblings", R"({"v":3})"},
                                                 {"dictionary_names", R"({"abc":1})"},
                                                 {"array_bounded", "[\"x\"]"},
                                                 {"one_of_disjoint", R"({"kind":"circle","side":1})"},
                                                 {"nullable", R"({"a":null,"b":null})"}};
  for (const auto& [name, text] : wrong) {
    const std::string source = read(test::data_dir() / "json_schema" / (name + ".json"));
    EXPECT_FALSE(SchemaValidator(nlohmann::json::parse(source)).accepts(nlohmann::json::parse(text))) << name;
    EXPECT_FALSE(Grammar::from_json_schema(source)->matches(text)) << name;
  }
}

// What models usually write is allowed, so that constraints do not push them into odd texts.
TEST(JsonSchemaSuite, UsualLayoutsAreAllowed) {
  const std::string source = read(test::data_dir() / "json_schema" / "weather_tool.json");
  const Result<Grammar> grammar = Grammar::from_json_schema(source);
  ASSERT_TRUE(grammar.ok());
  for (const char* text :
       {R"({"location":"Paris"})", R"({"location": "Paris", "unit": "celsius"})",
        R"({ "location": "Z\u00fcrich" })", "{\n  \"location\": \"Paris\",\n  \"days\": 14\n}",
        "{\n\t\"location\": \"\\ud83c\\udf0d\"\n}"}) {
    EXPECT_TRUE(grammar->matches(text)) << text;
  }
  for (const char* text :
       {R"({"unit":"celsius"})", R"({"location":"Paris","days":15})", R"({"location":"P","x":1})",
        R"({"location":"\ud83c"})", R"({"days":1,"location":"P"})", "{ }"}) {
    EXPECT_FALSE(grammar->matches(text)) << text;
  }
  const Result<Grammar> object = Grammar::json_object();
  ASSERT_TRUE(object.ok());
  EXPECT_TRUE(object->matches(R"({"a": [1, -2.5e10, {"b": null}], "c": "\n"})"));
  EXPECT_FALSE(object->matches("[]"));
}

}  // namespace
}  // namespace dspark
