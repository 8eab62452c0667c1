// Forced calls in notations whose arguments are not JSON: what the grammar allows, the parser reads back.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "constrain/answer_grammar.h"
#include "constrain/output_format.h"
#include "constrain/output_parser.h"

namespace dspark {
namespace {

constexpr const char* kSchema = R"({"type": "object", "properties": {
  "path": {"type": "string"}, "line": {"type": "integer", "minimum": 1}, "mode": {"enum": ["r", "w"]},
  "note": {"type": ["string", "null"]}, "edits": {"type": "array", "items": {"$ref": "#/$defs/edit"}, "minItems": 1}},
  "required": ["path", "edits"], "additionalProperties": false,
  "$defs": {"edit": {"type": "object", "properties": {"at": {"type": "number"}, "text": {"type": "string"}},
    "required": ["text"], "additionalProperties": false}}})";

const std::vector<ToolDescription>& tools() {
  static const std::vector<ToolDescription> all{{"edit", kSchema}, {"f", ""}};
  return all;
}

std::string dsml(std::string text) {
  for (size_t at = text.find('@'); at != std::string::npos; at = text.find('@', at))
    text.replace(at, 1, "｜DSML｜");
  return text;
}

struct Texts {
  ToolFormat format;
  std::string whole;                // a call of edit with every argument
  std::string shortest;             // with the required ones
  std::vector<std::string> beyond;  // what may not be
};

std::vector<Texts> cases() {
  const std::string qwen = "<tool_call>\n<function=edit>\n", qwen_end = "</function>\n</tool_call>";
  const std::string v4 = dsml("<@tool_calls>\n<@invoke name=\"edit\">\n"),
                    v4_end = dsml("</@invoke>\n</@tool_calls>");
  const std::string edits = "[{\"at\": 1.5, \"text\": \"a\"}, {\"text\": \"b\"}]";
  const auto line = [](const std::string& key, const std::string& value) {
    return "<parameter=" + key + ">\n" + value + "\n</parameter>\n";
  };
  const auto tag = [](const std::string& key, bool is_text, const std::string& value) {
    return dsml("<@parameter name=\"" + key + "\" string=\"" + (is_text ? "true" : "false") + "\">" + value +
                "</@parameter>\n");
  };
  const std::string path = line("path", "a \"b\"\n</param"),
                    dsml_path = tag("path", true, "a \"b\"\n</param");
  return {
      {ToolFormat::kQwenXml,
       qwen + path + line("line", "3") + line("mode", "w") + line("note", "x") + line("edits", edits) +
           qwen_end,
       qwen + line("path", "") + line("edits", edits) + qwen_end,
       {qwen + line("edits", edits) + qwen_end, qwen + path + qwen_end,
        qwen + path + line("line", "0") + line("edits", edits) + qwen_end,
        qwen + path + line("mode", "x") + line("edits", edits) + qwen_end,
        qwen + path + line("edits", "[]") + qwen_end}},
      {ToolFormat::kDeepSeekV4,
       v4 + dsml_path + tag("line", false, "3") + tag("mode", true, "w") + tag("note", true, "x") +
           tag("edits", false, edits) + v4_end,
       v4 + tag("path", true, "") + tag("edits", false, edits) + v4_end,
       {v4 + tag("edits", false, edits) + v4_end,
        v4 + tag("path", false, "1") + tag("edits", false, edits) + v4_end,
        v4 + dsml_path + tag("mode", true, "x") + tag("edits", false, edits) + v4_end,
        v4 + dsml_path + tag("edits", true, "x") + v4_end}},
      {ToolFormat::kGemma4,
       "<|tool_call>call:edit{path:<|\"|>a "
       "\"b\"\n</param<|\"|>,line:3,mode:<|\"|>w<|\"|>,note:<|\"|>x<|\"|>,edits:[{at:1.5,text:<|\"|>a"
       "<|\"|>},{text:<|\"|>b<|\"|>}]}<tool_call|>",
       "<|tool_call>call:edit{path:<|\"|><|\"|>,edits:[{at:1.5,text:<|\"|>a<|\"|>},{text:<|\"|>b<|\"|>}]}<"
       "tool_call|>",
       {"<|tool_call>call:edit{}<tool_call|>",
        "<|tool_call>call:edit{path:<|\"|>a<|\"|>,edits:[]}<tool_call|>",
        "<|tool_call>call:edit{path:1,edits:[{text:<|\"|>a<|\"|>}]}<tool_call|>",
        "<|tool_call>call:edit{path:<|\"|>a<|\"|>edits:[{text:<|\"|>a<|\"|>}]}<tool_call|>"}},
  };
}

