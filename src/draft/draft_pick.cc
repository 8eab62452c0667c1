#include "draft/draft_pick.h"

#include <algorithm>
#include <cmath>

#include "base/philox.h"
#include "kernels/row_math.h"
#include "speculate/coupled.h"

namespace dspark {
namespace {

int32_t id_of(const PickRow& row, size_t column) {
  return row.vocab_ids.empty() ? static_cast<int32_t>(column) : row.vocab_ids[column];
}

/// The maxima of the row's chunks, computed now if nobody has.
std::span<const float> chunk_maxima(const PickRow& row, PickScratch& scratch) {
  if (!row.chunk_max.empty()) return row.chunk_max;
  const auto n = static_cast<int64_t>(row.logits.size());
  scratch.chunk_max.clear();
  for (int64_t begin = 0; begin < n; begin += kPickChunk) {
    scratch.chunk_max.push_back(max_row(row.logits.data() + begin, std::min(kPickChunk, n - begin)));
  }
  return scratch.chunk_max;
}

std::span<const float> chunk_of(const PickRow& row, size_t chunk_idx) {
  const size_t begin = chunk_idx * static_cast<size_t>(kPickChunk);
  return row.logits.subspan(begin, std::min(static_cast<size_t>(kPickChunk), row.logits.size() - begin));
}

/// Lists every token whose logit is at least `lowest`, ids ascending; returns their number. Without branches
/// on the values: which of them reach far enough is noise to a predictor.
size_t gather(const PickRow& row, std::span<const float> maxima, float lowest, PickScratch& scratch) {
  scratch.ids.resize(std::max(scratch.ids.size(), row.logits.size()));
  scratch.logits.resize(scratch.ids.size());
  int32_t* ids = scratch.ids.data();
  float* logits = scratch.logits.data();
  size_t n = 0;
  for (size_t i = 0; i < maxima.size(); ++i) {
    if (!(maxima[i] >= lowest)) continue;
    const std::span<const float> chunk = chunk_of(row, i);
    const auto first = static_cast<int32_t>(i) * static_cast<int32_t>(kPickChunk);
    const int32_t* listed = row.vocab_ids.empty() ? nullptr : row.vocab_ids.data() + first;
    for (size_t j = 0; j < chunk.size(); ++j) {
      ids[n] = listed != nullptr ? listed[j] : first + static_cast<int32_t>(j);
      logits[n] = chunk[j];
      n += chunk[j] >= lowest ? 1 : 0;
    }
  }
  return n;
}

}  // namespace

void PickScratch::reserve(int64_t n_columns) {
  const auto n = static_cast<size_t>(n_columns);
  chunk_max.reserve(n / static_cast<size_t>(kPickChunk) + 1);
  ids.reserve(n);
  logits.reserve(n);
  // Which thread picks which row is a matter of chance, so every thread has room from the start.
  sampler.candidates.reserve(n);
  sampler.heads.reserve(n);
  sampler.row.reserve(n);
  draw.chunk_mass.reserve(n / 256 + 1);
}

float peak_logit(PickRow& row, PickScratch& scratch) {
  constexpr size_t kExactColumns = 4096;
  constexpr double kMost = 12.0;
  const bool exact = row.logits.size() <= kExactColumns;
  if (!exact) row.chunk_max = chunk_maxima(row, scratch);
  const std::span<const float> values = exact ? row.logits : row.chunk_max;
  const float largest = *std::max_element(values.begin(), values.end());
  double others = -1.0;  // the largest itself is one of the values
  for (const float value : values) others += std::exp(static_cast<double>(value - largest));
  if (!(others > 0.0)) return static_cast<float>(kMost);
  return static_cast<float>(std::clamp(-std::log(others), -kMost, kMost));
}

float row_probability(const PickRow& row, int32_t token, PickScratch& scratch) {
  auto column = static_cast<size_t>(token);
  if (!row.vocab_ids.empty()) {
    column = static_cast<size_t>(std::ranges::find(row.vocab_ids, token) - row.vocab_ids.begin());
  }
  const size_t n = row.logits.size();
  if (token < 0 || column >= n) return -1.0f;
  // A buffer that is only ever as long as the longest row.
  scratch.logits.resize(std::max(scratch.logits.size(), n));
  std::ranges::copy(row.logits, scratch.logits.begin());
  softmax_row(scratch.logits.data(), static_cast<int64_t>(n));
  return scratch.logits[column];
}

int32_t pick_greedy(const PickRow& row, PickScratch& scratch) {
  const std::span<const float> maxima = chunk_maxima(row, scratch);
  const size_t best = static_cast<size_t>(argmax(maxima));
  const std::span<const float> chunk = chunk_of(row, best);
  return id_of(row, best * static_cast<size_t>(kPickChunk) + static_cast<size_t>(argmax(chunk)));
}

int32_t pick_coupled(const PickRow& row, const SamplingParams& params, uint64_t position,
                     PickScratch& scratch) {
  if (params.has_filters()) {
    filter_candidates(row.logits, params, scratch.sampler);
    for (Candidate& c : scratch.sampler.candidates) c.id = id_of(row, static_cast<size_t>(c.id));
    const int32_t pick = coupled_pick(scratch.sampler.candidates, params.seed, position);
    return pick >= 0 ? pick : pick_greedy(row, scratch);
  }
  const std::span<const float> maxima = chunk_maxima(row, scratch);
  const float largest = maxima[static_cast<size_t>(argmax(maxima))];
  if (!std::isfinite(largest)) return pick_greedy(row, scratch);
  const auto reach = static_cast<float>(std::log(kNegligibleWeight)) * params.temperature;
  const size_t n = gather(row, maxima, largest + reach, scratch);
  return coupled_pick_listed(std::span(scratch.ids).first(n), std::span(scratch.logits).first(n),
                             params.temperature, params.seed, position);
}

int32_t pick_sampled(const PickRow& row, const SamplingParams& params, double u, std::span<float> probs,
                     PickScratch& scratch) {
  const auto n = static_cast<int64_t>(row.logits.size());
  const std::span<const float> maxima = chunk_maxima(row, scratch);
  const auto best = static_cast<size_t>(argmax(maxima));
  if (!std::isfinite(maxima[best])) {  // nothing to normalise: certain of whatever greedy picks
    const std::span<const float> chunk = chunk_of(row, best);
    const size_t column = best * static_cast<size_t>(kPickChunk) + static_cast<size_t>(argmax(chunk));
    std::fill(probs.begin(), probs.end(), 0.0f);
    probs[column] = 1.0f;
    return id_of(row, column);
  }
  if (params.has_filters()) {
    filter_candidates(row.logits, params, scratch.sampler);
    double sum = 0.0;
    for (const Candidate& c : scratch.sampler.candidates) sum += c.weight;
    std::fill(probs.begin(), probs.end(), 0.0f);
    for (const Candidate& c : scratch.sampler.candidates) {
      probs[static_cast<size_t>(c.id)] = static_cast<float>(c.weight / sum);
    }
  } else {
    std::copy(row.logits.begin(), row.logits.end(), probs.begin());
    if (params.temperature != 1.0f) scale_row(probs.data(), n, 1.0f / params.temperature);
    softmax_row(probs.data(), n);
  }
  return id_of(row, static_cast<size_t>(draw_index(probs, u, scratch.draw)));
}

PickKind pick_kind(const DraftRequest& request) {
  if (request.sampling == nullptr || request.sampling->greedy()) return PickKind::kGreedy;
  return request.rule == AcceptRule::kCoupled ? PickKind::kCoupled : PickKind::kSampled;
}

int32_t pick_draft(const PickRow& row, const DraftRequest& request, int32_t draft_idx, std::span<float> probs,
                   PickScratch& scratch) {
  const auto anchor = static_cast<uint64_t>(request.position);
  const auto offset = static_cast<uint32_t>(draft_idx + 1);
  switch (pick_kind(request)) {
    case PickKind::kGreedy:
      return pick_greedy(row, scratch);
    case PickKind::kCoupled:
      return pick_coupled(row, *request.sampling, anchor + offset, scratch);
    case PickKind::kSampled:
      break;
  }
  const double u = uniform_at(request.sampling->seed, anchor, offset, NoisePurpose::kDraft);
  return pick_sampled(row, *request.sampling, u, probs, scratch);
}

}  // namespace dspark
