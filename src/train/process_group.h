#pragma once
// Several processes that train one drafter together: what they exchange.

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "train/draft_step.h"
#include "train/tensors.h"
#include "train/trainer.h"

namespace dspark {

/// The processes of a run, joined through libtorch's own collectives (c10d with gloo). Every process makes
/// the same calls in the same order. With one process nothing is exchanged. Lost processes end in exceptions
/// of libtorch. thread: one.
class ProcessGroup {
 public:
  /// Waits until all are there. errors: invalid_argument (a store that is neither a file nor HOST:PORT).
  static Result<std::unique_ptr<ProcessGroup>> join(const ProcessOptions& options);
  virtual ~ProcessGroup() = default;

  int32_t rank() const { return rank_; }
  int32_t world() const { return world_; }
  bool leads() const { return rank_ == 0; }

  /// Sums over the processes, place by place.
  void sum(std::vector<double>& values);
  double sum(double value);
  int64_t max(int64_t value);
  /// Every gradient becomes the sum of all processes' gradients; undefined ones count as zero.
  void sum_gradients(const TensorMap& params);
  /// Makes the metrics of this process's share of a step those of the step.
  void merge(StepMetrics& metrics);
  /// Takes over rank 0's numbers.
  void copy_from_leader(const TensorMap& tensors);

 protected:
  ProcessGroup(int32_t rank, int32_t world) : rank_(rank), world_(world) {}
  virtual void all_sum(at::Tensor& tensor) = 0;  // on the CPU, contiguous
  virtual void all_max(at::Tensor& tensor) = 0;
  virtual void broadcast(at::Tensor& tensor) = 0;

 private:
  int32_t rank_;
  int32_t world_;
};

}  // namespace dspark
