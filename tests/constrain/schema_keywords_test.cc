// Keyword by keyword: which texts the grammar of a schema has, and which it has not.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "constrain/grammar.h"

namespace dspark {
namespace {

using Texts = std::vector<const char*>;

void expect_texts(const std::string& schema, const Texts& accepted, const Texts& refused) {
  const Result<Grammar> grammar = Grammar::from_json_schema(schema, "s");
  ASSERT_TRUE(grammar.ok()) << schema << "\n" << grammar.status().message();
  for (const char* text : accepted) EXPECT_TRUE(grammar->matches(text)) << schema << "\n" << text;
  for (const char* text : refused) EXPECT_FALSE(grammar->matches(text)) << schema << "\n" << text;
}

TEST(SchemaKeywords, PatternProperties) {
  expect_texts(
      R"({"type":"object","patternProperties":{"^x-":{"type":"integer"}},"additionalProperties":false})",
      {"{}", R"({"x-a":1})", R"({"x-a":1,"x-b":2})", R"({"x-":0})"},
      {R"({"a":1})", R"({"x-a":"s"})", R"({"xa":1})", R"({"ax-":1})"});
  // Members of other names only where additionalProperties asks for them.
  expect_texts(R"({"patternProperties":{"^x-":{"type":"integer"}},"additionalProperties":{"type":"string"}})",
               {R"({"x-a":1,"b":"s"})", R"({"b":"s","x-a":1})"}, {R"({"x-a":"s"})", R"({"b":1})"});
  expect_texts(R"({"type":"object","patternProperties":{"^x-":{"type":"integer"}}})", {R"({"x-a":1})"},
               {R"({"b":"s"})"});
  // A declared name that a pattern matches must be both.
  expect_texts(
      R"({"properties":{"x-a":{"minimum":5},"b":{"const":1}},"patternProperties":{"^x-":{"type":"integer","maximum":9}},
                   "required":["b"],"additionalProperties":false})",
      {R"({"x-a":7,"b":1})", R"({"b":1,"x-c":0})", R"({"b":1})"},
      {R"({"x-a":3,"b":1})", R"({"x-a":10,"b":1})", R"({"b":1,"x-a":0})", R"({"b":1,"c":0})"});
  // Where patterns overlap both count.
  expect_texts(
      R"({"patternProperties":{"^a":{"minimum":5},"b$":{"type":"integer","maximum":9}},"additionalProperties":false})",
      {R"({"ab":7})", R"({"axb":5,"b":0,"a":100})"},
      {R"({"ab":3})", R"({"ab":10})", R"({"b":10})", R"({"c":1})"});
  // A required name that only a pattern speaks of.
  expect_texts(
      R"({"type":"object","patternProperties":{"^n":{"type":"null"}},"required":["n1"],"additionalProperties":false})",
      {R"({"n1":null})", R"({"n1":null,"n2":null})"}, {"{}", R"({"n2":null})", R"({"n1":1})"});
}

TEST(SchemaKeywords, PropertyNames) {
  expect_texts(
      R"({"properties":{"id":{"const":1}},"required":["id"],"additionalProperties":{"type":"boolean"},
                   "propertyNames":{"pattern":"^[a-z]+$","maxLength":4}})",
      {R"({"id":1})", R"({"id":1,"abcd":true})"},
      {R"({"id":1,"abcde":true})", R"({"id":1,"A":true})", R"({"id":1,"id":true})"});
  // A declared name that is not allowed is never written.
  expect_texts(R"({"properties":{"ab":{},"c":{}},"propertyNames":{"maxLength":1}})", {"{}", R"({"c":1})"},
               {R"({"ab":1})"});
  expect_texts(
      R"({"type":"object","additionalProperties":{"type":"null"},"propertyNames":{"enum":["a","b"]}})",
      {"{}", R"({"a":null})", R"({"b":null,"a":null})"}, {R"({"c":null})"});
}

