// Answers as models write them, cut at every byte.

#include "constrain/output_parser.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "constrain/answer_grammar.h"
#include "parser_cases.h"

namespace dspark {
namespace {

const std::vector<Case>& cases() {
  using F = ToolFormat;
  static const std::vector<Case> all = {
      {"plain", F::kHermes, true, false, "Hello,\n  world.\n", "Hello,\n  world.\n", "", {}},
      {"no format",
       F::kNone,
       false,
       false,
       "<think>x</think> <tool_call>{}",
       "<think>x</think> <tool_call>{}",
       "",
       {}},
      {"hermes",
       F::kHermes,
       true,
       false,
       "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris "
       "\\\"}\\\"\"}}\n</tool_call>",
       "",
       "",
       {{"get_weather", "{\"city\": \"Paris \\\"}\\\"\"}", true}}},
      {"hermes, thought, said and two calls",
       F::kHermes,
       true,
       false,
       "<think>\nI need <b> weather.\n</think>\n\nLet me look.\n<tool_call>\n{\"name\": \"get_weather\", "
       "\"arguments\": {\"city\": "
       "\"Köln\"}}\n</tool_call>\n<tool_call>\n{\"arguments\": {\"a\": [1, {\"b\": 2}]}, \"name\": "
       "\"add\"}\n</tool_call>",
       "Let me look.",
       "I need <b> weather.",
       {{"get_weather", "{\"city\": \"Köln\"}", true}, {"add", "{\"a\": [1, {\"b\": 2}]}", true}}},
      {"hermes, text behind",
       F::kHermes,
       true,
       false,
       "A <tool_call>{\"name\":\"add\",\"arguments\":{}}</tool_call> B",
       "AB",
       "",
       {{"add", "{}", true}}},
      {"hermes, no arguments",
       F::kHermes,
       true,
       false,
       "<tool_call>{\"name\": \"add\"}</tool_call>",
       "",
       "",
       {{"add", "{}", true}}},
      {"hermes, arguments as a string",
       F::kHermes,
       false,
       false,
       "<tool_call>{\"name\": \"add\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>",
       "",
       "",
       {{"add", "{\"a\": 1}", true}}},
      {"hermes, unknown name",
       F::kHermes,
       false,
       false,
       "<tool_call>{\"name\": \"rm\", \"arguments\": {}}</tool_call>",
       "<tool_call>{\"name\": \"rm\", \"arguments\": {}}</tool_call>",
       "",
       {}},
      {"hermes, no JSON",
       F::kHermes,
       false,
       false,
       "Use <tool_call>nothing</tool_call> or <tool",
       "Use <tool_call>nothing</tool_call> or <tool",
       "",
       {}},
      {"hermes, cut off",
       F::kHermes,
       false,
       false,
       "<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": \"x",
       "",
       "",
       {{"add", "{\"a\": \"x", false}}},
      {"hermes, cut off early", F::kHermes, false, false, "<tool_call>{\"na", "<tool_call>{\"na", "", {}},
      {"prompt opened reasoning",
       F::kHermes,
       true,
       true,
       "\nStep 1 </thin\n</think>\n\nAnswer",
       "Answer",
       "Step 1 </thin",
       {}},
      {"reasoning without end", F::kNone, true, true, "hm\nhm ", "", "hm\nhm", {}},
      {"think inside an answer", F::kNone, true, false, "Say <think> now", "Say <think> now", "", {}},
      {"llama",
       F::kLlama3,
       false,
       false,
       "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Rome\"}}",
       "",
       "",
       {{"get_weather", "{\"city\": \"Rome\"}", true}}},
      {"llama, tag and two",
       F::kLlama3,
       false,
       false,
       "<|python_tag|>{\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"x\": 1}}; {\"name\": "
       "\"add\", \"parameters\": {}}",
       "",
       "",
       {{"f", "{\"x\": 1}", true}, {"add", "{}", true}}},
      {"llama, JSON that is no call",
       F::kLlama3,
       false,
       false,
       "{\"name\": \"Bob\", \"age\": 3}\n",
       "{\"name\": \"Bob\", \"age\": 3}\n",
       "",
       {}},
      {"llama, JSON without arguments",
       F::kLlama3,
       false,
       false,
       "{\"name\": \"add\"} ok",
       "{\"name\": \"add\"} ok",
       "",
       {}},
      {"llama, code",
       F::kLlama3,
       false,
       false,
       "<|python_tag|>print(\"a\")\nx = 1",
       "",
       "",
       {{"python", "{\"code\": \"print(\\\"a\\\")\\nx = 1\"}", true}}},
      {"llama, builtin",
       F::kLlama3,
       false,
       false,
       "<|python_tag|>get_weather.call(city=\"Oslo\", days=3)",
       "",
       "",
       {{"get_weather", "{\"city\":\"Oslo\",\"days\":3}", true}}},
      {"llama, text", F::kLlama3, false, false, "The answer is {4}.", "The answer is {4}.", "", {}},
      {"gemma, JSON",
       F::kGemma,
       false,
       false,
       "{\"name\": \"add\", \"parameters\": {\"a\": 1}}",
       "",
       "",
       {{"add", "{\"a\": 1}", true}}},
      {"gemma, fence",
       F::kGemma,
       false,
       false,
       "Sure.\n```json\n{\"name\": \"add\", \"parameters\": {\"a\": 1}}\n```\n",
       "Sure.",
       "",
       {{"add", "{\"a\":1}", true}}},
      {"gemma, tool_code",
       F::kGemma,
       false,
       false,
       "```tool_code\nprint(add(a=1, b=[True, None, 'x)'], c={\"k\": -2.5}))\n```",
       "",
       "",
       {{"add", "{\"a\":1,\"b\":[true,null,\"x)\"],\"c\":{\"k\":-2.5}}", true}}},
      {"gemma, list",
       F::kGemma,
       false,
       false,
       "[add(a=1), get_weather(city=\"Bern\")]",
       "",
       "",
       {{"add", "{\"a\":1}", true}, {"get_weather", "{\"city\":\"Bern\"}", true}}},
      {"gemma, other fences",
       F::kGemma,
       false,
       false,
       "See:\n```python\nadd(1)\n```\nand ```json\n{\"x\": 1}\n``` ok",
       "See:\n```python\nadd(1)\n```\nand ```json\n{\"x\": 1}\n``` ok",
       "",
       {}},
      {"gemma, list of text", F::kGemma, false, false, "[1] a source", "[1] a source", "", {}},
      {"deepseek",
       F::kDeepSeek,
       true,
       true,
       "think</think>Looking.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": "
       "\"<｜x\"}<｜tool▁call▁end｜>"
       "<｜tool▁call▁begin｜>add<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
       "Looking.",
       "think",
       {{"get_weather", "{\"city\": \"<｜x\"}", true}, {"add", "{}", true}}},
      {"deepseek r1",
       F::kDeepSeekR1,
       true,
       false,
       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{\"a\": {\"b\": "
       "1}}\n```<｜tool▁call▁end｜>\n"
       "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}\n```<｜tool▁call▁end｜><"
       "｜tool▁calls▁end｜>",
       "",
       "",
       {{"add", "{\"a\": {\"b\": 1}}", true}, {"f", "{}", true}}},
      {"deepseek, cut off",
       F::kDeepSeek,
       true,
       false,
       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\"",
       "",
       "",
       {{"add", "{\"a\"", false}}},
  };
  return all;
}

TEST(OutputParser, ReadsWholeAnswers) {
  for (const Case& c : cases()) expect_parsed(c, parse_pieces(c, {c.text}), "whole");
}

TEST(OutputParser, CutsDoNotMatter) {
  for (const Case& c : cases()) expect_cuts_do_not_matter(c);
}

TEST(OutputParser, StreamsArgumentsAsTheyCome) {
  OutputParser parser({{ToolFormat::kHermes, false, ReasoningFormat::kThink}, false, {}});
  std::vector<OutputEvent> events;
  parser.feed("<tool_call>{\"name\": \"f\", \"arguments\": {\"te", events);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].kind, OutputEvent::Kind::kToolCall);
  EXPECT_EQ(events[1].text, "{\"te");
  parser.feed("xt\": 1", events);
  EXPECT_EQ(events.back().text, "xt\": 1");
}

TEST(OutputParser, ContentIsNotHeldBackForLong) {
  OutputParser parser({{ToolFormat::kHermes, true, ReasoningFormat::kThink}, false, {}});
  std::vector<OutputEvent> events;
  parser.feed("a < b", events);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].text, "a < b");
}

