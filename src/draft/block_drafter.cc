// The block pass of a DSpark or DFlash drafter. Context rows are made in context_rows.cc.

#include "draft/block_drafter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "kernels/row_math.h"
#include "kernels/rows.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

const float* bias_or_null(const std::vector<float>& bias) {
  return bias.empty() ? nullptr : bias.data();
}

// Moves rows to the front; works in place because rows ascend.
void gather_rows(float* to, const float* from, std::span<const int32_t> rows, int64_t dim) {
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memmove(to + static_cast<int64_t>(i) * dim, from + rows[i] * dim,
                 static_cast<size_t>(dim) * sizeof(float));
  }
}

}  // namespace

Result<std::unique_ptr<BlockDrafter>> BlockDrafter::create(DraftCheckpoint draft, const DraftTarget& target,
                                                           ThreadPool& pool,
                                                           const BlockDrafterOptions& options) {
  DSPARK_RETURN_IF_ERROR(options.validate());
  if (options.shortlist < 0) {
    return invalid_argument(
        fmt::format("drafter: want a shortlist of 0 or more tokens, found {}", options.shortlist));
  }
  const DraftConfig& c = draft.config;
  if (c.kind != DraftKind::kDSpark && c.kind != DraftKind::kDFlash) {
    return unsupported(fmt::format("a {} drafter does not draft in blocks", draft_kind_name(c.kind)));
  }
  DSPARK_RETURN_IF_ERROR(check_short_block(c, "drafter: short blocks"));
  DSPARK_ASSIGN_OR_RETURN(BlockWeights weights,
                          load_block_weights(draft, target, pool, options.float_activations));
  DSPARK_ASSIGN_OR_RETURN(KvPool cache, make_draft_cache(options, c, c.block_size));
  std::unique_ptr<BlockDrafter> drafter(
      new BlockDrafter(std::move(draft), std::move(weights), std::move(cache), pool, options));
  if (!drafter->reserve_attention()) return out_of_memory("no memory for the drafter's attention");
  return drafter;
}

BlockDrafter::BlockDrafter(DraftCheckpoint draft, BlockWeights weights, KvPool cache, ThreadPool& pool,
                           const BlockDrafterOptions& options)
    : draft_(std::move(draft)),
      weights_(std::move(weights)),
      cache_(std::move(cache)),
      pages_(cache_.n_pages),
      pool_(pool),
      context_length_(options.context_length),
      slots_(static_cast<size_t>(options.max_sequences)),
      layer_(draft_.config, pool),
      decoder_(draft_.config, weights_, pool, options.shortlist) {
  const DraftConfig& c = draft_.config;
  for (Slot& slot : slots_) {
    slot.pages.reserve(
        static_cast<size_t>(PageAllocator::pages_for(int64_t{context_length_} + c.block_size)));
  }
  const size_t most_rows = slots_.size() * static_cast<size_t>(c.block_size);
  positions_.reserve(most_rows);
  asked_rows_.reserve(most_rows);
  const TensorView& table = weights_.vocabulary.embedding;
  mask_row_.resize(static_cast<size_t>(c.dim));
  decode_row(table.dtype, table.data + static_cast<size_t>(c.mask_token_id) * table.row_bytes(),
             mask_row_.data(), c.dim);
  if (c.embedding_scale != 1.0f) scale_row(mask_row_.data(), c.dim, c.embedding_scale);
}

/// For whole blocks of all sequences behind the longest context.
bool BlockDrafter::reserve_attention() {
  const DraftConfig& c = draft_.config;
  return scratch_.reserve(pool_.n_threads(), {std::ssize(slots_) * c.block_size,
                                              c.n_heads,
                                              {c.n_kv_heads, c.head_dim},
                                              int64_t{context_length_} + c.block_size});
}

void BlockDrafter::release(int32_t slot) {
  if (slot < 0 || slot >= static_cast<int32_t>(slots_.size())) return;
  forget_waiting(slot);
  Slot& state = slots_[static_cast<size_t>(slot)];
  pages_.drop(state.pages, 0);
  state.first_row = 0;
  state.n_rows = 0;
  state.is_lost = false;
}

