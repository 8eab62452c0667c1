// The OpenAPI file and the routes of the server tell the same.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "server/server.h"

namespace dspark {
namespace {

TEST(OpenApi, NamesExactlyTheRoutes) {
  std::ifstream file(std::string(DSPARK_SOURCE_DIR) + "/src/server/openapi.json");
  const auto api = nlohmann::json::parse(file, nullptr, false);
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