TEST(SchemaKeywords, NumbersOfProperties) {
  expect_texts(
      R"({"properties":{"a":{"const":1},"b":{"const":2},"c":{"const":3}},"minProperties":1,"maxProperties":2})",
      {R"({"a":1})", R"({"b":2})", R"({"c":3})", R"({"a":1,"c":3})", R"({"b":2,"c":3})"},
      {"{}", R"({"a":1,"b":2,"c":3})", R"({"c":3,"a":1})"});
  expect_texts(R"({"properties":{"a":{"const":1},"b":{"const":2}},"required":["b"],"minProperties":2})",
               {R"({"a":1,"b":2})"}, {R"({"b":2})", R"({"a":1})"});
  expect_texts(
      R"({"properties":{"a":{"const":1}},"additionalProperties":{"const":0},"minProperties":2,"maxProperties":3})",
      {R"({"a":1,"x":0})", R"({"a":1,"x":0,"y":0})"},
      {R"({"a":1})", R"({"x":0})", R"({"a":1,"x":0,"y":0,"z":0})", "{}"});
}

TEST(SchemaKeywords, MultiplesOfIntegers) {
  expect_texts(R"({"type":"integer","multipleOf":10})", {"0", "10", "-20", "1230", "100"},
               {"5", "-0", "010", "11", "1e1", "-1"});
  expect_texts(R"({"type":"integer","multipleOf":7})", {"0", "7", "-14", "700", "1000000001", "14"},
               {"1", "8", "-13", "1000000006", "70.0", "00"});
  expect_texts(R"({"type":"integer","multipleOf":15,"minimum":40,"maximum":9000})",
               {"45", "60", "8985", "9000", "105"}, {"30", "44", "9015", "46", "0", "-45"});
  expect_texts(R"({"type":"integer","multipleOf":250,"minimum":-3000000,"exclusiveMaximum":3000000})",
               {"-3000000", "2999750", "0", "250", "-250", "1000"}, {"3000000", "-3000250", "100", "25"});
  // Few multiples are listed, whatever the step.
  expect_texts(R"({"type":"integer","multipleOf":86399,"minimum":1,"maximum":900000})", {"86399", "863990"},
               {"0", "86400", "950389"});
  expect_texts(R"({"type":"integer","multipleOf":1.5,"minimum":1,"maximum":7})", {"3", "6"},
               {"1", "2", "4", "5", "7", "4.5"});
  expect_texts(R"({"type":"integer","multipleOf":0.5})", {"1", "-7", "0"}, {"0.5"});
  expect_texts(R"({"type":"number","multipleOf":5,"minimum":0.5,"maximum":10.5})", {"5", "10"},
               {"0", "15", "7.5"});
  expect_texts(R"({"allOf":[{"type":"integer","multipleOf":4,"minimum":0},{"multipleOf":6}]})",
               {"0", "12", "24"}, {"4", "6", "18"});
}

TEST(SchemaKeywords, MultiplesOfFractions) {
  expect_texts(R"({"type":"number","multipleOf":0.5})", {"0", "0.5", "-0.5", "12.5", "-3", "7"},
               {"0.25", "1.50", "-0", "1e1", ".5"});
  expect_texts(R"({"type":"number","multipleOf":0.25,"exclusiveMinimum":0,"maximum":1000})",
               {"0.25", "0.75", "1", "1000", "999.75"}, {"0", "1000.25", "0.1", "-0.25"});
  expect_texts(R"({"type":"number","multipleOf":0.5,"minimum":-2.25,"maximum":-0.25})",
               {"-2", "-1.5", "-0.5"}, {"-2.5", "0", "0.5", "-0.25"});
  expect_texts(R"({"type":"number","multipleOf":2.5,"minimum":-5,"maximum":5})",
               {"-5", "-2.5", "0", "2.5", "5"}, {"1", "0.5", "7.5", "-0"});
}

