#pragma once
// Eagle3 and MTP: drafters of one causal layer that pair what the target computed at position i with the
// token at i + 1 and predict the token at i + 2. docs/drafters.md tells how a round computes.

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "draft/draft_cache.h"
#include "draft/draft_checkpoint.h"
#include "draft/draft_constraint.h"
#include "draft/draft_layer.h"
#include "draft/draft_pick.h"
#include "draft/draft_trace.h"
#include "draft/draft_weights.h"
#include "draft/drafter.h"
#include "draft/float_buffer.h"
#include "draft/row_pages.h"
#include "kernels/kv_cache.h"

namespace dspark {

struct PairedDrafterOptions : DraftCapacity {
  /// A proposal ends behind the first of these tokens. Nothing depends on it but the work of drafts that
  /// would be cut anyway; the reference of Eagle3 does it.
  std::vector<int32_t> stop_tokens = {};
};

/// Weights of an Eagle3 or MTP drafter; what the other kind has stays empty.
struct PairedWeights {
  PackedMatrix fc;                 // Eagle3: [dim, taps * dim]
  std::vector<float> target_norm;  // MTP: (dim) the target's norm before its head
  float target_norm_eps = 1e-6f;
  std::vector<float> enorm;  // MTP: (dim) of the embedding
  std::vector<float> hnorm;  // MTP: (dim) of the hidden state
  PackedMatrix eh;           // MTP: [dim, 2 * dim], embedding first
  DraftLayerWeights layer;
  std::vector<float> final_norm;  // (dim)
  DraftVocabulary vocabulary;
  size_t packed_bytes = 0;
};

/// Checks the drafter against the target, then packs. errors: check_draft_fits, DraftWeightLoader.
Result<PairedWeights> load_paired_weights(const DraftCheckpoint& draft, const DraftTarget& target,
                                          ThreadPool& pool, bool float_activations);

/// Row i of a sequence carries g_i: Eagle3 fc(features), MTP the target's last hidden state. With the
/// embedding e of token i + 1 it goes through the layer at position i; the output h_i predicts token i + 2.
///   Eagle3  h = layer(residual g, attends over [input_layernorm(e) ; hidden_norm(g)])
///   MTP     x = W_eh [enorm(e) ; hnorm(g)];  h = layer(residual x, attends over input_layernorm(x))
/// A token that was drafted has no g of the target: Eagle3 goes on with h in its place. MTP drafts one token.
class PairedDrafter final : public Drafter {
 public:
  /// requires: draft.config.kind is kEagle3 or kMtp; the target's weights and `pool` outlive the drafter.
  /// errors: a drafter for another target (field, expected and found), tensors that cannot be packed,
  /// invalid_argument (options), out_of_memory.
  static Result<std::unique_ptr<PairedDrafter>> create(DraftCheckpoint draft, const DraftTarget& target,
                                                       ThreadPool& pool, const PairedDrafterOptions& options);

  std::string_view name() const override { return draft_kind_name(draft_.config.kind); }
  std::string_view target_name() const override { return draft_.config.target_name; }
  int32_t max_block() const override { return draft_.config.n_drafts(); }
  std::span<const int32_t> tap_layers() const override { return draft_.config.taps; }
  /// A request whose rows are not complete gets no drafts (features that never came, or more tokens than the
  /// cache was made for). errors: out_of_memory.
  Status propose(std::span<const DraftRequest> requests, DraftBlock& out) override;
  void commit(std::span<const CommitEvent> events) override;
  void release(int32_t slot) override;
  PrefixReuse prefix_reuse() const override { return PrefixReuse::kFromPages; }
  Status use_pages(int32_t n_pages) override;
  int32_t page_lookahead() const override { return 1; }
  int32_t n_rows_in_pages(int32_t slot) const override { return context_rows(slot); }
  void attach(const AttachEvent& event) override;
  bool set_trace(DraftTrace* trace) override;
  size_t weight_bytes() const override { return weights_.packed_bytes; }

  const DraftConfig& config() const { return draft_.config; }
  /// The cache and the pages that hold a sequence's rows; for tests.
  const KvPool& cache() const { return cache_; }
  std::span<const int32_t> pages(int32_t slot) const { return slots_[static_cast<size_t>(slot)].pages; }
  int32_t context_rows(int32_t slot) const { return slots_[static_cast<size_t>(slot)].n_rows; }
  const PageAllocator& allocator() const { return pages_.allocator(); }

