// Calls in notations whose arguments are not JSON: Qwen's XML functions, DeepSeek's DSML, Gemma 4's.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "parser_cases.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;
using F = ToolFormat;

const std::vector<Case>& qwen_cases() {
  const F q = F::kQwenXml;
  static const std::vector<Case> all = {
      {"one",
       q,
       true,
       false,
       "<tool_call>\n<function=get_weather>\n<parameter=city>\nKöln\n</parameter>\n</function>\n</tool_call>",
       "",
       "",
       {{"get_weather", R"({"city": "Köln"})", true}}},
      {"thought, said, two calls",
       q,
       true,
       true,
       "Hm.\n</think>\n\nLet me "
       "look.\n\n<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n"
       "[2, {\"c\": "
       "null}]\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=f>\n</function>\n</"
       "tool_call>",
       "Let me look.",
       "Hm.",
       {{"add", R"({"a": 1, "b": [2, {"c": null}]})", true}, {"f", "{}", true}}},
      {"values by the schema",
       q,
       false,
       false,
       "<tool_call>\n<function=write>\n<parameter=path>\n12\n</parameter>\n<parameter=line>\n12\n</"
       "parameter>\n"
       "<parameter=ratio>\n1.50\n</parameter>\n<parameter=force>\nTrue\n</"
       "parameter>\n<parameter=tags>\n['a', \"b\"]\n"
       "</parameter>\n<parameter=meta>\n{\"x\": {\"y\": "
       "[1]}}\n</parameter>\n<parameter=mode>\n1\n</parameter>\n"
       "<parameter=level>\n1\n</parameter>\n<parameter=note>\n12\n</parameter>\n<parameter=limit>\nNone\n</"
       "parameter>\n"
       "<parameter=id>\nx7\n</parameter>\n<parameter=any>\nfalse\n</parameter>\n</function>\n</tool_call>",
       "",
       "",
       {{"write",
         R"({"path": "12", "line": 12, "ratio": 1.50, "force": true, "tags": ["a","b"], "meta": {"x": {"y": [1]}}, )"
         R"("mode": "1", "level": 1, "note": "12", "limit": null, "id": "x7", "any": false})",
         true}}},
      {"null and wrong types",
       q,
       false,
       false,
       "<tool_call>\n<function=write>\n<parameter=note>\nnull\n</parameter>\n<parameter=line>\ntwelve\n</"
       "parameter>\n"
       "<parameter=tags>\n[1,\n</parameter>\n</function>\n</tool_call>",
       "",
       "",
       {{"write", R"({"note": null, "line": "twelve", "tags": "[1,"})", true}}},
      {"lines, quotes and control bytes",
       q,
       false,
       false,
       "<tool_call>\n<function=write>\n<parameter=text>\n\n  a \"b\" "
       "\\n\n\tc\r\x01\n\n</parameter>\n</function>\n</tool_call>",
       "",
       "",
       {{"write", R"({"text": "\n  a \"b\" \\n\n\tc\u000d\u0001\n"})", true}}},
      {"empty values",
       q,
       false,
       false,
       "<tool_call>\n<function=write>\n<parameter=text>\n\n</parameter>\n<parameter=path>\n</"
       "parameter>\n<parameter=note>"
       "</parameter>\n</function>\n</tool_call>",
       "",
       "",
       {{"write", R"({"text": "", "path": "", "note": ""})", true}}},
      {"text like tags",
       q,
       false,
       false,
       "<tool_call>\n<function=write>\n<parameter=text>\n<tool_call>\n<function=f>\n<parameter=x>\n1\n</"
       "parameter> and\n"
       "</function></param </tool_call>\n</parameter>\n</function>\n</tool_call>",
       "",
       "",
       {{"write",
         R"({"text": "<tool_call>\n<function=f>\n<parameter=x>\n1\n</parameter> and\n</function></param </tool_call>"})",
         true}}},
      {"on one line",
       q,
       false,
       false,
       "<tool_call><function=write><parameter=path>a "
       "b</parameter><parameter=line>3</parameter></function></tool_call>",
       "",
       "",
       {{"write", R"({"path": "a b", "line": 3})", true}}},
      {"forgotten outer tag",
       q,
       false,
       false,
       "So:\n<function=f>\n<parameter=x>\n1\n</parameter>\n</function>\n</tool_call>",
       "So:",
       "",
       {{"f", R"({"x": 1})", true}}},
      {"forgotten end of a value",
       q,
       false,
       false,
       "<tool_call>\n<function=write>\n<parameter=path>\na\n</function>\n</tool_call>",
       "",
       "",
       {{"write", R"({"path": "a"})", true}}},
      {"forgotten end of the call",
       q,
       false,
       false,
       "<tool_call>\n<function=write>\n<parameter=path>\na\n</parameter>\n</tool_call> B",
       "B",
       "",
       {{"write", R"({"path": "a"})", true}}},
      {"unknown name",
       q,
       false,
       false,
       "<tool_call>\n<function=rm>\n</function>\n</tool_call>",
       "<tool_call>\n<function=rm>\n</function>\n</tool_call>",
       "",
       {}},
      {"no call",
       q,
       false,
       false,
       "Use <tool_call> or <function= x\n> or <tool_",
       "Use <tool_call> or <function= x\n> or <tool_",
       "",
       {}},
      {"JSON in the tags",
       q,
       false,
       false,
       "<tool_call>\n{\"name\": \"f\"}\n</tool_call>",
       "<tool_call>\n{\"name\": \"f\"}\n</tool_call>",
       "",
       {}},
      {"broken, then whole",
       q,
       false,
       false,
       "<tool_call>\n<function=f>\nx=1\n</function>\n</tool_call>\n<tool_call>\n<function=add>\n</"
       "function>\n</tool_call>",
       "",
       "",
       {{"f", "", false}, {"add", "{}", true}}},
      {"cut off in text",
       q,
       false,
       false,
       "<tool_call>\n<function=write>\n<parameter=text>\nab\n</para",
       "",
       "",
       {{"write", R"({"text": "ab\n</para)", false}}},
      {"cut off in a number",
       q,
       false,
       false,
       "<tool_call>\n<function=write>\n<parameter=line>\n1",
       "",
       "",
       {{"write", R"({"line": )", false}}},
      {"cut off in a name",
       q,
       false,
       false,
       "<tool_call>\n<function=wri",
       "<tool_call>\n<function=wri",
       "",
       {}},
      {"cut off in the end",
       q,
       false,
       false,
       "<tool_call>\n<function=f>\n</function>\n</tool",
       "",
       "",
       {{"f", "{}", true}}},
  };
  return all;
}

// The tags of DSML, written short in the cases.
std::string dsml(std::string text) {
  for (size_t at = text.find('@'); at != std::string::npos; at = text.find('@', at))
    text.replace(at, 1, "｜DSML｜");
  return text;
}

std::vector<Case> dsml_cases() {
  const F d = F::kDeepSeekV4;
  std::vector<Case> all = {
      {"V4",
       d,
       true,
       true,
       "So.</think>Looking.\n\n<@tool_calls>\n<@invoke name=\"get_weather\">\n<@parameter name=\"city\" "
       "string=\"true\">Köln</@parameter>\n<@parameter name=\"days\" string=\"false\">[1, {\"a\": "
       "\"</@parameter>\"}]"
       "</@parameter>\n</@invoke>\n<@invoke name=\"f\">\n\n</@invoke>\n</@tool_calls>",
       "Looking.",
       "So.",
       {{"get_weather", "{\"city\": \"Köln\", \"days\": [1, {\"a\": \"</@parameter>\"}]}", true},
        {"f", "{}", true}}},
      {"V3.2",
       F::kDeepSeekV32,
       true,
       false,
       "<@function_calls>\n<@invoke name=\"write\">\n<@parameter name=\"text\" "
       "string=\"true\">\n1\n</@parameter>\n<@parameter "
       "name=\"line\" string=\"false\">2</@parameter>\n</@invoke>\n</@function_calls>",
       "",
       "",
       {{"write", R"({"text": "\n1\n", "line": 2})", true}}},
      {"attributes decide",
       d,
       false,
       false,
       "<@tool_calls><@invoke name=\"write\"><@parameter name=\"line\" "
       "string=\"true\">2</@parameter><@parameter name=\"path\" "
       "string=\"false\">3</@parameter><@parameter name=\"text\">4</@parameter><@parameter "
       "name=\"ratio\">5</@parameter>"
       "<@parameter name=\"tags\" string=\"false\">{oops</@parameter></@invoke></@tool_calls>",
       "",
       "",
       {{"write", R"({"line": "2", "path": 3, "text": "4", "ratio": 5, "tags": "{oops"})", true}}},
      {"text like tags",
       d,
       false,
       false,
       "<@tool_calls>\n<@invoke name=\"f\">\n<@parameter name=\"x\" string=\"true\"><@tool_calls><@invoke "
       "name=\"f\"></@parameter> x "
       "</@invoke></@parameter>\n</@invoke>\n</@tool_calls>",
       "",
       "",
       {{"f", "{\"x\": \"<@tool_calls><@invoke name=\\\"f\\\"></@parameter> x </@invoke>\"}", true}}},
      {"no block", d, false, false, "A\n<@invoke name=\"f\">\n</@invoke> B", "AB", "", {{"f", "{}", true}}},
      {"unknown name, then a known one",
       d,
       false,
       false,
       "<@tool_calls>\n<@invoke name=\"rm\">\n</@invoke>\n<@invoke name=\"f\">\n</@invoke>\n</@tool_calls>",
       "<@tool_calls>\n<@invoke name=\"rm\">\n</@invoke>",
       "",
       {{"f", "{}", true}}},
      {"no call", d, false, false, "Tags: <@tool_calls> <@inv", "Tags: <@tool_calls> <@inv", "", {}},
      {"broken, then whole",
       d,
       false,
       false,
       "<@tool_calls>\n<@invoke name=\"f\">\n{\"x\": 1}\n</@invoke>\n<@invoke "
       "name=\"add\">\n</@invoke>\n</@tool_calls>",
       "",
       "",
       {{"f", "", false}, {"add", "{}", true}}},
      {"cut off",
       d,
       false,
       false,
       "<@tool_calls>\n<@invoke name=\"f\">\n<@parameter name=\"x\" string=\"true\">ab</@par",
       "",
       "",
       {{"f", "{\"x\": \"ab</@par", false}}},
  };
  for (Case& c : all) {
    c.text = dsml(c.text);
    c.content = dsml(c.content);
    for (ParsedOutput::Call& call : c.calls) call.arguments = dsml(call.arguments);
  }
  return all;
}

const std::vector<Case>& gemma_cases() {
  const F g = F::kGemma4;
  const auto channel = ReasoningFormat::kChannel;
  static const std::vector<Case> all = {
      {"one",
       g,
       true,
       false,
       "<|tool_call>call:get_weather{city:<|\"|>Köln<|\"|>,days:3}<tool_call|>",
       "",
       "",
       {{"get_weather", R"({"city": "Köln", "days": 3})", true}},
       channel},
      {"thought, said, two calls",
       g,
       true,
       false,
       "<|channel>thought\nHm "
       "<b>\n<channel|>Looking.<|tool_call>call:f{}<tool_call|><|tool_call>call:add{a:[],b:{}}<tool_call|>",
       "Looking.",
       "Hm <b>",
       {{"f", "{}", true}, {"add", R"({"a": [], "b": {}})", true}},
       channel},
      {"nested",
       g,
       true,
       false,
       "<|tool_call>call:f{a:{b:[1,-2.5e3,true,null,<|\"|>x<|\"|>,[{c:false}]],<|\"|>k "
       "y<|\"|>:<|\"|><|\"|>},z:word}<tool_call|>",
       "",
       "",
       {{"f", R"({"a": {"b": [1, -2.5e3, true, null, "x", [{"c": false}]], "k y": ""}, "z": "word"})", true}},
       channel},
      {"text like tags",
       g,
       true,
       false,
       "<|tool_call>call:f{x:<|\"|>}<tool_call|>,\"y\":\\ {<|tool_call>call:f{\n<|\"<|\"|>}<tool_call|>",
       "",
       "",
       {{"f", R"({"x": "}<tool_call|>,\"y\":\\ {<|tool_call>call:f{\n<|\""})", true}},
       channel},
      {"JSON's quotes and blanks",
       g,
       true,
       false,
       "<|tool_call>call:f{ \"x\" : \"a\\\"}\nb\" , y : [ 1 , 2 ] }<tool_call|>",
       "",
       "",
       {{"f", R"({"x": "a\"}\nb", "y": [1, 2]})", true}},
       channel},
      {"no thought",
       g,
       true,
       false,
       "<|channel>thought\n<channel|>Hi <|channel> there <ch",
       "Hi <|channel> there <ch",
       "",
       {},
       channel},
      {"thought twice",
       g,
       true,
       false,
       "<|channel>thought\none<channel|>A <|channel>thought\ntwo<channel|>B",
       "AB",
       "one\ntwo",
       {},
       channel},
      {"thinking opened by the prompt", g, true, true, "so\n<channel|>B", "B", "so", {}, channel},
      {"no end of thinking", g, true, false, "<|channel>thought\nso", "", "so", {}, channel},
      {"unknown name",
       g,
       true,
       false,
       "<|tool_call>call:rm{x:1}<tool_call|>",
       "<|tool_call>call:rm{x:1}<tool_call|>",
       "",
       {},
       channel},
      {"no call",
       g,
       true,
       false,
       "Say <|tool_call> or <|tool_call>call:f or <|tool_",
       "Say <|tool_call> or <|tool_call>call:f or <|tool_",
       "",
       {},
       channel},
      {"broken, then whole",
       g,
       true,
       false,
       "<|tool_call>call:f{x:1]}<tool_call|><|tool_call>call:add{}<tool_call|>",
       "",
       "",
       {{"f", R"({"x": 1)", false}, {"add", "{}", true}},
       channel},
      {"cut off in text",
       g,
       true,
       false,
       "<|tool_call>call:f{x:<|\"|>ab<|",
       "",
       "",
       {{"f", R"({"x": "ab<|)", false}},
       channel},
      {"cut off in a number",
       g,
       true,
       false,
       "<|tool_call>call:f{x:1",
       "",
       "",
       {{"f", R"({"x": )", false}},
       channel},
      {"cut off in the end",
       g,
       true,
       false,
       "<|tool_call>call:f{}<tool_",
       "",
       "",
       {{"f", "{}", true}},
       channel},
      {"think tags are text", g, true, false, "<think>x</think>", "<think>x</think>", "", {}, channel},
  };
  return all;
}

std::vector<Case> all_cases() {
  std::vector<Case> all = qwen_cases();
  for (const Case& c : dsml_cases()) all.push_back(c);
  for (const Case& c : gemma_cases()) all.push_back(c);
  return all;
}

TEST(ToolNotation, ReadsWholeAnswers) {
  for (const Case& c : all_cases()) expect_parsed(c, parse_pieces(c, {c.text}), "whole");
}

TEST(ToolNotation, CutsDoNotMatter) {
  for (const Case& c : all_cases()) expect_cuts_do_not_matter(c);
}

TEST(ToolNotation, CompleteArgumentsAreJson) {
  for (const Case& c : all_cases()) {
    for (const ParsedOutput::Call& call : parse_pieces(c, {c.text}).calls)
      EXPECT_TRUE(!call.complete || Json::accept(call.arguments)) << c.name << ": " << call.arguments;
  }
}

// What a piece of text gives out at once.
std::string arguments_after(OutputParser& parser, std::string_view piece) {
  std::vector<OutputEvent> events;
  parser.feed(piece, events);
  std::string text;
  for (const OutputEvent& event : events) {
    EXPECT_NE(event.kind, OutputEvent::Kind::kContent) << event.text;
    if (event.kind == OutputEvent::Kind::kToolArguments) text += event.text;
  }
  return text;
}

TEST(ToolNotation, TextStreamsAsItComes) {
  OutputParser qwen({{F::kQwenXml, false, ReasoningFormat::kThink}, false, {{"write", kWriteSchema}}});
  EXPECT_EQ(arguments_after(qwen, "<tool_call>\n<function=write>\n<parameter=text>\nab"), R"({"text": "ab)");
  EXPECT_EQ(arguments_after(qwen, " c\nd\n"), R"( c\nd)");
  EXPECT_EQ(arguments_after(qwen, "e</para"), R"(\ne)");
  OutputParser deepseek({{F::kDeepSeekV4, false, ReasoningFormat::kThink}, false, {}});
  EXPECT_EQ(
      arguments_after(deepseek,
                      dsml("<@tool_calls>\n<@invoke name=\"f\">\n<@parameter name=\"x\" string=\"true\">ab")),
      R"({"x": "ab)");
  EXPECT_EQ(arguments_after(deepseek, " c"), " c");
  OutputParser gemma({{F::kGemma4, false, ReasoningFormat::kChannel}, false, {}});
  EXPECT_EQ(arguments_after(gemma, "<|tool_call>call:f{x:<|\"|>ab"), R"({"x": "ab)");
  EXPECT_EQ(arguments_after(gemma, " c<"), " c");
}

}  // namespace
}  // namespace dspark
