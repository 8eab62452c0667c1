#pragma once
// DSpark and DFlash: a drafter that reads the target's residual streams and proposes a whole block per pass
// (arXiv 2607.05147; DeepSpec). docs/drafters.md tells how a round computes.

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "draft/draft_cache.h"
#include "draft/draft_checkpoint.h"
#include "draft/draft_layer.h"
#include "draft/draft_trace.h"
#include "draft/draft_weights.h"
#include "draft/drafter.h"
#include "draft/float_buffer.h"
#include "draft/row_pages.h"
#include "draft/sequential_head.h"
#include "kernels/attention.h"
#include "kernels/kv_cache.h"
#include "kernels/matmul.h"

namespace dspark {

struct BlockDrafterOptions : DraftCapacity {
  int32_t shortlist = 0;  // see SequentialDecoder
};

/// Drafter over a learned backbone. Its cache holds, per layer, keys and values of rows computed from the
/// target's features; rows of a block exist during the pass that needs them and are dropped behind it.
class BlockDrafter final : public Drafter {
 public:
  /// requires: draft.config.kind is kDSpark or kDFlash; the target's weights and `pool` outlive the drafter.
  /// errors: a drafter for another target (field, expected and found), tensors that cannot be packed,
  /// invalid_argument (options, short blocks longer than whole ones), out_of_memory.
  static Result<std::unique_ptr<BlockDrafter>> create(DraftCheckpoint draft, const DraftTarget& target,
                                                      ThreadPool& pool, const BlockDrafterOptions& options);

  std::string_view name() const override { return draft_kind_name(draft_.config.kind); }
  std::string_view target_name() const override { return draft_.config.target_name; }
  int32_t max_block() const override { return draft_.config.n_drafts(); }
  int32_t short_block() const override { return draft_.config.n_short_drafts(); }
  std::span<const int32_t> tap_layers() const override { return draft_.config.taps; }
  /// A request for at most short_block() drafts has a short block, whatever its neighbours have. One whose
  /// context rows are not complete gets no drafts (features that never came, or more tokens than the cache
  /// was made for). errors: out_of_memory.
  Status propose(std::span<const DraftRequest> requests, DraftBlock& out) override;
  void commit(std::span<const CommitEvent> events) override;
  void release(int32_t slot) override;
  PrefixReuse prefix_reuse() const override { return PrefixReuse::kFromPages; }
  Status use_pages(int32_t n_pages) override;
  int32_t n_rows_in_pages(int32_t slot) const override { return context_rows(slot) - n_rows_waiting(slot); }
  int32_t n_rows_waiting(int32_t slot) const override { return slots_[static_cast<size_t>(slot)].n_waiting; }
  void complete_rows() override { flush_features(); }
  void catch_up() override;
  bool works_without_rows() const override { return true; }
  int32_t first_row(int32_t slot) const override { return slots_[static_cast<size_t>(slot)].first_row; }
  void attach(const AttachEvent& event) override;
  Status set_calibration(std::span<const double> temperatures, std::span<const double> biases = {}) override;
  bool set_trace(DraftTrace* trace) override;
  size_t weight_bytes() const override { return weights_.packed_bytes; }

  const DraftConfig& config() const { return draft_.config; }
  const BlockWeights& weights() const { return weights_; }
  const SequentialDecoder& sequential_head() const { return decoder_; }
  /// The cache and the pages that hold a sequence's context rows, and how many there are with those that
  /// wait; for tests.
  const KvPool& cache() const { return cache_; }
  std::span<const int32_t> pages(int32_t slot) const { return slots_[static_cast<size_t>(slot)].pages; }
  int32_t context_rows(int32_t slot) const { return slots_[static_cast<size_t>(slot)].n_rows; }
  const PageAllocator& allocator() const { return pages_.allocator(); }

 private:
  struct Slot {
    std::vector<int32_t> pages;
    int32_t first_row = 0;  // whole pages; what lies before is not read, it may have no rows
    int32_t n_rows = 0;     // context rows, positions first_row .. n_rows - 1
    int32_t n_waiting = 0;  // of these, the last ones that are not in the cache yet
    bool is_lost = false;   // rows are missing: no drafts until release()
  };

  BlockDrafter(DraftCheckpoint draft, BlockWeights weights, KvPool cache, ThreadPool& pool,
               const BlockDrafterOptions& options);

  bool reserve_attention();

  // Context rows (context_rows.cc).
  void take_features(const CommitEvent& event, int32_t first, int32_t n);
  bool make_room(Slot& slot, const CommitEvent& event);
  bool grow_context_buffers(int64_t n_new);
  void forget_waiting(int32_t slot);
  void flush_features();
  void project_context(int32_t first_layer, int32_t n_layers);

  // The block pass.
  void plan_round(std::span<const DraftRequest> requests, const DraftBlock& out);
  bool grow_buffers();
  void embed();
  void attend(int32_t layer_idx);
  void attend_rows(int32_t layer_idx);
  void attend_causal_window(int32_t layer_idx, AttentionArgs args);
  void drop_unasked_rows();
  void head();
  void record_layer(int32_t layer_idx, int64_t n_rows);
  void crop_blocks();

  int64_t q_dim() const { return int64_t{draft_.config.n_heads} * draft_.config.head_dim; }
  int64_t kv_dim() const { return int64_t{draft_.config.n_kv_heads} * draft_.config.head_dim; }

  DraftCheckpoint draft_;
  BlockWeights weights_;
  KvPool cache_;
  RowPages pages_;
  ThreadPool& pool_;
  int32_t context_length_;
  std::vector<Slot> slots_;
  std::vector<float> mask_row_;  // (dim) embedding of the mask token, scaled
  DraftLayerPass layer_;
  SequentialDecoder decoder_;
  DraftTrace* trace_ = nullptr;

  // commit(): rows waiting for one pass, also from one step to the next.
  int64_t n_waiting_ = 0;
  int64_t context_capacity_ = 0;  // rows that the buffers hold
  std::vector<KvRun> context_runs_;
  std::vector<int32_t> context_slots_;  // of each run
  std::vector<int32_t> context_positions_;
  FloatBuffer features_;               // (rows, taps * dim)
  FloatBuffer context_;                // (rows, dim)
  FloatBuffer context_k_, context_v_;  // (layers of a group, rows, kv_dim)

  // propose(): the r-th request that can draft has the rows of runs_[r], one per slot of its block.
  std::vector<HeadRequest> round_;
  std::vector<KvRun> runs_;
  std::vector<KvRun> row_runs_;  // one row of every run
  std::vector<int32_t> positions_;
  std::vector<int32_t> asked_rows_;  // rows that predict a draft somebody asked for, ascending
  FloatBuffer residual_, branch_, q_, k_, v_, attended_, hidden_, logits_;
  AttentionScratch scratch_;
};

}  // namespace dspark
