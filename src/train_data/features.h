#pragma once
// Features of a target for given tokens: what its layers put out, many sequences in one pass.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "formats/target_cache.h"
#include "kernels/kv_cache.h"
#include "models/model.h"

namespace dspark {

struct FeatureOptions {
  std::vector<int32_t> layer_ids;     // ascending; l: output of layer l, -1: the embedding
  KvDType kv_dtype = KvDType::kBF16;  // of the cache, as at serving
  int32_t batch_rows = 512;           // rows of a pass
  int32_t max_length = 4096;          // tokens of the longest sample
  bool log_sum_exp = false;           // of the logits at supervised positions: costs the head

  /// errors: invalid_argument naming the option.
  Status validate(const ModelConfig& config) const;
};

/// `n` layers spread evenly from the second to the last but two of `n_layers` (the choice of the reference);
/// fewer when there are not so many.
std::vector<int32_t> spread_layer_ids(int32_t n_layers, int32_t n);

/// thread: one thread, which is also the one that uses `pool`.
class FeatureExtractor {
 public:
  /// requires: model and pool outlive the extractor; nobody else uses the model meanwhile.
  /// errors: options, unsupported (a target that does not share its final norm), out_of_memory (cache).
  static Result<std::unique_ptr<FeatureExtractor>> create(TargetModel& model, ThreadPool& pool,
                                                          const FeatureOptions& options);

  /// Fills target_hidden_states, target_last_hidden and, if asked for, log_sum_exp of samples whose ids and
  /// masks are set. A sample's numbers do not depend on the others.
  /// errors: invalid_argument (token ids, length), out_of_memory.
  Status extract(std::span<TargetCacheSample> samples);
  /// Tokens of a call of extract() that fill one pass.
  int32_t batch_rows() const { return options_.batch_rows; }

 private:
  FeatureExtractor(TargetModel& model, ThreadPool& pool, const FeatureOptions& options, KvPool cache);

  Status check(const TargetCacheSample& sample) const;
  void prepare(TargetCacheSample& sample) const;
  Status extract_group(std::span<TargetCacheSample> group);
  void add_rows_of(const TargetCacheSample& sample, int64_t begin, int64_t n, std::span<const int32_t> pages);
  void store(const ForwardResult& result);
  void store_log_sum_exp(const ForwardResult& result);

  /// Where a row of the pass belongs.
  struct RowPlace {
    TargetCacheSample* sample = nullptr;
    int64_t position = 0;
  };

  TargetModel& model_;
  ThreadPool& pool_;
  FeatureOptions options_;
  KvPool cache_;
  ForwardBatch batch_;
  std::vector<RowPlace> places_;
  std::vector<std::vector<int32_t>> pages_;
  std::vector<float> normed_;
  std::vector<std::vector<float>> logit_scratch_;  // one row per thread
};

}  // namespace dspark
