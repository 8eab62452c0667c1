// Rows of committed tokens: features of position i meet the token at i + 1, once per token.

#include <algorithm>
#include <cstring>

#include "draft/paired_drafter.h"
#include "kernels/rows.h"

namespace dspark {
namespace {

constexpr int64_t kFeatureRows = 256;  // rows of one pass: a long prompt comes in pieces

/// The token at an absolute index, -1 when the event does not tell it.
int32_t token_at(const CommitEvent& event, int32_t index) {
  const int64_t at = int64_t{index} - event.token_position;
  return at >= 0 && at < std::ssize(event.tokens) ? event.tokens[static_cast<size_t>(at)] : -1;
}

/// to[i] = from[rows[i]]; works in place because rows ascend.
void gather_rows(float* to, const float* from, std::span<const int32_t> rows, int64_t dim) {
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memmove(to + static_cast<int64_t>(i) * dim, from + rows[i] * dim,
                 static_cast<size_t>(dim) * sizeof(float));
  }
}

}  // namespace

/// For the largest pass: all its features, and a row of every sequence that waited. How many rows a commit
/// has is decided by what was accepted, so the largest may come late.
void PairedDrafter::reserve_lists() {
  const size_t most = static_cast<size_t>(kFeatureRows) + slots_.size();
  for (std::vector<int32_t>* list : {&tokens_, &positions_, &row_slots_}) list->reserve(most);
  draft_.config.rope.reserve(static_cast<int64_t>(most));
}

void PairedDrafter::commit(std::span<const CommitEvent> events) {
  if (trace_ != nullptr) {
    trace_->context_rows.clear();
    trace_->paired_rows.clear();
  }
  const auto n_taps = static_cast<int64_t>(draft_.config.taps.size());
  const int64_t dim = draft_.config.dim;
  int64_t n_all = 0;
  for (const CommitEvent& event : events) n_all += event.n_features;
  const int64_t n_features = std::min(n_all, kFeatureRows);
  const int64_t n_pairs = n_features + std::ssize(events);  // a row that waited joins those of its event
  const bool has_memory = features_.grow(n_features * n_taps * dim) && projected_.grow(n_features * dim) &&
                          carried_.grow(n_pairs * dim) && grow_rows(n_pairs);
  for (const CommitEvent& event : events) {
    if (!is_slot(event.slot)) continue;
    Slot& slot = slots_[static_cast<size_t>(event.slot)];
    if (event.n_features <= 0 && !slot.has_waiting) continue;
    if (!has_memory || !accept_event(slot, event)) {
      slot.is_lost = true;
      continue;
    }
    int32_t done = 0;
    do {
      const auto n =
          static_cast<int32_t>(std::min<int64_t>(event.n_features - done, kFeatureRows - n_waiting_));
      take_features(event, done, n);
      done += n;
      if (n_waiting_ == kFeatureRows) flush();
    } while (done < event.n_features);
  }
  flush();
}

/// Whether an event continues what the slot has, with a token for every row but the last; makes room for it.
bool PairedDrafter::accept_event(Slot& slot, const CommitEvent& event) {
  if (slot.is_lost) return false;
  const int32_t n_known = slot.n_rows + (slot.has_waiting ? 1 : 0);
  if (event.n_features > 0 &&
      (event.features == nullptr || event.dim != draft_.config.dim || event.feature_position != n_known)) {
    return false;
  }
  const int64_t n_after = int64_t{n_known} + event.n_features;
  if (n_after > context_length_) return false;
  for (int32_t row = slot.n_rows; row + 1 < n_after; ++row) {
    if (token_at(event, row + 1) < 0) return false;
  }
  for (int32_t token : event.tokens) {
    if (token < 0 || token >= draft_.config.vocab_size) return false;
  }
  return pages_.cover(slot.pages, event.pages, n_after);
}

/// Rows [first, first + n) of an event join the pass: the streams of all taps side by side.
void PairedDrafter::take_features(const CommitEvent& event, int32_t first, int32_t n) {
  const auto n_taps = static_cast<int64_t>(draft_.config.taps.size());
  const int64_t dim = draft_.config.dim;
  pieces_.push_back({&event, first, n, n_waiting_});
  for (int32_t i = 0; i < n; ++i) {
    float* to = features_.data() + (n_waiting_ + i) * n_taps * dim;
    for (int64_t tap = 0; tap < n_taps; ++tap) {
      std::memcpy(to + tap * dim, event.features + tap * event.tap_stride + (first + i) * dim,
                  static_cast<size_t>(dim) * sizeof(float));
    }
  }
  n_waiting_ += n;
}