TEST(SchemaKeywords, UniqueItems) {
  expect_texts(R"({"type":"array","items":{"enum":["a","b",1]},"uniqueItems":true})",
               {"[]", R"(["a"])", R"(["b","a"])", R"([1, "b", "a"])"},
               {R"(["a","a"])", R"([1,"a",1])", R"(["c"])"});
  expect_texts(
      R"({"type":"array","items":{"type":["boolean","null"]},"uniqueItems":true,"minItems":2,"maxItems":2})",
      {"[true,false]", "[null,true]"}, {"[true]", "[true,true]", "[true,false,null]", "[]"});
  expect_texts(R"({"type":"array","items":{"type":"integer","minimum":1,"maximum":3},"uniqueItems":true})",
               {"[3,1,2]"}, {"[1,1]", "[4]", "[1,2,3,3]"});
  // Many values come in the order of the schema.
  expect_texts(R"({"type":"array","items":{"enum":[1,2,3,4,5,6,7,8,9,10]},"uniqueItems":true,"minItems":2})",
               {"[1,10]", "[2,3,4]"}, {"[10,1]", "[1,1]", "[1]"});
  // Equal values of a list count once; the same number written in two ways is one value.
  expect_texts(R"({"type":"array","items":{"enum":[1,1.0,2]},"uniqueItems":true})", {"[1,2]", "[2,1]"},
               {"[1,1.0]", "[1.0]"});
  // Some of them must be there.
  expect_texts(
      R"({"type":"array","items":{"enum":["a","b","c"]},"uniqueItems":true,"contains":{"pattern":"[ab]"},"maxContains":1})",
      {R"(["a"])", R"(["c","b"])"}, {"[]", R"(["c"])", R"(["a","b"])", R"(["b","b"])"});
  // One item is always unique.
  expect_texts(R"({"type":"array","items":{"type":"string"},"uniqueItems":true,"maxItems":1})",
               {"[]", R"(["x"])"}, {R"(["x","y"])"});
  expect_texts(R"({"type":"array","items":{"type":"string"},"uniqueItems":false})", {R"(["x","x"])"}, {});
}

TEST(SchemaKeywords, Contains) {
  expect_texts(R"({"type":"array","items":{"type":"integer"},"contains":{"const":7}})",
               {"[7]", "[1,7]", "[7,2]", "[7,7]", "[1,7,2,7]"}, {"[]", "[1]", "[1,2]", R"(["7"])", "[77]"});
  expect_texts(
      R"({"type":"array","items":{"enum":["a","b"]},"contains":{"const":"a"},"minContains":2,"maxItems":3})",
      {R"(["a","a"])", R"(["a","b","a"])"}, {R"(["a"])", R"(["a","b","b"])", R"(["a","a","b","b"])"});
  expect_texts(
      R"({"type":"array","items":{"enum":["a","b"]},"contains":{"const":"a"},"maxContains":1,"minItems":2})",
      {R"(["a","b"])", R"(["b","b","a"])"}, {R"(["a","a"])", R"(["b","b"])", R"(["a"])"});
  expect_texts(
      R"({"type":"array","items":{"enum":["a","b"]},"contains":{"const":"a"},"minContains":0,"maxContains":1})",
      {"[]", R"(["b"])", R"(["b","a","b"])"}, {R"(["a","a"])"});
}

TEST(SchemaKeywords, Not) {
  expect_texts(R"({"type":"string","not":{"const":"no"}})", {R"("")", R"("n")", R"("nope")", R"("yes")"},
               {R"("no")", R"("\u006eo")", "1"});
  expect_texts(R"({"type":"string","not":{"enum":["",  "x"]},"maxLength":2})", {R"("y")", R"("xx")"},
               {R"("")", R"("x")", R"("xxx")"});
  expect_texts(R"({"type":"string","pattern":"^[a-z]+$","not":{"pattern":"^(if|else)$"}})",
               {R"("iff")", R"("i")"}, {R"("if")", R"("else")", R"("A")"});
  expect_texts(R"({"enum":[1,2,"a",null],"not":{"type":["string","null"]}})", {"1", "2"}, {R"("a")", "null"});
  expect_texts(R"({"type":"integer","minimum":0,"maximum":3,"not":{"enum":[0,2]}})", {"1", "3"},
               {"0", "2", "4"});
  expect_texts(R"({"type":["boolean","null"],"not":{"const":true}})", {"false", "null"}, {"true"});
  expect_texts(R"({"type":"number","not":{"minimum":5}})", {"4", "-1.5"}, {"5", "6"});
  expect_texts(R"({"properties":{"a":{"const":1},"b":{"const":2}},"not":{"required":["a","b"]}})",
               {"{}", R"({"a":1})", R"({"b":2})"}, {R"({"a":1,"b":2})"});
  expect_texts(
      R"({"type":"integer","minimum":1,"maximum":9,"not":{"anyOf":[{"const":3},{"maximum":2},{"minimum":8}]}})",
      {"4", "7"}, {"1", "2", "3", "8", "9"});
  expect_texts(R"({"type":"integer","not":{"not":{"maximum":3,"minimum":3}}})", {"3"}, {"2", "4"});
  expect_texts(R"({"type":"object","properties":{"a":{"not":{}}}})", {"{}"}, {R"({"a":1})"});
}

