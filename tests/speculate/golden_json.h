#pragma once
// Reads one reference file: the full set's when it is there, always also the copy in tests/data.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/test_paths.h"

namespace dspark::test {

inline nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << path;
  return nlohmann::json::parse(file);
}

/// The fixture tests/data/TOPIC/NAME and, when present, golden_dir()/GOLDEN_PATH.
inline std::vector<nlohmann::json> fixture_and_golden(const std::string& name, const std::string& golden_path,
                                                      const std::string& topic = "sampling") {
  std::vector<nlohmann::json> found = {read_json(data_dir() / topic / name)};
  if (!golden_dir().empty()) found.push_back(read_json(golden_dir() / golden_path));
  return found;
}

}  // namespace dspark::test