void PairedDrafter::flush() {
  if (pieces_.empty()) return;
  carry_features();
  tokens_.clear();
  positions_.clear();
  row_slots_.clear();
  runs_.clear();
  asked_.clear();
  asked_positions_.clear();
  asked_runs_.clear();
  for (const Piece& piece : pieces_) pair_piece(piece);
  run_pairs();
  pieces_.clear();
  n_waiting_ = 0;
}

/// features_ to projected_.
void PairedDrafter::carry_features() {
  const DraftConfig& c = draft_.config;
  if (n_waiting_ == 0) return;
  if (c.kind == DraftKind::kEagle3) {
    layer_.multiply(features_.data(), n_waiting_, weights_.fc, projected_.data());
  } else {
    rms_norm(pool_, projected_.data(), c.dim, features_.data(), c.dim, weights_.target_norm.data(),
             weights_.target_norm_eps, n_waiting_, c.dim);
  }
  if (trace_ == nullptr) return;
  trace_->context_rows.insert(trace_->context_rows.end(), projected_.data(),
                              projected_.data() + n_waiting_ * c.dim);
}

void PairedDrafter::pair_piece(const Piece& piece) {
  const CommitEvent& event = *piece.event;
  Slot& slot = slots_[static_cast<size_t>(event.slot)];
  const int64_t dim = draft_.config.dim;
  const int32_t pos_begin = slot.n_rows;
  const auto row_begin = static_cast<int32_t>(tokens_.size());
  if (slot.has_waiting) {
    const int32_t token = token_at(event, slot.n_rows + 1);
    if (token < 0) return;  // accept_event: nothing else is in the event
    slot.has_waiting = false;
    add_pair(slot, event.slot, token, slot.waiting.data());
  }
  for (int32_t i = 0; i < piece.n; ++i) {
    const float* carried = projected_.data() + (piece.at + i) * dim;
    const int32_t token = token_at(event, event.feature_position + piece.first + i + 1);
    if (token >= 0) {
      add_pair(slot, event.slot, token, carried);
    } else {  // the last of an inner chunk of a prompt
      std::copy_n(carried, dim, slot.waiting.begin());
      slot.has_waiting = true;
    }
  }
  const int32_t n_rows = slot.n_rows - pos_begin;
  if (n_rows == 0) return;
  runs_.push_back({row_begin, n_rows, pos_begin, slot.pages});
  // Keys are needed of every row, outputs of the newest one only.
  for (int32_t i = trace_ != nullptr ? 0 : n_rows - 1; i < n_rows; ++i) {
    asked_runs_.push_back({static_cast<int32_t>(asked_.size()), 1, pos_begin + i, slot.pages});
    asked_.push_back(row_begin + i);
    asked_positions_.push_back(pos_begin + i);
  }
}

void PairedDrafter::add_pair(Slot& slot, int32_t slot_idx, int32_t token, const float* carried) {
  const int64_t dim = draft_.config.dim;
  std::copy_n(carried, dim, carried_.data() + std::ssize(tokens_) * dim);
  tokens_.push_back(token);
  positions_.push_back(slot.n_rows++);
  row_slots_.push_back(slot_idx);
}

void PairedDrafter::run_pairs() {
  if (tokens_.empty()) return;
  const int64_t dim = draft_.config.dim;
  make_inputs(tokens_, carried_.data());
  layer_.write_keys(weights_.layer, cache_, runs_, positions_, x_.data());
  gather_rows(x_.data(), x_.data(), asked_, weights_.layer.q.n_in);
  gather_rows(residual_.data(), residual_.data(), asked_, dim);
  layer_.add_layer(weights_.layer, cache_, asked_runs_, asked_positions_, x_.data(), residual_.data());
  for (size_t i = 0; i < asked_.size(); ++i) {  // a later row of a slot replaces an earlier one
    Slot& slot = slots_[static_cast<size_t>(row_slots_[static_cast<size_t>(asked_[i])])];
    std::copy_n(residual_.data() + static_cast<int64_t>(i) * dim, dim, slot.last.begin());
  }
  if (trace_ == nullptr) return;
  trace_->paired_rows.insert(trace_->paired_rows.end(), residual_.data(),
                             residual_.data() + std::ssize(asked_) * dim);
}

}  // namespace dspark
