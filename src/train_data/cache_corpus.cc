#include "train_data/cache_corpus.h"

#include <algorithm>
#include <filesystem>
#include <utility>
#include <vector>

namespace dspark {
namespace {

/// Collects samples until a pass is full.
class CacheJob {
 public:
  CacheJob(const TargetCacheInfo& info, FeatureExtractor& extractor, TargetCacheWriter& writer)
      : info_(info), extractor_(extractor), writer_(writer), n_to_skip_(writer.n_samples()) {}

  Status add(const CorpusRecord& record) {
    ++counts_.records;
    std::optional<TargetCacheSample> sample = corpus_sample(record, info_);
    if (!sample) {
      ++counts_.dropped;
      return ok_status();
    }
    const size_t n = sample->n_tokens();
    if (n < record.tokens.size()) ++counts_.truncated;
    if (n_to_skip_ > 0) {
      --n_to_skip_;
      return ok_status();
    }
    const bool full = n_rows_ + static_cast<int64_t>(n) > extractor_.batch_rows();
    if (full) DSPARK_RETURN_IF_ERROR(flush());
    n_rows_ += static_cast<int64_t>(n);
    samples_.push_back(std::move(*sample));
    return ok_status();
  }

  Status flush() {
    DSPARK_RETURN_IF_ERROR(extractor_.extract(samples_));
    for (const TargetCacheSample& sample : samples_) DSPARK_RETURN_IF_ERROR(writer_.append(sample));
    counts_.new_tokens += n_rows_;
    samples_.clear();
    n_rows_ = 0;
    return ok_status();
  }

  CacheCounts counts() const {
    CacheCounts counts = counts_;
    counts.samples = writer_.n_samples();
    counts.tokens = writer_.n_tokens();
    return counts;
  }
  bool just_flushed() const { return samples_.size() <= 1; }

 private:
  const TargetCacheInfo& info_;
  FeatureExtractor& extractor_;
  TargetCacheWriter& writer_;
  int64_t n_to_skip_;
  CacheCounts counts_;
  std::vector<TargetCacheSample> samples_;
  int64_t n_rows_ = 0;
};

}  // namespace

TargetCacheInfo corpus_cache_info(const std::string& folder, const ModelConfig& target,
                                  const std::string& target_name, const FeatureOptions& options,
                                  const std::vector<std::string>& corpora) {
  TargetCacheInfo info;
  info.hidden_size = target.dim;
  info.target_layer_ids = options.layer_ids;
  info.target_model_name_or_path = target_name;
  info.source_jsonl_paths = corpora;
  info.chat_template = "as generated";
  info.max_length = options.max_length;
  info.project_name = "dspark.cpp";
  info.exp_name = std::filesystem::path(folder).filename().string();
  return info;
}

std::optional<TargetCacheSample> corpus_sample(const CorpusRecord& record, const TargetCacheInfo& info) {
  const size_t n = std::min(record.tokens.size(), static_cast<size_t>(info.max_length));
  const auto n_prompt = static_cast<size_t>(record.prompt_tokens);
  if (n < n_prompt + static_cast<size_t>(std::max(info.min_loss_tokens, 1))) return std::nullopt;
  TargetCacheSample sample;
  sample.input_ids.assign(record.tokens.begin(), record.tokens.begin() + static_cast<std::ptrdiff_t>(n));
  sample.attention_mask.assign(n, 1);
  sample.loss_mask.assign(n, 1);
  std::fill_n(sample.loss_mask.begin(), n_prompt, uint8_t{0});
  return sample;
}

Result<CacheCounts> cache_corpus(std::span<const std::string> corpora, const TargetCacheInfo& info,
                                 FeatureExtractor& extractor, TargetCacheWriter& writer,
                                 const std::function<void(const CacheCounts&)>& on_pass,
                                 const std::atomic<bool>* cancel,
                                 const std::function<bool(const CorpusRecord&)>& keeps) {
  CacheJob job(info, extractor, writer);
  const auto cancelled_now = [cancel] { return cancel != nullptr && cancel->load(); };
  for (const std::string& path : corpora) {
    const Status status = for_each_record(path, [&](CorpusRecord&& record) {
      if (cancelled_now()) return cancelled("");
      if (keeps && !keeps(record)) return ok_status();
      DSPARK_RETURN_IF_ERROR(job.add(record));
      if (on_pass && job.just_flushed()) on_pass(job.counts());
      return ok_status();
    });
    if (status.code() == StatusCode::kCancelled) return job.counts();
    DSPARK_RETURN_IF_ERROR(status);
  }
  DSPARK_RETURN_IF_ERROR(job.flush());
  CacheCounts counts = job.counts();
  counts.finished = true;
  return counts;
}

}  // namespace dspark
