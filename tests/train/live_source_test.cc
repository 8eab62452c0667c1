// Features computed while the trainer works: the numbers of a cache, in any order, and the same run.

#include "cli/train/live_source.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "engine/loader.h"
#include "train/trainer.h"
#include "train_cases.h"
#include "train_data/cache_corpus.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;

class LiveSourceTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("dspark-live-" + std::to_string(getpid()));
    fs::create_directories(root_);
    std::ofstream corpus(corpus_path());
    for (int i = 0; i < 10; ++i) {
      CorpusRecord record;
      record.id = "toy/0#" + std::to_string(i);
      record.task = "toy";
      record.prompt_tokens = 3 + i % 4;
      const int n = i == 7 ? 12 : 30 + 5 * i;  // one is too short, the last ones are cut
      for (int t = 0; t < n; ++t) record.tokens.push_back((7 * i + 13 * t * t + t) % 96);
      corpus << corpus_line(record) << '\n';
    }
  }
  void TearDown() override { fs::remove_all(root_); }

  std::string corpus_path() const { return (root_ / "corpus.jsonl").string(); }

  cli::LiveOptions live_options(bool log_sum_exp) const {
    cli::LiveOptions options;
    options.model = (test::train_cases_dir() / "target_qwen3_mini").string();
    options.corpora = {corpus_path()};
    options.layers = {1, 3};
    options.max_length = 64;
    options.batch_rows = 96;
    options.log_sum_exp = log_sum_exp;
    return options;
  }

  /// The same corpus through a cache.
  std::string make_cache(const cli::LiveOptions& live) const {
    const std::string folder = (root_ / "cache").string();
    LoadOptions load;
    load.n_threads = 1;
    auto loaded = load_model(live.model, load);
    EXPECT_TRUE(loaded.ok()) << loaded.status().to_string();
    FeatureOptions features;
    features.layer_ids = live.layers;
    features.max_length = live.max_length;
    features.log_sum_exp = live.log_sum_exp;
    auto extractor = FeatureExtractor::create(*loaded->model, *loaded->pool, features);
    EXPECT_TRUE(extractor.ok()) << extractor.status().to_string();
    TargetCacheInfo info;
    info.hidden_size = loaded->model->config().dim;
    info.target_layer_ids = live.layers;
    info.target_model_name_or_path = "target_qwen3_mini";
    info.max_length = live.max_length;
    auto writer = TargetCacheWriter::create(folder, info, {kTargetCacheShardLimit, live.log_sum_exp});
    EXPECT_TRUE(writer.ok()) << writer.status().to_string();
    EXPECT_TRUE(cache_corpus(live.corpora, info, **extractor, *writer).ok());
    EXPECT_TRUE(writer->finish().ok());
    return folder;
  }

  /// Losses of a run of a few steps.
  std::vector<double> losses(const std::string& name, std::vector<std::string> caches,
                             SampleSources sources) {
    TrainOptions o;
    o.target = (test::train_cases_dir() / "target_qwen3_mini").string();
    o.caches = std::move(caches);
    o.out = (root_ / name).string();
    o.block_size = 4;
    o.markov_rank = 8;
    o.draft_vocab = 64;
    o.sequences = 2;
    o.anchors = 6;
    o.steps = 12;  // four epochs
    o.holdout = 0.25;
    o.checkpoint_steps = 5;  // held-out samples are read in between
    std::vector<double> found;
    TrainCallbacks callbacks;
    callbacks.on_step = [&](const TrainRecord& record) {
      found.push_back(record.loss);
      return true;
    };
    const Status status = train_drafter(o, callbacks, std::move(sources));
    EXPECT_TRUE(status.ok()) << status.to_string();
    return found;
  }

  fs::path root_;
};

TEST_F(LiveSourceTest, SamplesAreThoseOfACache) {
  const cli::LiveOptions options = live_options(true);
  auto cache = open_cache_source(make_cache(options));
  ASSERT_TRUE(cache.ok()) << cache.status().to_string();
  auto live = cli::open_live_source(options);
  ASSERT_TRUE(live.ok()) << live.status().to_string();
  ASSERT_EQ((*live)->n_samples(), 9);
  ASSERT_EQ((*cache)->n_samples(), 9);
  EXPECT_EQ((*live)->info().target_layer_ids, (*cache)->info().target_layer_ids);
  const std::vector<int64_t> next = {4, 2, 2, 8};
  (*live)->expect(next);
  for (const int64_t idx : {4, 2, 7, 2, 8, 0, 1, 3, 5, 6, 0}) {  // some were not announced
    SCOPED_TRACE(idx);
    TargetCacheSample found, expected;
    ASSERT_TRUE((*live)->read(idx, found).ok());
    ASSERT_TRUE((*cache)->read(idx, expected).ok());
    EXPECT_EQ(found.input_ids, expected.input_ids);
    EXPECT_EQ(found.loss_mask, expected.loss_mask);
    EXPECT_EQ(found.target_hidden_states, expected.target_hidden_states);
    EXPECT_EQ(found.target_last_hidden, expected.target_last_hidden);
    ASSERT_EQ(found.log_sum_exp.size(), expected.log_sum_exp.size());
    for (size_t t = 0; t < found.log_sum_exp.size(); ++t) {
      if (found.loss_mask[t] == 0) continue;  // not a number
      EXPECT_EQ(found.log_sum_exp[t], expected.log_sum_exp[t]);
    }
  }
}

TEST_F(LiveSourceTest, TheSameRunAsThroughACache) {
  const cli::LiveOptions options = live_options(false);
  const std::vector<double> cached = losses("cached", {make_cache(options)}, {});
  SampleSources sources;
  auto live = cli::open_live_source(options);
  ASSERT_TRUE(live.ok()) << live.status().to_string();
  sources.push_back(std::move(*live));
  EXPECT_EQ(losses("live", {}, std::move(sources)), cached);
  EXPECT_EQ(cached.size(), 12u);
}

TEST_F(LiveSourceTest, WrongInputIsNamed) {
  cli::LiveOptions options = live_options(false);
  options.layers = {1, 9};
  EXPECT_NE(cli::open_live_source(options).status().message().find("layers"), std::string::npos);
  options = live_options(false);
  options.corpora = {(root_ / "none.jsonl").string()};
  EXPECT_NE(cli::open_live_source(options).status().message().find("none.jsonl"), std::string::npos);
}

}  // namespace
}  // namespace dspark
