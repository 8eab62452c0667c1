#include "draft/sequential_head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/panels.h"
#include "kernels/row_math.h"
#include "speculate/confidence.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

constexpr int64_t kPanelsPerChunk = kPickChunk / kPanelRows;
constexpr int64_t kGroupChunks = 4;  // of one product in a full walk
constexpr int64_t kGroupPanels = kGroupChunks * kPanelsPerChunk;
constexpr int64_t kGroupColumns = kGroupChunks * kPickChunk;
// Weights of one task of the bias product; and the product size below which waking threads does not pay.
constexpr size_t kTaskBytes = 32 << 10;
constexpr int64_t kInlineWork = 1 << 17;
// Pruned steps are worth it while they read less than this share of w2; after that so many full steps.
constexpr double kMostShare = 0.4;
constexpr int32_t kMostRank = 4096;  // one row of activations is made without other threads
constexpr int32_t kFullSteps = 512;

float sigmoid_of(float x) {
  return 1.0f / (1.0f + std::exp(-x));
}

/// Columns of the m largest logits, the lowest columns on ties, ascending.
void best_columns(std::span<const float> logits, size_t m, std::vector<std::pair<float, int32_t>>& heads,
                  int32_t* out) {
  const auto better = [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  const auto keep_best = [&] {
    std::nth_element(heads.begin(), heads.begin() + static_cast<std::ptrdiff_t>(m - 1), heads.end(), better);
    heads.resize(m);
  };
  heads.clear();
  const size_t room = 2 * m + 256;
  float threshold = -std::numeric_limits<float>::infinity();
  bool full = false;
  for (size_t column = 0; column < logits.size(); ++column) {
    // Later columns lose ties, so an equal value cannot get in once the list is full.
    if (full && !(logits[column] > threshold)) continue;
    heads.emplace_back(logits[column], static_cast<int32_t>(column));
    if (heads.size() < room) continue;
    keep_best();
    threshold = heads[m - 1].first;
    full = true;
  }
  if (heads.size() > m) keep_best();
  for (size_t i = 0; i < m; ++i) out[i] = heads[i].second;
  std::sort(out, out + m);
}

}  // namespace

SequentialDecoder::SequentialDecoder(const DraftConfig& config, const BlockWeights& weights, ThreadPool& pool,
                                     int32_t shortlist)
    : config_(config), weights_(weights), pool_(pool), shortlist_(shortlist) {
  // Without a bias there is nothing to save.
  if (config.head == SequentialHead::kNone || shortlist >= config.draft_vocab_size) shortlist_ = 0;
  scratch_.resize(static_cast<size_t>(pool.n_threads()));
  candidates_.resize(scratch_.size());
  for (PickScratch& scratch : scratch_) scratch.reserve(config.draft_vocab_size);
  for (auto& list : candidates_) list.reserve(2 * static_cast<size_t>(shortlist_) + 256);
  // The bias of a vanilla head is a function of the previous token. Without a confidence head the drafts'
  // evidence needs every chunk's maximum.
  prunes_ = config.head == SequentialHead::kVanilla && config.confidence && !shortlisted() &&
            config.markov_rank <= kMostRank;
  if (!prunes_) return;
  bounds_.reset(n_chunks());
  row_activations_.resize(scratch_.size());
  const std::vector<float> zeros(static_cast<size_t>(config.markov_rank));
  for (Activations& x : row_activations_) {
    x.assign(pool, zeros.data(), 1, config.markov_rank, config.markov_rank,
             uses_int8_activations(weights.markov_out.kind));
  }
}

bool SequentialDecoder::grow(const HeadPass& pass) {
  const auto n = static_cast<int64_t>(pass.requests.size());
  const int64_t rank = config_.markov_rank, threads = pool_.n_threads();
  int64_t n_rows = 0;
  for (const HeadRequest& request : pass.requests) n_rows += request.n_drafts;
  if (shortlisted()) {
    shortlist_columns_.resize(static_cast<size_t>(n_rows * shortlist_));
    shortlist_ids_.resize(shortlist_columns_.size());
  }
  claims_.reserve(pass.requests.size());
  constraints_.reserve(pass.requests.size());
  chunks_read_.reserve(pass.requests.size());
  return embedded_.grow(n * rank) && latent_.grow(n * rank) && state_.grow(n * rank) &&
         joint_in_.grow(n * weights_.markov_joint.n_in) && joint_out_.grow(n * weights_.markov_joint.n_out) &&
         chunk_max_.grow(n * n_chunks()) && bias_.grow(threads * n * kGroupColumns) &&
         shortlist_logits_.grow(n * shortlist_) && thread_rows_.grow(threads * (rank + shortlist_));
}

