// Several processes compute what one process with all their sequences computes. Here they are threads, each
// with a group of its own; nothing of the trainer is shared between them.

#include <gtest/gtest.h>
#include <unistd.h>

#include <thread>

#include "train/trainer.h"
#include "train_cases.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;

class ProcessGroupTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("dspark-group-" + std::to_string(getpid()));
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  TrainOptions options(const std::string& kind, const std::string& name, int32_t sequences) const {
    TrainOptions o;
    o.kind = kind;
    o.target = (test::train_cases_dir() / "target_qwen3_mini").string();
    o.caches = {(test::train_cases_dir() / (kind == "eagle3" ? "cache_eagle3" : "cache")).string()};
    o.out = (root_ / name).string();
    o.block_size = 4;
    o.markov_rank = 8;
    o.draft_vocab = 64;
    o.sequences = sequences;
    o.anchors = 6;
    o.accumulate = 2;
    o.steps = 6;
    o.holdout = 0;
    o.float32 = true;
    return o;
  }

  /// A run of two processes; `stop_at`: rank 1 asks for the end after that step. returns: records of rank 0.
  std::vector<TrainRecord> run_two(TrainOptions o, int64_t stop_at) {
    o.processes.world = 2;
    o.processes.store = (root_ / ("store" + std::to_string(n_stores_++))).string();
    std::vector<TrainRecord> records;
    std::thread other([&] {
      TrainOptions mine = o;
      mine.processes.rank = 1;
      TrainCallbacks callbacks;
      callbacks.on_step = [&](const TrainRecord& record) { return record.step != stop_at; };
      const Status status = train_drafter(mine, callbacks);
      EXPECT_TRUE(status.ok()) << status.to_string();
    });
    records = run(o);
    other.join();
    return records;
  }

  static std::vector<TrainRecord> run(const TrainOptions& o) {
    std::vector<TrainRecord> records;
    TrainCallbacks callbacks;
    callbacks.on_step = [&](const TrainRecord& record) {
      records.push_back(record);
      return true;
    };
    const Status status = train_drafter(o, callbacks);
    EXPECT_TRUE(status.ok()) << status.to_string();
    return records;
  }

  fs::path root_;
  int n_stores_ = 0;
};

void expect_same(const std::vector<TrainRecord>& found, const std::vector<TrainRecord>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "record " << i);
    EXPECT_EQ(found[i].step, expected[i].step);
    EXPECT_EQ(found[i].anchors, expected[i].anchors);
    EXPECT_EQ(found[i].learning_rate, expected[i].learning_rate);
    EXPECT_NEAR(found[i].loss, expected[i].loss, 1e-6 * expected[i].loss);
    EXPECT_NEAR(found[i].soft_ce, expected[i].soft_ce, 1e-6 * expected[i].soft_ce);
    EXPECT_NEAR(found[i].confidence, expected[i].confidence, 1e-6);
    EXPECT_NEAR(found[i].tau, expected[i].tau, 1e-6);
    EXPECT_NEAR(found[i].gradient_norm, expected[i].gradient_norm, 1e-5 * expected[i].gradient_norm);
    ASSERT_EQ(found[i].accept_rate.size(), expected[i].accept_rate.size());
    for (size_t slot = 0; slot < found[i].accept_rate.size(); ++slot)
      EXPECT_NEAR(found[i].accept_rate[slot], expected[i].accept_rate[slot], 1e-6);
  }
}

/// Adam divides by the size of a gradient, so the rounding of a small one is seen in its weight.
void expect_same_weights(const TrainOptions& a, const TrainOptions& b, float tolerance = 1e-6f) {
  const TensorMap found = test::read_tensors(fs::path(a.out) / "state.safetensors");
  const TensorMap expected = test::read_tensors(fs::path(b.out) / "state.safetensors");
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    ASSERT_EQ(found.count(name), 1u) << name;
    EXPECT_LE((found.at(name) - tensor).abs().max().item<float>(), tolerance) << name;
  }
}

TEST_F(ProcessGroupTest, TwoProcessesAreOneWithBothSequences) {
  for (const std::string kind : {"dspark", "eagle3"}) {
    SCOPED_TRACE(kind);
    const TrainOptions one = options(kind, kind + "-one", 2);
    const TrainOptions two = options(kind, kind + "-two", 1);
    const std::vector<TrainRecord> expected = run(one);
    expect_same(run_two(two, -1), expected);
    expect_same_weights(two, one);
  }
}

// Stages follow rank 0's progress; one process goes on where two were, and the other way round.
TEST_F(ProcessGroupTest, StagesAndResumeWithAnotherNumberOfProcesses) {
  const auto staged = [&](const char* name, int32_t sequences) {
    TrainOptions o = options("dspark", name, sequences);
    o.first_stage = 0.4;
    o.curriculum = true;
    o.loss_slide = true;
    return o;
  };
  const TrainOptions one = staged("one", 2);
  TrainOptions two = staged("two", 1);
  const std::vector<TrainRecord> expected = run(one);
  std::vector<TrainRecord> found = run_two(two, 2);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_TRUE(fs::exists(fs::path(two.out) / "options.json"));
  two.resume = true;
  two.sequences = 2;
  const std::vector<TrainRecord> rest = run(two);
  found.insert(found.end(), rest.begin(), rest.end());
  expect_same(found, expected);
  expect_same_weights(two, one, 2e-5f);  // a step is 3e-3
  two.sequences = 4;
  EXPECT_NE(train_drafter(two, {}).message().find("--sequences"), std::string::npos);
}

TEST_F(ProcessGroupTest, AnyProcessEndsTheRunAndItGoesOn) {
  const TrainOptions one = options("dspark", "one", 2);
  TrainOptions two = options("dspark", "two", 1);
  const std::vector<TrainRecord> expected = run(one);
  std::vector<TrainRecord> found = run_two(two, 4);
  ASSERT_EQ(found.size(), 4u);
  two.resume = true;
  const std::vector<TrainRecord> rest = run_two(two, -1);
  found.insert(found.end(), rest.begin(), rest.end());
  expect_same(found, expected);
  expect_same_weights(two, one);
}

TEST(ProcessOptions, WrongOnesAreNamed) {
  ProcessOptions options;
  EXPECT_TRUE(options.validate().ok());
  options.rank = 1;
  EXPECT_NE(options.validate().message().find("--process"), std::string::npos);
  options.world = 2;
  EXPECT_NE(options.validate().message().find("--store"), std::string::npos);
  options.store = "somewhere:1";
  EXPECT_TRUE(options.validate().ok());
}

TEST_F(ProcessGroupTest, ABadStoreIsNamed) {
  TrainOptions o = options("dspark", "bad", 1);
  o.processes.world = 2;
  o.processes.store = "host:port";
  EXPECT_NE(train_drafter(o, {}).message().find("HOST:PORT"), std::string::npos);
}

}  // namespace
}  // namespace dspark
