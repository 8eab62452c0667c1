#include "draft/v4_drafter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "kernels/rows.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

constexpr int32_t kContextRows = 256;  // rows of one pass: a long prompt comes in pieces

}  // namespace

V4Drafter::V4Drafter(const TargetModel& target, DraftConfig draft, V4DraftWeights weights, BlockWeights head,
                     KvPool cache, ThreadPool& pool, const V4DrafterOptions& options)
    : model_(target.config()),
      draft_(std::move(draft)),
      weights_(std::move(weights)),
      head_(std::move(head)),
      cache_(std::move(cache)),
      pages_(cache_.n_pages),
      pool_(pool),
      context_length_(options.context_length),
      hyper_{model_.dim, model_.v4.n_streams, model_.v4.sinkhorn_iters, model_.v4.hc_eps, model_.norm_eps},
      layout_(v4_layout(model_, V4Attention::kSliding, cache_.dtype)),
      slots_(static_cast<size_t>(options.max_sequences)),
      decoder_(draft_, head_, pool, options.shortlist),
      thread_(static_cast<size_t>(pool.n_threads())) {
  for (Slot& slot : slots_)
    slot.pages.reserve(static_cast<size_t>(PageAllocator::pages_for(context_length_)));
}

void V4Drafter::release(int32_t slot) {
  if (slot < 0 || slot >= static_cast<int32_t>(slots_.size())) return;
  Slot& state = slots_[static_cast<size_t>(slot)];
  pages_.drop(state.pages, 0);
  state.n_rows = 0;
  state.is_lost = false;
}

Status V4Drafter::use_pages(int32_t n_pages) {
  return pages_.share(n_pages, static_cast<int32_t>(slots_.size()), draft_.block_size, cache_);
}

void V4Drafter::attach(const AttachEvent& event) {
  if (event.slot < 0 || event.slot >= static_cast<int32_t>(slots_.size())) return;
  Slot& slot = slots_[static_cast<size_t>(event.slot)];
  slot.is_lost = !pages_.cover(slot.pages, event.pages, std::ssize(event.tokens));
  slot.n_rows = slot.is_lost ? 0 : static_cast<int32_t>(event.tokens.size());
}