TEST(SchemaKeywords, IfThenElse) {
  const std::string payment =
      R"({"type":"object","properties":{"kind":{"enum":["card","cash"]},"number":{"const":"1"},"coins":{"const":2}},
      "required":["kind"],"if":{"properties":{"kind":{"const":"card"}}},"then":{"required":["number"]},"else":{"required":["coins"]},
      "additionalProperties":false})";
  expect_texts(payment,
               {R"({"kind":"card","number":"1"})", R"({"kind":"cash","coins":2})",
                R"({"kind":"card","number":"1","coins":2})", R"({"kind":"cash","number":"1","coins":2})"},
               {R"({"kind":"card"})", R"({"kind":"cash"})", R"({"kind":"card","coins":2})",
                R"({"kind":"cash","number":"1"})"});
  // Several, as lists of cases are written.
  expect_texts(
      R"({"type":"object","properties":{"t":{"enum":["a","b","c"]},"v":{}},"required":["t","v"],"additionalProperties":false,"allOf":[
                   {"if":{"properties":{"t":{"const":"a"}},"required":["t"]},"then":{"properties":{"v":{"type":"integer"}}}},
                   {"if":{"properties":{"t":{"const":"b"}},"required":["t"]},"then":{"properties":{"v":{"type":"boolean"}}}},
                   {"if":{"properties":{"t":{"const":"c"}},"required":["t"]},"then":{"properties":{"v":{"type":"null"}}}}]})",
      {R"({"t":"a","v":1})", R"({"t":"b","v":true})", R"({"t":"c","v":null})"},
      {R"({"t":"a","v":true})", R"({"t":"b","v":1})", R"({"t":"c","v":1})", R"({"t":"d","v":1})",
       R"({"t":"a"})"});
  // "then" without "if" says nothing.
  expect_texts(R"({"type":"integer","then":false})", {"1"}, {"null"});
}

TEST(SchemaKeywords, ManyCasesOfOneMember) {
  std::string values, cases;
  for (int i = 0; i < 12; ++i) {
    const std::string name = "\"v" + std::to_string(i) + "\"";
    values += (i > 0 ? "," : "") + name;
    cases += (i > 0 ? "," : "") + std::string(R"({"if":{"properties":{"t":{"const":)") + name +
             R"(}},"required":["t"]},"then":{"properties":{"n":{"const":)" + std::to_string(i) + "}}}}";
  }
  expect_texts(R"({"type":"object","properties":{"t":{"enum":[)" + values +
                   R"(]},"n":{"type":"integer"}},"required":["t","n"],
                   "allOf":[)" +
                   cases + "]}",
               {R"({"t":"v0","n":0})", R"({"t":"v11","n":11})"},
               {R"({"t":"v0","n":1})", R"({"t":"v11","n":0})", R"({"t":"v12","n":12})"});
}

TEST(SchemaKeywords, Dependencies) {
  for (const char* keyword : {"dependentRequired", "dependencies"}) {
    expect_texts(R"({"type":"object","properties":{"card":{"const":1},"address":{"const":2}},")" +
                     std::string(keyword) + R"(":{"card":["address"]},"additionalProperties":false})",
                 {"{}", R"({"address":2})", R"({"card":1,"address":2})"}, {R"({"card":1})"});
  }
  for (const char* keyword : {"dependentSchemas", "dependencies"}) {
    expect_texts(R"({"type":"object","properties":{"a":{"const":1},"b":{"type":"integer"}},")" +
                     std::string(keyword) + R"(":{"a":{"required":["b"],"properties":{"b":{"minimum":5}}}}})",
                 {"{}", R"({"b":1})", R"({"a":1,"b":5})"}, {R"({"a":1})", R"({"a":1,"b":4})"});
  }
}

