#pragma once
// Reads one reference file: the full set's when it is there, always also the copy in tests/data.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/case_count.h"
#include "support/test_paths.h"

namespace dspark::test {

inline nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << path;
  return nlohmann::json::parse(file);
}

/// Cases of a reference file: its list "cases", or the file itself where that is a list.
inline size_t count_cases(const nlohmann::json& file) {
  if (file.is_array()) return file.size();
  const auto cases = file.find("cases");
  return cases != file.end() ? cases->size() : 1;
}

/// The fixture tests/data/TOPIC/NAME and, when present, golden_dir()/GOLDEN_PATH. Says how many cases they
/// hold.
inline std::vector<nlohmann::json> fixture_and_golden(const std::string& name, const std::string& golden_path,
                                                      const std::string& topic = "sampling") {
  std::vector<nlohmann::json> found = {read_json(data_dir() / topic / name)};
  report_cases("fixture_" + name, count_cases(found.back()));
  if (golden_dir().empty()) return found;
  found.push_back(read_json(golden_dir() / golden_path));
  report_cases("reference_" + name, count_cases(found.back()));
  return found;
}

}  // namespace dspark::test