// With a limit on calls the answer is over behind the last of them.
TEST(OutputParser, DropsWhatIsBehindTheLastCall) {
  const std::string hermes = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
  const std::string gemma4 = "<|tool_call>call:f{}<tool_call|>";
  const std::string llama = "{\"name\": \"f\", \"parameters\": {}}";
  const std::string broken = "<tool_call>{\"name\": \"f\", \"arguments\": {} x</tool_call>";
  const std::vector<Case> limited = {
      {"two",
       ToolFormat::kHermes,
       true,
       true,
       "a</think>b " + hermes + "\nc" + hermes + "d",
       "b",
       "a",
       {{"f", "{}", true}}},
      {"text", ToolFormat::kHermes, false, false, hermes + " Done.", "", "", {{"f", "{}", true}}},
      {"no call", ToolFormat::kHermes, false, false, "b <tool_call> c", "b <tool_call> c", "", {}},
      {"broken", ToolFormat::kHermes, false, false, broken + hermes + "d", "", "", {{"f", "{}", false}}},
      {"whole answer",
       ToolFormat::kLlama3,
       false,
       false,
       llama + "; " + llama + " x",
       "",
       "",
       {{"f", "{}", true}}},
      {"list",
       ToolFormat::kGemma,
       false,
       false,
       "```tool_code\n[f(), f()]\n``` x",
       "",
       "",
       {{"f", "{}", true}}},
      {"reasoning",
       ToolFormat::kGemma4,
       true,
       false,
       gemma4 + gemma4 + "<|channel>thought\nx<channel|>y",
       "",
       "",
       {{"f", "{}", true}},
       ReasoningFormat::kChannel}};
  for (Case c : limited) {
    c.max_calls = 1;
    expect_parsed(c, parse_pieces(c, {c.text}), "at once");
    expect_cuts_do_not_matter(c);
  }
}

