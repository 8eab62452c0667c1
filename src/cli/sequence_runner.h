#pragma once
// One sequence straight through a model, without the engine: for commands that look at logits.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "cli/model_flags.h"
#include "kernels/kv_cache.h"
#include "models/model.h"

namespace dspark::cli {

/// A model and its threads. Members die in the right order.
struct OpenedModel {
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<TargetModel> model;
  KvDType kv_dtype = KvDType::kBF16;
};

/// Loads the model that `flags` name. `dtype`: "auto" (stored weights as they are, cache as --kv-type says)
/// or "f32" (weights decoded to float, float cache). errors: also for another --dtype.
Result<OpenedModel> open_model(const ModelFlags& flags, const std::string& dtype);

/// A cache that holds one sequence from position 0 on.
class SequenceRunner {
 public:
  /// errors: out_of_memory.
  static Result<SequenceRunner> create(TargetModel& model, KvDType kv_dtype, int32_t n_positions);

  /// Appends `tokens`; logits and captures of all their rows. The result is valid until the next call.
  /// errors: invalid_argument (token id outside the vocabulary, too many positions), out_of_memory.
  Result<ForwardResult> forward(std::span<const int32_t> tokens);
  /// Starts over at position 0.
  void restart() { length_ = 0; }
  /// Forgets positions from `length` on. requires: length is at most what was forwarded.
  void truncate(int32_t length) { length_ = length; }
  /// Rows of one forward that keep the logits buffer small.
  int32_t chunk_rows() const;

 private:
  SequenceRunner(TargetModel& model, KvPool cache, int32_t n_positions);

  TargetModel* model_;
  KvPool cache_;
  std::vector<int32_t> pages_;
  int32_t n_positions_;
  int32_t length_ = 0;
  ForwardBatch batch_;
};

}  // namespace dspark::cli
