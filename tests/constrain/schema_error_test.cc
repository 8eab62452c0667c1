// What a schema is refused for, and how it is said.

#include <gtest/gtest.h>

#include <string>

#include "constrain/grammar.h"

namespace dspark {
namespace {

void expect_error(const std::string& schema, const std::string& message,
                  StatusCode code = StatusCode::kInvalidArgument) {
  const Result<Grammar> grammar = Grammar::from_json_schema(schema, "s");
  ASSERT_FALSE(grammar.ok()) << schema;
  EXPECT_NE(grammar.status().message().find(message), std::string::npos) << schema << "\n"
                                                                         << grammar.status().message();
  EXPECT_EQ(grammar.status().code(), code) << schema << "\n" << grammar.status().message();
}

TEST(JsonSchemaErrors, NameKeywordAndPlace) {
  const StatusCode unsupported_code = StatusCode::kUnsupported;
  expect_error(R"({"typ":"string"})", "keyword 'typ'", unsupported_code);
  expect_error(R"({"$ref":"http://x/y"})", "only references inside", unsupported_code);
  expect_error(R"({"$ref":"#/$defs/none"})", "there is no '$defs'");
  expect_error(R"x({"pattern":"a(?=b)"})x", "look-around", unsupported_code);
  expect_error(R"({"pattern":"(a"})", "a group is not closed");
  expect_error(R"({"pattern":"a**"})", "nothing to repeat");
  expect_error(R"x({"pattern":"(a)\\1"})x", "not supported", unsupported_code);
  expect_error(R"({"type":"strin"})", "'type' must name types of JSON, found \"strin\"");
  expect_error(R"({"type":"string","minLength":-1})", "'minLength' must be a whole number");
  expect_error(R"({"type":"string","maxLength":1000000000})", "may be at most",
               StatusCode::kResourceExhausted);
  expect_error(R"({"type":"integer","minimum":"x"})", "'minimum' must be a number");
  expect_error(R"({"type":"integer","minimum":1e300})", "between -1e15 and 1e15");
  expect_error(R"({"enum":["a"],"format":"date"})", "'format' beside 'enum'", unsupported_code);
  expect_error("{\"type\":", "s: ");
  expect_error("", "s: ");
  expect_error("3", "expected a schema");
}

// What cannot be told exactly is refused by name, never left away.
TEST(JsonSchemaErrors, NameWhatIsNotExact) {
  const StatusCode unsupported_code = StatusCode::kUnsupported;
  const auto refused = [&](const std::string& schema, const std::string& message) {
    expect_error(schema, message, unsupported_code);
  };
  refused(R"({"items":{"uniqueItems":true}})", "s#/items: 'uniqueItems' of items that are not few");
  refused(R"({"items":{"enum":[1,2,3,4,5,6,7,8,9]},"uniqueItems":true,"contains":{"const":1}})",
          "'contains' beside 'uniqueItems' of more than 8 values");
  refused(R"({"prefixItems":[{"const":1}],"contains":{"const":1}})", "'contains' beside 'prefixItems'");
  refused(R"({"type":"array","maxContains":1})", "'maxContains' without 'contains'");
  refused(R"({"properties":{"a":{"not":{"multipleOf":3}}}})",
          "s#/properties/a/not: the opposite of 'multipleOf'");
  refused(R"({"type":"string","not":{"format":"date"}})", "s#/not: the opposite of 'format'");
  refused(R"({"not":{"typ":"string"}})", "the opposite of 'typ'");
  refused(R"({"if":{"properties":{"a":{"items":{"const":1}}}},"then":false})",
          "s#/if: the opposite of 'items'");
  refused(R"({"if":{"type":"integer"},"else":false})", "s#/if: the opposite of 'type'");
  refused(R"({"type":"number","multipleOf":0.01})", "'multipleOf' 0.01: only whole numbers, halves");
  refused(R"({"type":"integer","multipleOf":86399})", "'multipleOf' 86399: above 1024");
  refused(R"({"type":"number","multipleOf":2.5})", "'multipleOf' 2.5");
  refused(R"({"type":"string","format":"email","maxLength":20})", "beside the format 'email'");
  refused(R"({"type":"string","format":"date","pattern":"^2"})", "'pattern' beside 'format'");
  refused(R"({"additionalProperties":{"type":"null"},"minProperties":2})", "'minProperties' above");
  refused(R"({"properties":{"a":{}},"additionalProperties":true,"propertyNames":{"format":"uuid"}})",
          "'propertyNames'");
  refused(R"({"allOf":[{"patternProperties":{"^a":{}}},{"additionalProperties":false}]})",
          "'patternProperties' cannot be combined with the 'additionalProperties'");
  refused(R"({"allOf":[{"contains":{"const":1}},{"contains":{"const":2}}]})", "two different 'contains'");
  refused(R"({"anyOf":[{"properties":{"a":{}}}],"unevaluatedProperties":false})",
          "'unevaluatedProperties' beside alternatives");
  refused(R"({"oneOf":[{"multipleOf":2,"type":"integer"},{"uniqueItems":true}]})", "");
  refused(
      R"({"oneOf":[{"type":"array","uniqueItems":true,"items":{"const":1}},{"type":"array","items":{"const":1},"maxItems":3}]})",
      "");
  refused(R"x({"patternProperties":{"(?=a)":{}}})x", "look-around");
  refused(R"({"$dynamicRef":"#a"})", "keyword '$dynamicRef'");
}

TEST(JsonSchemaErrors, NameTheKeywordOfTheWrongKind) {
  expect_error(R"({"multipleOf":0})", "'multipleOf' must be a number above 0");
  expect_error(R"({"multipleOf":"x"})", "'multipleOf' must be a number above 0");
  expect_error(R"({"type":"array","uniqueItems":1})", "'uniqueItems' must be a boolean");
  expect_error(R"({"type":"array","contains":true,"minContains":-1})",
               "'minContains' must be a whole number");
  expect_error(R"({"patternProperties":[]})", "'patternProperties' must be an object");
  expect_error(R"({"patternProperties":{"(a":{}}})", "s#/patternProperties/(a: pattern, offset");
  expect_error(R"({"dependentRequired":{"a":"b"}})", "'dependentRequired' must list names");
  expect_error(R"({"dependentRequired":["a"]})", "'dependentRequired' must be an object");
  expect_error(R"({"not":3})", "s#/not: expected a schema");
  expect_error(R"({"type":"string","not":{"const":1},"pattern":3})", "'pattern' must be a string");
}

TEST(JsonSchemaErrors, ContradictionsAcceptNothing) {
  for (const char* schema : {"false",
                             R"({"type":"integer","minimum":5,"maximum":4})",
                             R"({"enum":[]})",
                             R"({"type":"string","minLength":4,"maxLength":3})",
                             R"({"allOf":[{"type":"string"},{"type":"integer"}]})",
                             R"({"type":"string","enum":[1]})",
                             R"({"anyOf":[false,{"enum":[]}]})",
                             R"({"type":"object","properties":{"a":false},"required":["a"]})",
                             R"({"type":"number","minimum":1,"exclusiveMaximum":1})",
                             R"({"enum":["a"],"minLength":3})",
                             R"({"not":{}})",
                             R"({"type":"string","format":"date","maxLength":5})",
                             R"({"type":"string","not":{"type":"string"}})",
                             R"({"allOf":[{"const":1},{"const":2}]})",
                             R"({"type":"integer","multipleOf":10,"minimum":1,"maximum":9})",
                             R"({"type":"array","contains":false})",
                             R"({"type":"string","pattern":"^a{4}$","maxLength":3})",
                             R"({"properties":{"a":{}},"minProperties":2})",
                             R"({"oneOf":[{"const":1},{"const":1}]})",
                             R"({"type":"array","items":{"const":1},"uniqueItems":true,"minItems":2})"}) {
    const Result<Grammar> grammar = Grammar::from_json_schema(schema);
    EXPECT_FALSE(grammar.ok()) << schema;
  }
}

// Combinations that multiply are given up in time.
TEST(JsonSchemaErrors, CombinationsEnd) {
  std::string alternatives, cases, dependencies;
  for (int i = 0; i < 20; ++i) {
    const std::string n = std::to_string(i);
    alternatives += (i > 0 ? "," : "") + std::string(R"({"anyOf":[{"required":["a)") + n +
                    R"("]},{"required":["b)" + n + R"("]}]})";
    cases += (i > 0 ? "," : "") + std::string(R"({"if":{"required":["a)") + n +
             R"("]},"then":{"required":["b)" + n + R"("]}})";
    dependencies += (i > 0 ? ",\"" : "\"") + n + R"(":["x"])";
  }
  for (const std::string& schema :
       {R"({"type":"object","allOf":[)" + alternatives + "]}", R"({"type":"object","allOf":[)" + cases + "]}",
        R"({"type":"object","dependentRequired":{)" + dependencies + "}}"}) {
    expect_error(schema, "", StatusCode::kResourceExhausted);
  }
  EXPECT_FALSE(
      Grammar::from_json_schema(
          R"({"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/a"}]}},"allOf":[{"$ref":"#/$defs/a"},{"anyOf":[{"$ref":"#/$defs/a"},true]}]})")
          .ok());
  EXPECT_FALSE(
      Grammar::from_json_schema(
          R"({"$defs":{"a":{"oneOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/a"}]}},"$ref":"#/$defs/a"})")
          .ok());
}

TEST(JsonSchemaErrors, RecursionAndSizeEnd) {
  EXPECT_FALSE(Grammar::from_json_schema(R"({"$ref":"#"})").ok());
  EXPECT_FALSE(Grammar::from_json_schema(R"({"allOf":[{"$ref":"#"}]})").ok());
  EXPECT_FALSE(
      Grammar::from_json_schema(R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})")
          .ok());
  EXPECT_FALSE(Grammar::from_json_schema(
                   R"({"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"})")
                   .ok());
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += R"({"items":)";
  EXPECT_FALSE(Grammar::from_json_schema(deep).ok());
  EXPECT_FALSE(Grammar::from_json_schema(deep + "true" + std::string(100000, '}')).ok());
  EXPECT_FALSE(Grammar::from_json_schema(std::string(2 << 20, ' ')).ok());
}

// Schemas of some kilobytes that would need gigabytes or hours.
TEST(JsonSchemaErrors, BoundsWhatGrowsByMultiplication) {
  const StatusCode too_much = StatusCode::kResourceExhausted;
  const auto list = [](int n, const std::string& first, const std::string& last) {
    std::string out;
    for (int i = 0; i < n; ++i) out += (i > 0 ? "," : "") + first + std::to_string(i) + last;
    return out;
  };
  const std::string properties = list(2000, "\"p", "\":true");
  expect_error(R"({"type":"object","properties":{)" + properties + R"(},"minProperties":1000})",
               "too many ways", too_much);
  const std::string parts = list(40, R"({"minimum":)", "}");
  expect_error(
      R"({"allOf":[{"oneOf":[)" + parts + R"(]},{"oneOf":[)" + list(41, R"({"const":)", "}") + "]}]}",
      "combinations of alternatives", too_much);
  expect_error(R"({"allOf":[{"anyOf":[)" + list(200, R"({"const":)", "}") + R"(]},{"anyOf":[)" +
                   list(201, R"({"const":)", "}") + "]}]}",
               "pairs of alternatives", too_much);
  expect_error(R"({"oneOf":[)" + list(3000, R"({"minimum":)", "}") + "]}", "'oneOf' has too many parts",
               too_much);
  const auto countries =
      Grammar::from_json_schema(R"({"oneOf":[)" + list(250, R"({"const":"c)", "\"}") + "]}");
  EXPECT_TRUE(countries.ok()) << countries.status().message();
  EXPECT_TRUE(Grammar::from_json_schema(R"({"enum":[)" + list(20000, "[", "]") + "]}").ok());
}

}  // namespace
}  // namespace dspark