Status SequentialDecoder::run(const HeadPass& pass, DraftBlock& out) {
  if (!grow(pass)) return out_of_memory("no memory for the drafter's sequential head");
  previous_.clear();
  int32_t longest = 0;
  for (const HeadRequest& request : pass.requests) {
    previous_.push_back(request.request->anchor);
    longest = std::max(longest, request.n_drafts);
    out.n_tokens[request.out_row] = request.n_drafts;
  }
  out.has_confidence = config_.confidence;
  if (!config_.confidence) out.evidence_kind = DraftEvidence::kPeakLogit;
  keep_distributions(pass, out);
  if (config_.head == SequentialHead::kRnn) {
    std::fill_n(state_.data(), static_cast<int64_t>(pass.requests.size()) * config_.markov_rank, 0.0f);
  }
  if (shortlisted()) choose_shortlists(pass);
  constraints_.begin(pass.requests.size());
  for (int32_t k = 0; k < longest; ++k) step(pass, k, out);
  for (size_t i = 0; i < pass.requests.size(); ++i) constraints_.end(i, *pass.requests[i].request);
  return ok_status();
}

void SequentialDecoder::keep_distributions(const HeadPass& pass, DraftBlock& out) const {
  bool any = false;
  for (const HeadRequest& request : pass.requests) {
    if (pick_kind(*request.request) != PickKind::kSampled) continue;
    out.has_probs[request.out_row] = 1;
    any = true;
  }
  if (any) out.keep_probs(config_.draft_vocab_size, config_.d2t);
}

void SequentialDecoder::step(const HeadPass& pass, int32_t k, DraftBlock& out) {
  active_.clear();
  bool samples = false, is_masked = false;
  for (size_t i = 0; i < pass.requests.size(); ++i) {
    if (out.n_tokens[pass.requests[i].out_row] <= k) continue;
    active_.push_back(static_cast<int32_t>(i));
    const DraftRequest& request = *pass.requests[i].request;
    samples |= pick_kind(request) != PickKind::kGreedy;
    is_masked |= request.constraint != nullptr;
  }
  if (active_.empty()) return;
  const bool pruned = can_prune(pass);
  full_steps_left_ = std::max(0, full_steps_left_ - 1);
  if (config_.head != SequentialHead::kNone) {
    embed_previous();
    make_latents(pass, k);
    if (!shortlisted() && !pruned) add_bias(pass, k);
  }
  score(pass, k, out);
  if (pruned) chunks_read_.assign(active_.size(), 0);
  const auto pick_one = [&](int64_t i, int thread) {
    if (pruned) prune(pass, k, static_cast<size_t>(i), thread);
    if (shortlisted()) score_shortlist(pass, k, static_cast<size_t>(i), thread);
    pick(pass, k, static_cast<size_t>(i), thread, out);
  };
  const auto n = static_cast<int64_t>(active_.size());
  if (n > 1 && (samples || is_masked || pruned || shortlisted() || config_.head == SequentialHead::kNone)) {
    pool_.parallel_for(n, pick_one);
  } else {
    for (int64_t i = 0; i < n; ++i) pick_one(i, 0);
  }
  if (pruned) judge_pruning();
}

void SequentialDecoder::embed_previous() {
  const TensorView& table = weights_.markov_in;
  const size_t row_bytes = table.row_bytes();
  const int64_t rank = config_.markov_rank;
  for (size_t i = 0; i < active_.size(); ++i) {
    const auto token = static_cast<size_t>(previous_[static_cast<size_t>(active_[i])]);
    decode_row(table.dtype, table.data + token * row_bytes, embedded_.data() + static_cast<int64_t>(i) * rank,
               rank);
  }
}