TEST(SchemaKeywords, OneOfIsNotAnyOf) {
  // What two parts accept is refused.
  expect_texts(
      R"({"oneOf":[{"type":"integer","minimum":0,"maximum":5},{"type":"integer","minimum":3,"maximum":9}]})",
      {"0", "2", "6", "9"}, {"3", "5", "10"});
  expect_texts(R"({"oneOf":[{"enum":["a","b"]},{"enum":["b","c"]}]})", {R"("a")", R"("c")"}, {R"("b")"});
  expect_texts(
      R"({"type":"object","properties":{"a":{"const":1},"b":{"const":2}},"oneOf":[{"required":["a"]},{"required":["b"]}]})",
      {R"({"a":1})", R"({"b":2})"}, {R"({"a":1,"b":2})", "{}"});
  // Parts that nothing tells apart but what they require.
  expect_texts(R"({"oneOf":[{"type":"object","properties":{"email":{"const":"e"}},"required":["email"]},
                            {"type":"object","properties":{"phone":{"const":"p"}},"required":["phone"]}]})",
               {R"({"email":"e"})", R"({"phone":"p"})"}, {R"({"email":"e","phone":"p"})", "{}"});
  // A kind that may be left out, as defaults are.
  expect_texts(
      R"({"oneOf":[{"type":"object","properties":{"kind":{"const":"cat"},"n":{"const":1}},"required":["n"]},
                            {"type":"object","properties":{"kind":{"const":"dog"},"n":{"const":1}},"required":["n"]}]})",
      {R"({"kind":"cat","n":1})", R"({"kind":"dog","n":1})"}, {R"({"n":1})", R"({"kind":"cow","n":1})"});
  // Members of another part are not brought in where there is a way without them.
  expect_texts(
      R"({"oneOf":[{"type":"object","properties":{"kind":{"const":"a"},"x":{"const":1}},"required":["x"]},
                            {"type":"object","properties":{"kind":{"const":"b"},"x":{"const":1},"y":{"type":"integer"}},"required":["x"]}]})",
      {R"({"kind":"a","x":1})", R"({"kind":"b","x":1,"y":2})"}, {R"({"x":1})", R"({"x":1,"y":"s"})"});
  expect_texts(R"({"oneOf":[{"type":"string"},{"type":"array","items":{"type":"string"}},{"type":"null"}]})",
               {R"("a")", R"(["a"])", "[]", "null"}, {"1"});
}

TEST(SchemaKeywords, UnevaluatedProperties) {
  expect_texts(R"({"$defs":{"base":{"type":"object","properties":{"id":{"const":1}},"required":["id"]}},
                   "allOf":[{"$ref":"#/$defs/base"}],"properties":{"name":{"const":"n"}},"unevaluatedProperties":false})",
               {R"({"name":"n","id":1})", R"({"id":1})"}, {R"({"id":1,"x":1})", "{}"});
  expect_texts(R"({"type":"object","properties":{"a":{"const":1}},"unevaluatedProperties":{"type":"null"}})",
               {R"({"a":1,"b":null})", "{}"}, {R"({"b":1})"});
}

TEST(SchemaKeywords, PatternsBesideLengths) {
  expect_texts(R"({"type":"string","pattern":"^[a-z]+(-[a-z]+)*$","minLength":3,"maxLength":6})",
               {R"("abc")", R"("ab-cd")", R"("a-b-c")"},
               {R"("ab")", R"("ab-cdef")", R"("a--b")", R"("abc-")"});
  expect_texts(R"({"type":"string","pattern":"^(ab)+$","maxLength":5})", {R"("ab")", R"("abab")"},
               {R"("ababab")", R"("")"});
  expect_texts(R"({"type":"string","pattern":"@","maxLength":3})", {R"("@")", R"("a@b")", R"("@@@")"},
               {R"("abc")", R"("a@bc")"});
}