Status BlockDrafter::use_pages(int32_t n_pages) {
  return pages_.share(n_pages, static_cast<int32_t>(slots_.size()), draft_.config.block_size, cache_);
}

void BlockDrafter::attach(const AttachEvent& event) {
  if (event.slot < 0 || event.slot >= static_cast<int32_t>(slots_.size())) return;
  Slot& slot = slots_[static_cast<size_t>(event.slot)];
  slot.is_lost = !pages_.cover(slot.pages, event.pages, std::ssize(event.tokens));
  slot.n_rows = slot.is_lost ? 0 : static_cast<int32_t>(event.tokens.size());
  slot.first_row = event.n_pages_without_rows * kKvPageSize;
}

Status BlockDrafter::set_calibration(std::span<const double> temperatures, std::span<const double> biases) {
  if (!draft_.config.confidence) return Drafter::set_calibration(temperatures, biases);
  for (double t : temperatures) {
    if (!std::isfinite(t) || t <= 0.0) {
      return invalid_argument(fmt::format("calibration: want temperatures above 0, found {}", t));
    }
  }
  for (double b : biases) {
    if (!std::isfinite(b))
      return invalid_argument(fmt::format("calibration: want finite biases, found {}", b));
  }
  decoder_.set_calibration(temperatures, biases);
  return ok_status();
}

bool BlockDrafter::set_trace(DraftTrace* trace) {
  trace_ = trace;
  return true;
}

Status BlockDrafter::propose(std::span<const DraftRequest> requests, DraftBlock& out) {
  plan_round(requests, out);
  if (round_.empty()) return ok_status();
  flush_features();
  if (!grow_buffers()) {
    crop_blocks();
    return out_of_memory("no memory for the drafter's pass");
  }
  embed();
  const DraftConfig& c = draft_.config;
  for (int32_t layer_idx = 0; layer_idx < c.n_layers; ++layer_idx) {
    attend(layer_idx);
    const bool last = layer_idx + 1 == c.n_layers;
    if (last) drop_unasked_rows();
    const auto n_rows = static_cast<int64_t>(last ? asked_rows_.size() : positions_.size());
    layer_.finish(weights_.layers[static_cast<size_t>(layer_idx)], attended_.data(), residual_.data(),
                  n_rows);
    if (trace_ != nullptr) record_layer(layer_idx, n_rows);
  }
  crop_blocks();
  head();
  HeadPass pass{round_, hidden_.data(), logits_.data(), {}, trace_ != nullptr};
  if (trace_ != nullptr) pass.forced = trace_->forced_tokens;
  const Status drafted = decoder_.run(pass, out);
  if (trace_ == nullptr || !drafted.ok()) return drafted;
  const auto n_logits = asked_rows_.size() * static_cast<size_t>(c.draft_vocab_size);
  trace_->step_logits.assign(logits_.data(), logits_.data() + n_logits);
  trace_->confidence_logits.clear();
  for (const HeadRequest& head : round_) {
    const auto first = out.confidence_logits.begin() + static_cast<std::ptrdiff_t>(head.out_row) * out.stride;
    if (c.confidence)
      trace_->confidence_logits.insert(trace_->confidence_logits.end(), first, first + head.n_drafts);
  }
  return drafted;
}

