#pragma once
// Drafters of the repository as a test changes and writes them.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "draft/draft_checkpoint.h"
#include "draft_fixture.h"
#include "formats/temp_folder.h"
#include "support/test_paths.h"

namespace dspark::test {

inline std::filesystem::path fixture(const char* name) {
  return data_dir() / "draft_formats" / name;
}

inline Checkpoint open_file(const std::filesystem::path& path) {
  auto file = Checkpoint::open(path.string());
  EXPECT_TRUE(file.ok()) << file.status().message();
  return *std::move(file);
}

inline StoredTensor& tensor_named(std::vector<StoredTensor>& tensors, const std::string& name) {
  const auto it =
      std::find_if(tensors.begin(), tensors.end(), [&](const StoredTensor& t) { return t.name == name; });
  EXPECT_NE(it, tensors.end()) << name;
  return *it;
}

inline void drop(std::vector<StoredTensor>& tensors, const std::string& name) {
  std::erase_if(tensors, [&](const StoredTensor& t) { return t.name == name; });
}

/// A drafter as a test changes it; every open() writes it anew.
class Folder {
 public:
  explicit Folder(const char* name) : file_(open_file(fixture(name))), config(file_.config()) {
    tensors = load_tensors(file_);
  }
  Result<DraftCheckpoint> open() const {
    // New files: to write over the old ones may wait for the disk.
    std::filesystem::remove(temp_.path() / "model.safetensors");
    std::filesystem::remove(temp_.path() / "config.json");
    write_safetensors(temp_.path() / "model.safetensors", tensors);
    std::ofstream(temp_.path() / "config.json") << config.dump();
    return open_draft_checkpoint(temp_.path().string());
  }
  /// The message of the error that opening must give.
  std::string error() const {
    const auto draft = open();
    EXPECT_FALSE(draft.ok());
    return draft.status().message();
  }
  DraftConfig read() const {
    const auto draft = open();
    EXPECT_TRUE(draft.ok()) << draft.status().message();
    return draft.ok() ? draft->config : DraftConfig{};
  }

 private:
  Checkpoint file_;
  TempFolder temp_;

 public:
  nlohmann::json config;
  std::vector<StoredTensor> tensors;
};

class Gguf {
 public:
  explicit Gguf(const char* name) : file(open_file(fixture(name))), tensors(load_tensors(file)) {}
  Result<DraftCheckpoint> open(const std::function<void(GgufWriter&)>& change = {}) const {
    write_gguf(temp_.file("drafter.gguf"), file, tensors, change);
    return open_draft_checkpoint(temp_.file("drafter.gguf"));
  }
  std::string error(const std::function<void(GgufWriter&)>& change = {}) const {
    const auto draft = open(change);
    EXPECT_FALSE(draft.ok());
    return draft.status().message();
  }
  DraftConfig read(const std::function<void(GgufWriter&)>& change = {}) const {
    const auto draft = open(change);
    EXPECT_TRUE(draft.ok()) << draft.status().message();
    return draft.ok() ? draft->config : DraftConfig{};
  }

  Checkpoint file;
  std::vector<StoredTensor> tensors;

 private:
  TempFolder temp_;
};

}  // namespace dspark::test

// A message and what it must say.
#define EXPECT_MENTIONS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)