TEST(OutputFormat, IsFoundInTemplates) {
  EXPECT_EQ(detect_output_format("<|im_start|> <tool_call> <think>").tools, ToolFormat::kHermes);
  EXPECT_TRUE(detect_output_format("<|im_start|> <tool_call> <think>").has_reasoning);
  EXPECT_EQ(detect_output_format("{{'<|im_start|>'}}").tools, ToolFormat::kHermes);
  EXPECT_EQ(detect_output_format("<|start_header_id|>").tools, ToolFormat::kLlama3);
  EXPECT_EQ(detect_output_format("<start_of_turn>").tools, ToolFormat::kGemma);
  EXPECT_EQ(detect_output_format("'<｜tool▁calls▁begin｜>'").tools, ToolFormat::kDeepSeek);
  EXPECT_EQ(detect_output_format("'<｜tool▁calls▁begin｜>' + '```json'").tools, ToolFormat::kDeepSeekR1);
  EXPECT_EQ(detect_output_format("<tool_call>\n<function=x>").tools, ToolFormat::kNone);
  EXPECT_EQ(detect_output_format("<|im_start|><tool_call>\n<function=x>\n<parameter=y>").tools,
            ToolFormat::kQwenXml);
  EXPECT_EQ(detect_output_format("dsml_token = '｜DSML｜' '<' + dsml_token + 'function_calls>'").tools,
            ToolFormat::kDeepSeekV32);
  EXPECT_EQ(detect_output_format("dsml_token = '｜DSML｜' '<' + dsml_token + 'tool_calls>'").tools,
            ToolFormat::kDeepSeekV4);
  const OutputFormat gemma = detect_output_format("<|channel>thought <|tool_call>call:");
  EXPECT_EQ(gemma.tools, ToolFormat::kGemma4);
  EXPECT_TRUE(gemma.has_reasoning);
  EXPECT_EQ(gemma.reasoning, ReasoningFormat::kChannel);
  EXPECT_FALSE(detect_output_format("<|tool_call>call:").has_reasoning);
  EXPECT_EQ(detect_output_format("plain").tools, ToolFormat::kNone);
}

