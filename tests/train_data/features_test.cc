// Features against the reference's, for every batching, and the cache made of a corpus.

#include "train_data/features.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "formats/checkpoint.h"
#include "formats/temp_folder.h"
#include "support/test_paths.h"
#include "tensor/half.h"
#include "train_data/cache_corpus.h"
#include "train_data/corpus.h"

namespace dspark::test {
namespace {

const std::filesystem::path kData = data_dir() / "target_cache";

/// The mini target and the samples of the reference's cache.
class Features : public ::testing::Test {
 protected:
  void SetUp() override {
    auto reader = TargetCacheReader::open((kData / "qwen3_mini").string());
    ASSERT_TRUE(reader.ok()) << reader.status().to_string();
    golden_.resize(static_cast<size_t>(reader->n_samples()));
    for (size_t i = 0; i < golden_.size(); ++i) reader->read(static_cast<int64_t>(i), golden_[i]);
    options_.layer_ids = reader->info().target_layer_ids;
    options_.max_length = 64;
  }

  std::unique_ptr<TargetModel> load(bool float_activations) {
    ModelOptions options;
    options.float_activations = float_activations;
    auto model = TargetModel::open((kData / "target_qwen3_mini").string(), pool_, options);
    EXPECT_TRUE(model.ok()) << model.status().to_string();
    return std::move(model).value();
  }

  std::vector<TargetCacheSample> extract(TargetModel& model) {
    std::vector<TargetCacheSample> samples(golden_.size());
    for (size_t i = 0; i < samples.size(); ++i) {
      samples[i].input_ids = golden_[i].input_ids;
      samples[i].loss_mask = golden_[i].loss_mask;
    }
    auto extractor = FeatureExtractor::create(model, pool_, options_);
    EXPECT_TRUE(extractor.ok()) << extractor.status().to_string();
    const Status status = (*extractor)->extract(samples);
    EXPECT_TRUE(status.ok()) << status.to_string();
    return samples;
  }

