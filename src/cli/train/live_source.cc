#include "cli/train/live_source.h"

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/loader.h"
#include "train_data/cache_corpus.h"

namespace dspark::cli {
namespace {

constexpr int32_t kDefaultLayers = 5;

/// What the worker and the trainer share is behind `mutex_`; the model belongs to the worker.
class LiveSource final : public SampleSource {
 public:
  LiveSource(std::string name, TargetCacheInfo info, std::vector<TargetCacheSample> samples,
             LoadedModel loaded, std::unique_ptr<FeatureExtractor> extractor)
      : name_(std::move(name)),
        info_(std::move(info)),
        samples_(std::move(samples)),
        loaded_(std::move(loaded)),
        extractor_(std::move(extractor)),
        worker_([this] { work(); }) {}

  ~LiveSource() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    work_to_do_.notify_all();
    worker_.join();
  }

  const std::string& name() const override { return name_; }
  const TargetCacheInfo& info() const override { return info_; }
  int64_t n_samples() const override { return std::ssize(samples_); }
  void read_tokens(int64_t idx, TargetCacheSample& sample) const override { sample = tokens_of(idx); }

  Status read(int64_t idx, TargetCacheSample& sample) override {
    std::unique_lock lock(mutex_);
    asked_ = idx;
    work_to_do_.notify_all();
    ready_changed_.wait(lock, [&] { return !failure_.ok() || ready_.contains(idx); });
    asked_ = kNone;
    if (!failure_.ok()) return failure_;
    sample = ready_.at(idx);
    if (!is_expected(idx)) ready_.erase(idx);
    return ok_status();
  }

  void expect(std::span<const int64_t> next) override {
    {
      const std::lock_guard lock(mutex_);
      expected_.assign(next.begin(), next.end());
      std::erase_if(ready_, [&](const auto& entry) { return !is_expected(entry.first); });
    }
    work_to_do_.notify_all();
  }

 private:
  static constexpr int64_t kNone = -1;

  const TargetCacheSample& tokens_of(int64_t idx) const { return samples_[static_cast<size_t>(idx)]; }
  bool is_expected(int64_t idx) const {
    return std::find(expected_.begin(), expected_.end(), idx) != expected_.end();
  }

  /// Samples of the next pass: the one that is waited for, then those expected, as many as fit.
  std::vector<int64_t> next_pass() const {
    std::vector<int64_t> pass;
    int64_t n_rows = 0;
    const auto add = [&](int64_t idx) {
      if (ready_.contains(idx) || std::find(pass.begin(), pass.end(), idx) != pass.end()) return true;
      n_rows += std::ssize(tokens_of(idx).input_ids);
      if (!pass.empty() && n_rows > extractor_->batch_rows()) return false;
      pass.push_back(idx);
      return true;
    };
    if (asked_ != kNone) add(asked_);
    for (const int64_t idx : expected_) {
      if (!add(idx)) break;
    }
    return pass;
  }

  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      std::vector<int64_t> pass;
      work_to_do_.wait(lock, [&] { return stop_ || !(pass = next_pass()).empty(); });
      if (stop_) return;
      lock.unlock();
      std::vector<TargetCacheSample> samples;
      for (const int64_t idx : pass) samples.push_back(tokens_of(idx));
      Status status = extractor_->extract(samples);
      lock.lock();
      if (!status.ok()) {
        failure_ = std::move(status);
        ready_changed_.notify_all();
        return;
      }
      for (size_t i = 0; i < pass.size(); ++i) ready_[pass[i]] = std::move(samples[i]);
      ready_changed_.notify_all();
    }
  }

  std::string name_;
  TargetCacheInfo info_;
  const std::vector<TargetCacheSample> samples_;  // without features
  LoadedModel loaded_;
  std::unique_ptr<FeatureExtractor> extractor_;

  std::mutex mutex_;
  std::condition_variable work_to_do_;
  std::condition_variable ready_changed_;
  std::vector<int64_t> expected_;
  int64_t asked_ = kNone;
  std::map<int64_t, TargetCacheSample> ready_;
  Status failure_;
  bool stop_ = false;
  std::thread worker_;  // last: it uses the others
};

}  // namespace

Result<std::unique_ptr<SampleSource>> open_live_source(const LiveOptions& options) {
  LoadOptions load;
  load.n_threads = options.threads;
  load.float_activations = options.float_activations;
  DSPARK_ASSIGN_OR_RETURN(LoadedModel loaded, load_model(options.model, load));
  const ModelConfig& config = loaded.model->config();
  FeatureOptions features;
  features.layer_ids =
      options.layers.empty() ? spread_layer_ids(config.n_layers, kDefaultLayers) : options.layers;
  features.kv_dtype = options.float_activations ? KvDType::kF32 : KvDType::kBF16;
  features.batch_rows = options.batch_rows;
  features.max_length =
      config.context_length > 0 ? std::min(options.max_length, config.context_length) : options.max_length;
  features.log_sum_exp = options.log_sum_exp;
  DSPARK_ASSIGN_OR_RETURN(std::unique_ptr<FeatureExtractor> extractor,
                          FeatureExtractor::create(*loaded.model, *loaded.pool, features));
  TargetCacheInfo info;
  info.hidden_size = config.dim;
  info.target_layer_ids = features.layer_ids;
  info.target_model_name_or_path = std::filesystem::path(options.model).filename().string();
  info.source_jsonl_paths = options.corpora;
  info.max_length = features.max_length;
  info.min_loss_tokens = options.min_loss_tokens;
  std::vector<TargetCacheSample> samples;
  for (const std::string& path : options.corpora) {
    DSPARK_RETURN_IF_ERROR(for_each_record(path, [&](CorpusRecord&& record) {
      std::optional<TargetCacheSample> sample = corpus_sample(record, info);
      if (sample) samples.push_back(std::move(*sample));
      return ok_status();
    }));
  }
  return std::unique_ptr<SampleSource>(new LiveSource(
      options.corpora.front(), std::move(info), std::move(samples), std::move(loaded), std::move(extractor)));
}

}  // namespace dspark::cli
