#pragma once
// The progress line of `dspark train`.

#include <cstdint>
#include <string>

#include "train/trainer.h"

namespace dspark::cli {

/// Step by step: running means of what a step reports, and how fast the run goes.
class TrainProgress {
 public:
  explicit TrainProgress(const TrainOptions& options) : minutes_(options.minutes), steps_(options.steps) {}

  void add(const TrainRecord& record);
  /// "step 120  240 anchors/s  epoch 0.41  lr 2.9e-03  loss 2.310 (ce 3.20 soft-ce 3.10 l1 0.930 conf 0.290)
  /// tau 1.830  accept 0.52 0.31  norm 0.90  left 1:05 h": the terms without their factors, acceptance slot
  /// by slot. requires: a record was added.
  std::string line() const;

 private:
  double seconds_left() const;

  double minutes_;
  int64_t steps_;
  int64_t n_ = 0;
  TrainRecord first_;
  TrainRecord last_;
  TrainRecord mean_;  // losses, tau and acceptance
};

}  // namespace dspark::cli
