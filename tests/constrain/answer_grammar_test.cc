// Grammars of whole answers: what they allow, and what the parser makes of it.

#include "constrain/answer_grammar.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "constrain/gbnf.h"
#include "constrain/json_schema.h"
#include "constrain/output_parser.h"
#include "constrain/text_grammar.h"
#include "constrain/tool_grammar.h"

namespace dspark {
namespace {

using F = ToolFormat;

constexpr F kFormats[] = {F::kHermes,      F::kLlama3,     F::kGemma,   F::kDeepSeek, F::kDeepSeekR1,
                          F::kDeepSeekV32, F::kDeepSeekV4, F::kQwenXml, F::kGemma4};
constexpr int kAnyNumber = GrammarIr::kUnbounded;

OutputFormat reasoning_format(F tools) {
  return {tools, true, tools == F::kGemma4 ? ReasoningFormat::kChannel : ReasoningFormat::kThink};
}

const std::vector<ToolDescription>& tools() {
  static const std::vector<ToolDescription> all{
      {"add",
       R"({"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],"additionalProperties":false})",
       true}};
  return all;
}

// Calls of add with these values of a, in one block.
std::string calls(F format, const std::vector<std::string>& values) {
  std::string begin, between, end, before, after;
  switch (format) {
    case F::kHermes:
      between = "\n", before = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": ";
      after = "}}\n</tool_call>";
      break;
    case F::kDeepSeek:
      begin = "<｜tool▁calls▁begin｜>", end = "<｜tool▁calls▁end｜>";
      before = "<｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": ", after = "}<｜tool▁call▁end｜>";
      break;
    case F::kDeepSeekR1:
      begin = "<｜tool▁calls▁begin｜>", between = "\n", end = "<｜tool▁calls▁end｜>";
      before = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{\"a\": ";
      after = "}\n```<｜tool▁call▁end｜>";
      break;
    case F::kDeepSeekV32:
    case F::kDeepSeekV4: {
      const std::string block = format == F::kDeepSeekV4 ? "tool_calls>" : "function_calls>";
      begin = "<｜DSML｜" + block + "\n", between = "\n", end = "\n</｜DSML｜" + block;
      before = "<｜DSML｜invoke name=\"add\">\n<｜DSML｜parameter name=\"a\" string=\"false\">";
      after = "</｜DSML｜parameter>\n</｜DSML｜invoke>";
      break;
    }
    case F::kQwenXml:
      between = "\n", before = "<tool_call>\n<function=add>\n<parameter=a>\n";
      after = "\n</parameter>\n</function>\n</tool_call>";
      break;
    case F::kGemma4:
      before = "<|tool_call>call:add{a:", after = "}<tool_call|>";
      break;
    default:
      between = "; ", before = "{\"name\": \"add\", \"parameters\": {\"a\": ", after = "}}";
  }
  std::string text = begin;
  for (size_t i = 0; i < values.size(); ++i) text += (i > 0 ? between : "") + before + values[i] + after;
  return text + end;
}

// The parser finds these values of a, and this content.
void expect_read(const OutputFormat& format, const std::string& text, const std::vector<int>& values,
                 const std::string& content) {
  const ParsedOutput parsed = parse_output(text, {format, false, tools()});
  ASSERT_EQ(parsed.calls.size(), values.size()) << text;
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_TRUE(parsed.calls[i].complete) << text;
    EXPECT_EQ(nlohmann::json::parse(parsed.calls[i].arguments, nullptr, false),
              nlohmann::json({{"a", values[i]}}))
        << text;
  }
  EXPECT_EQ(parsed.content, content) << text;
}

Grammar grammar_of(GrammarIr ir, GrammarIr::Node node) {
  ir.root = ir.add_rule("root");
  ir.set_body(ir.root, node);
  const Result<Grammar> grammar = Grammar::from_ir(ir);
  EXPECT_TRUE(grammar.ok()) << grammar.status().message();
  return *grammar;
}

