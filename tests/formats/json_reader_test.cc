#include "formats/json_reader.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace dspark {
namespace {

TEST(JsonReader, BuildsTheDocumentThatTheLibraryBuilds) {
  const std::string text =
      R"({"a":[1,-2,3.5,true,null,"x\u00e9"],"b":{"c":{},"d":[],"e":[[1],{"f":2}]},"big":18446744073709551615})";
  const auto parsed = parse_json(text, "text");
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_EQ(*parsed, nlohmann::json::parse(text));
  EXPECT_EQ(parse_json("7", "text").value(), nlohmann::json(7));
}

TEST(JsonReader, RefusesAKeyThatAppearsTwiceWhenAsked) {
  const std::string text = R"({"x":{"a":1,"a":2}})";
  EXPECT_EQ((*parse_json(text, "text"))["x"]["a"], 2);
  const auto refused = parse_json(text, "text", DuplicateKeys::kRefuse);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("'a' appears twice"), std::string::npos);
  EXPECT_TRUE(parse_json(R"({"a":{"a":1},"b":{"a":1}})", "text", DuplicateKeys::kRefuse).ok());
}

TEST(JsonReader, BoundsTheDepth) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(parse_json(nested(kMaxJsonDepth), "text").ok());
  EXPECT_FALSE(parse_json(nested(kMaxJsonDepth + 1), "text").ok());
}

TEST(JsonReader, NamesThePlaceOfAnError) {
  for (const char* text : {"", "{", "{} {}", "nul", "{\"a\":\"\xff\"}", "1e999", "[1,]", "{\"a\" 1}"}) {
    const auto parsed = parse_json(text, "conf.json");
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.status().code(), StatusCode::kCorruptData);
    EXPECT_EQ(parsed.status().message().find("conf.json: not valid JSON at byte"), 0u)
        << parsed.status().message();
  }
}

}  // namespace
}  // namespace dspark
