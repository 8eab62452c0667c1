// The rounds of an Eagle3 or MTP drafter. Rows of committed tokens are made in paired_rows.cc.

#include "draft/paired_drafter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/row_math.h"
#include "kernels/rows.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

void copy_row(float* to, const float* from, int64_t dim) {
  std::memcpy(to, from, static_cast<size_t>(dim) * sizeof(float));
}

}  // namespace

Result<PairedWeights> load_paired_weights(const DraftCheckpoint& draft, const DraftTarget& target,
                                          ThreadPool& pool, bool float_activations) {
  DSPARK_RETURN_IF_ERROR(check_draft_target(draft, target));
  const DraftConfig& c = draft.config;
  DraftWeightLoader loader(draft, pool, float_activations);
  PairedWeights w;
  if (c.kind == DraftKind::kEagle3) {
    const int64_t n_features = static_cast<int64_t>(c.taps.size()) * c.dim;
    DSPARK_ASSIGN_OR_RETURN(w.fc, loader.matrix("fc.weight", c.dim, n_features));
    DSPARK_ASSIGN_OR_RETURN(w.layer, loader.layer(0, 2 * int64_t{c.dim}));
  } else {
    const std::span<const float> target_norm = target.shared.final_norm;
    if (std::ssize(target_norm) != c.dim) return unsupported("this kind of target lends a drafter no norm");
    w.target_norm.assign(target_norm.begin(), target_norm.end());
    w.target_norm_eps = target.norm_eps;
    DSPARK_ASSIGN_OR_RETURN(w.enorm, loader.vector("enorm.weight", c.dim));
    DSPARK_ASSIGN_OR_RETURN(w.hnorm, loader.vector("hnorm.weight", c.dim));
    DSPARK_ASSIGN_OR_RETURN(w.eh, loader.matrix("eh_proj.weight", c.dim, 2 * int64_t{c.dim}));
    DSPARK_ASSIGN_OR_RETURN(w.layer, loader.layer(0, c.dim));
  }
  DSPARK_ASSIGN_OR_RETURN(w.final_norm, loader.vector("norm.weight", c.dim));
  DSPARK_ASSIGN_OR_RETURN(w.vocabulary, loader.vocabulary(target));
  w.packed_bytes = loader.packed_bytes();
  return w;
}

Result<std::unique_ptr<PairedDrafter>> PairedDrafter::create(DraftCheckpoint draft, const DraftTarget& target,
                                                             ThreadPool& pool,
                                                             const PairedDrafterOptions& options) {
  DSPARK_RETURN_IF_ERROR(options.validate());
  const DraftConfig& c = draft.config;
  if ((c.kind != DraftKind::kEagle3 && c.kind != DraftKind::kMtp) || c.n_layers != 1) {
    return unsupported(fmt::format("a {} drafter of {} layers does not pair features with tokens",
                                   draft_kind_name(c.kind), c.n_layers));
  }
  DSPARK_ASSIGN_OR_RETURN(PairedWeights weights,
                          load_paired_weights(draft, target, pool, options.float_activations));
  DSPARK_ASSIGN_OR_RETURN(KvPool cache, make_draft_cache(options, c, c.n_drafts()));
  std::unique_ptr<PairedDrafter> drafter(
      new PairedDrafter(std::move(draft), std::move(weights), std::move(cache), pool, options));
  // A row of every sequence at a time, those of drafted tokens included.
  if (!drafter->layer_.reserve_attention(options.max_sequences,
                                         int64_t{options.context_length} + drafter->max_block())) {
    return out_of_memory("no memory for the drafter's attention");
  }
  return drafter;
}

PairedDrafter::PairedDrafter(DraftCheckpoint draft, PairedWeights weights, KvPool cache, ThreadPool& pool,
                             const PairedDrafterOptions& options)
    : draft_(std::move(draft)),
      weights_(std::move(weights)),
      cache_(std::move(cache)),
      pages_(cache_.n_pages),
      pool_(pool),
      context_length_(options.context_length),
      stop_tokens_(options.stop_tokens),
      slots_(static_cast<size_t>(options.max_sequences)),
      layer_(draft_.config, pool),
      picks_(static_cast<size_t>(pool.n_threads())) {
  const DraftConfig& c = draft_.config;
  for (Slot& slot : slots_) {
    slot.pages.reserve(
        static_cast<size_t>(PageAllocator::pages_for(int64_t{context_length_} + c.n_drafts())));
    slot.waiting.resize(static_cast<size_t>(c.dim));
    slot.last.resize(static_cast<size_t>(c.dim));
  }
  for (PickScratch& scratch : picks_) scratch.reserve(c.draft_vocab_size);
  constraints_.reserve(slots_.size());
  reserve_lists();
}

