// Every recorded conversation and every one-feature case renders exactly as jinja2 does it.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "support/test_paths.h"
#include "text/chat_template.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

std::tm fixed_clock() {
  std::tm t{};  // Thursday, 2026-03-05 14:30:00
  t.tm_year = 126;
  t.tm_mon = 2;
  t.tm_mday = 5;
  t.tm_hour = 14;
  t.tm_min = 30;
  t.tm_wday = 4;
  t.tm_yday = 63;
  return t;
}

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<Json> read_lines(const fs::path& path) {
  std::vector<Json> lines;
  std::istringstream in(read_file(path));
  for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
  return lines;
}

// Compares a rendering with the recorded outcome.
void expect_outcome(const Json& wanted, const Result<std::string>& got, const std::string& name) {
  if (wanted.contains("expected")) {
    ASSERT_TRUE(got.ok()) << name << ": " << got.status().to_string();
    EXPECT_EQ(*got, wanted["expected"].get<std::string>()) << name;
    return;
  }
  ASSERT_FALSE(got.ok()) << name << " rendered: " << *got;
  if (wanted["error_type"] == "TemplateError") {
    EXPECT_EQ(got.status().message(), wanted["error"].get<std::string>()) << name;
    EXPECT_EQ(got.status().code(), StatusCode::kInvalidArgument) << name;
  }
}

constexpr const char* kNoReferenceSet =
    "no reference set beside this clone; the fixtures run as the other parameter";

class ChatGolden : public ::testing::TestWithParam<bool> {
 protected:
  // The fixtures of the repository, or the full set; empty when the full set is not there.
  static fs::path folder() {
    if (!GetParam()) return test::data_dir() / "chat";
    return test::golden_dir().empty() ? fs::path() : test::golden_dir() / "chat";
  }
};

TEST_P(ChatGolden, Conversations) {
  if (folder().empty()) GTEST_SKIP() << kNoReferenceSet;
  std::map<std::string, ChatTemplate> templates;
  size_t n = 0;
  for (const Json& c : read_lines(folder() / "cases.jsonl")) {
    const auto name = c["template"].get<std::string>();
    if (templates.find(name) == templates.end()) {
      auto parsed = ChatTemplate::parse(read_file(folder() / (name + ".jinja")));
      ASSERT_TRUE(parsed.ok()) << name << ": " << parsed.status().to_string();
      parsed->set_clock(fixed_clock);
      templates.emplace(name, *std::move(parsed));
    }
    ChatInputs inputs;
    inputs.messages = &c["messages"];
    if (!c["tools"].is_null()) inputs.tools = &c["tools"];
    inputs.bos_token = c["bos_token"].get<std::string>();
    inputs.eos_token = c["eos_token"].get<std::string>();
    inputs.extra = &c["vars"];
    expect_outcome(c, templates.at(name).render(inputs), name + "/" + c["case"].get<std::string>());
    ++n;
  }
  EXPECT_GE(n, GetParam() ? 440u : 300u);
}

TEST_P(ChatGolden, OneFeatureEach) {
  if (folder().empty()) GTEST_SKIP() << kNoReferenceSet;
  size_t n = 0;
  for (const Json& c : read_lines(folder() / "jinja_micro.jsonl")) {
    const auto source = c["template"].get<std::string>();
    auto parsed = ChatTemplate::parse(source);
    if (!parsed.ok()) {
      expect_outcome(c, parsed.status(), source);
    } else {
      parsed->set_clock(fixed_clock);
      expect_outcome(c, parsed->render_variables(c["context"]), source);
    }
    ++n;
  }
  EXPECT_GE(n, 146u);
}

INSTANTIATE_TEST_SUITE_P(Sets, ChatGolden, ::testing::Bool(),
                         [](const auto& param) { return param.param ? "reference_set" : "fixtures"; });

}  // namespace
}  // namespace dspark