TEST(SchemaKeywords, FormatsBesideLengths) {
  expect_texts(R"({"type":"string","format":"email","maxLength":254})", {R"("a.b@c.de")"}, {R"("a")"});
  expect_texts(R"({"type":"string","format":"uuid","minLength":36,"maxLength":36})",
               {R"("01234567-89ab-cdef-0123-456789abcdef")"}, {R"("")"});
  expect_texts(R"({"type":"string","format":"ipv6"})", {R"("2001:db8:0:0:0:0:0:1")"},
               {R"("::1")", R"("1:2:3:4:5:6:7")", R"("10.0.0.1")"});
  expect_texts(R"({"type":"string","format":"duration"})",
               {R"("P1D")", R"("PT5M")", R"("P1Y2M3DT4H5M6S")", R"("P3W")", R"("PT1H30M")"},
               {R"("P")", R"("PT")", R"("P1DT")", R"("P1Y3D")", R"("PT1H6S")", R"("1D")", R"("P1W2D")"});
  expect_texts(R"({"type":"string","format":"json-pointer"})", {R"("")", R"("/a/0")", R"("/a~1b/~0")"},
               {R"("a")", R"("/~2")"});
  expect_texts(R"({"type":"string","format":"uri-reference"})", {R"("/a/b")", R"("https://a.bc/d")"},
               {R"("")", R"("a b")"});
}

TEST(SchemaKeywords, ValuesBesideOtherKeywords) {
  expect_texts(R"({"enum":["a","bb","ccc",4],"minLength":2,"pattern":"^[a-z]*$"})",
               {R"("bb")", R"("ccc")", "4"}, {R"("a")"});
  expect_texts(R"({"enum":[1,2,3,4],"minimum":2,"multipleOf":2})", {"2", "4"}, {"1", "3"});
  expect_texts(
      R"({"enum":[{"a":1},{"b":2},{"a":"x"}],"required":["a"],"properties":{"a":{"type":"integer"}}})",
      {R"({"a":1})"}, {R"({"b":2})", R"({"a":"x"})"});
  expect_texts(R"({"enum":[[1,2],[1],[]],"contains":{"const":1},"uniqueItems":true,"maxItems":1})", {"[1]"},
               {"[1,2]", "[]"});
  expect_texts(R"({"allOf":[{"enum":["a","b"]},{"type":"string","not":{"const":"a"}}]})", {R"("b")"},
               {R"("a")"});
  expect_texts(R"({"allOf":[{"const":1},{"enum":[1,2]}]})", {"1"}, {"2"});
}

TEST(SchemaKeywords, PartsOfAllOf) {
  // One says tuple, the other says list: the tuple's items are of both.
  expect_texts(
      R"({"type":"array","allOf":[{"items":{"type":"integer"}},{"prefixItems":[{"minimum":5},{}],"minItems":2}]})",
      {"[5,1]", "[9,0,3]"}, {"[4,1]", R"([5,"a"])", "[5]"});
  // Null is allowed where all parts allow it.
  expect_texts(R"({"allOf":[{"type":"string","nullable":true},{"type":"string"}]})", {R"("a")"}, {"null"});
  expect_texts(R"({"allOf":[{"type":"string","nullable":true},{"maxLength":1,"nullable":true}]})",
               {R"("a")", "null"}, {R"("ab")"});
  // Alternatives that contradict each other are dropped.
  expect_texts(
      R"({"allOf":[{"anyOf":[{"const":1},{"const":2},{"const":3}]},{"anyOf":[{"const":3},{"const":2},{"const":4}]}]})",
      {"2", "3"}, {"1", "4"});
  // Patterns of one part hold for members that another one declares.
  expect_texts(
      R"({"type":"object","allOf":[{"patternProperties":{"^n":{"type":"integer"}}},{"properties":{"n1":{"maximum":3},"s":{"const":"s"}}}]})",
      {R"({"n1":2,"s":"s"})", R"({"n2":9})"}, {R"({"n1":4})", R"({"n1":"a"})", R"({"n2":"a"})"});
}

}  // namespace
}  // namespace dspark