  ThreadPool pool_{2};
  std::vector<TargetCacheSample> golden_;
  FeatureOptions options_;
};

/// Largest difference to the reference's float32 features, rounding to bf16 allowed for.
void expect_close(const std::vector<uint16_t>& found, const Checkpoint& expected, const std::string& name) {
  const TensorView* tensor = expected.find(name);
  ASSERT_NE(tensor, nullptr) << name;
  ASSERT_EQ(found.size(), tensor->n_elements()) << name;
  for (size_t i = 0; i < found.size(); ++i) {
    float value = 0.0f;
    std::memcpy(&value, tensor->data + i * sizeof(float), sizeof(float));
    ASSERT_NEAR(bf16_to_f32(found[i]), value, 2e-4 + std::abs(value) * 0x1p-8) << name << " " << i;
  }
}

double share_of_equal_bits(const std::vector<uint16_t>& a, const std::vector<uint16_t>& b) {
  EXPECT_EQ(a.size(), b.size());
  size_t n = 0;
  for (size_t i = 0; i < a.size(); ++i) n += a[i] == b[i] ? 1 : 0;
  return static_cast<double>(n) / static_cast<double>(a.size());
}

TEST_F(Features, EqualTheReference) {
  options_.kv_dtype = KvDType::kF32;
  const std::unique_ptr<TargetModel> model = load(true);
  const std::vector<TargetCacheSample> found = extract(*model);
  const auto expected = Checkpoint::open((kData / "qwen3_mini_float32.safetensors").string());
  ASSERT_TRUE(expected.ok()) << expected.status().to_string();
  for (size_t i = 0; i < found.size(); ++i) {
    const std::string prefix = "s" + std::to_string(i) + ".";
    expect_close(found[i].target_hidden_states, *expected, prefix + "target_hidden_states");
    expect_close(found[i].target_last_hidden, *expected, prefix + "target_last_hidden_states");
    // Rounded to bf16 nearly all bits agree: only numbers halfway between two may fall to either side.
    EXPECT_GT(share_of_equal_bits(found[i].target_hidden_states, golden_[i].target_hidden_states), 0.998);
    EXPECT_GT(share_of_equal_bits(found[i].target_last_hidden, golden_[i].target_last_hidden), 0.998);
  }
}

TEST_F(Features, DoNotDependOnThePasses) {
  const std::unique_ptr<TargetModel> model = load(false);
  options_.log_sum_exp = true;
  options_.batch_rows = 1;
  const std::vector<TargetCacheSample> expected = extract(*model);
  for (const int32_t rows : {7, 40, 70, 500}) {
    options_.batch_rows = rows;
    const std::vector<TargetCacheSample> found = extract(*model);
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ(found[i].target_hidden_states, expected[i].target_hidden_states) << rows;
      EXPECT_EQ(found[i].target_last_hidden, expected[i].target_last_hidden) << rows;
      EXPECT_EQ(std::memcmp(found[i].log_sum_exp.data(), expected[i].log_sum_exp.data(),
                            expected[i].log_sum_exp.size() * sizeof(float)),
                0)
          << rows;
    }
  }
}

TEST_F(Features, EmbeddingAndLastLayerAndLogSumExp) {
  options_.layer_ids = {-1, 5};
  options_.log_sum_exp = true;
  options_.kv_dtype = KvDType::kF32;
  const std::unique_ptr<TargetModel> model = load(true);
  const std::vector<TargetCacheSample> found = extract(*model);
  model->set_capture_layers({0, 6});
  auto cache = KvPool::create(KvDType::kF32, model->kv_shapes(), 2);
  ASSERT_TRUE(cache.ok());
  const TargetCacheSample& sample = found[0];
  const auto n = static_cast<int32_t>(sample.n_tokens());
  const std::vector<int32_t> pages = {0, 1};
  ForwardBatch batch;
  batch.runs.push_back({0, n, 0, pages});
  batch.tokens = sample.input_ids;
  batch.positions.resize(static_cast<size_t>(n));
  std::iota(batch.positions.begin(), batch.positions.end(), 0);
  batch.logit_rows = batch.capture_rows = batch.positions;
  const ForwardResult result = model->forward(batch, *cache);
  const size_t dim = 32, vocab = 96;
  for (size_t p = 0; p < static_cast<size_t>(n); ++p) {
    for (size_t tap = 0; tap < 2; ++tap) {
      for (size_t i = 0; i < dim; ++i) {
        EXPECT_EQ(sample.target_hidden_states[(p * 2 + tap) * dim + i],
                  f32_to_bf16(result.captured[(tap * static_cast<size_t>(n) + p) * dim + i]));
      }
    }
    for (size_t i = 0; i < dim; ++i) {
      EXPECT_EQ(sample.target_last_hidden[p * dim + i], f32_to_bf16(result.final_norm[p * dim + i]));
    }
    double sum = 0.0;
    for (size_t v = 0; v < vocab; ++v) sum += std::exp(static_cast<double>(result.logits[p * vocab + v]));
    if (sample.loss_mask[p] != 0) {
      EXPECT_NEAR(sample.log_sum_exp[p], std::log(sum), 1e-4);
    } else {
      EXPECT_TRUE(std::isnan(sample.log_sum_exp[p]));
    }
  }
}

TEST_F(Features, BadInputIsRefused) {
  const std::unique_ptr<TargetModel> model = load(false);
  auto extractor = FeatureExtractor::create(*model, pool_, options_);
  ASSERT_TRUE(extractor.ok());
  std::vector<TargetCacheSample> samples(1);
  EXPECT_FALSE((*extractor)->extract(samples).ok());
  samples[0].input_ids = {1, 96};
  samples[0].loss_mask = {0, 1};
  EXPECT_NE((*extractor)->extract(samples).message().find("96"), std::string::npos);
  samples[0].input_ids.assign(65, 1);
  samples[0].loss_mask.assign(65, 1);
  EXPECT_FALSE((*extractor)->extract(samples).ok());
  for (const std::vector<int32_t>& layers :
       std::vector<std::vector<int32_t>>{{}, {6}, {-2}, {3, 3}, {3, 1}}) {
    options_.layer_ids = layers;
    EXPECT_FALSE(FeatureExtractor::create(*model, pool_, options_).ok());
  }
}

TEST(SpreadLayers, AsTheReferenceChooses) {
  EXPECT_EQ(spread_layer_ids(30, 5), (std::vector<int32_t>{1, 8, 14, 21, 27}));
  EXPECT_EQ(spread_layer_ids(36, 5), (std::vector<int32_t>{1, 9, 17, 25, 33}));
  EXPECT_EQ(spread_layer_ids(3, 5), (std::vector<int32_t>{1}));
  EXPECT_EQ(spread_layer_ids(1, 1), (std::vector<int32_t>{0}));
}

TEST(CorpusCacheInfo, TellsWhereTheSamplesAreFrom) {
  ModelConfig target;
  target.dim = 32;
  FeatureOptions options;
  options.layer_ids = {-1, 2};
  options.max_length = 77;
  const std::vector<std::string> corpora = {"a/x.jsonl", "y.jsonl"};
  const TempFolder folder;
  const std::string path = folder.file("mine");
  const TargetCacheInfo info = corpus_cache_info(path, target, "model.gguf", options, corpora);
  auto writer = TargetCacheWriter::create(path, info);
  ASSERT_TRUE(writer.ok()) << writer.status().to_string();
  ASSERT_TRUE(writer->finish().ok());
  const std::string expected = R"({
  "chat_template": "as generated",
  "exp_name": "mine",
  "git_sha": "unknown",
  "hidden_dtype": "bfloat16",
  "hidden_size": 32,
  "index_record_size": 56,
  "mask_dtype": "uint8",
  "max_length": 77,
  "min_loss_tokens": 14,
  "num_samples": 0,
  "num_shards": 0,
  "project_name": "dspark.cpp",
  "shards": [],
  "source_jsonl_paths": [
    "a/x.jsonl",
    "y.jsonl"
  ],
  "target_layer_ids": [
    -1,
    2
  ],
  "target_model_name_or_path": "model.gguf",
  "token_dtype": "int32",
  "version": 2
})";
  EXPECT_EQ(read_file(folder.path() / "mine" / "manifest.json"), expected);
}