void PairedDrafter::release(int32_t slot) {
  if (!is_slot(slot)) return;
  Slot& state = slots_[static_cast<size_t>(slot)];
  pages_.drop(state.pages, 0);
  state.n_rows = 0;
  state.has_waiting = false;
  state.is_lost = false;
}

Status PairedDrafter::use_pages(int32_t n_pages) {
  return pages_.share(n_pages, static_cast<int32_t>(slots_.size()), draft_.config.n_drafts(), cache_);
}

void PairedDrafter::attach(const AttachEvent& event) {
  if (!is_slot(event.slot)) return;
  Slot& slot = slots_[static_cast<size_t>(event.slot)];
  slot.is_lost = !pages_.cover(slot.pages, event.pages, std::ssize(event.tokens));
  slot.n_rows = slot.is_lost ? 0 : static_cast<int32_t>(event.tokens.size());
  slot.has_waiting = false;
}

bool PairedDrafter::set_trace(DraftTrace* trace) {
  trace_ = trace;
  return true;
}

bool PairedDrafter::grow_rows(int64_t n_rows) {
  const int64_t dim = draft_.config.dim;
  const bool mtp = draft_.config.kind == DraftKind::kMtp;
  return layer_.grow(n_rows) && residual_.grow(n_rows * dim) && x_.grow(n_rows * weights_.layer.q.n_in) &&
         (!mtp || pair_.grow(n_rows * 2 * dim));
}

void PairedDrafter::embed(std::span<const int32_t> tokens, float* out, int64_t stride) {
  const TensorView& table = weights_.vocabulary.embedding;
  const float scale = draft_.config.embedding_scale;
  const int64_t dim = draft_.config.dim;
  const auto one = [&](int64_t row, int) {
    float* to = out + row * stride;
    const auto token = static_cast<size_t>(tokens[static_cast<size_t>(row)]);
    decode_row(table.dtype, table.data + token * table.row_bytes(), to, dim);
    if (scale != 1.0f) scale_row(to, dim, scale);
  };
  pool_.parallel_for(std::ssize(tokens), one);
}

void PairedDrafter::make_inputs(std::span<const int32_t> tokens, const float* carried) {
  const DraftConfig& c = draft_.config;
  const int64_t dim = c.dim, n_rows = std::ssize(tokens);
  const bool eagle = c.kind == DraftKind::kEagle3;
  // Both put the normed embedding in front of the normed carried row.
  float* pairs = eagle ? x_.data() : pair_.data();
  embed(tokens, pairs, 2 * dim);
  const std::vector<float>& token_norm = eagle ? weights_.layer.attn_norm : weights_.enorm;
  rms_norm(pool_, pairs, 2 * dim, pairs, 2 * dim, token_norm.data(), c.norm_eps, n_rows, dim);
  layer_.norm(pairs + dim, 2 * dim, carried, eagle ? weights_.layer.hidden_norm : weights_.hnorm, n_rows);
  if (eagle) {
    std::memcpy(residual_.data(), carried, static_cast<size_t>(n_rows * dim) * sizeof(float));
  } else {
    layer_.multiply(pairs, n_rows, weights_.eh, residual_.data());
    layer_.norm(x_.data(), dim, residual_.data(), weights_.layer.attn_norm, n_rows);
  }
}

