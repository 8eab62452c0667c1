#pragma once
// Reads a folder of raw quantised rows: index.json, TYPE.bin, TYPE.f32, source.f32.

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/test_paths.h"

namespace dspark::test {

inline std::vector<uint8_t> read_bytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline std::vector<float> read_floats(const std::filesystem::path& path) {
  const std::vector<uint8_t> bytes = read_bytes(path);
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

struct QuantFolder {
  std::filesystem::path path;
  nlohmann::json index;
  int64_t rows = 0;
  int64_t cols = 0;
};

/// The fixtures, and the full reference set where it is present.
inline std::vector<QuantFolder> quant_folders() {
  std::vector<std::filesystem::path> paths = {data_dir() / "quants"};
  if (!golden_dir().empty()) paths.push_back(golden_dir() / "gguf" / "quants");
  std::vector<QuantFolder> folders;
  for (const auto& path : paths) {
    QuantFolder folder;
    folder.path = path;
    folder.index = nlohmann::json::parse(std::ifstream(path / "index.json"));
    folder.rows = folder.index.at("rows").get<int64_t>();
    folder.cols = folder.index.at("cols").get<int64_t>();
    folders.push_back(std::move(folder));
  }
  return folders;
}

}  // namespace dspark::test
