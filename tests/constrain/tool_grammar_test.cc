// Forced calls in notations whose arguments are not JSON: what the grammar allows, the parser reads back.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "constrain/answer_grammar.h"
#include "constrain/output_format.h"
#include "constrain/output_parser.h"
#include "constrain/parameter_schema.h"
#include "constrain/parameter_types.h"

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

constexpr ToolFormat kTagged[] = {ToolFormat::kQwenXml, ToolFormat::kDeepSeekV4};

// A call of "g" with arguments as they are written.
std::string call_of(ToolFormat format, const std::string& arguments) {
  if (format == ToolFormat::kGemma4) return "<|tool_call>call:g" + arguments + "<tool_call|>";
  if (format == ToolFormat::kQwenXml)
    return "<tool_call>\n<function=g>\n" + arguments + "</function>\n</tool_call>";
  return dsml("<@tool_calls>\n<@invoke name=\"g\">\n" + arguments + "</@invoke>\n</@tool_calls>");
}

// One argument in tags.
std::string tagged(ToolFormat format, const std::string& name, const std::string& value, bool is_text) {
  if (format == ToolFormat::kQwenXml) return "<parameter=" + name + ">\n" + value + "\n</parameter>\n";
  return "<@parameter name=\"" + name + "\" string=\"" + (is_text ? "true" : "false") + "\">" + value +
         "</@parameter>\n";
}

void expect_texts(ToolFormat format, const std::string& schema, const std::vector<std::string>& good,
                  const std::vector<std::string>& bad) {
  const Result<Grammar> grammar = make_tool_grammar({format}, {{"g", schema}});
  ASSERT_TRUE(grammar.ok()) << schema << "\n" << grammar.status().message();
  for (const std::string& text : good) EXPECT_TRUE(grammar->matches(call_of(format, text))) << schema << text;
  for (const std::string& text : bad) EXPECT_FALSE(grammar->matches(call_of(format, text))) << schema << text;
}

void expect_refused(ToolFormat format, const std::string& schema, const std::string& message) {
  const Result<Grammar> grammar = make_tool_grammar({format}, {{"g", schema}});
  ASSERT_FALSE(grammar.ok()) << schema;
  EXPECT_NE(grammar.status().message().find(message), std::string::npos) << grammar.status().message();
}

// The schema of an object with one member, "a".
std::string with_member(const std::string& schema, bool is_required = true) {
  return R"({"type":"object","properties":{"a":)" + schema + "}," +
         (is_required ? R"("required":["a"],)" : "") +
         R"("$defs":{"n":{"type":"integer","minimum":3},"mode":{"enum":["r","w"]}}})";
}

TEST(ToolGrammar, GemmaKeepsToWhatStandsBesideAlternatives) {
  const std::string p = "<|\"|>p<|\"|>", q = "<|\"|>q<|\"|>";
  struct {
    const char* schema;
    std::vector<std::string> good, bad;
  } const members[] = {
      {R"({"type":"object","properties":{"x":{"type":"integer"},"y":{"type":"integer"}},
           "additionalProperties":false,"anyOf":[{"required":["x"]},{"required":["y"]}]})",
       {"{x:1}", "{y:2}", "{x:1,y:2}"},
       {"{}", p}},
      {R"({"$ref":"#/$defs/n","maximum":5})", {"3", "5"}, {"2", "6"}},
      {R"({"allOf":[{"$ref":"#/$defs/n"},{"maximum":4}]})", {"3", "4"}, {"2", "5"}},
      {R"({"anyOf":[{"type":"integer"},{"type":"boolean"}],"type":"boolean"})", {"true"}, {"3", p}},
      {R"({"oneOf":[{"const":"p"},{"const":"q"}],"enum":["q","r"]})", {q}, {p, "<|\"|>r<|\"|>"}},
      {R"({"enum":["p",1,2],"type":"integer","minimum":2})", {"2"}, {"1", p}},
      {R"({"oneOf":[{"type":"object","properties":{"k":{"const":"p"},"v":{"type":"integer"}},
                     "required":["k","v"],"additionalProperties":false},
                    {"type":"object","properties":{"k":{"const":"q"}},"required":["k"],
                     "additionalProperties":false}]})",
       {"{k:" + p + ",v:1}", "{k:" + q + "}"},
       {"{k:" + q + ",v:1}", "{k:" + p + "}"}}};
  for (const auto& member : members) {
    std::vector<std::string> good, bad{"{}"};
    for (const std::string& text : member.good) good.push_back("{a:" + text + "}");
    for (const std::string& text : member.bad) bad.push_back("{a:" + text + "}");
    expect_texts(ToolFormat::kGemma4, with_member(member.schema), good, bad);
  }
  // Texts are not held to their lengths, so both parts may accept one.
  expect_refused(
      ToolFormat::kGemma4,
      with_member(R"({"oneOf":[{"type":"string","maxLength":3},{"type":"string","minLength":5}]})"),
      "'g'#/properties/a: 'oneOf'");
  expect_refused(ToolFormat::kGemma4, with_member(R"({"type":"array","items":[{"type":"integer"}]})"),
                 "'g'#/properties/a: 'items'");
}

