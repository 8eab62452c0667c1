#include "speculate/draw.h"

#include <algorithm>
#include <cstddef>

#include "base/status.h"

namespace dspark {
namespace {

constexpr size_t kChunk = 256;  // a draw looks at chunk sums first, then into one chunk

/// Sum with a fixed order whatever the width of a vector register.
double sum_of(const double* values, size_t n) {
  constexpr size_t kLanes = 16;
  double lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] += values[i + j];
  }
  double sum = 0.0;
  for (; i < n; ++i) sum += values[i];
  for (double lane : lanes) sum += lane;
  return sum;
}

/// Makes the weights of tokens begin .. begin + n - 1. `next_id` is the first column of a reduced vocabulary
/// at or behind `begin`; it moves on.
struct PlainChunks {
  std::span<const float> weights;

  void fill(size_t begin, size_t n, double* out) {
    for (size_t i = 0; i < n; ++i) out[i] = static_cast<double>(weights[begin + i]);
  }
};

struct ResidualChunks {
  std::span<const float> target;
  double scale;
  std::span<const float> probs;
  std::span<const int32_t> ids;  // empty: column = id
  size_t next_column = 0;

  /// Columns at or behind token `begin`, for a walk that does not start at 0.
  void seek(size_t begin) {
    const auto at = std::lower_bound(ids.begin(), ids.end(), static_cast<int32_t>(begin));
    next_column = static_cast<size_t>(at - ids.begin());
  }

  void fill(size_t begin, size_t n, double* out) {
    if (ids.empty()) {
      // A draft vocabulary without ids may be shorter than the target's (padding rows): q is 0 behind it.
      const size_t n_both = std::min(n, probs.size() - std::min(probs.size(), begin));
      for (size_t i = 0; i < n_both; ++i) {
        const double rest =
            scale * static_cast<double>(target[begin + i]) - static_cast<double>(probs[begin + i]);
        out[i] = rest > 0.0 ? rest : 0.0;
      }
      for (size_t i = n_both; i < n; ++i) out[i] = scale * static_cast<double>(target[begin + i]);
      return;
    }
    for (size_t i = 0; i < n; ++i) out[i] = scale * static_cast<double>(target[begin + i]);
    for (; next_column < ids.size() && static_cast<size_t>(ids[next_column]) < begin + n; ++next_column) {
      double& weight = out[static_cast<size_t>(ids[next_column]) - begin];
      weight = std::max(weight - static_cast<double>(probs[next_column]), 0.0);
    }
  }
};

constexpr float kCertain[1] = {1.0f};

/// A one-hot distribution is a reduced vocabulary of one id.
ResidualChunks chunks_of(const Residual& residual) {
  const DraftDistribution& q = residual.draft;
  if (q.probs.empty()) return {residual.target, residual.scale, kCertain, {&residual.token, 1}};
  DSPARK_DCHECK(q.ids.empty() || q.ids.size() == q.probs.size());
  return {residual.target, residual.scale, q.probs, q.ids};
}

template <typename Chunks>
double mass_of(Chunks chunks, size_t n_tokens, std::vector<double>& chunk_mass) {
  double buffer[kChunk];
  double mass = 0.0;
  chunk_mass.clear();
  for (size_t begin = 0; begin < n_tokens; begin += kChunk) {
    const size_t n = std::min(kChunk, n_tokens - begin);
    chunks.fill(begin, n, buffer);
    chunk_mass.push_back(sum_of(buffer, n));
    mass += chunk_mass.back();
  }
  return mass;
}

/// The chunk in which the cumulative sum passes u * total, and what remains of u * total inside it.
struct Place {
  size_t chunk = 0;
  double rest = 0.0;
};

Place find_chunk(std::span<const double> chunk_mass, double u) {
  double total = 0.0;
  for (double mass : chunk_mass) total += mass;
  const double goal = u * total;
  double before = 0.0;
  Place place;
  for (size_t i = 0; i < chunk_mass.size(); ++i) {
    if (!(chunk_mass[i] > 0.0)) continue;
    place = {i, goal - before};  // the last chunk with mass, when rounding lets none pass
    before += chunk_mass[i];
    if (before > goal) break;
  }
  return place;
}

template <typename Chunks>
int32_t draw_in_chunk(Chunks& chunks, size_t begin, size_t n, double rest) {
  double buffer[kChunk];
  chunks.fill(begin, n, buffer);
  double sum = 0.0;
  size_t at = 0;
  for (size_t i = 0; i < n; ++i) {
    if (!(buffer[i] > 0.0)) continue;
    at = i;  // the last one with weight, when rounding lets none pass
    sum += buffer[i];
    if (sum > rest) break;
  }
  return static_cast<int32_t>(begin + at);
}

}  // namespace

void DrawScratch::reserve(size_t n_tokens) {
  chunk_mass.reserve((n_tokens + kChunk - 1) / kChunk);
}

double draft_probability(const DraftDistribution& q, int32_t draft) {
  if (q.probs.empty()) return 1.0;
  if (q.ids.empty()) {
    return static_cast<size_t>(draft) < q.probs.size()
               ? static_cast<double>(q.probs[static_cast<size_t>(draft)])
               : 0.0;
  }
  const auto at = std::lower_bound(q.ids.begin(), q.ids.end(), draft);
  if (at == q.ids.end() || *at != draft) return 0.0;
  return static_cast<double>(q.probs[static_cast<size_t>(at - q.ids.begin())]);
}

int32_t draw_index(std::span<const float> weights, double u, DrawScratch& scratch) {
  PlainChunks chunks{weights};
  mass_of(chunks, weights.size(), scratch.chunk_mass);
  const Place place = find_chunk(scratch.chunk_mass, u);
  const size_t begin = place.chunk * kChunk;
  return draw_in_chunk(chunks, begin, std::min(kChunk, weights.size() - begin), place.rest);
}

double residual_mass(const Residual& residual, DrawScratch& scratch) {
  return mass_of(chunks_of(residual), residual.target.size(), scratch.chunk_mass);
}

int32_t draw_residual(const Residual& residual, double u, const DrawScratch& scratch) {
  const Place place = find_chunk(scratch.chunk_mass, u);
  const size_t begin = place.chunk * kChunk;
  ResidualChunks chunks = chunks_of(residual);
  chunks.seek(begin);
  return draw_in_chunk(chunks, begin, std::min(kChunk, residual.target.size() - begin), place.rest);
}

}  // namespace dspark