/// Confidences of draft k + 1 of every active request, known before it is picked.
void SequentialDecoder::score(const HeadPass& pass, int32_t k, DraftBlock& out) const {
  if (!config_.confidence) return;
  const int64_t dim = config_.dim, rank = config_.markov_rank;
  const auto at = static_cast<size_t>(k);
  const double temperature = at < temperatures_.size() ? temperatures_[at] : 1.0;
  const double bias = at < biases_.size() ? biases_[at] : 0.0;
  for (size_t i = 0; i < active_.size(); ++i) {
    const float* hidden = pass.hidden + row_of(pass, k, i) * dim;
    float z = dot_row(weights_.confidence.data(), hidden, dim);
    if (config_.confidence_with_markov) {
      z += dot_row(weights_.confidence.data() + dim, embedded_.data() + static_cast<int64_t>(i) * rank, rank);
    }
    z += weights_.confidence_bias;
    const size_t out_at =
        pass.requests[static_cast<size_t>(active_[i])].out_row * static_cast<size_t>(out.stride) + at;
    out.confidence_logits[out_at] = z;
    out.confidence[out_at] = static_cast<float>(sigmoid(static_cast<double>(z) / temperature + bias));
  }
}

void SequentialDecoder::make_latents(const HeadPass& pass, int32_t k) {
  const int64_t rank = config_.markov_rank;
  const auto n = static_cast<int64_t>(active_.size());
  const float* e = embedded_.data();
  float* latent = latent_.data();
  if (config_.head == SequentialHead::kVanilla) {
    std::memcpy(latent, e, static_cast<size_t>(n * rank) * sizeof(float));
    return;
  }
  multiply_joint(pass, k);
  if (config_.head == SequentialHead::kRnn) return update_rnn();
  for (int64_t i = 0; i < n * rank; ++i) latent[i] = sigmoid_of(joint_out_.data()[i]) * e[i];
}

void SequentialDecoder::multiply_joint(const HeadPass& pass, int32_t k) {
  const int64_t rank = config_.markov_rank, dim = config_.dim;
  const PackedMatrix& w = weights_.markov_joint;
  const auto copy = [](float*& to, const float* from, int64_t n) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
    to += n;
  };
  for (size_t i = 0; i < active_.size(); ++i) {
    float* to = joint_in_.data() + static_cast<int64_t>(i) * w.n_in;
    const float* e = embedded_.data() + static_cast<int64_t>(i) * rank;
    const float* hidden = pass.hidden + row_of(pass, k, i) * dim;
    if (config_.head == SequentialHead::kRnn) {
      copy(to, state_.data() + int64_t{active_[i]} * rank, rank);
      copy(to, e, rank);
      copy(to, hidden, dim);
    } else {
      copy(to, hidden, dim);
      copy(to, e, rank);
    }
  }
  const auto n = static_cast<int64_t>(active_.size());
  activations_.assign(pool_, joint_in_.data(), n, w.n_in, w.n_in, uses_int8_activations(w.kind));
  const MatmulJob job = {&w, joint_out_.data(), w.n_out, weights_.markov_bias.data()};
  matmul(pool_, {&job, 1}, activations_);
}

void SequentialDecoder::update_rnn() {
  const int64_t rank = config_.markov_rank;
  for (size_t i = 0; i < active_.size(); ++i) {
    const float* gate = joint_out_.data() + static_cast<int64_t>(i) * 3 * rank;
    const float* candidate = gate + rank;
    const float* output = candidate + rank;
    float* state = state_.data() + int64_t{active_[i]} * rank;
    float* latent = latent_.data() + static_cast<int64_t>(i) * rank;
    for (int64_t j = 0; j < rank; ++j) {
      const float keep = sigmoid_of(gate[j]);
      state[j] = keep * state[j] + (1.0f - keep) * std::tanh(candidate[j]);
      latent[j] = std::tanh(output[j]);
    }
  }
}

/// Bias, sum with the base logits and the chunks' maxima in one walk over w2, so that the row is not read
/// again to find its largest value.
void SequentialDecoder::add_bias(const HeadPass& pass, int32_t k) {
  const PackedMatrix& w = weights_.markov_out;
  const auto n = static_cast<int64_t>(active_.size());
  activations_.assign(pool_, latent_.data(), n, w.n_in, w.n_in, uses_int8_activations(w.kind));
  claims_.assign(active_.size(), {});
  bounds_.begin(active_.size());
  for (size_t i = 0; i < active_.size() && prunes_ && !pass.keep_logits; ++i) {
    const auto request_idx = static_cast<size_t>(active_[i]);
    if (pick_kind(*pass.requests[request_idx].request) == PickKind::kSampled) continue;
    claims_[i] = bounds_.claim(previous_[request_idx]);
  }
  const int64_t n_groups = (w.n_panels + kGroupPanels - 1) / kGroupPanels;
  if (pool_.n_threads() == 1 || w.n_out * w.n_in * n < kInlineWork) {
    for (int64_t group = 0; group < n_groups; ++group) bias_group(pass, k, group, 0);
    return;
  }
  const size_t group_bytes = w.panel_bytes * static_cast<size_t>(kGroupPanels);
  const int64_t by_count = (n_groups + 4 * pool_.n_threads() - 1) / (4 * pool_.n_threads());
  const int64_t per_task = std::clamp<int64_t>(static_cast<int64_t>(kTaskBytes / group_bytes), 1, by_count);
  pool_.parallel_for((n_groups + per_task - 1) / per_task, [&](int64_t task, int thread) {
    const int64_t end = std::min(n_groups, (task + 1) * per_task);
    for (int64_t group = task * per_task; group < end; ++group) bias_group(pass, k, group, thread);
  });
}