Status V4Drafter::set_calibration(std::span<const double> temperatures, std::span<const double> biases) {
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

void V4Drafter::commit(std::span<const CommitEvent> events) {
  for (const CommitEvent& event : events) {
    if (event.slot < 0 || event.slot >= static_cast<int32_t>(slots_.size()) || event.n_features <= 0)
      continue;
    Slot& slot = slots_[static_cast<size_t>(event.slot)];
    if (!take(event)) {
      slot.is_lost = true;
      continue;
    }
    slot.n_rows = event.feature_position + event.n_features;
  }
}

// returns: false when rows before the event are missing, or there is no room.
bool V4Drafter::take(const CommitEvent& event) {
  Slot& slot = slots_[static_cast<size_t>(event.slot)];
  if (slot.is_lost || event.features == nullptr || event.dim != model_.dim) return false;
  const int64_t n_after = int64_t{event.feature_position} + event.n_features;
  if (event.feature_position < 0 || event.feature_position > slot.n_rows || n_after > context_length_)
    return false;
  if (!pages_.cover(slot.pages, event.pages, n_after)) return false;
  for (int32_t done = 0; done < event.n_features; done += kContextRows) {
    if (!add_context(event, slot, done, std::min(kContextRows, event.n_features - done))) return false;
  }
  return true;
}

// Features of rows [first, first + n) of an event -> a key row per stage.
bool V4Drafter::add_context(const CommitEvent& event, const Slot& slot, int32_t first, int32_t n) {
  const int64_t dim = model_.dim, wide = static_cast<int64_t>(draft_.taps.size()) * dim;
  if (!features_.grow(n * wide) || !context_.grow(n * dim) ||
      !context_keys_.grow(int64_t{n} * model_.head_dim)) {
    return false;
  }
  positions_.clear();
  for (int32_t i = 0; i < n; ++i) {
    for (size_t tap = 0; tap < draft_.taps.size(); ++tap) {
      std::memcpy(features_.data() + i * wide + static_cast<int64_t>(tap) * dim,
                  event.features + static_cast<int64_t>(tap) * event.tap_stride + (first + i) * dim,
                  static_cast<size_t>(dim) * sizeof(float));
    }
    positions_.push_back(event.feature_position + first + i);
  }
  activations_.assign(pool_, features_.data(), n, wide, wide, uses_int8_activations(weights_.main_proj.kind));
  const MatmulJob job{&weights_.main_proj, context_.data(), dim, nullptr};
  matmul(pool_, {&job, 1}, activations_);
  rms_norm(pool_, context_.data(), dim, context_.data(), dim, weights_.main_norm.data(), model_.norm_eps, n,
           dim);
  for (size_t stage = 0; stage < weights_.stages.size(); ++stage) {
    attention_.make_keys(pool_, model_, weights_.stages[stage], model_.ropes[0], context_.data(), positions_,
                         context_keys_.data());
    V4Rows rows(cache_, static_cast<int>(stage), layout_);
    for (int32_t i = 0; i < n; ++i) {
      rows.write(slot.pages, V4Field::kKey, positions_[static_cast<size_t>(i)],
                 context_keys_.data() + int64_t{i} * model_.head_dim);
    }
  }
  return true;
}

Status V4Drafter::propose(std::span<const DraftRequest> requests, DraftBlock& out) {
  plan_round(requests, out);
  if (round_.empty()) return ok_status();
  if (!grow_buffers()) return out_of_memory("no memory for the drafter's pass");
  embed();
  for (size_t stage = 0; stage < weights_.stages.size(); ++stage) run_stage(stage);
  head();
  return decoder_.run({round_, hidden_.data(), logits_.data(), {}, false}, out);
}

// Decides which requests draft and lays their blocks out.
void V4Drafter::plan_round(std::span<const DraftRequest> requests, const DraftBlock& out) {
  round_.clear();
  positions_.clear();
  asked_rows_.clear();
  for (size_t i = 0; i < requests.size(); ++i) {
    const DraftRequest& request = requests[i];
    if (request.slot < 0 || request.slot >= static_cast<int32_t>(slots_.size())) continue;
    const Slot& slot = slots_[static_cast<size_t>(request.slot)];
    const int32_t n_drafts = std::min({request.max_tokens, draft_.block_size, out.stride});
    if (slot.is_lost || slot.n_rows != request.position || slot.n_rows == 0 || n_drafts < 1) continue;
    if (request.anchor < 0 || request.anchor >= model_.vocab_size) continue;
    const auto row_begin = static_cast<int32_t>(positions_.size());
    round_.push_back({&request, i, static_cast<int64_t>(asked_rows_.size()), n_drafts});
    for (int32_t j = 0; j < draft_.block_size; ++j) positions_.push_back(request.position + j);
    for (int32_t j = 0; j < n_drafts; ++j) asked_rows_.push_back(row_begin + j);
  }
}

bool V4Drafter::grow_buffers() {
  const auto n = static_cast<int64_t>(positions_.size());
  const auto n_asked = static_cast<int64_t>(asked_rows_.size());
  const int64_t dim = model_.dim, c = model_.head_dim;
  const int64_t n_keys = int64_t{model_.v4.window} + draft_.block_size;
  for (FloatBuffer& buffer : thread_) {
    if (!buffer.grow(n_keys * (c + 1) + 1)) return false;
  }
  return streams_.grow(n * hyper_.n_streams * dim) && branch_.grow(n * dim) && keys_.grow(n * c) &&
         asked_streams_.grow(n_asked * hyper_.n_streams * dim) && hidden_.grow(n_asked * dim) &&
         normed_.grow(n_asked * dim) && logits_.grow(n_asked * model_.vocab_size) &&
         mixer_.grow(hyper_, std::max(n, n_asked)) && attention_.grow(model_, n, pool_.n_threads()) &&
         moe_.grow(model_.moe, dim, n);
}

// Slot 0 is the anchor, the others the noise token; every stream starts as the embedding.
void V4Drafter::embed() {
  const TensorView& table = head_.vocabulary.embedding;
  const int64_t dim = model_.dim;
  for (size_t row = 0; row < positions_.size(); ++row) {
    const size_t slot = row % static_cast<size_t>(draft_.block_size);
    const HeadRequest& request = round_[row / static_cast<size_t>(draft_.block_size)];
    const int32_t token = slot == 0 ? request.request->anchor : draft_.mask_token_id;
    float* streams = streams_.data() + static_cast<int64_t>(row) * hyper_.n_streams * dim;
    decode_row(table.dtype, table.data + static_cast<size_t>(token) * table.row_bytes(), streams, dim);
    for (int32_t s = 1; s < hyper_.n_streams; ++s) {
      std::memcpy(streams + s * dim, streams, static_cast<size_t>(dim) * sizeof(float));
    }
  }
}

void V4Drafter::run_stage(size_t stage) {
  const V4LayerWeights& w = weights_.stages[stage];
  const auto n_rows = static_cast<int64_t>(positions_.size());
  const int64_t dim = model_.dim;
  const auto norm = [&](const std::vector<float>& weight) {
    rms_norm(pool_, branch_.data(), dim, branch_.data(), dim, weight.data(), model_.norm_eps, n_rows, dim);
  };
  mixer_.enter(pool_, hyper_, w.attn_hc, streams_.data(), n_rows, branch_.data());
  norm(w.attn_norm);
  attend(stage);
  mixer_.leave(pool_, hyper_, branch_.data(), n_rows, streams_.data());
  mixer_.enter(pool_, hyper_, w.ffn_hc, streams_.data(), n_rows, branch_.data());
  norm(w.ffn_norm);
  MoeArgs experts;
  experts.router_in = experts.x = branch_.data();
  experts.out = branch_.data();
  experts.n_rows = n_rows;
  moe_.run(pool_, model_.moe, w.moe, experts);
  mixer_.leave(pool_, hyper_, branch_.data(), n_rows, streams_.data());
}

// branch_ -> branch_: every slot sees the last `window` context rows and the whole block.
void V4Drafter::attend(size_t stage) {
  const V4LayerWeights& w = weights_.stages[stage];
  const RopeTable& rope = model_.ropes[0];
  const int64_t c = model_.head_dim, heads_dim = model_.n_heads * c;
  const int32_t block = draft_.block_size;
  attention_.make_queries(pool_, model_, w, rope, branch_.data(), positions_);
  attention_.make_keys(pool_, model_, w, rope, branch_.data(), positions_, keys_.data());
  const V4Rows rows(cache_, static_cast<int>(stage), layout_);
  pool_.parallel_for(static_cast<int64_t>(round_.size()), [&](int64_t r, int thread) {
    const DraftRequest& request = *round_[static_cast<size_t>(r)].request;
    const Slot& slot = slots_[static_cast<size_t>(request.slot)];
    float* keys = thread_[static_cast<size_t>(thread)].data();
    int32_t n_keys = 0;
    for (int32_t p = std::max(0, request.position - model_.v4.window); p < request.position; ++p) {
      rows.read(slot.pages, V4Field::kKey, p, keys + n_keys++ * c);
    }
    std::memcpy(keys + n_keys * c, keys_.data() + r * block * c,
                static_cast<size_t>(block * c) * sizeof(float));
    n_keys += block;
    for (int32_t j = 0; j < block; ++j) {
      const int64_t row = r * block + j;
      v4_attend_row(model_, attention_.queries() + row * heads_dim, w.sinks.data(), keys, n_keys, 0,
                    model_.n_heads, keys + n_keys * c, attention_.attended() + row * heads_dim);
    }
  });
  attention_.project_out(pool_, model_, w, static_cast<int64_t>(positions_.size()),
                         v4_row_angles(rope, positions_), branch_.data());
}

// hidden_: the collapsed streams, which the confidence reads; their norm goes to the target's head.
void V4Drafter::head() {
  const auto n_rows = static_cast<int64_t>(asked_rows_.size());
  const int64_t dim = model_.dim, wide = hyper_.n_streams * dim;
  for (int64_t i = 0; i < n_rows; ++i) {
    std::memcpy(asked_streams_.data() + i * wide,
                streams_.data() + asked_rows_[static_cast<size_t>(i)] * wide,
                static_cast<size_t>(wide) * sizeof(float));
  }
  mixer_.collapse(pool_, hyper_, weights_.head_hc, asked_streams_.data(), n_rows, hidden_.data());
  rms_norm(pool_, normed_.data(), dim, hidden_.data(), dim, weights_.final_norm.data(), model_.norm_eps,
           n_rows, dim);
  const PackedMatrix& vocabulary = head_.vocabulary.head();
  activations_.assign(pool_, normed_.data(), n_rows, dim, dim, uses_int8_activations(vocabulary.kind));
  const MatmulJob job{&vocabulary, logits_.data(), model_.vocab_size, nullptr};
  matmul(pool_, {&job, 1}, activations_);
}

}  // namespace dspark