/// Decides which requests draft and lays their blocks out. How long a block is follows from its own request
/// alone: rows of a block see each other, so its length is part of what its drafts are.
void BlockDrafter::plan_round(std::span<const DraftRequest> requests, const DraftBlock& out) {
  const DraftConfig& c = draft_.config;
  round_.clear();
  runs_.clear();
  positions_.clear();
  asked_rows_.clear();
  for (size_t i = 0; i < requests.size(); ++i) {
    const DraftRequest& request = requests[i];
    if (request.slot < 0 || request.slot >= static_cast<int32_t>(slots_.size())) continue;
    Slot& slot = slots_[static_cast<size_t>(request.slot)];
    const int32_t n_drafts = std::min({request.max_tokens, c.n_drafts(), out.stride});
    if (slot.is_lost || slot.n_rows != request.position || n_drafts < 1) continue;
    if (slot.n_rows <= slot.first_row) continue;
    if (request.position >= context_length_ || request.anchor < 0 || request.anchor >= c.vocab_size) continue;
    const int32_t n_slots = c.slots_for(n_drafts);
    const int64_t n_after = int64_t{request.position} + n_slots;
    if (!pages_.reach_ahead(slot.pages, request.slot, request.pages, n_after)) continue;
    const auto row_begin = static_cast<int32_t>(positions_.size());
    round_.push_back({&request, i, static_cast<int64_t>(asked_rows_.size()), n_drafts});
    // To the cache the sequence begins with its first row; rotations know its real positions.
    const auto first_page = static_cast<size_t>(slot.first_row / kKvPageSize);
    runs_.push_back({row_begin, n_slots, request.position - slot.first_row,
                     std::span<const int32_t>(slot.pages).subspan(first_page)});
    for (int32_t j = 0; j < n_slots; ++j) positions_.push_back(request.position + j);
    const int32_t first_slot = c.anchor_predicts ? 0 : 1;
    for (int32_t j = 0; j < n_drafts; ++j) asked_rows_.push_back(row_begin + first_slot + j);
  }
}

/// Rows of a block never outlive their pass.
void BlockDrafter::crop_blocks() {
  for (const HeadRequest& head : round_) {
    pages_.drop(slots_[static_cast<size_t>(head.request->slot)].pages, head.request->position);
  }
}

/// Always for whole blocks, so that buffers have their size whichever lengths come first.
bool BlockDrafter::grow_buffers() {
  const DraftConfig& c = draft_.config;
  const int64_t n = std::ssize(round_) * c.block_size;
  const auto n_asked = static_cast<int64_t>(asked_rows_.size());
  return residual_.grow(n * c.dim) && branch_.grow(n * c.dim) && q_.grow(n * q_dim()) &&
         k_.grow(n * kv_dim()) && v_.grow(n * kv_dim()) && attended_.grow(n * q_dim()) &&
         layer_.grow_finish(n) && hidden_.grow(n_asked * c.dim) && logits_.grow(n_asked * c.draft_vocab_size);
}

void BlockDrafter::embed() {
  const DraftConfig& c = draft_.config;
  const TensorView& table = weights_.vocabulary.embedding;
  for (size_t r = 0; r < round_.size(); ++r) {
    float* row = residual_.data() + int64_t{runs_[r].row_begin} * c.dim;
    const auto anchor = static_cast<size_t>(round_[r].request->anchor);
    decode_row(table.dtype, table.data + anchor * table.row_bytes(), row, c.dim);
    if (c.embedding_scale != 1.0f) scale_row(row, c.dim, c.embedding_scale);
    for (int32_t j = 1; j < runs_[r].n_rows; ++j)
      std::copy(mask_row_.begin(), mask_row_.end(), row + int64_t{j} * c.dim);
  }
}

void BlockDrafter::attend(int32_t layer_idx) {
  const DraftConfig& c = draft_.config;
  const DraftLayerWeights& w = weights_.layers[static_cast<size_t>(layer_idx)];
  const auto n_rows = static_cast<int64_t>(positions_.size());
  layer_.norm(branch_.data(), c.dim, residual_.data(), w.attn_norm, n_rows);
  const MatmulJob jobs[] = {
      {&w.q, q_.data(), q_dim(), bias_or_null(w.q_bias)},
      {&w.k, k_.data(), kv_dim(), bias_or_null(w.k_bias)},
      {&w.v, v_.data(), kv_dim(), bias_or_null(w.v_bias)},
  };
  layer_.multiply(branch_.data(), c.dim, n_rows, std::span(jobs).first(c.k_eq_v ? 2 : 3));
  layer_.norm_keys(w, k_.data(), v_.data(), n_rows);
  if (c.qk_norm) {
    rms_norm_heads(pool_, q_.data(), q_dim(), w.q_norm.data(), c.norm_eps, n_rows, c.n_heads, c.head_dim);
  }
  apply_rope(pool_, q_.data(), q_dim(), c.rope, positions_, c.n_heads, c.head_dim);
  apply_rope(pool_, k_.data(), kv_dim(), c.rope, positions_, c.n_kv_heads, c.head_dim);
  kv_write(pool_, cache_, layer_idx, runs_, k_.data(), v_.data(), kv_dim(), kv_dim());
  attend_rows(layer_idx);
}

