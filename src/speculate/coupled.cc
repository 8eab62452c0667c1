#include "speculate/coupled.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/philox.h"
#include "speculate/noise_scan.h"
#include "speculate/row_scan.h"

namespace dspark {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The smallest key so far.
struct Best {
  double key = std::numeric_limits<double>::infinity();
  int32_t id = -1;
  float log2_key = kInfinity;

  void offer(double candidate_key, int32_t candidate_id) {
    if (candidate_key < key || (candidate_key == key && candidate_id < id)) {
      key = candidate_key;
      id = candidate_id;
      log2_key = static_cast<float>(std::log2(key));
    }
  }
};

double exact_key(const NoiseRow& row, float logit, float temperature, uint32_t id) {
  const double weight = coupled_weight(logit, row.max_logit, temperature);
  if (!(weight > 0.0)) return std::numeric_limits<double>::infinity();
  return noise_exponential(row.seed, row.position, id) / weight;
}

/// Calls visit(place) for every bit that is set, places ascending.
template <typename Visit>
void for_each_place(const NoiseMask& mask, Visit&& visit) {
  for (size_t j = 0; j < mask.size(); ++j) {
    for (uint64_t left = mask[j]; left != 0; left &= left - 1) {
      visit(64 * j + static_cast<size_t>(std::countr_zero(left)));
    }
  }
}

NoiseRow noise_row(float max_logit, float temperature, uint64_t seed, uint64_t position) {
  return {seed, position, max_logit, 1.44269504f / temperature};
}

}  // namespace

double coupled_weight(float logit, float max_logit, float temperature) {
  if (!(logit > -kInfinity)) return 0.0;
  if (logit == max_logit) return 1.0;
  return std::exp((static_cast<double>(logit) - static_cast<double>(max_logit)) /
                  static_cast<double>(temperature));
}

int32_t coupled_pick(std::span<const Candidate> candidates, uint64_t seed, uint64_t position) {
  double best_key = std::numeric_limits<double>::infinity();
  int32_t best_id = -1;
  for (const Candidate& candidate : candidates) {
    if (!(candidate.weight > 0.0)) continue;
    const double key =
        noise_exponential(seed, position, static_cast<uint32_t>(candidate.id)) / candidate.weight;
    if (key < best_key) {
      best_key = key;
      best_id = candidate.id;
    }
  }
  return best_id;
}

int32_t coupled_pick_row(std::span<const float> logits, float temperature, uint64_t seed, uint64_t position) {
  const auto [max_logit, peak] = row_peak(logits);
  Best best;
  if (!std::isfinite(max_logit)) {  // no arithmetic on infinities: only tokens at +infinity have weight
    for (size_t v = 0; v < logits.size(); ++v) {
      if (logits[v] == kInfinity) {
        const auto id = static_cast<uint32_t>(v);
        best.offer(noise_exponential(seed, position, id), static_cast<int32_t>(id));
      }
    }
    return best.id;
  }
  const NoiseRow row = noise_row(max_logit, temperature, seed, position);
  // The likeliest token first: its key bounds all others tightly from the start.
  const auto likeliest = static_cast<uint32_t>(peak);
  best.offer(noise_exponential(seed, position, likeliest), static_cast<int32_t>(likeliest));

  const NoiseScan scan = noise_scan();
  const auto offer_block = [&](size_t begin, const float* block) {
    const NoiseMask mask = scan.block(row, static_cast<uint32_t>(begin), block, best.log2_key);
    for_each_place(mask, [&](size_t i) {
      const auto id = static_cast<uint32_t>(begin + i);
      best.offer(exact_key(row, block[i], temperature, id), static_cast<int32_t>(id));
    });
  };
  size_t begin = 0;
  for (; begin + kNoiseBlock <= logits.size(); begin += kNoiseBlock)
    offer_block(begin, logits.data() + begin);
  if (begin < logits.size()) {
    float tail[kNoiseBlock];
    std::fill(std::copy(logits.begin() + static_cast<std::ptrdiff_t>(begin), logits.end(), tail),
              tail + kNoiseBlock, -kInfinity);
    offer_block(begin, tail);
  }
  return best.id;
}

int32_t coupled_pick_listed(std::span<const int32_t> ids, std::span<const float> logits, float temperature,
                            uint64_t seed, uint64_t position) {
  const auto [max_logit, peak] = row_peak(logits);
  if (!std::isfinite(max_logit)) return -1;
  const NoiseRow row = noise_row(max_logit, temperature, seed, position);
  Best best;
  const int32_t likeliest = ids[peak];
  best.offer(noise_exponential(seed, position, static_cast<uint32_t>(likeliest)), likeliest);
  const NoiseScan scan = noise_scan();
  const auto offer_block = [&](const int32_t* block_ids, const float* block) {
    for_each_place(scan.listed(row, block_ids, block, best.log2_key), [&](size_t i) {
      best.offer(exact_key(row, block[i], temperature, static_cast<uint32_t>(block_ids[i])), block_ids[i]);
    });
  };
  size_t begin = 0;
  for (; begin + kNoiseBlock <= ids.size(); begin += kNoiseBlock) {
    offer_block(ids.data() + begin, logits.data() + begin);
  }
  if (begin < ids.size()) {
    int32_t tail_ids[kNoiseBlock] = {};
    float tail[kNoiseBlock];
    std::copy(ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.end(), tail_ids);
    std::fill(std::copy(logits.begin() + static_cast<std::ptrdiff_t>(begin), logits.end(), tail),
              tail + kNoiseBlock, -kInfinity);
    offer_block(tail_ids, tail);
  }
  return best.id;
}

}  // namespace dspark
