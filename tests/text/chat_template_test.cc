// The public face: errors as values, clock, variables, threads; and cases beyond the recorded ones.
#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

Result<std::string> render(const std::string& source, const Json& variables = Json::object()) {
  auto parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) return parsed.status();
  return parsed->render_variables(variables);
}

std::string text(const std::string& source, const Json& variables = Json::object()) {
  auto result = render(source, variables);
  return result.ok() ? *result : "error: " + result.status().to_string();
}

TEST(ChatTemplate, SyntaxErrorsNameTheLine) {
  const auto parsed = ChatTemplate::parse("line one\n{% if x %}\n{{ a b }}\n{% endif %}");
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.status().code(), StatusCode::kCorruptData);
  EXPECT_NE(parsed.status().message().find("line 3"), std::string::npos) << parsed.status().message();
}

TEST(ChatTemplate, RuntimeErrorsNameTheLineAndKind) {
  const auto result = render("a\nb\n{{ 'x' + 1 }}");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(result.status().message(),
            "chat template, line 3: TypeError: can only concatenate str (not \"int\") to str");
}

TEST(ChatTemplate, RaisedTextIsTheWholeMessage) {
  const auto result = render("{{ raise_exception('Only user and assistant roles!') }}");
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(result.status().message(), "Only user and assistant roles!");
}

TEST(ChatTemplate, UnsupportedTagsAreNamed) {
  const auto parsed = ChatTemplate::parse("{% include 'other' %}");
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.status().code(), StatusCode::kUnsupported);
  EXPECT_NE(parsed.status().message().find("'include'"), std::string::npos);
}