void SequentialDecoder::bias_group(const HeadPass& pass, int32_t k, int64_t group_idx, int thread) {
  const PackedMatrix& w = weights_.markov_out;
  const auto n = static_cast<int64_t>(active_.size());
  const int64_t first_panel = group_idx * kGroupPanels, first_chunk = group_idx * kGroupChunks;
  float* bias = bias_.data() + thread * n * kGroupColumns;
  matmul_panels({&w, bias, kGroupColumns, nullptr}, activations_, first_panel,
                std::min(w.n_panels, first_panel + kGroupPanels));
  for (int64_t i = 0; i < n; ++i) {
    const std::span<float> claim = claims_[static_cast<size_t>(i)];
    float* z = pass.logits + row_of(pass, k, static_cast<size_t>(i)) * w.n_out;
    for (int64_t chunk = first_chunk; chunk < std::min(n_chunks(), first_chunk + kGroupChunks); ++chunk) {
      const int64_t column = chunk * kPickChunk, n_columns = std::min(kPickChunk, w.n_out - column);
      const float* b = bias + i * kGroupColumns + (chunk - first_chunk) * kPickChunk;
      if (!claim.empty()) claim[static_cast<size_t>(chunk)] = max_row(b, n_columns);
      add_row(z + column, b, n_columns);
      chunk_max_.data()[i * n_chunks() + chunk] = max_row(z + column, n_columns);
    }
  }
}

/// Whether every sequence of the step picks by its largest logits and its previous token has bounds. One that
/// does not makes it a full step for all: w2 is read whole for its sake, in one walk that all rows can share,
/// and the others' own walks over scattered chunks would read parts of it again.
bool SequentialDecoder::can_prune(const HeadPass& pass) const {
  if (!prunes_ || pass.keep_logits || full_steps_left_ > 0) return false;
  return std::ranges::all_of(active_, [&](int32_t request_idx) {
    const DraftRequest& request = *pass.requests[static_cast<size_t>(request_idx)].request;
    if (request.constraint != nullptr) return false;  // what is left may lie far below the best
    const PickKind kind = pick_kind(request);
    if (kind == PickKind::kSampled || request.wants_probability) return false;
    if (kind == PickKind::kCoupled && request.sampling->has_filters()) return false;
    return !bounds_.find(previous_[static_cast<size_t>(request_idx)]).empty();
  });
}

