#pragma once
// The DSpark drafter inside a DeepSeek V4 checkpoint (tensors `mtp.*`): V4 blocks over a window of context
// rows made from the target's streams, a Markov head and a confidence head. docs/deepseek_v4.md tells the
// structure.

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "draft/draft_config.h"
#include "draft/draft_weights.h"
#include "draft/drafter.h"
#include "draft/row_pages.h"
#include "draft/sequential_head.h"
#include "kernels/kv_cache.h"
#include "models/deepseek_v4_attention.h"
#include "models/deepseek_v4_weights.h"
#include "models/float_buffer.h"
#include "models/hyper_connections.h"
#include "models/model.h"
#include "models/model_shapes.h"
#include "models/moe.h"

namespace dspark {

struct V4DrafterOptions {
  int32_t max_sequences = 1;
  int32_t context_length = 4096;  // most tokens of one sequence
  int64_t cache_tokens = 0;       // most tokens of all sequences; 0: every sequence may be full
  KvDType kv_dtype = KvDType::kBF16;
  bool float_activations = false;
  int32_t shortlist = 0;  // see SequentialDecoder
};

/// True when the checkpoint of this target has a drafter inside.
bool has_bundled_drafter(const TargetModel& target);

/// Settings of the drafter inside; its stages are counted by their tensors, or, without tensors, by the
/// entries of compress_ratios behind the target's layers. errors: not_found (no settings), invalid_argument
/// (the key).
Result<DraftConfig> read_v4_draft_config(const ModelConfig& model, const Checkpoint& file);
/// All its tensors, `mtp.*`.
std::vector<ExpectedTensor> v4_draft_tensors(const Checkpoint& file, const ModelConfig& model,
                                             const DraftConfig& draft);

/// Checks names, shapes and types of `mtp.*` without reading a weight. errors: what is wrong, by name.
Status check_v4_draft_tensors(const Checkpoint& file, const ModelConfig& model, const DraftConfig& draft);

/// Weights of the bundled drafter.
struct V4DraftWeights {
  PackedMatrix main_proj;        // [dim, taps * dim]
  std::vector<float> main_norm;  // (dim)
  std::vector<V4LayerWeights> stages;
  HyperWeights head_hc;
  std::vector<float> final_norm;  // (dim)
  size_t packed_bytes = 0;
};

class V4Drafter final : public Drafter {
 public:
  /// `target` and `pool` must outlive the drafter. errors: not_found (no drafter in the target's checkpoint),
  /// invalid_argument (settings or tensors missing or misshapen, options), out_of_memory.
  static Result<std::unique_ptr<V4Drafter>> create(const TargetModel& target, ThreadPool& pool,
                                                   const V4DrafterOptions& options);

  std::string_view name() const override { return "dspark"; }
  int32_t max_block() const override { return draft_.block_size; }
  std::span<const int32_t> tap_layers() const override { return draft_.taps; }
  /// A request whose context rows are not complete gets no drafts. errors: out_of_memory.
  Status propose(std::span<const DraftRequest> requests, DraftBlock& out) override;
  void commit(std::span<const CommitEvent> events) override;
  void release(int32_t slot) override;
  PrefixReuse prefix_reuse() const override { return PrefixReuse::kFromPages; }
  Status use_pages(int32_t n_pages) override;
  int32_t n_rows_in_pages(int32_t slot) const override { return slots_[static_cast<size_t>(slot)].n_rows; }
  void attach(const AttachEvent& event) override;
  Status set_calibration(std::span<const double> temperatures, std::span<const double> biases = {}) override;
  size_t weight_bytes() const override { return weights_.packed_bytes; }

  const DraftConfig& config() const { return draft_; }

 private:
  struct Slot {
    std::vector<int32_t> pages;
    int32_t n_rows = 0;    // context rows in the cache
    bool is_lost = false;  // rows are missing: no drafts until release()
  };

  V4Drafter(const TargetModel& target, DraftConfig draft, V4DraftWeights weights, BlockWeights head,
            KvPool cache, ThreadPool& pool, const V4DrafterOptions& options);
  bool take(const CommitEvent& event);
  bool add_context(const CommitEvent& event, const Slot& slot, int32_t first, int32_t n);
  void plan_round(std::span<const DraftRequest> requests, const DraftBlock& out);
  bool grow_buffers();
  void embed();
  void run_stage(size_t stage);
  void attend(size_t stage);
  void head();

  ModelConfig model_;  // the target's
  DraftConfig draft_;
  V4DraftWeights weights_;
  BlockWeights head_;  // Markov and confidence heads, vocabulary
  KvPool cache_;
  RowPages pages_;
  ThreadPool& pool_;
  int32_t context_length_;
  HyperShape hyper_;
  V4LayerLayout layout_;
  std::vector<Slot> slots_;
  SequentialDecoder decoder_;

  // commit()
  FloatBuffer features_, context_, context_keys_;
  std::vector<int32_t> positions_;

  // propose(): row r * block_size + j is slot j of the r-th request that can draft.
  std::vector<HeadRequest> round_;
  std::vector<int32_t> asked_rows_;
  FloatBuffer streams_, branch_, keys_, asked_streams_, hidden_, normed_, logits_;
  std::vector<FloatBuffer> thread_;  // keys and scores, per thread
  HyperMixer mixer_;
  V4AttentionBlock attention_;
  MoeBlock moe_;
  Activations activations_;
};

}  // namespace dspark
