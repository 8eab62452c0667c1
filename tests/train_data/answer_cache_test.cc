// Features stored while answers are written: the corpus and the cache that the two commands would make one
// after the other.

#include "train_data/answer_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/engine.h"
#include "formats/temp_folder.h"
#include "support/test_paths.h"
#include "train_data/cache_corpus.h"
#include "train_data/feature_tap.h"
#include "train_data/regenerate.h"

namespace dspark::test {
namespace {

const std::string kTarget = (data_dir() / "target_cache" / "target_qwen3_mini").string();
constexpr int32_t kEos = 7;  // likely enough to end some answers early

PromptCodec codec_of_letters() {
  PromptCodec codec;
  codec.encode = [](const std::string& prompt) -> Result<std::vector<int32_t>> {
    std::vector<int32_t> ids = {90};
    for (const char c : prompt) ids.push_back(static_cast<uint8_t>(c) % 90);
    return ids;
  };
  codec.self_header = {91, 92};
  codec.decode = [](std::span<const int32_t> ids) {
    std::string text;
    for (const int32_t id : ids) text += static_cast<char>('a' + id % 26);
    return text;
  };
  return codec;
}

class AnswerCacheTest : public ::testing::Test {
 protected:
  AnswerCacheTest() {
    for (int32_t i = 0; i < 9; ++i) {
      const std::string id = std::to_string(i);
      prompts_.push_back({"t", "t/" + id, std::string(static_cast<size_t>(7 * i + 1), 'c') + id});
    }
    prompts_.push_back({"t", "t/again", prompts_[3].prompt});  // at temperature 0 the same answer
    JobOptions options;
    options.samples = 2;
    options.n_self_prompts = 6;
    options.temperatures = TemperatureMix::parse("0,1.3").value();
    options.seed = 5;
    jobs_ = make_jobs(prompts_, options);
    run_.batch = 5;
    run_.max_tokens = 40;
    run_.max_prompt = 90;
    run_.max_user_tokens = 60;
    filter_.loop_ngram = 2;
    filter_.max_loop_share = 0.1;
    filter_.min_answer_tokens = 4;
    info_.hidden_size = 32;
    info_.target_layer_ids = {0, 2, 4};
    info_.target_model_name_or_path = "mini";
    info_.max_length = 70;  // some are cut
    info_.min_loss_tokens = 4;
    features_.layer_ids = info_.target_layer_ids;
    features_.kv_dtype = KvDType::kBF16;
    features_.log_sum_exp = true;
    features_.max_length = info_.max_length;
    model_ = TargetModel::open(kTarget, pool_, ModelOptions()).value();
  }

  std::unique_ptr<Engine> engine_with(std::unique_ptr<FeatureTap> tap, int64_t kv_tokens) {
    EngineOptions options;
    options.max_sequences = run_.batch;
    options.context_length = run_.context_length();
    options.kv_tokens = kv_tokens;
    options.prefill_rows = 16;
    options.eos_ids = {kEos};
    if (tap != nullptr) options.policy = VerifyPolicy::fixed(1);
    auto engine = Engine::create(*model_, options, std::move(tap));
    EXPECT_TRUE(engine.ok()) << engine.status().to_string();
    return std::move(engine).value();
  }

