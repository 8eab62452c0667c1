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
#include "kernels/matmul.h"
#include "models/config.h"

namespace dspark {

/// Rows of one forward pass. Rows of one sequence are consecutive and at consecutive positions (a KvRun).
/// Reused from step to step, so that its vectors keep their capacity.
struct ForwardBatch {
  std::vector<int32_t> tokens;        // (n_rows)
  std::vector<int32_t> positions;     // (n_rows)
  std::vector<KvRun> runs;            // cover all rows, in order
  std::vector<int32_t> logit_rows;    // ascending row indices whose logits are wanted
  std::vector<int32_t> capture_rows;  // ascending row indices whose residual streams are wanted
  void clear();
  /// Makes room for so many rows, whatever is wanted of them, in so many runs.
  void reserve(int64_t most_rows, int64_t most_runs);
  int64_t n_rows() const { return static_cast<int64_t>(tokens.size()); }
};

/// Results of one pass; valid until the next forward of the same model.
struct ForwardResult {
  std::span<const float> logits;      // (logit_rows, vocab_size), after the final soft cap
  std::span<const float> final_norm;  // (logit_rows, dim): input of the head
  std::span<const float> captured;    // (capture_layers, capture_rows, dim)
  bool out_of_memory = false;         // nothing was computed; TargetModel::reserve tells beforehand
};

struct ModelOptions {
  bool float_activations = false;  // exact fp32 path: weights decoded to float (tests, golden comparison)
};

/// What a drafter borrows from its target. Views live as long as the model.
struct SharedWeights {
  TensorView embedding;                // [vocab_size, dim] as stored; config().embedding_scale not applied
  TensorView head_tensor;              // [vocab_size, dim] as stored; the embedding when tied
  const PackedMatrix* head = nullptr;  // the same, packed
  std::span<const float> final_norm;   // (dim) weight of the norm before the head
};

/// One loaded target. thread: forward from one thread (the engine thread).
class TargetModel {
 public:
  /// Packs the weights of `checkpoint`. The model keeps the checkpoint (embedding rows are decoded from the
  /// mapped file) and uses `pool` in every forward: the pool must outlive the model.
  /// errors: unsupported architecture or option, missing/unknown/misshapen tensors (all named).
  static Result<std::unique_ptr<TargetModel>> load(std::shared_ptr<const Checkpoint> checkpoint,
                                                   ThreadPool& pool, const ModelOptions& options = {});
  /// Opens `path` (a .gguf file, a .safetensors file or a Hugging Face folder) and loads it.
  static Result<std::unique_ptr<TargetModel>> open(const std::string& path, ThreadPool& pool,
                                                   const ModelOptions& options = {});
  virtual ~TargetModel() = default;

  virtual const ModelConfig& config() const = 0;
  /// The file behind the model: metadata, tokenizer, chat template.
  virtual const Checkpoint& checkpoint() const = 0;
  /// Geometry for KvPool::create.
  virtual std::vector<KvLayerShape> kv_shapes() const = 0;
  /// Residual streams to keep in every forward: 0 = after the (scaled) embedding, l + 1 = after layer l.
  /// `captured` holds them in the order given here. requires: every entry in [0, n_layers].
  virtual void set_capture_layers(std::vector<int32_t> layers) = 0;
  /// Makes room for batches of up to `n_rows` rows with `n_logit_rows` logits, of sequences of up to
  /// `context_length` positions, so that forward does not allocate. Optional: forward grows its buffers to
  /// the largest batch seen. errors: out_of_memory.
  virtual Status reserve(int64_t n_rows, int64_t n_logit_rows, int64_t context_length) = 0;
  /// One pass. K and V of all rows are written to `cache` at their positions.
  /// requires: token ids in [0, vocab_size), pages cover the positions.
  virtual ForwardResult forward(const ForwardBatch& batch, KvPool& cache) = 0;
  /// Embedding, head and final norm, for drafters that use the target's own. Empty when there are none.
  virtual SharedWeights shared_weights() const { return {}; }
  /// The threads that forward runs on, idle between passes; null: there are none to lend.
  virtual ThreadPool* pool() const { return nullptr; }
  /// Bytes of packed weights.
  virtual size_t weight_bytes() const = 0;
};

}  // namespace dspark
