// Calls as the templates of published models write them, and the types of their parameters.

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "constrain/parameter_types.h"
#include "parser_cases.h"
#include "support/test_paths.h"
#include "text/chat_template.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;
using F = ToolFormat;

// A template of a published model, from the fixtures or from the full set; empty when it is in neither.
std::string template_named(const std::string& name) {
  for (const auto& folder : {test::data_dir(), test::golden_dir()}) {
    std::ifstream in(folder / "chat" / (name + ".jinja"), std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    if (!text.str().empty()) return text.str();
  }
  return {};
}

std::string rendered(const ChatTemplate& chat, const Json& messages, const Json& tools) {
  ChatInputs inputs;
  inputs.messages = &messages;
  inputs.tools = &tools;
  inputs.bos_token = inputs.eos_token = "";
  inputs.add_generation_prompt = false;
  const Result<std::string> text = chat.render(inputs);
  EXPECT_TRUE(text.ok()) << text.status().message();
  return text.ok() ? *text : std::string();
}

// What a template writes for the calls of a conversation is what the parser reads, and results stand behind
// it.
TEST(ToolTemplates, AreReadBack) {
  const Json arguments = Json::parse(
      R"({"path": "Zürich ☁", "text": "a\n</parameter> b <tool_call>\n}", "line": 3, "force": true,
    "tags": ["x", "</parameter>"], "meta": {"a": {"b": [1.5, null, "q\"}"]}}, "note": null})");
  const auto call = [](const char* id, const char* name, const Json& values) {
    return Json{{"id", id}, {"type", "function"}, {"function", {{"name", name}, {"arguments", values}}}};
  };
  const Json question = {{"role", "user"}, {"content", "Do it."}};
  const Json answer = {{"role", "assistant"},
                       {"content", ""},
                       {"tool_calls", {call("c1", "write", arguments), call("c2", "f", Json::object())}}};
  const Json first = {{"role", "tool"}, {"tool_call_id", "c1"}, {"content", "result one"}};
  const Json second = {{"role", "tool"}, {"tool_call_id", "c2"}, {"content", "result two"}};
  const Json tools = {
      {{"type", "function"},
       {"function",
        {{"name", "write"}, {"description", "Writes."}, {"parameters", Json::parse(kWriteSchema)}}}}};
  const std::map<std::string, F> formats = {
      {"deepseek-v3.1", F::kDeepSeek}, {"deepseek-v3.2", F::kDeepSeekV32},
      {"deepseek-v4", F::kDeepSeekV4}, {"deepseek-v4-flash-0731", F::kDeepSeekV4},
      {"qwen3.5-4b", F::kQwenXml},     {"gemma-4-31b-it", F::kGemma4}};
  for (const auto& [name, format] : formats) {
    const std::string source = template_named(name);
    if (source.empty()) continue;  // not among the fixtures
    const Result<ChatTemplate> chat = ChatTemplate::parse(source);
    ASSERT_TRUE(chat.ok()) << name;
    const OutputFormat found = detect_output_format(source);
    EXPECT_EQ(found.tools, format) << name;
    EXPECT_TRUE(found.has_reasoning) << name;
    const std::string before = rendered(*chat, Json::array({question}), tools);
    const std::string all = rendered(*chat, Json::array({question, answer, first, second}), tools);
    ASSERT_TRUE(all.starts_with(before)) << name;
    const Case c{name.c_str(), format, true, false, all.substr(before.size()), "", "", {}, found.reasoning};
    const ParsedOutput parsed = parse_pieces(c, {c.text});
    ASSERT_EQ(parsed.calls.size(), 2u) << name << ": " << c.text;
    EXPECT_EQ(parsed.calls[0].name, "write");
    EXPECT_EQ(nlohmann::json::parse(parsed.calls[0].arguments, nullptr, false), nlohmann::json(arguments))
        << name << ": " << c.text;
    EXPECT_EQ(parsed.calls[1].name, "f");
    EXPECT_EQ(parsed.calls[1].arguments, "{}");
    EXPECT_TRUE(parsed.calls[0].complete && parsed.calls[1].complete) << name;
    EXPECT_EQ(parsed.content.find("Zürich"), std::string::npos) << parsed.content;
    EXPECT_NE(parsed.content.find("result one"), std::string::npos) << name << ": " << parsed.content;
    EXPECT_NE(parsed.content.find("result two"), std::string::npos) << name << ": " << parsed.content;
  }
}

TEST(ParameterTypes, FollowTheSchema) {
  const ParameterTypes types(kWriteSchema);
  EXPECT_EQ(types.of("text"), kJsonString);
  EXPECT_EQ(types.of("line"), kJsonNumber);
  EXPECT_EQ(types.of("meta"), kJsonObject);
  EXPECT_EQ(types.of("mode"), kJsonString);
  EXPECT_EQ(types.of("limit"), kJsonNumber | kJsonNull);
  EXPECT_EQ(types.of("any"), kJsonAny);
  EXPECT_EQ(types.of("unknown"), kJsonAny);
  EXPECT_EQ(ParameterTypes(R"({"additionalProperties": {"type": "string", "nullable": true}})").of("x"),
            kJsonString | kJsonNull);
  EXPECT_EQ(
      ParameterTypes(R"({"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}})")
          .of("x"),
      kJsonAny);
  for (const char* schema :
       {"", "[]", "{\"properties\": 3}", "{\"properties\": {\"x\": {\"type\": 7, \"allOf\": 1}}}"})
    EXPECT_EQ(ParameterTypes(schema).of("x"), kJsonAny) << schema;
}

}  // namespace
}  // namespace dspark