  /// What `path` lacks, appended to it, and to the cache in `folder` unless that is empty. returns: whether
  /// all was done; stops after `n_records` new ones.
  bool generate(const std::string& path, const std::string& folder, int64_t n_records = -1,
                int64_t kv_tokens = 0) {
    std::map<std::string, ExistingRecord> existing;
    auto file = CorpusFile::open(path, [&](CorpusRecord&& record) {
      existing[record.id] = {record.seed, record.temperature};
      return ok_status();
    });
    const std::vector<Job> left = jobs_left(jobs_, existing).value();
    std::unique_ptr<AnswerCache> cache;
    FeatureSink sink;
    std::unique_ptr<FeatureTap> tap;
    if (!folder.empty()) {
      auto opened = AnswerCache::create(folder, info_, filter_);
      EXPECT_TRUE(opened.ok()) << opened.status().to_string();
      cache = std::make_unique<AnswerCache>(std::move(opened).value());
      auto extractor = FeatureExtractor::create(*model_, pool_, features_);
      const Result<bool> caught_up = cache->catch_up(path, **extractor);
      EXPECT_TRUE(caught_up.ok() && *caught_up) << caught_up.status().to_string();
      tap = FeatureTap::create(*model_, features_.layer_ids).value();
      sink = {tap.get(), [&](const CorpusRecord& record, TargetCacheSample&& sample) {
                return cache->add(record, std::move(sample));
              }};
    }
    const FeatureSink* features = cache == nullptr ? nullptr : &sink;
    const std::unique_ptr<Engine> engine = engine_with(std::move(tap), kv_tokens);
    std::atomic<bool> cancel = false;
    const auto counts = regenerate(
        *engine, codec_of_letters(), left, run_, 0,
        [&](CorpusRecord&& record) { return file->append(record); },
        [&](const RegenerateCounts& so_far) { cancel = n_records >= 0 && so_far.answers >= n_records; },
        &cancel, features);
    EXPECT_TRUE(counts.ok()) << counts.status().to_string();
    EXPECT_TRUE(engine->check_integrity().ok());
    n_recomputed_ += engine->stats().recomputed_tokens;
    if (cache != nullptr && counts->finished) {
      EXPECT_TRUE(cache->finish().ok());
    }
    return counts->finished;
  }

  /// The cache that is made of a finished corpus.
  void make_cache(const std::string& corpus, const std::string& folder) {
    auto writer = TargetCacheWriter::create(folder, info_, {kTargetCacheShardLimit, true});
    auto extractor = FeatureExtractor::create(*model_, pool_, features_);
    CorpusFilter filter(filter_);
    const std::vector<std::string> corpora = {corpus};
    const auto keeps = [&](const CorpusRecord& record) { return filter.check(record) == DropReason::kNone; };
    const auto counts = cache_corpus(corpora, info_, **extractor, *writer, {}, nullptr, keeps);
    ASSERT_TRUE(counts.ok()) << counts.status().to_string();
    EXPECT_GT(counts->samples, 10);
    const std::string text = text_of(corpus);
    EXPECT_LT(counts->samples, std::ranges::count(text, '\n')) << "the filter drops something";
    EXPECT_GT(counts->truncated, 0);
    ASSERT_TRUE(writer->finish().ok());
  }

  static std::string text_of(const std::string& path) {
    std::string text;
    EXPECT_TRUE(for_each_record(path, [&](CorpusRecord&& record) {
                  text += corpus_line(record) + "\n";
                  return ok_status();
                }).ok());
    return text;
  }

  static void expect_equal(const std::string& folder, const std::string& expected) {
    const auto found = TargetCacheReader::open(folder), wanted = TargetCacheReader::open(expected);
    ASSERT_TRUE(found.ok() && wanted.ok()) << found.status().to_string() << wanted.status().to_string();
    ASSERT_EQ(found->n_samples(), wanted->n_samples());
    TargetCacheSample a, b;
    for (int64_t i = 0; i < found->n_samples(); ++i) {
      found->read(i, a);
      wanted->read(i, b);
      EXPECT_EQ(a.input_ids, b.input_ids) << i;
      EXPECT_EQ(a.loss_mask, b.loss_mask) << i;
      EXPECT_EQ(a.target_hidden_states, b.target_hidden_states) << i;
      EXPECT_EQ(a.target_last_hidden, b.target_last_hidden) << i;
      ASSERT_EQ(a.log_sum_exp.size(), b.log_sum_exp.size());
      for (size_t p = 0; p < a.log_sum_exp.size(); ++p) {
        EXPECT_EQ(std::isnan(a.log_sum_exp[p]), std::isnan(b.log_sum_exp[p])) << i << " " << p;
        if (std::isnan(b.log_sum_exp[p])) continue;
        EXPECT_NEAR(a.log_sum_exp[p], b.log_sum_exp[p], 1e-5);
      }
    }
  }

