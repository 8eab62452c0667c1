// Every schema of tests/data/json_schema and tests/data/schemas: random choices under its grammar give texts
// that are complete within the limit and that the schema accepts.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
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

// The folders of schemas, and texts as short as what each of their schemas has.
struct Collection {
  const char* folder;
  int32_t max_tokens;
  uint32_t n_seeds;
  size_t n_least;
};
constexpr Collection kCollections[] = {{"json_schema", 250, 12, 89}, {"schemas", 400, 6, 59}};

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::filesystem::path> schema_files(const char* folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(test::data_dir() / folder)) {
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// A text chosen at random, ended as soon as chance or the grammar wants it.
std::string random_text(const GrammarConstraint& constraint, const FakeVocab& vocab, int32_t max_tokens,
                        uint32_t seed) {
  std::mt19937 random(seed);
  const std::vector<int32_t> ends{vocab.end_id};
  const auto state = constraint.start(ends);
  std::string text;
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < max_tokens && !state->finished(); ++i) {
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

// dump: texts for validators of other projects, one JSON array [schema name, text] per line.
void check_schema(const std::filesystem::path& file, const Collection& collection, const FakeVocab& vocab,
                  const std::shared_ptr<const TokenTrie>& trie, std::ofstream& dump) {
  const std::string source = read(file);
  const std::string name = file.stem().string();
  const Result<Grammar> grammar = Grammar::from_json_schema(source, name);
  ASSERT_TRUE(grammar.ok()) << grammar.status().message();
  const SchemaValidator validator(nlohmann::json::parse(source));
  const GrammarConstraint constraint(*grammar, trie, {collection.max_tokens});
  for (uint32_t seed = 0; seed < collection.n_seeds; ++seed) {
    const std::string text = random_text(constraint, vocab, collection.max_tokens, seed);
    const nlohmann::json value = nlohmann::json::parse(text, nullptr, false);
    ASSERT_FALSE(value.is_discarded()) << name << ": " << text;
    EXPECT_TRUE(validator.accepts(value)) << name << ": " << text;
    EXPECT_TRUE(grammar->matches(text)) << name << ": " << text;
    if (dump.is_open()) dump << nlohmann::json::array({name, text}).dump() << "\n";
  }
}

TEST(JsonSchemaSuite, EveryTextIsValid) {
  const FakeVocab vocab;
  const auto trie = vocab.trie();
  const char* dump_path = std::getenv("DSPARK_SCHEMA_TEXTS");
  std::ofstream dump;
  if (dump_path != nullptr) dump.open(dump_path);
  for (const Collection& collection : kCollections) {
    const auto files = schema_files(collection.folder);
    ASSERT_GE(files.size(), collection.n_least) << collection.folder;
    for (const auto& file : files) check_schema(file, collection, vocab, trie, dump);
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

// The same for the collected schemas: values that look right, and are not.
TEST(JsonSchemaSuite, ValidatorRejectsInCollection) {
  const std::multimap<std::string, std::string> wrong{
      {"tool_web_search", R"({"query":"ab","allowed_domains":[],"blocked_domains":[]})"},
      {"tool_http_request", R"({"method":"GET","url":"https://a.bc","body":"x"})"},
      {"tool_http_request", R"({"method":"POST","url":"https://a.bc","timeout_s":0.3})"},
      {"tool_write_todos",
       R"({"todos":[{"content":"abc","status":"in_progress"},{"content":"abd","status":"in_progress"}]})"},
      {"tool_create_issue", R"({"repository":"a/b","title":"abcde","labels":["bug","bug"]})"},
      {"tool_shell", R"({"command":"ls","env":{"low":"x"},"description":"lists files"})"},
      {"pydantic_event_union", R"({"event":{"type":"renamed","path":"a"},"sequence":1})"},
      {"zod_signup_form",
       R"({"username":"root","password":"abcdefg1","age":20,"email":"a@b.cd","plan":{"tier":"free"},"accepted_terms":true})"},
      {"openapi_patch_profile", "{}"},
      {"openapi_user_page", R"({"total":1,"limit":10,"items":[],"more":1})"},
      {"config_ci_workflow",
       R"({"on":"push","jobs":{"a":{"runs-on":"macos-14","steps":[{"uses":"a@b","run":"c"}]}}})"},
      {"config_feature_flags", R"({"flags":{"a":{"kind":"percentage","enabled":true}}})"},
      {"geojson_feature",
       R"({"type":"Feature","geometry":{"type":"Point","coordinates":[[1,2]]},"properties":null})"},
      {"data_address_by_country", R"({"street":"a","city":"b","country":"NL","postcode":"0123 AB"})"},
      {"data_filter_expression", R"({"where":{"field":"a","op":"in","value":1}})"},
      {"data_shipping_quote",
       R"({"parcel":{"weight_g":10,"size_mm":[10,10,10]},"from":"home","to":"world","service":"letter"})"}};
  for (const auto& [name, text] : wrong) {
    const std::string source = read(test::data_dir() / "schemas" / (name + ".json"));
    EXPECT_FALSE(SchemaValidator(nlohmann::json::parse(source)).accepts(nlohmann::json::parse(text))) << name;
    const Result<Grammar> grammar = Grammar::from_json_schema(source);
    ASSERT_TRUE(grammar.ok()) << name << ": " << grammar.status().message();
    EXPECT_FALSE(grammar->matches(text)) << name;
  }
}

// Answers as models give them are within the grammars of the collected schemas.
TEST(JsonSchemaSuite, UsualAnswersAreAllowed) {
  const std::map<std::string, std::string> usual{
      {"tool_edit_file",
       "{\n  \"path\": \"/src/a.py\",\n  \"edits\": [\n    {\"old_text\": \"x = 1\\n\", \"new_text\": "
       "\"\"}\n  ]\n}"},
      {"tool_http_request",
       R"({"method": "POST", "url": "https://example.org/a", "headers": {"Accept": "text/html"}, "body": {"a": 1}, "timeout_s": 2.5})"},
      {"tool_write_todos",
       R"({"todos": [{"content": "Read it", "status": "completed"}, {"content": "Fix it", "status": "in_progress"}]})"},
      {"tool_calendar_event",
       R"({"title": "Stand-up", "start": "2025-03-03T09:00:00Z", "end": "2025-03-03T09:15:00Z", "recurrence": {"frequency": "weekly", "by_day": ["we", "mo"], "ends": "never"}})"},
      {"pydantic_union_with_defaults",
       R"({"animals": [{"kind": "dog", "name": "Rex", "trained": true}, {"kind": "parrot", "name": "Ara", "words": ["hi"]}]})"},
      {"openapi_problem", R"({"type": "/errors/quota", "title": "Too many", "status": 429, "x-retry": 3})"},
      {"config_compose",
       R"({"services": {"web": {"image": "nginx:1.25", "ports": ["80:80", 443], "restart": "always"}}, "x-note": ["any", {"thing": 1}]})"},
      {"config_ci_workflow",
       R"({"on": ["push", "pull_request"], "jobs": {"test": {"runs-on": "ubuntu-24.04", "steps": [{"uses": "actions/checkout@v4"}, {"name": "Test", "run": "make test"}]}}})"},
      {"geojson_feature",
       R"({"type": "Feature", "geometry": {"type": "Point", "coordinates": [5.1, 52.09]}, "properties": {"name": "Utrecht"}})"},
      {"data_address_by_country",
       R"({"street": "1 Main St", "city": "Austin", "country": "US", "postcode": "73301", "state": "TX"})"},
      {"data_filter_expression",
       R"({"where": {"and": [{"field": "age", "op": "ge", "value": 18}, {"not": {"field": "state", "op": "in", "value": ["x", "y"]}}]}, "limit": 10})"}};
  for (const auto& [name, text] : usual) {
    const std::string source = read(test::data_dir() / "schemas" / (name + ".json"));
    EXPECT_TRUE(SchemaValidator(nlohmann::json::parse(source)).accepts(nlohmann::json::parse(text))) << name;
    const Result<Grammar> grammar = Grammar::from_json_schema(source);
    ASSERT_TRUE(grammar.ok()) << name << ": " << grammar.status().message();
    EXPECT_TRUE(grammar->matches(text)) << name << ": " << text;
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