TEST(ChatTemplate, InputsReachTheTemplate) {
  const auto parsed = ChatTemplate::parse(
      "{{ bos_token }}{{ eos_token is defined }}{{ tools is none }}{{ documents is none }}"
      "{{ add_generation_prompt }}{{ messages[0].role }}{{ enable_thinking }}");
  ASSERT_TRUE(parsed.ok());
  const Json messages = Json::parse(R"([{"role": "user", "content": "x"}])");
  const Json extra = Json::parse(R"({"enable_thinking": false})");
  ChatInputs inputs;
  inputs.messages = &messages;
  inputs.extra = &extra;
  inputs.bos_token = "<s>";
  auto result = parsed->render(inputs);
  ASSERT_TRUE(result.ok()) << result.status().to_string();
  EXPECT_EQ(*result, "<s>FalseTrueTrueTrueuserFalse");
  inputs.messages = &extra;
  EXPECT_EQ(parsed->render(inputs).status().code(), StatusCode::kInvalidArgument);
  inputs.messages = nullptr;
  EXPECT_EQ(parsed->render(inputs).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(parsed->render_variables(messages).status().code(), StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, TellsWhichVariablesItReads) {
  const auto parsed = ChatTemplate::parse("{% if tools %}{{ messages }}{% endif %} documents");
  ASSERT_TRUE(parsed.ok());
  EXPECT_TRUE(parsed->uses_variable("tools"));
  EXPECT_FALSE(parsed->uses_variable("documents"));
  EXPECT_EQ(parsed->source().substr(0, 5), "{% if");
}

TEST(ChatTemplate, ClockIsInjectable) {
  auto parsed = ChatTemplate::parse("{{ strftime_now('%d %b %Y, %-I:%M %p, day %j') }}");
  ASSERT_TRUE(parsed.ok());
  parsed->set_clock([] {
    std::tm t{};
    t.tm_year = 100;
    t.tm_mon = 11;
    t.tm_mday = 31;
    t.tm_hour = 0;
    t.tm_min = 5;
    t.tm_yday = 365;
    return t;
  });
  auto result = parsed->render_variables(Json::object());
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(*result, "31 Dec 2000, 12:05 AM, day 366");
}

// Recorded from Python's strftime.
TEST(ChatTemplate, ClockDirectives) {
  auto parsed = ChatTemplate::parse(
      "{{ strftime_now('%a %b %h %e %-d %y %C %u %w %U %W %F %T %D %R %c %x %X %k|%l|%n|%t|%% %q %') }}");
  ASSERT_TRUE(parsed.ok());
  parsed->set_clock([] {
    std::tm t{};  // Thursday, 2026-03-05 14:30:00
    t.tm_year = 126;
    t.tm_mon = 2;
    t.tm_mday = 5;
    t.tm_hour = 14;
    t.tm_min = 30;
    t.tm_wday = 4;
    t.tm_yday = 63;
    return t;
  });
  auto result = parsed->render_variables(Json::object());
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(
      *result,
      "Thu Mar Mar  5 5 26 20 4 4 09 09 2026-03-05 14:30:00 03/05/26 14:30 Thu Mar  5 14:30:00 2026 03/05/26 "
      "14:30:00 14| 2|\n|\t|% %q %");
}

TEST(ChatTemplate, BrokenUtf8IsRepaired) {
  Json variables;
  variables["x"] = std::string("a\xFF") + "b\xE2\x82";
  EXPECT_EQ(text("{{ x|length }} {{ x }}", variables),
            "4 a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD");
  EXPECT_EQ(text("\xFF{{ '\xC3' }}"), "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(ChatTemplate, SurrogateEscapesJoin) {
  EXPECT_EQ(text(R"({{ '\ud83d\ude42' }}{{ '\ud83d' }})"), "\xF0\x9F\x99\x82\xEF\xBF\xBD");
}

TEST(ChatTemplate, LargeDictsKeepOrderAndFindKeys) {
  Json d = Json::object();
  for (int i = 99; i >= 0; --i) d["k" + std::to_string(i)] = i;
  EXPECT_EQ(
      text("{{ d.k7 }} {{ d['k42'] }} {{ d.none is defined }} {{ d|first }} {{ d|length }}", {{"d", d}}),
      "7 42 False k99 100");
}

// Recorded from jinja2 3.1.6, like the golden cases.
TEST(ChatTemplate, FurtherCasesOfJinja) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{{ '{:>5}|{:*^7}|{:,}|{:#x}|{:.1%}'.format('a', 'd', 1234567, 255, 0.123) }}",
       "    a|***d***|1,234,567|0xff|12.3%"},
      {"{{ '%5s|%-5s|%05d|%+d|%r|%%' % ('r', 'l', 42, 7, 'q') }}", "    r|l    |00042|+7|'q'|%"},
      {"{{ ' a b c '.rsplit(none, 1) }}", "[' a b', 'c']"},
      {"{{ 'aaa'.rsplit('aa') }}{{ 'aaa'.split('aa') }}", "['a', '']['', 'a']"},
      {"{{ '\xC3\x84\xC3\xA9\xE6\x97\xA5'[::-1] }}", "\xE6\x97\xA5\xC3\xA9\xC3\x84"},
      {"{{ 'a\\n\\nb'|indent(2, blank=true) }}", "a\n  \n  b"},
      {"{{ [1, 2, 3, 4]|slice(3)|list }}", "[[1, 2], [3], [4]]"},
      {"{{ -7 // 2 }} {{ -7 % 3 }} {{ 7.5 % -2 }} {{ -7.5 // 2 }}", "-4 2 -0.5 -4.0"},
      {"{{ 2 ** 3 ** 2 }} {{ -2 ** 2 }}", "64 4"},
      {"{{ ('<'|e) + '<' }} {{ ('<'|safe) ~ '<' }}", "&lt;&lt; <<"},
      {"{% set g = [1, 2]|select %}{{ g|list }}{{ g|list }}", "[1, 2][]"},
      {"{% for g in [{'k': 1}, {'k': 0}]|groupby('k') %}{{ g.grouper }}{{ g.list|length }} {% endfor %}",
       "01 11 "},
      {"{% macro f(a, b=a) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, 3, x=4) }}",
       "12(3,){'x': 4}"},
      {"{% for n in [{'v': 1, 'c': [{'v': 2, 'c': []}]}] recursive %}{{ n.v }}@{{ loop.depth }}({{ loop(n.c) "
       "}}){% endfor %}",
       "1@1(2@2())"},
      {"{% for x in [3, 1, 2] %}{% set y %}a{% if x == 1 %}{% break %}{% endif %}{% endset %}{{ y }}{% "
       "endfor %}",
       "a"},
      {"{% set ns = namespace(a=1) %}{{ ns }}", "<Namespace {'a': 1}>"},
      {"{{ [none, none]|sort }}", "[None, None]"},
      {"{{ '{\"b\": [1, 2.5], \"a\": {}}'|from_json }}", "{'b': [1, 2.5], 'a': {}}"},
      {"{{ range(10)[::3] }} {{ range(5)|last }}", "range(0, 10, 3) 4"},
      {"{% generation %}x{% endgeneration %}", "x"},
  };
  for (const auto& [source, expected] : cases) EXPECT_EQ(text(source), expected) << source;
}

TEST(ChatTemplate, ThreadsShareOneTemplate) {
  const auto parsed = ChatTemplate::parse(
      "{% macro f(x) %}<{{ x }}>{% endmacro %}{% set ns = namespace(n=0) %}"
      "{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ f(m.content) }}{% endfor %}{{ ns.n }}");
  ASSERT_TRUE(parsed.ok());
  std::vector<std::string> results(4);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < results.size(); ++t) {
    threads.emplace_back([&, t] {
      Json messages = Json::array();
      for (size_t i = 0; i <= t; ++i) messages.push_back({{"role", "user"}, {"content", std::to_string(t)}});
      ChatInputs inputs;
      inputs.messages = &messages;
      for (int round = 0; round < 50; ++round) {
        auto result = parsed->render(inputs);
        results[t] = result.ok() ? *result : result.status().to_string();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(results, (std::vector<std::string>{"<0>1", "<1><1>2", "<2><2><2>3", "<3><3><3><3>4"}));
}

}  // namespace
}  // namespace dspark