void BlockDrafter::attend_rows(int32_t layer_idx) {
  const DraftConfig& c = draft_.config;
  AttentionArgs args;
  args.q = q_.data();
  args.q_stride = q_dim();
  args.out = attended_.data();
  args.out_stride = q_dim();
  args.n_heads = c.n_heads;
  args.scale = c.attention_scale;
  args.window = c.window;
  args.whole_run = !c.causal;
  if (c.causal && c.window > 0) return attend_causal_window(layer_idx, args);
  attention(pool_, cache_, layer_idx, runs_, args, scratch_);
}

/// Slot j sees `window` positions before the anchor and slots 0 .. j: its own window is that much longer.
void BlockDrafter::attend_causal_window(int32_t layer_idx, AttentionArgs args) {
  for (int32_t j = 0; j < draft_.config.block_size; ++j) {
    row_runs_.clear();
    for (const KvRun& run : runs_) {
      if (j < run.n_rows) row_runs_.push_back({run.row_begin + j, 1, run.pos_begin + j, run.pages});
    }
    if (row_runs_.empty()) return;
    args.window = draft_.config.window + j + 1;
    attention(pool_, cache_, layer_idx, row_runs_, args, scratch_);
  }
}

/// Behind the last attention a slot that nobody asked for reaches nothing.
void BlockDrafter::drop_unasked_rows() {
  if (asked_rows_.size() == positions_.size()) return;
  gather_rows(attended_.data(), attended_.data(), asked_rows_, q_dim());
  gather_rows(residual_.data(), residual_.data(), asked_rows_, draft_.config.dim);
}

void BlockDrafter::head() {
  const DraftConfig& c = draft_.config;
  const auto n_rows = static_cast<int64_t>(asked_rows_.size());
  layer_.norm(hidden_.data(), c.dim, residual_.data(), weights_.final_norm, n_rows);
  const MatmulJob job = {&weights_.vocabulary.head(), logits_.data(), c.draft_vocab_size, nullptr};
  layer_.multiply(hidden_.data(), c.dim, n_rows, {&job, 1});
  if (c.final_softcap > 0.0f)
    softcap_rows(pool_, logits_.data(), n_rows, c.draft_vocab_size, c.final_softcap);
  if (trace_ == nullptr) return;
  trace_->n_slots = static_cast<int32_t>(n_rows);
  trace_->hidden.assign(hidden_.data(), hidden_.data() + n_rows * c.dim);
  trace_->base_logits.assign(logits_.data(), logits_.data() + n_rows * c.draft_vocab_size);
}

void BlockDrafter::record_layer(int32_t layer_idx, int64_t n_rows) {
  const auto dim = static_cast<size_t>(draft_.config.dim);
  const size_t n = positions_.size() * dim;
  if (layer_idx == 0) trace_->layer_out.assign(n * static_cast<size_t>(draft_.config.n_layers), 0.0f);
  float* out = trace_->layer_out.data() + static_cast<size_t>(layer_idx) * n;
  const bool all = n_rows == static_cast<int64_t>(positions_.size());
  for (size_t i = 0; i < static_cast<size_t>(n_rows); ++i) {
    const size_t row = all ? i : static_cast<size_t>(asked_rows_[i]);
    std::copy_n(residual_.data() + i * dim, dim, out + row * dim);
  }
}

}  // namespace dspark
