#pragma once
// Short runs on the smallest target, each in a folder that goes away.

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "train/trainer.h"
#include "train_cases.h"

namespace dspark::test {

class RunFixture : public testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::temp_directory_path() / ("dspark-train-" + std::to_string(getpid()));
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  TrainOptions options(const std::string& name) const {
    TrainOptions o;
    o.target = (train_cases_dir() / "target_qwen3_mini").string();
    o.caches = {(train_cases_dir() / "cache").string()};
    o.out = (root_ / name).string();
    o.block_size = 5;
    o.markov_rank = 8;
    o.draft_vocab = 64;
    o.sequences = 2;
    o.anchors = 6;
    o.steps = 24;
    o.holdout = 0;
    o.average = 0.9;
    o.accumulate = 2;
    return o;
  }

  std::filesystem::path root_;
};

/// Runs to the end and gives the record of every step; a failure fails the test.
inline std::vector<TrainRecord> train_all(const TrainOptions& options) {
  std::vector<TrainRecord> records;
  TrainCallbacks callbacks;
  callbacks.on_step = [&](const TrainRecord& record) {
    records.push_back(record);
    return true;
  };
  const Status status = train_drafter(options, callbacks);
  EXPECT_TRUE(status.ok()) << status.to_string();
  return records;
}

/// The drafter of a run; a failure fails the test and gives an empty one.
inline DraftCheckpoint open_trained(const TrainOptions& options) {
  auto draft = open_draft_checkpoint((std::filesystem::path(options.out) / "draft").string());
  EXPECT_TRUE(draft.ok()) << draft.status().to_string();
  return draft.ok() ? std::move(*draft) : DraftCheckpoint();
}

/// A CSV of a run without the column of the clock.
inline std::vector<std::string> log_lines(const std::string& run, const char* name = "log.csv") {
  std::ifstream in(std::filesystem::path(run) / name);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(',');
    lines.push_back(line.substr(0, first) + line.substr(line.find(',', first + 1)));
  }
  return lines;
}

inline std::string file_bytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace dspark::test