TEST(ToolGrammar, OtherNotationsAreReadBackAsCalls) {
  const auto full = nlohmann::json::parse(
      R"({"path": "a \"b\"\n</param", "line": 3, "mode": "w", "note": "x", "edits": [{"at": 1.5, "text": "a"}, {"text": "b"}]})");
  const auto least =
      nlohmann::json::parse(R"({"path": "", "edits": [{"at": 1.5, "text": "a"}, {"text": "b"}]})");
  for (const Texts& c : cases()) {
    const bool is_gemma = c.format == ToolFormat::kGemma4;
    const OutputFormat format{c.format, true, is_gemma ? ReasoningFormat::kChannel : ReasoningFormat::kThink};
    const Result<Grammar> grammar = make_tool_grammar(format, tools());
    ASSERT_TRUE(grammar.ok()) << grammar.status().message();
    for (const auto& [text, wanted] : {std::pair(c.whole, full), std::pair(c.shortest, least)}) {
      EXPECT_TRUE(grammar->matches(text)) << text;
      EXPECT_FALSE(grammar->matches(text + text)) << text;
      const ParsedOutput parsed = parse_output(text, {format, false, tools()});
      ASSERT_EQ(parsed.calls.size(), 1u) << text;
      EXPECT_EQ(nlohmann::json::parse(parsed.calls[0].arguments, nullptr, false), wanted)
          << parsed.calls[0].arguments;
      EXPECT_TRUE(parsed.calls[0].complete);
      EXPECT_EQ(parsed.content, "");
    }
    for (const std::string& text : c.beyond) EXPECT_FALSE(grammar->matches(text)) << text;
    const Result<Grammar> thinking = make_tool_grammar(format, tools(), {2, ReasoningStart::kOpen});
    ASSERT_TRUE(thinking.ok());
    const std::string end = is_gemma ? "<chan\n<channel|>" : "</think </think>\n\n";
    EXPECT_TRUE(thinking->matches("so " + end + c.whole)) << tool_format_name(c.format);
    EXPECT_FALSE(thinking->matches(c.whole));
  }
}

TEST(ToolGrammar, SaysWhatItCannotForce) {
  for (ToolFormat format : {ToolFormat::kQwenXml, ToolFormat::kDeepSeekV32, ToolFormat::kGemma4}) {
    const Result<Grammar> combined =
        make_tool_grammar({format}, {{"g", R"({"anyOf": [{"type": "object"}, {"type": "object"}]})"}});
    ASSERT_FALSE(combined.ok());
    EXPECT_NE(combined.status().message().find("'g'"), std::string::npos) << combined.status().message();
    EXPECT_FALSE(make_tool_grammar({format}, {{"g", R"({"type":"object","oddly":1})"}}).ok());
    for (const char* keyword : {R"("not": {"required": ["a"]})", R"("patternProperties": {"^x": {}})",
                                R"("maxProperties": 1)", R"("dependentRequired": {"a": ["b"]})",
                                R"("if": {"required": ["a"]}, "then": {"required": ["b"]})"}) {
      const std::string schema =
          R"({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, )" +
          std::string(keyword) + "}";
      EXPECT_FALSE(make_tool_grammar({format}, {{"g", schema}}).ok()) << schema;
    }
  }
  for (const char* items : {R"("uniqueItems": true)", R"("prefixItems": [{"type": "integer"}])"}) {
    const std::string schema =
        R"({"type": "object", "properties": {"a": {"type": "array", "items": {"enum": [1, 2]}, )" +
        std::string(items) + "}}}";
    EXPECT_FALSE(make_tool_grammar({ToolFormat::kGemma4}, {{"g", schema}}).ok()) << schema;
  }
  const char* lists = R"({"type":"object","properties":{"a":{"enum":[[1],[2]]}}})";
  EXPECT_FALSE(make_tool_grammar({ToolFormat::kGemma4}, {{"g", lists}}).ok());
  const char* others = R"({"type":"object","additionalProperties":{"type":"integer"}})";
  EXPECT_FALSE(make_tool_grammar({ToolFormat::kQwenXml}, {{"g", others}}).ok());
  const char* endless = R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":[]})";
  EXPECT_FALSE(make_tool_grammar({ToolFormat::kGemma4}, {{"g", endless}}).ok());
}

}  // namespace
}  // namespace dspark