TEST(OutputFormat, PromptsTellWhereReasoningStands) {
  const OutputFormat think{ToolFormat::kHermes, true, ReasoningFormat::kThink};
  const OutputFormat channel{ToolFormat::kGemma4, true, ReasoningFormat::kChannel};
  EXPECT_EQ(reasoning_start(think, "<|assistant|><think>\n"), ReasoningStart::kOpen);
  EXPECT_EQ(reasoning_start(think, "<think>\n\n</think>\n\n"), ReasoningStart::kNone);
  EXPECT_EQ(reasoning_start(think, "<think>x</think>y<|assistant|>\n"), ReasoningStart::kMaybe);
  EXPECT_EQ(reasoning_start({ToolFormat::kHermes}, "<|assistant|><think>\n"), ReasoningStart::kNone);
  EXPECT_EQ(reasoning_start(channel, "<|turn>model\n<|channel>thought\n"), ReasoningStart::kOpen);
  EXPECT_EQ(reasoning_start(channel, "<|turn>model\n<|channel>thought\n<channel|>"), ReasoningStart::kNone);
  EXPECT_EQ(reasoning_start(channel, "<|turn>model\n"), ReasoningStart::kMaybe);
}

// What a forced grammar allows is what the parser reads as calls.
TEST(ToolGrammar, IsReadBackAsCalls) {
  const std::vector<ToolDescription> tools{
      {"add",
       R"({"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],"additionalProperties":false})"},
      {"f", ""}};
  for (ToolFormat format : {ToolFormat::kHermes, ToolFormat::kLlama3, ToolFormat::kGemma,
                            ToolFormat::kDeepSeek, ToolFormat::kDeepSeekR1}) {
    const Result<Grammar> one = make_tool_grammar({format}, tools);
    ASSERT_TRUE(one.ok()) << one.status().message();
    const Result<Grammar> thinking = make_tool_grammar({format}, tools, {2, ReasoningStart::kOpen});
    ASSERT_TRUE(thinking.ok()) << thinking.status().message();
    std::string call;
    switch (format) {
      case ToolFormat::kHermes:
        call = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 12}}\n</tool_call>";
        break;
      case ToolFormat::kDeepSeek:
        call =
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": "
            "12}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
        break;
      case ToolFormat::kDeepSeekR1:
        call =
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{\"a\": "
            "12}\n```<｜tool▁call▁end｜>"
            "<｜tool▁calls▁end｜>";
        break;
      default:
        call = "{\"name\": \"add\", \"parameters\": {\"a\": 12}}";
    }
    EXPECT_TRUE(one->matches(call)) << tool_format_name(format);
    EXPECT_FALSE(one->matches("x" + call));
    EXPECT_TRUE(thinking->matches("so </think </</think>\n\n" + call)) << tool_format_name(format);
    EXPECT_FALSE(thinking->matches(call));
    const ParsedOutput parsed = parse_output(call, {{format, true, ReasoningFormat::kThink}, false, tools});
    ASSERT_EQ(parsed.calls.size(), 1u) << tool_format_name(format);
    EXPECT_EQ(parsed.calls[0].name, "add");
    EXPECT_EQ(parsed.calls[0].arguments, "{\"a\": 12}");
    EXPECT_TRUE(parsed.calls[0].complete);
    EXPECT_EQ(parsed.content, "");
  }
  EXPECT_FALSE(make_tool_grammar({ToolFormat::kNone}, tools).ok());
  EXPECT_FALSE(make_tool_grammar({ToolFormat::kHermes}, {}).ok());
  const Result<Grammar> bad =
      make_tool_grammar({ToolFormat::kHermes}, {{"g", R"({"type":"object","oddly":1})"}});
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(bad.status().message().find("'g'"), std::string::npos) << bad.status().message();
}

}  // namespace
}  // namespace dspark
