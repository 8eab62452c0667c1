// Context rows of a block drafter: from the target's features to keys and values of every draft layer, once
// per token.

#include <algorithm>
#include <cstring>

#include "draft/block_drafter.h"
#include "kernels/rows.h"

namespace dspark {
namespace {

constexpr int64_t kContextRows = 256;  // most rows of one pass: a long prompt comes in pieces
constexpr int64_t kMostWaiting = 64;  // rows for which a pass is worth its while even if nobody asks for them
constexpr int32_t kGroupLayers = 4;   // layers projected in one parallel phase (two products each)

}  // namespace

/// A pass over few rows costs as much as reading the weights: rows wait for each other while nothing is
/// drafted. Where enough came together the pass is left to catch_up(). Kernels work row by row, so a row's
/// bits do not depend on the pass that it came in.
void BlockDrafter::commit(std::span<const CommitEvent> events) {
  if (trace_ != nullptr) trace_->context_rows.clear();
  catch_up();
  int64_t n_new = 0;
  for (const CommitEvent& event : events) n_new += std::max(event.n_features, 0);
  const bool has_memory = grow_context_buffers(n_new);
  for (const CommitEvent& event : events) {
    if (event.slot < 0 || event.slot >= static_cast<int32_t>(slots_.size()) || event.n_features <= 0)
      continue;
    Slot& slot = slots_[static_cast<size_t>(event.slot)];
    if (!has_memory || !make_room(slot, event)) {
      slot.is_lost = true;
      continue;
    }
    const int32_t n_unread = std::clamp(slot.first_row - event.feature_position, 0, event.n_features);
    slot.n_rows = event.feature_position + n_unread;
    for (int32_t done = n_unread; done < event.n_features;) {
      const auto n =
          static_cast<int32_t>(std::min<int64_t>(event.n_features - done, context_capacity_ - n_waiting_));
      take_features(event, done, n);
      done += n;
      if (n_waiting_ == context_capacity_) flush_features();
    }
  }
  if (trace_ != nullptr) flush_features();
}

/// A prompt's first token goes out before the drafter's rows of that prompt are made.
void BlockDrafter::catch_up() {
  if (n_waiting_ >= kMostWaiting) flush_features();
}

/// Room for `n_new` rows beside as many as may wait, at most kContextRows of both: how many do is a matter of
/// timing, and buffers have their size once the largest commit was seen. Those that wait are written first
/// where the buffers have to grow. returns: false when there is no memory.
bool BlockDrafter::grow_context_buffers(int64_t n_new) {
  const int64_t n_rows = std::clamp(kMostWaiting - 1 + n_new, kMostWaiting, kContextRows);
  if (n_rows <= context_capacity_) return true;
  flush_features();
  const DraftConfig& c = draft_.config;
  const int64_t n_keys = std::min(c.n_layers, kGroupLayers) * n_rows * kv_dim();
  const bool has_memory = features_.grow(n_rows * std::ssize(c.taps) * c.dim) &&
                          context_.grow(n_rows * c.dim) && context_k_.grow(n_keys) && context_v_.grow(n_keys);
  context_capacity_ = has_memory ? n_rows : 0;
  // Lists are small: they are made for the largest pass at once. How many events the waiting rows come in is
  // only known when somebody drafts: at most one each.
  const auto most = static_cast<size_t>(kContextRows);
  context_runs_.reserve(most);
  context_slots_.reserve(most);
  context_positions_.reserve(most);
  c.rope.reserve(kContextRows);
  return has_memory;
}

/// The rows of a sequence that ends are not written: its pages may be somebody else's by then.
void BlockDrafter::forget_waiting(int32_t slot) {
  size_t n_kept = 0;
  for (size_t i = 0; i < context_runs_.size(); ++i) {
    if (context_slots_[i] == slot) continue;
    context_runs_[n_kept] = context_runs_[i];
    context_slots_[n_kept++] = context_slots_[i];
  }
  context_runs_.resize(n_kept);
  context_slots_.resize(n_kept);
  slots_[static_cast<size_t>(slot)].n_waiting = 0;
}

/// Pages for the rows of an event. Behind a gap the sequence begins with the next page. returns: false when
/// there is no room.
bool BlockDrafter::make_room(Slot& slot, const CommitEvent& event) {
  if (slot.is_lost || event.features == nullptr || event.dim != draft_.config.dim) return false;
  const int64_t n_after = int64_t{event.feature_position} + event.n_features;
  if (event.feature_position < 0 || n_after > context_length_) return false;
  if (event.feature_position > slot.n_rows) {
    slot.first_row = PageAllocator::pages_for(event.feature_position) * kKvPageSize;
  }
  return pages_.cover(slot.pages, event.pages, n_after);
}

/// Rows [first, first + n) of an event join the pass: the streams of all taps side by side.
void BlockDrafter::take_features(const CommitEvent& event, int32_t first, int32_t n) {
  const auto n_taps = static_cast<int64_t>(draft_.config.taps.size());
  const int64_t dim = draft_.config.dim;
  const int32_t position = event.feature_position + first;
  Slot& slot = slots_[static_cast<size_t>(event.slot)];
  context_runs_.push_back({static_cast<int32_t>(n_waiting_), n, position, slot.pages});
  context_slots_.push_back(event.slot);
  slot.n_rows = position + n;
  slot.n_waiting += n;
  for (int32_t i = 0; i < n; ++i) {
    float* to = features_.data() + (n_waiting_ + i) * n_taps * dim;
    for (int64_t tap = 0; tap < n_taps; ++tap) {
      std::memcpy(to + tap * dim, event.features + tap * event.tap_stride + (first + i) * dim,
                  static_cast<size_t>(dim) * sizeof(float));
    }
    context_positions_.push_back(position + i);
  }
  n_waiting_ += n;
}

void BlockDrafter::flush_features() {
  if (n_waiting_ == 0) return;
  const DraftConfig& c = draft_.config;
  const MatmulJob fc = {&weights_.fc, context_.data(), c.dim, nullptr};
  layer_.multiply(features_.data(), weights_.fc.n_in, n_waiting_, {&fc, 1});
  layer_.norm(context_.data(), c.dim, context_.data(), weights_.hidden_norm, n_waiting_);
  if (trace_ != nullptr) {
    trace_->context_rows.insert(trace_->context_rows.end(), context_.data(),
                                context_.data() + n_waiting_ * c.dim);
  }
  for (int32_t layer = 0; layer < c.n_layers; layer += kGroupLayers) {
    project_context(layer, std::min(kGroupLayers, c.n_layers - layer));
  }
  for (const int32_t slot : context_slots_) slots_[static_cast<size_t>(slot)].n_waiting = 0;
  n_waiting_ = 0;
  context_runs_.clear();
  context_slots_.clear();
  context_positions_.clear();
}

/// Keys and values of the same rows for several layers: they all read the same input.
void BlockDrafter::project_context(int32_t first_layer, int32_t n_layers) {
  const DraftConfig& c = draft_.config;
  const int64_t n_floats = n_waiting_ * kv_dim();
  MatmulJob jobs[2 * kGroupLayers];
  size_t n_jobs = 0;
  for (int32_t i = 0; i < n_layers; ++i) {
    const DraftLayerWeights& w = weights_.layers[static_cast<size_t>(first_layer + i)];
    const auto bias = [](const std::vector<float>& b) { return b.empty() ? nullptr : b.data(); };
    jobs[n_jobs++] = {&w.k, context_k_.data() + i * n_floats, kv_dim(), bias(w.k_bias)};
    if (!c.k_eq_v) jobs[n_jobs++] = {&w.v, context_v_.data() + i * n_floats, kv_dim(), bias(w.v_bias)};
  }
  layer_.multiply(context_.data(), c.dim, n_waiting_, std::span(jobs).first(n_jobs));
  for (int32_t i = 0; i < n_layers; ++i) {
    float* k = context_k_.data() + i * n_floats;
    float* v = context_v_.data() + i * n_floats;
    layer_.norm_keys(weights_.layers[static_cast<size_t>(first_layer + i)], k, v, n_waiting_);
    apply_rope(pool_, k, kv_dim(), c.rope, context_positions_, c.n_kv_heads, c.head_dim);
    kv_write(pool_, cache_, first_layer + i, context_runs_, k, v, kv_dim(), kv_dim());
  }
}

}  // namespace dspark
