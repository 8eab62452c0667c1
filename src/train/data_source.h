#pragma once
// Private to the room: which samples and anchors belong to which micro-step.

#include <cstdint>
#include <vector>

#include "train/sample_source.h"
#include "train/step_batch.h"
#include "train/trainer.h"

namespace dspark {

/// Samples of all sources behind one another, cut into training and held-out ones: all answers to one prompt
/// are on the same side.
class DataSource {
 public:
  /// Keeps samples with an anchor. errors: invalid_argument when too few are left.
  static Result<DataSource> create(const TrainOptions& options, SampleSources sources);

  int64_t n_train() const { return static_cast<int64_t>(train_.size()); }
  int64_t n_held_out() const { return static_cast<int64_t>(held_out_.size()); }
  /// Micro-steps of one epoch.
  int64_t micro_steps_per_epoch() const { return n_train() / (sequences_ * world_); }
  /// Up to `anchors` blocks per sequence of this process's share of micro-step `index`, counted from the
  /// beginning of the run.
  Result<std::vector<AnchorSet>> micro_step(int64_t index, int64_t anchors);
  /// Up to `count` held-out samples from `first` on, always with the same anchors.
  Result<std::vector<AnchorSet>> held_out(int64_t first, int64_t count);

 private:
  struct Place {
    int32_t source = 0;
    int64_t sample = 0;
  };
  /// Which of a micro-step's samples is sample `j` of this process.
  int64_t share(int64_t j) const { return rank_ + world_ * j; }
  /// Sample `i` of a micro-step, in the order of its epoch.
  const Place& place_of(int64_t micro_step, int64_t i);
  /// Tells the sources what the micro-steps from `index` on read.
  void announce(int64_t index);
  Result<AnchorSet> load(const Place& place, int64_t anchors, uint64_t stream);

  SampleSources sources_;
  std::vector<Place> train_;
  std::vector<Place> held_out_;
  std::vector<int32_t> order_;  // of epoch_
  int64_t epoch_ = -1;
  int64_t sequences_ = 1;  // of this process
  int64_t rank_ = 0;
  int64_t world_ = 1;
  int64_t anchors_ = 1;
  uint64_t seed_ = 0;
};

}  // namespace dspark