Status PairedDrafter::propose(std::span<const DraftRequest> requests, DraftBlock& out) {
  plan_round(requests, out);
  if (round_.empty()) return ok_status();
  if (!grow_step_buffers()) {
    crop_rollouts();
    return out_of_memory("no memory for the drafter's pass");
  }
  const int64_t dim = draft_.config.dim;
  for (size_t i = 0; i < round_.size(); ++i) {
    const Slot& slot = slots_[static_cast<size_t>(round_[i].request->slot)];
    copy_row(hidden_.data() + static_cast<int64_t>(i) * dim, slot.last.data(), dim);
  }
  if (trace_ != nullptr) start_trace();
  constraints_.begin(round_.size());
  for (int32_t step = 0;; ++step) {
    predict();
    if (trace_ != nullptr) record_step(step);
    pick_drafts(step, out);
    drop_finished(step, out);
    if (active_.empty()) break;
    advance(step, out);
  }
  for (size_t i = 0; i < round_.size(); ++i) constraints_.end(i, *round_[i].request);
  crop_rollouts();
  return ok_status();
}

/// Decides which requests draft, and how much.
void PairedDrafter::plan_round(std::span<const DraftRequest> requests, DraftBlock& out) {
  const DraftConfig& c = draft_.config;
  round_.clear();
  active_.clear();
  size_t n_all = 0;
  bool keeps = false;
  for (size_t i = 0; i < requests.size(); ++i) {
    const DraftRequest& request = requests[i];
    if (!is_slot(request.slot)) continue;
    Slot& slot = slots_[static_cast<size_t>(request.slot)];
    const int32_t n_drafts = std::min({request.max_tokens, c.n_drafts(), out.stride});
    if (slot.is_lost || slot.has_waiting || slot.n_rows == 0 || slot.n_rows != request.position) continue;
    if (n_drafts < 1 || request.position >= context_length_) continue;
    const int64_t n_after = int64_t{request.position} + n_drafts - 1;
    if (!pages_.reach_ahead(slot.pages, request.slot, request.pages, n_after)) continue;
    active_.push_back(static_cast<int32_t>(round_.size()));
    round_.push_back({&request, i, n_drafts, n_all});
    n_all += static_cast<size_t>(n_drafts);
    if (pick_kind(request) != PickKind::kSampled) continue;
    out.has_probs[i] = 1;
    keeps = true;
  }
  if (keeps) out.keep_probs(c.draft_vocab_size, c.d2t);
  out.evidence_kind = DraftEvidence::kPeakLogit;
}

bool PairedDrafter::grow_step_buffers() {
  const DraftConfig& c = draft_.config;
  const auto n = static_cast<int64_t>(round_.size());
  return grow_rows(n) && hidden_.grow(n * c.dim) && normed_.grow(n * c.dim) &&
         logits_.grow(n * c.draft_vocab_size);
}

void PairedDrafter::predict() {
  const DraftConfig& c = draft_.config;
  const auto n = static_cast<int64_t>(active_.size());
  layer_.norm(normed_.data(), c.dim, hidden_.data(), weights_.final_norm, n);
  layer_.multiply(normed_.data(), n, weights_.vocabulary.head(), logits_.data());
  if (c.final_softcap > 0.0f) softcap_rows(pool_, logits_.data(), n, c.draft_vocab_size, c.final_softcap);
}

void PairedDrafter::pick_drafts(int32_t step, DraftBlock& out) {
  const auto n_columns = static_cast<size_t>(draft_.config.draft_vocab_size);
  const auto at = static_cast<size_t>(step);
  const auto pick_one = [&](int64_t i, int thread) {
    const auto round_idx = static_cast<size_t>(active_[static_cast<size_t>(i)]);
    const Round& round = round_[round_idx];
    float* logits = logits_.data() + static_cast<size_t>(i) * n_columns;
    if (!constraints_.mask(round_idx, *round.request, {logits, n_columns}, draft_.config.d2t)) return;
    PickRow row = {{logits, n_columns}, {}, draft_.config.d2t};
    out.evidence[out.at(round.out_row, step)] = peak_logit(row, picks_[static_cast<size_t>(thread)]);
    std::span<float> probs;
    if (out.has_probs[round.out_row] != 0) probs = out.probs_row(round.out_row, step);
    int32_t token = pick_draft(row, *round.request, step, probs, picks_[static_cast<size_t>(thread)]);
    if (trace_ != nullptr && round.trace_row == 0 && at < trace_->forced_tokens.size()) {
      token = trace_->forced_tokens[at];
    }
    if (round.request->wants_probability) {
      out.probability[out.at(round.out_row, step)] =
          row_probability(row, token, picks_[static_cast<size_t>(thread)]);
    }
    out.row(round.out_row)[at] = token;
    if (constraints_.advance(round_idx, *round.request, token)) out.n_tokens[round.out_row] = step + 1;
  };
  const auto n = static_cast<int64_t>(active_.size());
  if (n > 1) return pool_.parallel_for(n, pick_one);
  pick_one(0, 0);
}

