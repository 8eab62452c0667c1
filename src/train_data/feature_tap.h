#pragma once
// Features of answers while they are written: what FeatureExtractor computes afterwards, without its passes.

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "draft/drafter.h"
#include "formats/target_cache.h"
#include "models/model.h"

namespace dspark {

/// Looks like a drafter to the engine, which hands it the rows that it kept; proposes nothing. Every sequence
/// that may have drafts is kept, its whole prompt included (such sequences share no pages).
/// thread: the engine's.
class FeatureTap final : public Drafter {
 public:
  /// layer_ids: ascending, -1: the embedding, as FeatureOptions. requires: model outlives the tap.
  /// errors: those of FeatureExtractor::create for layers and models.
  static Result<std::unique_ptr<FeatureTap>> create(const TargetModel& model,
                                                    std::span<const int32_t> layer_ids);

  std::string_view name() const override { return "features"; }
  int32_t max_block() const override { return 1; }
  std::span<const int32_t> tap_layers() const override { return streams_; }
  PrefixReuse prefix_reuse() const override { return PrefixReuse::kNever; }
  Status propose(std::span<const DraftRequest> requests, DraftBlock& out) override;
  void commit(std::span<const CommitEvent> events) override;
  void release(int32_t slot) override;

  /// Copies the features of a sequence whose text begins with sample.input_ids into the sample. Equal texts
  /// have equal features, so it does not matter whose they are.
  /// returns: false when no sequence has the rows of all those tokens.
  bool copy_to(TargetCacheSample& sample) const;

 private:
  FeatureTap(const TargetModel& model, std::vector<int32_t> streams)
      : model_(model), streams_(std::move(streams)) {}

  struct Text {
    std::vector<int32_t> tokens;
    std::vector<uint16_t> features;     // (rows, layers, dim) bf16
    std::vector<uint16_t> last_hidden;  // (rows, dim) bf16, behind the final norm
    size_t n_rows = 0;
  };
  void add_rows(Text& text, const CommitEvent& event);

  const TargetModel& model_;
  std::vector<int32_t> streams_;  // residual streams: the layers', then the last
  ThreadPool pool_{1};
  std::map<int32_t, Text> texts_;  // by slot
  std::vector<float> normed_;
};

}  // namespace dspark
