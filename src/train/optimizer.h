#pragma once
// Private to the room: AdamW over fp32 masters, gradient clipping, learning-rate schedules, averaging.

#include <cstdint>
#include <vector>

#include "train/tensors.h"

namespace dspark {

struct AdamOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
};

/// First and second moments of every parameter, by its name.
class AdamW {
 public:
  AdamW(const TensorMap& params, const AdamOptions& options);
  /// From now on weights move as if they were multiplied by scales[name], [1] or [columns], and their inputs
  /// divided by it. Powers of two, so that nothing is rounded. Names without a scale have 1.
  void scale(TensorMap scales, const at::Device& device = at::kCPU);
  const TensorMap& scales() const { return scales_; }
  /// Turns gradients into those of the scaled weights: before clipping and step().
  void scale_gradients(const TensorMap& params) const;
  /// One update with the gradients in `params`; they are left as they are.
  void step(const TensorMap& params, double learning_rate);
  TensorMap& first() { return first_; }
  TensorMap& second() { return second_; }
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 private:
  AdamOptions options_;
  TensorMap first_;
  TensorMap second_;
  TensorMap scales_;
  int64_t steps_ = 0;
};

/// Scales all gradients so that their joint norm is at most `max_norm`. returns: the norm before.
double clip_gradients(const TensorMap& params, double max_norm);
void zero_gradients(const TensorMap& params);

/// DeepSpec's schedule: linear warm-up over int(warmup * total) steps, then a cosine to zero with the factor
/// that its chained schedulers leave behind. `step` from 0.
double learning_rate_at_step(double peak, double warmup, int64_t step, int64_t total);
/// The same shape over elapsed time, without that factor. `progress` 0..1 is the share of the budget used.
double learning_rate_at(double peak, double warmup, double progress);

/// average += (1 - decay) (params - average), with less decay in the first steps.
void update_average(TensorMap& average, const TensorMap& params, double decay, int64_t step);

}  // namespace dspark
