// Templates that mean harm: every one ends with an error value, soon and without much memory.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "text/chat_template.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

std::string repeat(const std::string& part, size_t n) {
  std::string out;
  out.reserve(part.size() * n);
  for (size_t i = 0; i < n; ++i) out += part;
  return out;
}

// The code of parsing, or of rendering what could be parsed.
StatusCode outcome(const std::string& source, const Json& variables = Json::object()) {
  auto parsed = ChatTemplate::parse(source);
  if (!parsed.ok()) return parsed.status().code();
  return parsed->render_variables(variables).status().code();
}

constexpr auto kLimit = StatusCode::kResourceExhausted;

TEST(ChatTemplateLimits, NestedSource) {
  constexpr size_t kDeep = 100'000;
  EXPECT_EQ(outcome("{{ " + repeat("(", kDeep) + "1" + repeat(")", kDeep) + " }}"), kLimit);
  EXPECT_EQ(outcome("{{ " + repeat("[", kDeep) + repeat("]", kDeep) + " }}"), kLimit);
  EXPECT_EQ(outcome("{{ " + repeat("{1:", kDeep)), kLimit);
  EXPECT_EQ(outcome("{{ " + repeat("-", kDeep) + "1 }}"), kLimit);
  EXPECT_EQ(outcome("{{ " + repeat("not ", kDeep) + "1 }}"), kLimit);
  EXPECT_EQ(outcome("{{ 1" + repeat(" + 1", kDeep) + " }}"), kLimit);
  EXPECT_EQ(outcome("{{ 1" + repeat(" or 1", kDeep) + " }}"), kLimit);
  EXPECT_EQ(outcome("{{ 1" + repeat(" if 1 else 1", kDeep / 2) + " }}"), kLimit);
  EXPECT_EQ(outcome("{{ x" + repeat(".x", kDeep) + " }}"), kLimit);
  EXPECT_EQ(outcome("{{ x" + repeat("[0]", kDeep) + " }}"), kLimit);
  EXPECT_EQ(outcome("{{ x" + repeat("|e", kDeep) + " }}"), kLimit);
  EXPECT_EQ(outcome("{{ x" + repeat("()", kDeep) + " }}"), kLimit);
  EXPECT_EQ(outcome("{{ " + repeat("f(", kDeep) + repeat(")", kDeep) + " }}"), kLimit);
  EXPECT_EQ(outcome("{{ x" + repeat("[x", kDeep) + repeat("]", kDeep) + " }}"), kLimit);
  EXPECT_EQ(outcome(repeat("{% if 1 %}", 50'000)), kLimit);
  EXPECT_EQ(outcome(repeat("{% for a in b %}", 50'000)), kLimit);
  EXPECT_EQ(outcome("{% set " + repeat("(", kDeep) + "x" + repeat(")", kDeep) + " = 1 %}"), kLimit);
  EXPECT_EQ(outcome(repeat("x", size_t{2} << 20)), kLimit);
}

TEST(ChatTemplateLimits, ReasonableNestingIsFine) {
  EXPECT_EQ(outcome("{{ " + repeat("(", 60) + "1" + repeat(")", 60) + " }}"), StatusCode::kOk);
  EXPECT_EQ(outcome("{{ 1" + repeat(" + 1", 150) + " }}"), StatusCode::kOk);
  EXPECT_EQ(outcome(repeat("{% if 1 %}", 60) + repeat("{% endif %}", 60)), StatusCode::kOk);
  EXPECT_EQ(outcome("{{ 'a'" + repeat(" ~ 'a'", 5000) + " }}"), StatusCode::kOk);
  EXPECT_EQ(outcome("{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(50) }}"),
            StatusCode::kOk);
}

TEST(ChatTemplateLimits, Recursion) {
  EXPECT_EQ(outcome("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), kLimit);
  EXPECT_EQ(
      outcome(
          "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}"),
      kLimit);
  EXPECT_EQ(
      outcome("{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{{ caller }}{% endmacro %}{{ f() }}"),
      kLimit);
  EXPECT_EQ(outcome("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"), kLimit);
  EXPECT_EQ(outcome("{% macro f(a) %}{{ f([a]|map('string')|list) }}{% endmacro %}{{ f(1) }}"), kLimit);
}

TEST(ChatTemplateLimits, Loops) {
  EXPECT_EQ(outcome("{{ range(10000000000) }}"), StatusCode::kInvalidArgument);
  EXPECT_EQ(outcome("{% for i in range(1000000) %}{% endfor %}"), StatusCode::kInvalidArgument);
  EXPECT_EQ(outcome("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"),
            kLimit);
  EXPECT_EQ(outcome("{% for i in range(100000) if i > 5 %}{% for j in range(100000) if j < 0 %}{% endfor "
                    "%}{% endfor %}"),
            kLimit);
  EXPECT_EQ(
      outcome("{% macro f() %}{% for i in range(100000) %}{{ f() }}{% endfor %}{% endmacro %}{{ f() }}"),
      kLimit);
  EXPECT_EQ(outcome("{% for i in range(100000) %}{{ range(100000)|sum }}{% endfor %}"), kLimit);
  EXPECT_EQ(outcome("{% for i in range(100000) %}{{ i in range(100000)|list }}{% endfor %}"), kLimit);
}

TEST(ChatTemplateLimits, Strings) {
  EXPECT_EQ(outcome("{{ 'a' * 10000000000 }}"), kLimit);
  EXPECT_EQ(outcome("{{ 'a' * 16000000 * 2 }}"), kLimit);
  EXPECT_EQ(outcome("{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s "
                    "%}{% endfor %}"),
            kLimit);
  EXPECT_EQ(
      outcome(
          "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"),
      kLimit);
  EXPECT_EQ(outcome("{% set s = 'a' * 1000000 %}{% for i in range(100) %}{{ s }}{% endfor %}"), kLimit);
  EXPECT_EQ(outcome("{{ ('a' * 100000).replace('', 'b' * 100000) }}"), kLimit);
  EXPECT_EQ(outcome("{{ ('a' * 100000)|list|join('b' * 100000) }}"), kLimit);
  EXPECT_EQ(outcome("{{ 'a'.center(10 ** 30) }}"), kLimit);
  EXPECT_EQ(outcome("{{ 'a'.zfill(10 ** 12) }}{{ 'a'.ljust(10 ** 12) }}"), kLimit);
  EXPECT_EQ(outcome("{{ 'a'|indent(10 ** 12, true) }}"), kLimit);
  EXPECT_EQ(outcome("{{ 'a\tb'.expandtabs(10 ** 12) }}"), kLimit);
  EXPECT_EQ(outcome("{{ '%1000000000000d' % 1 }}"), kLimit);
  EXPECT_EQ(outcome("{{ '%*d' % (10 ** 20, 1) }}"), kLimit);
  EXPECT_EQ(outcome("{{ '%.1000000000f' % 1 }}"), kLimit);
  EXPECT_EQ(outcome("{{ '%.1000000000d' % 1 }}"), kLimit);
  EXPECT_EQ(outcome("{{ '{:>1000000000000}'.format('a') }}"), kLimit);
  EXPECT_EQ(outcome("{{ '{:.1000000000}'.format(1.5) }}"), kLimit);
  EXPECT_EQ(outcome("{{ [[1]]|tojson(indent=10 ** 12) }}"), kLimit);
  EXPECT_EQ(outcome("{{ ('a' * 2000000)|list }}"), kLimit);
  EXPECT_EQ(outcome("{{ ('a,' * 2000000).split(',') }}"), kLimit);
}

// A search that would take the product of the lengths, and the reversed one.
TEST(ChatTemplateLimits, SearchIsLinear) {
  const std::string set =
      "{% set t = 'a' * 4000000 %}{% set n = 'a' * 2000000 ~ 'b' %}{% set m = 'b' ~ 'a' * 2000000 %}";
  EXPECT_EQ(
      outcome(set + "{{ n in t }}{{ t.find(n) }}{{ t.rfind(m) }}{{ t.count(n) }}{{ t.rsplit(m)|length }}"),
      StatusCode::kOk);
}

TEST(ChatTemplateLimits, Lists) {
  EXPECT_EQ(outcome("{{ [1] * 10000000000 }}"), kLimit);
  EXPECT_EQ(outcome("{% set ns = namespace(l=[1, 2]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l "
                    "%}{% endfor %}"),
            kLimit);
  EXPECT_EQ(
      outcome(
          "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}"),
      kLimit);
  EXPECT_EQ(outcome("{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = {'a': ns.l} "
                    "%}{% endfor %}"),
            kLimit);
  EXPECT_EQ(outcome("{% set ns = namespace(l='') %}{% for i in range(100000) %}{% set ns.l = ns.l.upper if i "
                    "== 0 else [ns.l] %}{% endfor %}"),
            kLimit);
  EXPECT_EQ(outcome("{{ [1]|batch(1000000000, 0)|list }}{{ [1]|slice(1000000000)|list }}"), kLimit);
  EXPECT_EQ(outcome("{{ [range(100000)|list] * 100 }}"), kLimit);
}

// Few objects that stand for very many: printing or comparing them must not follow every path.
TEST(ChatTemplateLimits, SharedStructure) {
  const std::string bomb =
      "{% set a = namespace(l=[1]) %}{% set b = namespace(l=[1]) %}"
      "{% for i in range(80) %}{% set a.l = [a.l, a.l] %}{% set b.l = [b.l, b.l] %}{% endfor %}";
  EXPECT_EQ(outcome(bomb + "{{ a.l }}"), kLimit);
  EXPECT_EQ(outcome(bomb + "{{ a.l|tojson }}"), kLimit);
  EXPECT_EQ(outcome(bomb + "{{ a.l == b.l }}"), kLimit);
  EXPECT_EQ(outcome(bomb + "{{ a.l < b.l }}"), kLimit);
  EXPECT_EQ(outcome(bomb + "{{ a.l in [b.l] }}"), kLimit);
}

TEST(ChatTemplateLimits, CyclesAreFreedAndNotFollowed) {
  EXPECT_EQ(outcome("{% set a = namespace() %}{% set a.a = a %}{% set a.l = [a] %}"), StatusCode::kOk);
  EXPECT_EQ(outcome("{% set a = namespace() %}{% set a.a = a %}{{ a }}"), kLimit);
  EXPECT_EQ(outcome("{% set a = namespace() %}{% macro f() %}{{ a }}{% endmacro %}{% set a.f = f %}"),
            StatusCode::kOk);
  EXPECT_EQ(outcome("{% set a = namespace() %}{% for x in [a] %}{% set a.l = loop %}{{ loop.changed(loop) "
                    "}}{% endfor %}"),
            StatusCode::kOk);
  EXPECT_EQ(outcome("{% set a = namespace() %}{% for x in [a] recursive %}{% set a.l = loop %}{% endfor %}"),
            StatusCode::kOk);
  EXPECT_EQ(outcome("{% set a = namespace(n=none) %}{% for i in range(50000) %}{% set a.n = namespace(n=a.n) "
                    "%}{% endfor %}"),
            StatusCode::kOk);
  EXPECT_EQ(outcome("{% set a = namespace(n=none) %}{% for i in range(50000) %}{% set a.n = namespace(n=a.n) "
                    "%}{% endfor %}{{ a }}"),
            kLimit);
  EXPECT_EQ(outcome("{% set a = namespace(n=none) %}{% for i in range(50000) %}{% macro f() %}{{ g }}{% "
                    "endmacro %}{% set a.n = f %}{% endfor %}"),
            StatusCode::kOk);
}

TEST(ChatTemplateLimits, KeptObjects) {
  EXPECT_EQ(outcome("{% for i in range(100000) %}{% for j in range(10) %}{% set x = namespace() %}{% endfor "
                    "%}{% endfor %}"),
            kLimit);
  EXPECT_EQ(outcome("{% for i in range(100000) %}{% for j in range(9) %}{% macro f() %}{% endmacro %}{% "
                    "endfor %}{% endfor %}"),
            kLimit);
  Json d = Json::object();
  for (int i = 0; i < 2000; ++i) d[std::to_string(i)] = i;
  EXPECT_EQ(outcome("{% for i in range(100000) %}{{ namespace(d) is defined }}{% endfor %}", {{"d", d}}),
            kLimit);
  EXPECT_EQ(outcome("{% macro f() %}{{ kwargs }}{{ varargs }}{% endmacro %}{{ f(*range(100000)) }}"), kLimit);
}

TEST(ChatTemplateLimits, NumbersAtTheEdge) {
  EXPECT_EQ(outcome("{{ 10 ** 1000 }}"), StatusCode::kInvalidArgument);
  EXPECT_EQ(outcome("{{ 2 ** 126 * 4 }}"), StatusCode::kInvalidArgument);
  EXPECT_EQ(outcome("{{ -((-2) ** 127) }}"), StatusCode::kInvalidArgument);
  EXPECT_EQ(outcome("{{ (-2) ** 127 // -1 }}"), StatusCode::kInvalidArgument);
  EXPECT_EQ(outcome("{{ ((-2) ** 127)|abs }}"), StatusCode::kInvalidArgument);
  EXPECT_EQ(outcome("{{ (-2) ** 127 % -1 }}{{ (-2) ** 127 }}{{ [1, 2][:: (-2) ** 127] }}{{ 'ab'[(-2) ** "
                    "127:2 ** 126] }}"),
            StatusCode::kOk);
  EXPECT_EQ(outcome("{{ [1][2 ** 126] is defined }}{{ (-2) ** 127 in range(5) }}{{ 1e300 in range(5) }}"),
            StatusCode::kOk);
  EXPECT_EQ(outcome("{{ 1e300|int }}"), StatusCode::kInvalidArgument);
  EXPECT_EQ(
      outcome("{{ 1e308|round(300) }}{{ 1.5|round(-400) }}{{ 1.5|round(10 ** 20) }}{{ 5e-324|round(340) }}"),
      StatusCode::kOk);
  EXPECT_EQ(outcome("{{ range(2 ** 100) }}"), StatusCode::kInvalidArgument);
  EXPECT_EQ(outcome("{{ range(0, 5)[:: 2 ** 62] }}{{ range(-(2 ** 61), 2 ** 61, 2 ** 60)|list }}"),
            StatusCode::kOk);
}

TEST(ChatTemplateLimits, Inputs) {
  Json deep = 1;
  for (int i = 0; i < 1000; ++i) deep = Json::array({std::move(deep)});
  EXPECT_EQ(outcome("x", {{"d", deep}}), kLimit);
  EXPECT_EQ(outcome("{{ ('[' * 100000)|from_json }}"), kLimit);
  EXPECT_EQ(outcome("{{ ('[' ~ '0,' * 2000000 ~ '0]')|from_json }}"), kLimit);
  EXPECT_EQ(outcome("x", {{"s", std::string(size_t{17} << 20, 'a')}}), kLimit);
}

// 100 000 distinct keys: quadratic handling would take minutes.
TEST(ChatTemplateLimits, LargeObjects) {
  std::string json = "{";
  for (int i = 0; i < 100'000; ++i) json += (i > 0 ? ",\"" : "\"") + std::to_string(i) + "\":0";
  json += "}";
  auto parsed = ChatTemplate::parse("{% set d = s|from_json %}{{ d|length }}{{ d['99999'] }}");
  ASSERT_TRUE(parsed.ok());
  auto result = parsed->render_variables({{"s", json}});
  ASSERT_TRUE(result.ok()) << result.status().to_string();
  EXPECT_EQ(*result, "1000000");
}

}  // namespace
}  // namespace dspark