/// add_bias for one row, without the chunks that cannot be picked from: the largest base logit of a chunk
/// plus the largest bias its previous token gave there is no less than its largest sum (rounding keeps the
/// order), so a chunk below the best sum found so far, less what a coupled pick looks at, has nothing to say.
/// Chunks that are read get the bits of a full walk.
void SequentialDecoder::prune(const HeadPass& pass, int32_t k, size_t active_idx, int thread) {
  const PackedMatrix& w = weights_.markov_out;
  const auto request_idx = static_cast<size_t>(active_[active_idx]);
  const DraftRequest& request = *pass.requests[request_idx].request;
  const std::span<const float> bounds = bounds_.find(previous_[request_idx]);
  const auto n = static_cast<size_t>(n_chunks());
  float* z = pass.logits + row_of(pass, k, active_idx) * w.n_out;
  float* maxima = chunk_max_.data() + active_idx * n;
  const auto columns_of = [&](size_t chunk) {
    return std::min(kPickChunk, w.n_out - static_cast<int64_t>(chunk) * kPickChunk);
  };
  size_t first = 0;
  for (size_t chunk = 0; chunk < n; ++chunk) {
    maxima[chunk] = max_row(z + chunk * kPickChunk, columns_of(chunk)) + bounds[chunk];
    if (!(maxima[chunk] <= maxima[first])) first = chunk;
  }
  Activations& x = row_activations_[static_cast<size_t>(thread)];
  x.assign(pool_, latent_.data() + static_cast<int64_t>(active_idx) * w.n_in, 1, w.n_in, w.n_in,
           uses_int8_activations(w.kind));
  float* bias = bias_.data() + thread * static_cast<int64_t>(active_.size()) * kGroupColumns;
  const auto read = [&](size_t chunk) {
    const int64_t panel = static_cast<int64_t>(chunk) * kPanelsPerChunk;
    matmul_panels({&w, bias, kGroupColumns, nullptr}, x, panel,
                  std::min(w.n_panels, panel + kPanelsPerChunk));
    add_row(z + chunk * kPickChunk, bias, columns_of(chunk));
    maxima[chunk] = max_row(z + chunk * kPickChunk, columns_of(chunk));
    ++chunks_read_[active_idx];
  };
  const bool greedy = pick_kind(request) == PickKind::kGreedy;
  const float reach =
      greedy ? 0.0f : static_cast<float>(std::log(kNegligibleWeight)) * request.sampling->temperature;
  read(first);
  float best = maxima[first];
  for (size_t chunk = 0; chunk < n; ++chunk) {
    if (chunk == first) continue;
    if (maxima[chunk] < best + reach) {
      maxima[chunk] = -std::numeric_limits<float>::infinity();
      continue;
    }
    read(chunk);
    best = std::max(best, maxima[chunk]);
  }
}

/// Walks alone over scattered chunks pay only while these are few.
void SequentialDecoder::judge_pruning() {
  for (const int64_t n_read : chunks_read_) {
    ++n_pruned_steps_;
    n_pruned_chunks_ += n_read;
    share_read_ += 0.05 * (static_cast<double>(n_read) / static_cast<double>(n_chunks()) - share_read_);
  }
  if (share_read_ <= kMostShare) return;
  share_read_ = 0.0;
  full_steps_left_ = kFullSteps;
}

void SequentialDecoder::choose_shortlists(const HeadPass& pass) {
  const auto n_columns = static_cast<size_t>(config_.draft_vocab_size);
  const int64_t n_rows = static_cast<int64_t>(shortlist_columns_.size()) / shortlist_;
  const auto m = static_cast<size_t>(shortlist_);
  pool_.parallel_for(n_rows, [&](int64_t row, int thread) {
    int32_t* columns = shortlist_columns_.data() + static_cast<size_t>(row) * m;
    int32_t* ids = shortlist_ids_.data() + static_cast<size_t>(row) * m;
    best_columns({pass.logits + static_cast<size_t>(row) * n_columns, n_columns}, m,
                 candidates_[static_cast<size_t>(thread)], columns);
    for (size_t i = 0; i < m; ++i) {
      ids[i] = config_.d2t.empty() ? columns[i] : config_.d2t[static_cast<size_t>(columns[i])];
    }
  });
}

/// Step logits of one request's shortlist, in fp32 from the stored rows of w2.
void SequentialDecoder::score_shortlist(const HeadPass& pass, int32_t k, size_t active_idx, int thread) {
  const TensorView& table = weights_.markov_out_rows;
  const int64_t rank = config_.markov_rank, n_columns = config_.draft_vocab_size;
  const int64_t row = row_of(pass, k, active_idx);
  const int32_t* columns = shortlist_columns_.data() + row * shortlist_;
  float* w2_row = thread_rows_.data() + thread * (rank + shortlist_);
  float* scores = shortlist_logits_.data() + static_cast<int64_t>(active_idx) * shortlist_;
  float* base = pass.logits + row * n_columns;
  const float* latent = latent_.data() + static_cast<int64_t>(active_idx) * rank;
  for (int32_t i = 0; i < shortlist_; ++i) {
    decode_row(table.dtype, table.data + static_cast<size_t>(columns[i]) * table.row_bytes(), w2_row, rank);
    scores[i] = base[columns[i]] + dot_row(w2_row, latent, rank);
  }
  if (!pass.keep_logits) return;
  std::fill_n(base, n_columns, -std::numeric_limits<float>::infinity());
  for (int32_t i = 0; i < shortlist_; ++i) base[columns[i]] = scores[i];
}

