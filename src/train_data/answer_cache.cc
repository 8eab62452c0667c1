#include "train_data/answer_cache.h"

#include <algorithm>
#include <array>
#include <utility>

#include "train_data/cache_corpus.h"

namespace dspark {

Result<AnswerCache> AnswerCache::create(const std::string& folder, const TargetCacheInfo& info,
                                        const FilterOptions& filter, uint64_t shard_limit) {
  DSPARK_ASSIGN_OR_RETURN(TargetCacheWriter writer,
                          TargetCacheWriter::create(folder, info, {shard_limit, true}));
  return AnswerCache(info, filter, std::move(writer));
}

bool AnswerCache::keeps(const CorpusRecord& record) {
  return filter_.check(record) == DropReason::kNone;
}

Result<bool> AnswerCache::catch_up(const std::string& corpus, FeatureExtractor& extractor,
                                   const std::atomic<bool>* cancel) {
  int64_t n_kept = 0;
  const auto keeps_record = [&](const CorpusRecord& record) {
    const bool kept = keeps(record);
    n_kept += kept && corpus_sample(record, info_) ? 1 : 0;
    return kept;
  };
  const std::array<std::string, 1> corpora = {corpus};
  DSPARK_ASSIGN_OR_RETURN(const CacheCounts counts,
                          cache_corpus(corpora, info_, extractor, writer_, {}, cancel, keeps_record));
  if (counts.finished && n_kept < writer_.n_samples()) {
    return invalid_argument(corpus + ": has " + std::to_string(n_kept) + " answers for a cache of " +
                            std::to_string(writer_.n_samples()) +
                            " samples: not the corpus it was made with");
  }
  return counts.finished;
}

Status AnswerCache::add(const CorpusRecord& record, TargetCacheSample&& sample) {
  // As the corpus has it, where an answer that was cut inside a character ends in U+FFFD.
  DSPARK_ASSIGN_OR_RETURN(const CorpusRecord written, parse_corpus_line(corpus_line(record), record.id));
  if (!keeps(written) || !corpus_sample(written, info_)) return ok_status();
  const size_t n = std::min(sample.n_tokens(), static_cast<size_t>(info_.max_length));
  sample.input_ids.resize(n);
  sample.attention_mask.resize(n);
  sample.loss_mask.resize(n);
  sample.log_sum_exp.resize(n);
  sample.target_hidden_states.resize(n * static_cast<size_t>(info_.feature_size()));
  sample.target_last_hidden.resize(n * static_cast<size_t>(info_.hidden_size));
  return writer_.append(sample);
}

}  // namespace dspark
