#pragma once
// From a corpus to a target cache.

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/target_cache.h"
#include "models/config.h"
#include "train_data/corpus.h"
#include "train_data/features.h"

namespace dspark {

struct CacheCounts {
  int64_t records = 0;     // read
  int64_t samples = 0;     // in the cache, those of an earlier run included
  int64_t tokens = 0;      // in the cache
  int64_t new_tokens = 0;  // computed by this run
  int64_t dropped = 0;     // too few supervised tokens
  int64_t truncated = 0;   // longer than the limit
  bool finished = false;   // false: cancelled; the cache can be continued
};

/// What the manifest says about a cache in `folder` that is made of the files `corpora` with these options:
/// corpora hold answers with their token ids, so its texts are "as generated", and it is named after its
/// folder. target_name: what trainers compare. min_loss_tokens is left as it is by default.
TargetCacheInfo corpus_cache_info(const std::string& folder, const ModelConfig& target,
                                  const std::string& target_name, const FeatureOptions& options,
                                  const std::vector<std::string>& corpora);

/// What a record becomes: ids cut to info.max_length tokens, the answer supervised; no features yet. Empty
/// when fewer than info.min_loss_tokens tokens are supervised: such a record is left out.
std::optional<TargetCacheSample> corpus_sample(const CorpusRecord& record, const TargetCacheInfo& info);

/// Computes the features of every record of the files `corpora`, in order, and appends them to `writer`,
/// whose first samples (from a run that was cut off) are skipped. Records are cut to info.max_length tokens;
/// those with fewer than info.min_loss_tokens supervised tokens, and those that `keeps` turns down, are left
/// out. Does not finish the writer.
/// errors: those of the files, the extractor and the writer.
Result<CacheCounts> cache_corpus(std::span<const std::string> corpora, const TargetCacheInfo& info,
                                 FeatureExtractor& extractor, TargetCacheWriter& writer,
                                 const std::function<void(const CacheCounts&)>& on_pass = {},
                                 const std::atomic<bool>* cancel = nullptr,
                                 const std::function<bool(const CorpusRecord&)>& keeps = {});

}  // namespace dspark
