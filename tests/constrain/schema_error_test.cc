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
  expect_error(R"({"type":"object","properties":{"a":{"not":{}}}})", "s#/properties/a: keyword 'not'",
               unsupported_code);
  expect_error(R"({"items":{"uniqueItems":true}})", "s#/items: keyword 'uniqueItems'", unsupported_code);
  expect_error(R"({"typ":"string"})", "keyword 'typ'", unsupported_code);
  expect_error(R"({"$ref":"http://x/y"})", "only references inside", unsupported_code);
  expect_error(R"({"$ref":"#/$defs/none"})", "there is no '$defs'");
  expect_error(R"x({"pattern":"a(?=b)"})x", "look-around", unsupported_code);
  expect_error(R"({"pattern":"(a"})", "a group is not closed");
  expect_error(R"({"pattern":"a**"})", "nothing to repeat");
  expect_error(R"x({"pattern":"(a)\\1"})x", "not supported", unsupported_code);
  expect_error(R"({"pattern":"^(ab)+$","maxLength":5})", "put the lengths into the pattern",
               unsupported_code);
  expect_error(R"({"type":"strin"})", "'type' must name types of JSON, found \"strin\"");
  expect_error(R"({"type":"string","minLength":-1})", "'minLength' must be a whole number");
  expect_error(R"({"type":"string","maxLength":1000000000})", "may be at most",
               StatusCode::kResourceExhausted);
  expect_error(R"({"type":"integer","minimum":"x"})", "'minimum' must be a number");
  expect_error(R"({"type":"integer","minimum":1e300})", "between -1e15 and 1e15");
  expect_error(R"({"enum":["a"],"minLength":3})", "beside 'enum'", unsupported_code);
  expect_error("{\"type\":", "s: ");
  expect_error("", "s: ");
  expect_error("3", "expected a schema");
}

TEST(JsonSchemaErrors, ContradictionsAcceptNothing) {
  for (const char* schema :
       {"false", R"({"type":"integer","minimum":5,"maximum":4})", R"({"enum":[]})",
        R"({"type":"string","minLength":4,"maxLength":3})",
        R"({"allOf":[{"type":"string"},{"type":"integer"}]})", R"({"type":"string","enum":[1]})",
        R"({"anyOf":[false,{"enum":[]}]})", R"({"type":"object","properties":{"a":false},"required":["a"]})",
        R"({"type":"number","minimum":1,"exclusiveMaximum":1})"}) {
    const Result<Grammar> grammar = Grammar::from_json_schema(schema);
    EXPECT_FALSE(grammar.ok()) << schema;
  }
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

}  // namespace
}  // namespace dspark