 private:
  struct Slot {
    std::vector<int32_t> pages;
    int32_t n_rows = 0;          // rows in the cache, positions 0 .. n_rows - 1
    bool has_waiting = false;    // row n_rows waits for its token
    bool is_lost = false;        // rows are missing: no drafts until release()
    std::vector<float> waiting;  // (dim) g of that row
    std::vector<float> last;     // (dim) h of row n_rows - 1: where a proposal starts
  };
  /// Feature rows of one event that join a pass.
  struct Piece {
    const CommitEvent* event = nullptr;
    int32_t first = 0;  // of the event's rows
    int32_t n = 0;
    int64_t at = 0;  // among the feature rows of the pass
  };
  /// One sequence of a round.
  struct Round {
    const DraftRequest* request = nullptr;
    size_t out_row = 0;
    int32_t n_drafts = 0;
    size_t trace_row = 0;  // of its first draft
  };

  PairedDrafter(DraftCheckpoint draft, PairedWeights weights, KvPool cache, ThreadPool& pool,
                const PairedDrafterOptions& options);

  // commit() (paired_rows.cc)
  void reserve_lists();
  bool accept_event(Slot& slot, const CommitEvent& event);
  void take_features(const CommitEvent& event, int32_t first, int32_t n);
  void flush();
  void carry_features();
  void pair_piece(const Piece& piece);
  void add_pair(Slot& slot, int32_t slot_idx, int32_t token, const float* carried);
  void run_pairs();

  // propose()
  void plan_round(std::span<const DraftRequest> requests, DraftBlock& out);
  bool grow_step_buffers();
  void predict();
  void pick_drafts(int32_t step, DraftBlock& out);
  void drop_finished(int32_t step, const DraftBlock& out);
  void advance(int32_t step, const DraftBlock& out);
  void crop_rollouts();
  void start_trace();
  void record_step(int32_t step);

  /// Inputs of the layer from tokens and carried rows (rows, dim): residual_ and x_.
  void make_inputs(std::span<const int32_t> tokens, const float* carried);
  bool grow_rows(int64_t n_rows);
  void embed(std::span<const int32_t> tokens, float* out, int64_t stride);
  bool is_stop(int32_t token) const;
  bool is_slot(int32_t slot) const { return slot >= 0 && slot < static_cast<int32_t>(slots_.size()); }

  DraftCheckpoint draft_;
  PairedWeights weights_;
  KvPool cache_;
  RowPages pages_;
  ThreadPool& pool_;
  int32_t context_length_;
  std::vector<int32_t> stop_tokens_;
  std::vector<Slot> slots_;
  DraftLayerPass layer_;
  DraftTrace* trace_ = nullptr;

  // Rows of a pass through the layer.
  std::vector<int32_t> tokens_;
  std::vector<int32_t> positions_;
  std::vector<KvRun> runs_;
  FloatBuffer carried_;   // (rows, dim) g
  FloatBuffer pair_;      // (rows, 2 * dim) MTP: [enorm(e) ; hnorm(g)]
  FloatBuffer x_;         // (rows, columns of the projections)
  FloatBuffer residual_;  // (rows, dim)

  // commit(): feature rows waiting for one pass, and the rows whose output somebody needs.
  std::vector<Piece> pieces_;
  std::vector<int32_t> row_slots_;  // per row of the pass
  std::vector<int32_t> asked_;
  std::vector<int32_t> asked_positions_;
  std::vector<KvRun> asked_runs_;
  int64_t n_waiting_ = 0;
  FloatBuffer features_;   // (feature rows, taps * dim)
  FloatBuffer projected_;  // (feature rows, dim) g

  // propose(): rows are the active sequences of the step.
  std::vector<Round> round_;
  std::vector<int32_t> active_;     // indices into round_, ascending
  FloatBuffer hidden_;              // (active, dim) h before the final norm
  FloatBuffer normed_;              // (active, dim)
  FloatBuffer logits_;              // (active, draft vocabulary)
  std::vector<PickScratch> picks_;  // per thread
  DraftConstraints constraints_;
};

}  // namespace dspark
