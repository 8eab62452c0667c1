// The OpenAPI file tells what the server does: its routes, and the fields of their requests.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "server/completion_request.h"
#include "server/server.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

std::string source(const std::string& name) {
  std::ifstream file(std::string(DSPARK_SOURCE_DIR) + "/src/server/" + name);
  EXPECT_TRUE(file) << name;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

Json openapi() {
  return Json::parse(source("openapi.json"), nullptr, false);
}

// Every word that may be a field: those in quotes in the code that reads requests.
std::set<std::string> words() {
  static const std::regex kWord("\"([a-z][a-z0-9_]*)\"");
  std::set<std::string> found;
  for (const char* name : {"completion_request.cc", "interface_requests.cc", "refused_fields.cc"}) {
    const std::string text = source(name);
    for (std::sregex_iterator it(text.begin(), text.end(), kWord), end; it != end; ++it) {
      found.insert((*it)[1]);
    }
  }
  return found;
}

using Parse = std::function<ApiError(const std::string& body, CompletionRequest& out)>;

// Whether the parser looks at a field: it does not like one of these values there.
bool is_read(const Parse& parse, const Json& body, const std::string& field) {
  for (const char* odd : {"[[1]]", R"({"type": 7})", "7.5"}) {
    Json changed = body;
    changed[field] = Json::parse(odd);
    CompletionRequest request;
    if (!parse(changed.dump(), request).ok()) return true;
  }
  return false;
}

struct RequestCase {
  const char* schema;
  const char* body;
  std::set<std::string> lenient;  // read, but wrong values are passed over
  Parse parse;
};

TEST(OpenApi, NamesExactlyTheFieldsThatAreRead) {
  const Json schemas = openapi()["components"]["schemas"];
  const SamplingDefaults defaults;
  const RequestCase cases[] = {
      {"ChatRequest",
       R"({"messages": [{"role": "user", "content": "x"}]})",
       {},
       [&](const std::string& body, CompletionRequest& out) {
         return parse_completion(body, ApiKind::kChat, defaults, out);
       }},
      {"CompletionRequest",
       R"({"prompt": "x"})",
       {},
       [&](const std::string& body, CompletionRequest& out) {
         return parse_completion(body, ApiKind::kCompletion, defaults, out);
       }},
      {"ResponsesRequest",
       R"({"input": "x"})",
       {},
       [&](const std::string& body, CompletionRequest& out) { return parse_responses(body, defaults, out); }},
      {"MessagesRequest",
       R"({"messages": [{"role": "user", "content": "x"}], "max_tokens": 5})",
       {},
       [&](const std::string& body, CompletionRequest& out) { return parse_messages(body, defaults, out); }}};
  for (const RequestCase& c : cases) {
    const Json body = Json::parse(c.body);
    CompletionRequest request;
    ASSERT_TRUE(c.parse(body.dump(), request).ok()) << c.schema;
    std::set<std::string> told, read = c.lenient;
    for (const auto& [field, schema] : schemas[c.schema]["properties"].items()) told.insert(field);
    std::set<std::string> candidates = words();
    candidates.insert(told.begin(), told.end());
    for (const std::string& field : candidates) {
      if (is_read(c.parse, body, field)) read.insert(field);
    }
    EXPECT_EQ(told, read) << c.schema;
  }
}

TEST(OpenApi, RefersToWhatIsThere) {
  const Json api = openapi();
  const std::string text = api.dump();
  static const std::regex kReference("\"#(/[A-Za-z/]+)\"");
  for (std::sregex_iterator it(text.begin(), text.end(), kReference), end; it != end; ++it) {
    EXPECT_TRUE(api.contains(Json::json_pointer((*it)[1]))) << (*it)[1];
  }
}

TEST(OpenApi, NamesExactlyTheRoutes) {
  const Json api = openapi();
  ASSERT_TRUE(api.is_object());
  std::set<std::string> told, there;
  for (const auto& [path, methods] : api["paths"].items()) {
    for (const auto& [method, operation] : methods.items()) {
      if (method != "parameters") told.insert(method + " " + path.substr(0, path.find('{')));
    }
  }
  for (const Server::Route& route : Server::routes()) {
    std::string method = route.method;
    std::transform(method.begin(), method.end(), method.begin(),
                   [](char c) { return static_cast<char>(c | 32); });
    const std::string path = route.path;
    there.insert(method + " " + path.substr(0, path.find('*')));
  }
  EXPECT_EQ(told, there);
}

}  // namespace
}  // namespace dspark
