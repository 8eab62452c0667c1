#pragma once
// Private to the room: which samples and anchors belong to which micro-step.

#include <cstdint>
#include <vector>

#include "formats/target_cache.h"
#include "train/step_batch.h"
#include "train/trainer.h"

namespace dspark {

/// Samples of all caches behind one another, cut into training and held-out ones.
class DataSource {
 public:
  /// Keeps samples with an anchor. errors: invalid_argument when too few are left.
  static Result<DataSource> create(const TrainOptions& options, std::vector<TargetCacheReader> caches);

  const std::vector<TargetCacheReader>& caches() const { return caches_; }
  int64_t n_train() const { return static_cast<int64_t>(train_.size()); }
  int64_t n_held_out() const { return static_cast<int64_t>(held_out_.size()); }
  /// Micro-steps of one epoch.
  int64_t micro_steps_per_epoch() const { return n_train() / sequences_; }
  /// Up to `anchors` blocks per sequence of micro-step `index`, counted from the beginning of the run.
  std::vector<AnchorSet> micro_step(int64_t index, int64_t anchors) const;
  /// Up to `count` held-out samples from `first` on, always with the same anchors.
  std::vector<AnchorSet> held_out(int64_t first, int64_t count) const;

 private:
  struct Place {
    int32_t cache = 0;
    int64_t sample = 0;
  };
  AnchorSet load(const Place& place, int64_t anchors, uint64_t stream) const;

  std::vector<TargetCacheReader> caches_;
  std::vector<Place> train_;
  std::vector<Place> held_out_;
  int64_t sequences_ = 1;
  int64_t anchors_ = 1;
  uint64_t seed_ = 0;
};

}  // namespace dspark