TEST(TextGrammar, MarksAreFollowedByWhatTheyAskFor) {
  GrammarIr ir;
  const GrammarIr::Node text = text_with_marks(
      ir, {{"<a>", ir.literal("1"), true}, {"<e>", ir.literal("2"), false}, {"<b>", {}}}, true);
  const Grammar grammar = grammar_of(ir, text);
  for (const char* good : {"", "x", "x<", "<a", "<<a>1", "<a>1", "é<a>1 <a>1<", "b>", "<a>1<e>2", "<a <a>1x"})
    EXPECT_TRUE(grammar.matches(good)) << good;
  for (const char* bad : {"<a>", "<a>2", "<a>1<a>", "<b>", "x<<b>", "<a>1<b>", "<e>", "<e>2x", "<e>2<a>1"})
    EXPECT_FALSE(grammar.matches(bad)) << bad;
  EXPECT_TRUE(grammar.matches_start("<a>"));
  EXPECT_FALSE(grammar.matches_start("<b>"));
}

TEST(TextGrammar, BeginningsAreKeptOut) {
  GrammarIr ir;
  const GrammarIr::Node text = text_not_beginning_with(ir, {"{", "<ab>", "<ac"});
  const Grammar grammar = grammar_of(ir, text);
  for (const char* good :
       {"", "x", "x{", "<", "<a", "<ab", "<abc", "<aab>", "<x{", " \n", "\n x<ac", "<<ab>"})
    EXPECT_TRUE(grammar.matches(good)) << good;
  for (const char* bad : {"{", " {", "\n\t{}", "<ab>", "<ab>x", " <ac", "<acx"})
    EXPECT_FALSE(grammar.matches(bad)) << bad;
}

TEST(AnswerGrammar, ContentStandsBehindTheReasoning) {
  const Result<GrammarIr> content = parse_gbnf("root ::= \"yes\" | \"{\\\"a\\\":1}\"", "grammar");
  ASSERT_TRUE(content.ok());
  for (F tools_format : {F::kNone, F::kHermes, F::kGemma4}) {
    const OutputFormat format = reasoning_format(tools_format);
    const ReasoningTags tags = reasoning_tags(format.reasoning);
    const std::string begin = std::string(tags.begin) + "\n", end(tags.end);
    const auto made = [&](ReasoningStart start) {
      const Result<Grammar> grammar = make_content_grammar(format, *content, {}, {1, start});
      EXPECT_TRUE(grammar.ok()) << grammar.status().message();
      return *grammar;
    };
    const Grammar none = made(ReasoningStart::kNone), maybe = made(ReasoningStart::kMaybe),
                  open = made(ReasoningStart::kOpen);
    EXPECT_TRUE(none.matches("yes"));
    EXPECT_FALSE(none.matches_start(begin));
    EXPECT_TRUE(maybe.matches("yes"));
    EXPECT_TRUE(maybe.matches(begin + "hm" + end + "\n\nyes"));
    EXPECT_FALSE(maybe.matches(begin + "yes"));
    EXPECT_FALSE(maybe.matches_start("hm"));
    EXPECT_FALSE(open.matches("yes"));
    EXPECT_TRUE(open.matches("{\"a\":1} </" + end + "{\"a\":1}"));
    EXPECT_FALSE(open.matches_start("hm" + end + "maybe"));
    const ParsedOutput parsed = parse_output("hm" + end + "\n\n{\"a\":1}", {format, true, {}});
    EXPECT_EQ(parsed.content, "{\"a\":1}");
    EXPECT_EQ(parsed.reasoning, "hm");
  }
}

TEST(AnswerGrammar, ContentOrCalls) {
  const Result<GrammarIr> content = compile_json_schema(
      R"({"type":"object","properties":{"x":{"type":"integer"}},"required":["x"],"additionalProperties":false})",
      "json_schema");
  ASSERT_TRUE(content.ok());
  for (F tools_format : kFormats) {
    const OutputFormat format = reasoning_format(tools_format);
    const char* name = tool_format_name(tools_format);
    const Result<Grammar> one = make_content_grammar(format, *content, tools());
    const Result<Grammar> several = make_content_grammar(format, *content, tools(), {kAnyNumber});
    ASSERT_TRUE(one.ok() && several.ok()) << name;
    const std::string call = calls(tools_format, {"12"}), two = calls(tools_format, {"12", "-3"});
    for (const Grammar* grammar : {&*one, &*several}) {
      EXPECT_TRUE(grammar->matches("{\"x\": 1}")) << name;
      EXPECT_TRUE(grammar->matches(call)) << name;
      for (const std::string& bad : {std::string(), std::string("Hello"), std::string("{\"x\": \"1\"}"),
                                     calls(tools_format, {"\"12\""}), call + "{\"x\": 1}", "So: " + call})
        EXPECT_FALSE(grammar->matches(bad)) << name << ": " << bad;
    }
    EXPECT_FALSE(one->matches(two)) << name;
    EXPECT_TRUE(several->matches(two)) << name;
    expect_read(format, "{\"x\": 1}", {}, "{\"x\": 1}");
    expect_read(format, two, {12, -3}, "");
    const Result<Grammar> thinking =
        make_content_grammar(format, *content, tools(), {1, ReasoningStart::kOpen});
    ASSERT_TRUE(thinking.ok());
    const std::string end(reasoning_tags(format.reasoning).end);
    EXPECT_TRUE(thinking->matches("so" + end + "\n" + call)) << name;
    EXPECT_TRUE(thinking->matches("so" + end + "\n{\"x\": 1}")) << name;
    EXPECT_FALSE(thinking->matches(call)) << name;
  }
  EXPECT_FALSE(make_content_grammar({F::kNone}, *content, tools()).ok());
}

