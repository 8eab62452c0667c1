#pragma once
// The target cache that grows beside a corpus while answers are generated.

#include <atomic>
#include <cstdint>
#include <string>

#include "base/status.h"
#include "formats/target_cache.h"
#include "train_data/corpus.h"
#include "train_data/features.h"
#include "train_data/filters.h"

namespace dspark {

/// Samples are those records of one corpus that the filter keeps, in its order. A record goes into the corpus
/// first, so a run that was cut off leaves a cache that lacks the last samples, never one that has too many.
class AnswerCache {
 public:
  /// errors: those of TargetCacheWriter::create.
  static Result<AnswerCache> create(const std::string& folder, const TargetCacheInfo& info,
                                    const FilterOptions& filter,
                                    uint64_t shard_limit = kTargetCacheShardLimit);

  /// To be called once, before add(): goes over what `corpus` holds from earlier runs and computes what the
  /// cache lacks of it. returns: false when cancelled.
  /// errors: those of cache_corpus; invalid_argument when the cache has more than the corpus.
  Result<bool> catch_up(const std::string& corpus, FeatureExtractor& extractor,
                        const std::atomic<bool>* cancel = nullptr);
  /// A new record and its features. errors: those of the writer.
  Status add(const CorpusRecord& record, TargetCacheSample&& sample);
  Status finish() { return writer_.finish(); }

  int64_t n_samples() const { return writer_.n_samples(); }
  int64_t n_tokens() const { return writer_.n_tokens(); }

 private:
  AnswerCache(const TargetCacheInfo& info, const FilterOptions& filter, TargetCacheWriter writer)
      : info_(info), filter_(filter), writer_(std::move(writer)) {}
  bool keeps(const CorpusRecord& record);

  TargetCacheInfo info_;
  CorpusFilter filter_;
  TargetCacheWriter writer_;
};

}  // namespace dspark