TEST(ToolGrammar, TagsKeepToListedTexts) {
  for (ToolFormat format : kTagged) {
    const std::string r = tagged(format, "a", "r", true), w = tagged(format, "a", "w", true),
                      x = tagged(format, "a", "x", true);
    expect_texts(format, with_member(R"({"$ref":"#/$defs/mode"})"), {r, w}, {x, ""});
    expect_texts(format, with_member(R"({"$ref":"#/$defs/mode","pattern":"^w"})"), {w}, {r, x});
    expect_texts(format, with_member(R"({"anyOf":[{"const":"r"},{"enum":["w"]}]})"), {r, w}, {x});
    expect_texts(format, with_member(R"({"enum":["r","wide"],"type":"string","maxLength":1})"), {r},
                 {w, tagged(format, "a", "wide", true)});
    // Beside other values JSON tells them apart.
    expect_texts(format, with_member(R"({"anyOf":[{"const":"r"},{"type":"integer"}]})"),
                 {tagged(format, "a", "\"r\"", false), tagged(format, "a", "3", false)}, {r, x});
    expect_refused(format, with_member(R"({"type":"array","items":{"$ref":"#"}})", false),
                   "'g'#/properties/a: a '$ref'");
  }
}

TEST(ToolGrammar, RequiredMembersNeedNoDeclaration) {
  const std::string any = R"({"type":"object","properties":{"a":{"type":"integer"}},"required":["a","b"]})";
  const std::string text = R"({"type":"object","properties":{"a":{"type":"integer"}},"required":["a","b"],
                               "additionalProperties":{"type":"string"}})";
  const std::string alone = R"({"type":"object","required":["b"]})";
  const ToolFormat gemma = ToolFormat::kGemma4;
  expect_texts(gemma, any, {"{a:1,b:true}", "{a:1,b:2}"}, {"{a:1}", "{b:2}", "{a:1,c:2}"});
  expect_texts(gemma, text, {"{a:1,b:<|\"|>x<|\"|>}"}, {"{a:1}", "{a:1,b:2}"});
  expect_texts(gemma, alone, {"{b:2}"}, {"{}", "{c:2}"});
  for (ToolFormat format : kTagged) {
    const std::string a = tagged(format, "a", "1", false), b = tagged(format, "b", "[2]", false);
    expect_texts(format, any, {a + b}, {a, b, a + tagged(format, "c", "[2]", false)});
    expect_texts(format, text, {a + tagged(format, "b", "x y", true)}, {a});
    expect_texts(format, alone, {b}, {"", tagged(format, "c", "[2]", false)});
  }
}

TEST(ToolGrammar, MembersWithoutValuesAreLeftOut) {
  const std::string crossed = R"({"type":"array","items":{"type":"integer"},"minItems":3,"maxItems":2})";
  expect_texts(ToolFormat::kGemma4, with_member(crossed, false), {"{}"},
               {"{a:[1,1]}", "{a:[1,1,1]}", "{a:[]}"});
  expect_texts(ToolFormat::kGemma4, with_member("false", false), {"{}"}, {"{a:1}", "{a:null}"});
  for (ToolFormat format : {ToolFormat::kQwenXml, ToolFormat::kDeepSeekV4, ToolFormat::kGemma4}) {
    expect_refused(format, with_member(crossed), "the schema accepts no value");
  }
  for (ToolFormat format : kTagged) {
    expect_texts(format, with_member("false", false), {""}, {tagged(format, "a", "1", false)});
    expect_refused(format, with_member(crossed, false), "'g'#/properties/a: the schema accepts no value");
  }
}

void expect_too_large(ToolFormat format, const std::string& schema) {
  const Result<Grammar> grammar = make_tool_grammar({format}, {{"g", schema}});
  ASSERT_FALSE(grammar.ok());
  EXPECT_EQ(grammar.status().code(), StatusCode::kResourceExhausted) << grammar.status().message();
  EXPECT_NE(grammar.status().message().find("too many parts or values"), std::string::npos)
      << grammar.status().message();
}

// A list of n schemas that all refer to one definition.
std::string references(int n, const std::string& name) {
  std::string out;
  for (int i = 0; i < n; ++i) out += std::string(i > 0 ? "," : "") + R"({"$ref":"#/$defs/)" + name + R"("})";
  return "[" + out + "]";
}

// An object whose member "a" leads to 20^15 parts.
std::string with_multiplied_parts() {
  std::string definitions;
  for (int i = 0; i < 15; ++i) {
    definitions += std::string("\"a") + std::to_string(i) + R"(":{"anyOf":)" +
                   references(20, std::string("a") + std::to_string(i + 1)) + "},";
  }
  return R"({"type":"object","properties":{"a":{"$ref":"#/$defs/a0"}},"$defs":{)" + definitions +
         R"("a15":{"type":"string"}}})";
}

TEST(ToolGrammar, LookingForTypesEnds) {
  expect_too_large(ToolFormat::kQwenXml, with_multiplied_parts());
  EXPECT_EQ(ParameterTypes(with_multiplied_parts()).of("a"), kJsonAny);
}

TEST(ToolGrammar, BoundsTheBytesOfListedValues) {
  const std::string schema = R"({"type":"object","properties":{"a":{"anyOf":)" + references(1500, "c") +
                             R"(}},"$defs":{"c":{"const":")" + std::string(100'000, 'x') + R"("}}})";
  for (ToolFormat format : {ToolFormat::kQwenXml, ToolFormat::kGemma4}) expect_too_large(format, schema);
}

TEST(ToolGrammar, BoundsTheBytesOfDefinitions) {
  std::string members;
  for (int i = 0; i < 100; ++i) {
    members += std::string(i > 0 ? "," : "") + "\"a" + std::to_string(i) +
               R"(":{"type":"array","items":{"$ref":"#/$defs/n"}})";
  }
  const std::string schema =
      R"({"type":"object","properties":{)" + members +
      R"(},"additionalProperties":false,"$defs":{"n":{"type":"integer","description":")" +
      std::string(400'000, 'x') + R"("}}})";
  expect_too_large(ToolFormat::kQwenXml, schema);
}

TEST(ToolGrammar, CountsPartsThatArePutTogether) {
  nlohmann::ordered_json parts = nlohmann::ordered_json::array();
  for (int i = 0; i < 100'000; ++i) parts.push_back(true);
  nlohmann::ordered_json schema = nlohmann::ordered_json::object();
  schema["allOf"] = parts;
  const ParameterSchema parameters(schema, "s");
  int n_resolved = 0;
  StatusCode code = StatusCode::kOk;
  while (code == StatusCode::kOk && n_resolved < 100) {
    const Result<nlohmann::ordered_json> all = parameters.resolved(schema, "", 0);
    if (all.ok()) ++n_resolved;
    if (!all.ok()) code = all.status().code();
  }
  EXPECT_EQ(code, StatusCode::kResourceExhausted);
  EXPECT_GT(n_resolved, 10);
}

}  // namespace
}  // namespace dspark