// Only who asks for it is refused a schema that cannot be forced.
TEST(AnswerGrammar, ToolsThatAreNotStrictMayDoWithout) {
  const std::string schema = R"({"type":"object","oddly":1})";
  const std::string call = "<tool_call>\n{\"name\": \"g\", \"arguments\": {\"any\": [1]}}\n</tool_call>";
  const OutputFormat format{F::kHermes};
  const Result<Grammar> loose = make_strict_grammar(format, {{"g", schema}, tools()[0]});
  ASSERT_TRUE(loose.ok()) << loose.status().message();
  EXPECT_TRUE(loose->matches("Hm: " + call));
  EXPECT_FALSE(loose->matches(calls(F::kHermes, {"null"})));
  const Result<Grammar> strict = make_strict_grammar(format, {{"g", schema, true}});
  ASSERT_FALSE(strict.ok());
  EXPECT_NE(strict.status().message().find("tools: parameters of 'g'"), std::string::npos)
      << strict.status().message();
  EXPECT_FALSE(make_tool_grammar(format, {{"g", schema}}).ok());
}

TEST(StrictGrammar, CallsInFreeTextKeepToTheSchema) {
  for (F tools_format : kFormats) {
    if (tools_format == F::kLlama3 || tools_format == F::kGemma) continue;
    ASSERT_TRUE(can_watch_calls(tools_format));
    const OutputFormat format = reasoning_format(tools_format);
    const char* name = tool_format_name(tools_format);
    const Result<Grammar> one = make_strict_grammar(format, tools());
    const Result<Grammar> several = make_strict_grammar(format, tools(), {kAnyNumber});
    ASSERT_TRUE(one.ok() && several.ok()) << name;
    const std::string call = calls(tools_format, {"12"}), two = calls(tools_format, {"12", "-3"});
    const std::string wrong = calls(tools_format, {"\"12\""});
    for (const Grammar* grammar : {&*one, &*several}) {
      for (const std::string& good :
           {std::string(), std::string("a < b {\"a\": 1}"), call, "Let me see.\n\n" + call, "< <" + call})
        EXPECT_TRUE(grammar->matches(good)) << name << ": " << good;
      for (const std::string& bad : {wrong, "So: " + wrong, calls_opening(tools_format) + "sub"})
        EXPECT_FALSE(grammar->matches_start(bad)) << name << ": " << bad;
      EXPECT_FALSE(grammar->matches(call.substr(0, call.size() - 1))) << name;
    }
    EXPECT_TRUE(several->matches(two + "\nDone.\n" + call)) << name;
    EXPECT_FALSE(several->matches_start(call + " and " + wrong)) << name;
    EXPECT_FALSE(one->matches_start(call + "\n\n.")) << name;
    expect_read(format, "Let me see.\n\n" + call, {12}, "Let me see.");
    expect_read(format, two + "\nDone.\n" + call, {12, -3, 12}, "Done.");
  }
  EXPECT_FALSE(can_watch_calls(F::kNone));
  EXPECT_FALSE(can_watch_calls(F::kGemma));
}