class CacheOfCorpus : public Features {
 protected:
  void SetUp() override {
    Features::SetUp();
    model_ = load(false);
    for (size_t i = 0; i < golden_.size(); ++i) {
      CorpusRecord record;
      record.id = "t/" + std::to_string(i) + "#0";
      record.tokens = golden_[i].input_ids;
      record.prompt_tokens = static_cast<int32_t>(record.tokens.size()) - 15 - static_cast<int32_t>(i % 2);
      if (i == 2) record.prompt_tokens += 3;  // 12 supervised tokens
      lines_ += corpus_line(record) + "\n";
    }
    corpus_ = folder_.write("corpus.jsonl", lines_);
    info_.hidden_size = 32;
    info_.target_layer_ids = options_.layer_ids;
    info_.max_length = 39;  // the first sample has 40
    options_.batch_rows = 60;
  }

  Result<CacheCounts> make(const std::string& name, int stop_after) {
    auto extractor = FeatureExtractor::create(*model_, pool_, options_);
    EXPECT_TRUE(extractor.ok());
    auto writer = TargetCacheWriter::create(folder_.file(name), info_);
    EXPECT_TRUE(writer.ok()) << writer.status().to_string();
    std::atomic<bool> cancel = false;
    const auto on_pass = [&](const CacheCounts& counts) { cancel = counts.samples >= stop_after; };
    const std::vector<std::string> corpora = {corpus_};
    auto counts = cache_corpus(corpora, info_, **extractor, *writer, on_pass, &cancel);
    if (counts.ok() && counts->finished) {
      EXPECT_TRUE(writer->finish().ok());
    }
    return counts;
  }

  TempFolder folder_;
  std::unique_ptr<TargetModel> model_;
  std::string lines_, corpus_;
  TargetCacheInfo info_;
};

TEST_F(CacheOfCorpus, MasksDropsAndCuts) {
  const auto counts = make("c", 100);
  ASSERT_TRUE(counts.ok()) << counts.status().to_string();
  EXPECT_TRUE(counts->finished);
  EXPECT_EQ(counts->records, 4);
  EXPECT_EQ(counts->dropped, 1);
  EXPECT_EQ(counts->truncated, 1);
  auto reader = TargetCacheReader::open(folder_.file("c"));
  ASSERT_TRUE(reader.ok()) << reader.status().to_string();
  ASSERT_EQ(reader->n_samples(), 3);
  TargetCacheSample sample;
  reader->read(0, sample);
  EXPECT_EQ(sample.n_tokens(), 39u);
  EXPECT_EQ(std::accumulate(sample.loss_mask.begin(), sample.loss_mask.end(), 0), 14);
  EXPECT_EQ(sample.loss_mask[24], 0);
  EXPECT_EQ(sample.loss_mask[25], 1);
  reader->read(2, sample);
  EXPECT_EQ(sample.input_ids, golden_[3].input_ids);
  EXPECT_EQ(std::accumulate(sample.attention_mask.begin(), sample.attention_mask.end(), 0), 24);
  options_.log_sum_exp = false;
  const std::vector<TargetCacheSample> expected = extract(*model_);
  EXPECT_EQ(sample.target_hidden_states, expected[3].target_hidden_states);
}

TEST_F(CacheOfCorpus, ContinuesToTheSameBytes) {
  ASSERT_TRUE(make("whole", 100).ok());
  const auto part = make("cut", 1);
  ASSERT_TRUE(part.ok());
  EXPECT_FALSE(part->finished);
  EXPECT_GE(part->samples, 1);
  const auto rest = make("cut", 100);
  ASSERT_TRUE(rest.ok());
  EXPECT_TRUE(rest->finished);
  EXPECT_LT(rest->new_tokens, rest->tokens);
  for (const char* name : {"samples.idx", "shard-00000.bin", "manifest.json"}) {
    EXPECT_TRUE(read_file(folder_.path() / "cut" / name) == read_file(folder_.path() / "whole" / name))
        << name;
  }
}

}  // namespace
}  // namespace dspark::test
