#pragma once
// A target model: weights and the forward pass over a ragged batch.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "kernels/kv_cache.h"
#include "models/config.h"

namespace dspark {

/// Rows of one forward pass. Rows of one sequence are consecutive and at consecutive positions (a KvRun).
struct ForwardBatch {
  std::vector<int32_t> tokens;        // (n_rows)
  std::vector<int32_t> positions;     // (n_rows)
  std::vector<KvRun> runs;            // cover all rows, in order
  std::vector<int32_t> logit_rows;    // ascending row indices whose logits are wanted
  std::vector<int32_t> capture_rows;  // ascending row indices whose residual streams are wanted
  void clear();
  int64_t n_rows() const { return static_cast<int64_t>(tokens.size()); }
};

/// Results of one pass; valid until the next forward of the same model.
struct ForwardResult {
  std::span<const float> logits;      // (logit_rows, vocab_size), after the final soft cap
  std::span<const float> final_norm;  // (logit_rows, dim): input of the head
  std::span<const float> captured;    // (capture_layers, capture_rows, dim)
};

struct ModelOptions {
  bool float_activations = false;  // exact fp32 path: weights decoded to float (tests, golden comparison)
  int32_t max_rows = 2048;         // largest batch a forward will see (buffers grow on demand up to it)
};

/// One loaded target. thread: forward from one thread (the engine thread).
class TargetModel {
 public:
  /// errors: unsupported architecture or option, missing/unknown/misshapen tensors (all named).
  static Result<std::unique_ptr<TargetModel>> load(const Checkpoint& checkpoint, ThreadPool& pool,
                                                   const ModelOptions& options = {});
  virtual ~TargetModel() = default;

  virtual const ModelConfig& config() const = 0;
  /// Geometry for KvPool::create.
  virtual std::vector<KvLayerShape> kv_shapes() const = 0;
  /// Residual streams to keep in every forward: 0 = after the (scaled) embedding, l + 1 = after layer l.
  virtual void set_capture_layers(std::vector<int32_t> layers) = 0;
  /// One pass. K and V of all rows are written to `cache` at their positions.
  /// requires: token ids in [0, vocab_size), pages cover the positions.
  virtual ForwardResult forward(const ForwardBatch& batch, KvPool& cache) = 0;
  /// Bytes of packed weights.
  virtual size_t weight_bytes() const = 0;
};

}  // namespace dspark