bool PairedDrafter::is_stop(int32_t token) const {
  return std::find(stop_tokens_.begin(), stop_tokens_.end(), token) != stop_tokens_.end();
}

/// Sequences that have all their drafts, or can have no more, leave; the rows of the others move up.
void PairedDrafter::drop_finished(int32_t step, const DraftBlock& out) {
  const int64_t dim = draft_.config.dim;
  size_t n_left = 0;
  for (size_t i = 0; i < active_.size(); ++i) {
    const Round& round = round_[static_cast<size_t>(active_[i])];
    if (out.n_tokens[round.out_row] <= step) continue;
    const int32_t newest = out.drafts(round.out_row).back();
    if (step + 1 == round.n_drafts || is_stop(newest) || round.request->stops_at(newest)) continue;
    float* rows = hidden_.data();
    if (n_left != i)
      copy_row(rows + static_cast<int64_t>(n_left) * dim, rows + static_cast<int64_t>(i) * dim, dim);
    active_[n_left++] = active_[i];
  }
  active_.resize(n_left);
}

/// One row per sequence: the token just drafted, with h in place of the g that the target has not computed.
void PairedDrafter::advance(int32_t step, const DraftBlock& out) {
  tokens_.clear();
  positions_.clear();
  runs_.clear();
  for (size_t i = 0; i < active_.size(); ++i) {
    const Round& round = round_[static_cast<size_t>(active_[i])];
    const int32_t position = round.request->position + step;
    tokens_.push_back(out.drafts(round.out_row).back());
    positions_.push_back(position);
    runs_.push_back({static_cast<int32_t>(i), 1, position, pages(round.request->slot)});
  }
  make_inputs(tokens_, hidden_.data());
  layer_.write_keys(weights_.layer, cache_, runs_, positions_, x_.data());
  layer_.add_layer(weights_.layer, cache_, runs_, positions_, x_.data(), residual_.data());
  const size_t n_floats = active_.size() * static_cast<size_t>(draft_.config.dim);
  std::memcpy(hidden_.data(), residual_.data(), n_floats * sizeof(float));
}

/// Rows of drafted tokens never outlive their proposal.
void PairedDrafter::crop_rollouts() {
  for (const Round& round : round_) {
    pages_.drop(slots_[static_cast<size_t>(round.request->slot)].pages, round.request->position);
  }
}

void PairedDrafter::start_trace() {
  const auto dim = static_cast<size_t>(draft_.config.dim);
  const auto n_columns = static_cast<size_t>(draft_.config.draft_vocab_size);
  const size_t n = round_.back().trace_row + static_cast<size_t>(round_.back().n_drafts);
  trace_->n_slots = static_cast<int32_t>(n);
  trace_->layer_out.assign(n * dim, 0.0f);
  trace_->hidden.assign(n * dim, 0.0f);
  trace_->base_logits.assign(n * n_columns, 0.0f);
  trace_->step_logits.assign(n * n_columns, 0.0f);
  trace_->confidence_logits.clear();
}

void PairedDrafter::record_step(int32_t step) {
  const auto dim = static_cast<size_t>(draft_.config.dim);
  const auto n_columns = static_cast<size_t>(draft_.config.draft_vocab_size);
  for (size_t i = 0; i < active_.size(); ++i) {
    const size_t row = round_[static_cast<size_t>(active_[i])].trace_row + static_cast<size_t>(step);
    std::copy_n(hidden_.data() + i * dim, dim, trace_->layer_out.data() + row * dim);
    std::copy_n(normed_.data() + i * dim, dim, trace_->hidden.data() + row * dim);
    std::copy_n(logits_.data() + i * n_columns, n_columns, trace_->base_logits.data() + row * n_columns);
    std::copy_n(logits_.data() + i * n_columns, n_columns, trace_->step_logits.data() + row * n_columns);
  }
}

}  // namespace dspark