// What the parser takes for a call though it is not written as it should be.
TEST(StrictGrammar, OtherOpeningsAreKeptOut) {
  const std::pair<F, const char*> openings[] = {{F::kQwenXml, "<function="},
                                                {F::kDeepSeek, "<｜tool▁call▁begin｜>"},
                                                {F::kDeepSeekR1, "<｜tool▁call▁begin｜>"},
                                                {F::kDeepSeekV32, "<｜DSML｜invoke name=\""},
                                                {F::kDeepSeekV32, "<｜DSML｜tool_calls>"},
                                                {F::kDeepSeekV4, "<｜DSML｜function_calls>"}};
  for (const auto& [format, opening] : openings) {
    const Result<Grammar> grammar = make_strict_grammar({format}, tools());
    ASSERT_TRUE(grammar.ok());
    const std::string text = std::string("So ") + opening;
    EXPECT_FALSE(grammar->matches_start(text)) << text;
    EXPECT_TRUE(grammar->matches(text.substr(0, text.size() - 1))) << text;
  }
}

TEST(StrictGrammar, WholeAnswersAreTextOrCalls) {
  ASSERT_TRUE(can_watch_calls(F::kLlama3));
  const OutputFormat format = reasoning_format(F::kLlama3);
  const Result<Grammar> one = make_strict_grammar(format, tools());
  const Result<Grammar> several = make_strict_grammar(format, tools(), {kAnyNumber});
  ASSERT_TRUE(one.ok() && several.ok());
  const std::string call = calls(F::kLlama3, {"12"}), two = calls(F::kLlama3, {"12", "-3"});
  for (const std::string& good : {std::string(), std::string("Hello {\"name\": 1}"), std::string("<|python"),
                                  std::string("\n <b>"), call, "\n" + call, "<|python_tag|>" + call})
    EXPECT_TRUE(one->matches(good)) << good;
  for (const std::string& bad : {std::string("{\"x\": 1}"), std::string("\n{}"), call + " Done.", two,
                                 calls(F::kLlama3, {"\"12\""}), std::string("<|python_tag|>print(1)")})
    EXPECT_FALSE(one->matches(bad)) << bad;
  EXPECT_TRUE(several->matches(two));
  expect_read(format, "<|python_tag|>" + two, {12, -3}, "");
  expect_read(format, "Hello {\"name\": 1}", {}, "Hello {\"name\": 1}");
  // Reasoning is no text in front of which a call would be overlooked.
  EXPECT_FALSE(one->matches_start("<think>"));
  const Result<Grammar> thinking = make_strict_grammar(format, tools(), {1, ReasoningStart::kMaybe});
  ASSERT_TRUE(thinking.ok());
  EXPECT_TRUE(thinking->matches("<think>{ </think>\n\n" + call));
  EXPECT_TRUE(thinking->matches(call));
  EXPECT_FALSE(thinking->matches_start("<think>hm</think>{\"x\""));
}

TEST(StrictGrammar, ReasoningIsFree) {
  for (F tools_format : {F::kHermes, F::kQwenXml, F::kDeepSeek, F::kGemma4}) {
    const OutputFormat format = reasoning_format(tools_format);
    const ReasoningTags tags = reasoning_tags(format.reasoning);
    const std::string begin(tags.begin), end(tags.end);
    const std::string call = calls(tools_format, {"12"}), wrong = calls(tools_format, {"\"12\""});
    const std::string thought = "\nPerhaps " + wrong + "? ";
    const Result<Grammar> maybe = make_strict_grammar(format, tools(), {1, ReasoningStart::kMaybe});
    const Result<Grammar> open = make_strict_grammar(format, tools(), {1, ReasoningStart::kOpen});
    ASSERT_TRUE(maybe.ok() && open.ok());
    EXPECT_TRUE(maybe->matches(begin + thought + end + "\n\nSo: " + call)) << call;
    EXPECT_TRUE(maybe->matches("So: " + call)) << call;
    EXPECT_FALSE(maybe->matches_start(begin + thought + end + wrong)) << call;
    EXPECT_FALSE(maybe->matches_start(thought)) << call;
    EXPECT_TRUE(open->matches(thought + end + "So: " + call)) << call;
    EXPECT_FALSE(open->matches("So: " + call)) << call;
    EXPECT_FALSE(open->matches_start(end + wrong)) << call;
    expect_read(format, begin + thought + end + "\n\nSo: " + call, {12}, "So:");
  }
}

}  // namespace
}  // namespace dspark