  ThreadPool pool_{2};
  std::unique_ptr<TargetModel> model_;
  std::vector<PromptRecord> prompts_;
  std::vector<Job> jobs_;
  RegenerateOptions run_;
  FilterOptions filter_;
  TargetCacheInfo info_;
  FeatureOptions features_;
  int64_t n_recomputed_ = 0;
  TempFolder temp_;
};

TEST_F(AnswerCacheTest, IsTheCacheOfTheSameCorpus) {
  const std::string plain = temp_.file("plain.jsonl"), together = temp_.file("together.jsonl");
  ASSERT_TRUE(generate(plain, ""));
  make_cache(plain, temp_.file("expected"));
  ASSERT_TRUE(generate(together, temp_.file("cache")));
  EXPECT_EQ(text_of(together), text_of(plain));
  expect_equal(temp_.file("cache"), temp_.file("expected"));
}

// Also where pages are short, so that sequences lose theirs and are computed again.
TEST_F(AnswerCacheTest, GoesOnWhereItWasCutOff) {
  const std::string plain = temp_.file("plain.jsonl"), together = temp_.file("together.jsonl");
  ASSERT_TRUE(generate(plain, ""));
  make_cache(plain, temp_.file("expected"));
  const std::string folder = temp_.file("cache");
  ASSERT_FALSE(generate(together, folder, 6, 128));
  EXPECT_FALSE(TargetCacheReader::open(folder).ok());
  ASSERT_FALSE(generate(together, "", 3)) << "records that the cache lacks";
  ASSERT_TRUE(generate(together, folder, -1, 128));
  EXPECT_GT(n_recomputed_, 0);
  EXPECT_EQ(text_of(together), text_of(plain));
  expect_equal(folder, temp_.file("expected"));
}

// A prompt that goes on like another prompt and its answer has the features of both, at the same time.
TEST_F(AnswerCacheTest, ATextMayBeginLikeAnother) {
  JobOptions options;
  options.temperatures = TemperatureMix::parse("0").value();
  run_.max_tokens = filter_.min_answer_tokens = info_.min_loss_tokens = 1;
  prompts_ = {{"t", "t/0", "dccb"}};
  jobs_ = make_jobs(prompts_, options);
  int32_t said = -1;
  ASSERT_TRUE(generate(temp_.file("first.jsonl"), ""));
  ASSERT_TRUE(for_each_record(temp_.file("first.jsonl"), [&](CorpusRecord&& record) {
                said = record.tokens.back();
                return ok_status();
              }).ok());
  ASSERT_LT(said, 90) << "no letter stands for it";
  const std::string both = prompts_[0].prompt + static_cast<char>(90 + said);
  for (const char* more : {"a", "bc", "cde", "defg"}) {  // whatever the order of their slots
    prompts_.push_back({"t", std::string("t/") + more, both + more});
  }
  jobs_ = make_jobs(prompts_, options);
  EXPECT_TRUE(generate(temp_.file("both.jsonl"), temp_.file("cache")));
  const auto cache = TargetCacheReader::open(temp_.file("cache"));
  ASSERT_TRUE(cache.ok()) << cache.status().to_string();
  EXPECT_EQ(cache->n_samples(), 5);
}

TEST_F(AnswerCacheTest, RefusesAnotherCorpus) {
  const std::string corpus = temp_.file("a.jsonl"), folder = temp_.file("cache");
  ASSERT_FALSE(generate(corpus, folder, 12));
  ASSERT_FALSE(generate(temp_.file("b.jsonl"), "", 2));
  auto cache = AnswerCache::create(folder, info_, filter_);
  ASSERT_TRUE(cache.ok()) << cache.status().to_string();
  auto extractor = FeatureExtractor::create(*model_, pool_, features_);
  const Result<bool> caught_up = cache->catch_up(temp_.file("b.jsonl"), **extractor);
  EXPECT_EQ(caught_up.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(caught_up.status().message().find("b.jsonl"), std::string::npos);
}

}  // namespace
}  // namespace dspark::test