/// Leaves the tokens that the request's constraint allows. returns: false when there are none.
bool SequentialDecoder::constrain(const HeadPass& pass, int32_t k, size_t active_idx) {
  const auto request_idx = static_cast<size_t>(active_[active_idx]);
  const DraftRequest& request = *pass.requests[request_idx].request;
  if (request.constraint == nullptr) return true;
  const int64_t row = row_of(pass, k, active_idx), n_columns = config_.draft_vocab_size;
  if (shortlisted()) {
    const auto m = static_cast<size_t>(shortlist_);
    return constraints_.mask(request_idx, request, {shortlist_logits_.data() + active_idx * m, m},
                             std::span(shortlist_ids_).subspan(static_cast<size_t>(row) * m, m));
  }
  float* z = pass.logits + row * n_columns;
  if (!constraints_.mask(request_idx, request, {z, static_cast<size_t>(n_columns)}, config_.d2t))
    return false;
  if (config_.head == SequentialHead::kNone) return true;
  float* maxima = chunk_max_.data() + static_cast<int64_t>(active_idx) * n_chunks();
  for (int64_t chunk = 0; chunk < n_chunks(); ++chunk) {
    const int64_t column = chunk * kPickChunk;
    maxima[chunk] = max_row(z + column, std::min(kPickChunk, n_columns - column));
  }
  return true;
}

PickRow SequentialDecoder::pick_row(const HeadPass& pass, int32_t k, size_t active_idx) const {
  const auto n_columns = static_cast<size_t>(config_.draft_vocab_size);
  const int64_t row = row_of(pass, k, active_idx);
  if (shortlisted()) {
    const auto m = static_cast<size_t>(shortlist_);
    return {{shortlist_logits_.data() + active_idx * m, m},
            {},
            std::span(shortlist_ids_).subspan(static_cast<size_t>(row) * m, m)};
  }
  PickRow out{{pass.logits + static_cast<size_t>(row) * n_columns, n_columns}, {}, config_.d2t};
  if (config_.head != SequentialHead::kNone) {
    const auto n = static_cast<size_t>(n_chunks());
    out.chunk_max = {chunk_max_.data() + active_idx * n, n};
  }
  return out;
}

int32_t SequentialDecoder::pick_token(const HeadPass& pass, int32_t k, size_t active_idx, int thread,
                                      DraftBlock& out) {
  const HeadRequest& head = pass.requests[static_cast<size_t>(active_[active_idx])];
  const DraftRequest& request = *head.request;
  PickRow row = pick_row(pass, k, active_idx);
  PickScratch& scratch = scratch_[static_cast<size_t>(thread)];
  if (!config_.confidence) out.evidence[out.at(head.out_row, k)] = peak_logit(row, scratch);
  std::span<float> probs;
  if (pick_kind(request) == PickKind::kSampled) probs = out.probs_row(head.out_row, k);
  if (!shortlisted() || probs.empty()) return pick_draft(row, request, k, probs, scratch);
  float* listed = thread_rows_.data() + thread * (config_.markov_rank + shortlist_) + config_.markov_rank;
  const int32_t token = pick_draft(row, request, k, {listed, static_cast<size_t>(shortlist_)}, scratch);
  std::fill(probs.begin(), probs.end(), 0.0f);
  const int32_t* columns = shortlist_columns_.data() + row_of(pass, k, active_idx) * shortlist_;
  for (int32_t i = 0; i < shortlist_; ++i) probs[static_cast<size_t>(columns[i])] = listed[i];
  return token;
}

void SequentialDecoder::pick(const HeadPass& pass, int32_t k, size_t active_idx, int thread,
                             DraftBlock& out) {
  const auto request_idx = static_cast<size_t>(active_[active_idx]);
  const auto at = static_cast<size_t>(k);
  const HeadRequest& head = pass.requests[request_idx];
  if (!constrain(pass, k, active_idx)) {
    out.n_tokens[head.out_row] = k;
    return;
  }
  int32_t token = pick_token(pass, k, active_idx, thread, out);
  if (request_idx == 0 && at < pass.forced.size()) token = pass.forced[at];
  if (!constraints_.advance(request_idx, *head.request, token)) out.n_tokens[head.out_row] = k;
  if (head.request->wants_probability) {
    out.probability[out.at(head.out_row, k)] =
        row_probability(pick_row(pass, k, active_idx), token, scratch_[static_cast<size_t>(thread)]);
  }
  out.row(head.out_row)[at] = token;
  previous_[request_idx] = token;
}

}  // namespace dspark
