#include "speculate/coupled.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/philox.h"
#include "speculate/row_max.h"

namespace dspark {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kBlock = 256;  // tokens whose noise is made together
constexpr int kGroups = kBlock / 4;

/// Keys of one row. A token's key is E / w, its exponential noise over its weight; the smallest key wins.
struct RowKeys {
  uint64_t seed;
  uint64_t position;
  float max_logit;
  float temperature;
  float log2_scale;  // log2(e) / temperature
};

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

// The loops below are compiled once per instruction set: an always-inline body takes the target of the
// function it is inlined into. They contain integer arithmetic and bounds only; the keys that decide are
// computed in scalar float64 below, so all instruction sets give the same pick.
#define DSPARK_ALWAYS_INLINE inline __attribute__((always_inline))

/// Noise words of tokens block_begin .. block_begin + kBlock - 1.
DSPARK_ALWAYS_INLINE void block_words(const RowKeys& keys, uint32_t block_begin, uint32_t* words) {
  uint32_t c0[kGroups], c1[kGroups], c2[kGroups], c3[kGroups];
  for (int i = 0; i < kGroups; ++i) {
    c0[i] = (block_begin >> 2) + static_cast<uint32_t>(i);
    c1[i] = static_cast<uint32_t>(keys.position);
    c2[i] = static_cast<uint32_t>(keys.position >> 32);
    c3[i] = 0;
  }
  uint32_t k0 = static_cast<uint32_t>(keys.seed), k1 = static_cast<uint32_t>(keys.seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += kPhiloxWeyl0, k1 += kPhiloxWeyl1) {
    for (int i = 0; i < kGroups; ++i) {
      const uint64_t product0 = uint64_t{kPhiloxMultiplier0} * c0[i];
      const uint64_t product1 = uint64_t{kPhiloxMultiplier1} * c2[i];
      c0[i] = static_cast<uint32_t>(product1 >> 32) ^ c1[i] ^ k0;
      c2[i] = static_cast<uint32_t>(product0 >> 32) ^ c3[i] ^ k1;
      c1[i] = static_cast<uint32_t>(product1);
      c3[i] = static_cast<uint32_t>(product0);
    }
  }
  for (int i = 0; i < kGroups; ++i) {
    words[4 * i] = c0[i];
    words[4 * i + 1] = c1[i];
    words[4 * i + 2] = c2[i];
    words[4 * i + 3] = c3[i];
  }
}

/// Noise words of kBlock tokens in any order: one generator call each.
DSPARK_ALWAYS_INLINE void listed_words(const RowKeys& keys, const int32_t* ids, uint32_t* words) {
  uint32_t c0[kBlock], c1[kBlock], c2[kBlock], c3[kBlock];
  for (int i = 0; i < kBlock; ++i) {
    c0[i] = static_cast<uint32_t>(ids[i]) >> 2;
    c1[i] = static_cast<uint32_t>(keys.position);
    c2[i] = static_cast<uint32_t>(keys.position >> 32);
    c3[i] = 0;
  }
  uint32_t k0 = static_cast<uint32_t>(keys.seed), k1 = static_cast<uint32_t>(keys.seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += kPhiloxWeyl0, k1 += kPhiloxWeyl1) {
    for (int i = 0; i < kBlock; ++i) {
      const uint64_t product0 = uint64_t{kPhiloxMultiplier0} * c0[i];
      const uint64_t product1 = uint64_t{kPhiloxMultiplier1} * c2[i];
      c0[i] = static_cast<uint32_t>(product1 >> 32) ^ c1[i] ^ k0;
      c2[i] = static_cast<uint32_t>(product0 >> 32) ^ c3[i] ^ k1;
      c1[i] = static_cast<uint32_t>(product1);
      c3[i] = static_cast<uint32_t>(product0);
    }
  }
  for (int i = 0; i < kBlock; ++i) {
    const uint32_t low = (ids[i] & 1) != 0 ? c1[i] : c0[i];
    const uint32_t high = (ids[i] & 1) != 0 ? c3[i] : c2[i];
    words[i] = (ids[i] & 2) != 0 ? high : low;
  }
}

/// Lower bounds of log2(key), from E = -log(u) >= 1 - u and log2(2^e (1 + m)) >= e + m, both within 0.09
/// where it matters; float rounding adds less than 1e-4. NaN logits give NaN.
DSPARK_ALWAYS_INLINE void block_bounds(const RowKeys& keys, const float* logits, const uint32_t* words,
                                       float* bounds) {
  for (int i = 0; i < kBlock; ++i) {
    // 1 - u = (~word + 0.5) / 2^32, halved and rounded down so that it fits a signed conversion.
    const float half = static_cast<float>(static_cast<int32_t>(~words[i] >> 1)) + 0.25f;
    const float log2_noise = static_cast<float>(std::bit_cast<int32_t>(half)) * 0x1p-23f - (127.0f + 31.0f);
    bounds[i] = log2_noise - (logits[i] - keys.max_logit) * keys.log2_scale;
  }
}

DSPARK_ALWAYS_INLINE void block_words_and_bounds(const RowKeys& keys, uint32_t block_begin,
                                                 const float* logits, uint32_t* words, float* bounds) {
  block_words(keys, block_begin, words);
  block_bounds(keys, logits, words, bounds);
}

DSPARK_ALWAYS_INLINE void listed_words_and_bounds(const RowKeys& keys, const int32_t* ids,
                                                  const float* logits, uint32_t* words, float* bounds) {
  listed_words(keys, ids, words);
  block_bounds(keys, logits, words, bounds);
}

using BlockFn = void (*)(const RowKeys&, uint32_t, const float*, uint32_t*, float*);
using ListedFn = void (*)(const RowKeys&, const int32_t*, const float*, uint32_t*, float*);

void block_baseline(const RowKeys& keys, uint32_t begin, const float* logits, uint32_t* words,
                    float* bounds) {
  block_words_and_bounds(keys, begin, logits, words, bounds);
}

void listed_baseline(const RowKeys& keys, const int32_t* ids, const float* logits, uint32_t* words,
                     float* bounds) {
  listed_words_and_bounds(keys, ids, logits, words, bounds);
}

#if defined(__x86_64__)
#if defined(__clang__)  // which has no word for the width here
#define DSPARK_AVX512 __attribute__((target("avx512f,avx512dq")))
#else
#define DSPARK_AVX512 __attribute__((target("avx512f,avx512dq,prefer-vector-width=512")))
#endif
__attribute__((target("avx2"))) void listed_avx2(const RowKeys& keys, const int32_t* ids, const float* logits,
                                                 uint32_t* words, float* bounds) {
  listed_words_and_bounds(keys, ids, logits, words, bounds);
}

DSPARK_AVX512 void listed_avx512(const RowKeys& keys, const int32_t* ids, const float* logits,
                                 uint32_t* words, float* bounds) {
  listed_words_and_bounds(keys, ids, logits, words, bounds);
}

__attribute__((target("avx2"))) void block_avx2(const RowKeys& keys, uint32_t begin, const float* logits,
                                                uint32_t* words, float* bounds) {
  block_words_and_bounds(keys, begin, logits, words, bounds);
}

DSPARK_AVX512 void block_avx512(const RowKeys& keys, uint32_t begin, const float* logits, uint32_t* words,
                                float* bounds) {
  block_words_and_bounds(keys, begin, logits, words, bounds);
}
#endif

BlockFn block_fn() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return block_avx512;
  if (__builtin_cpu_supports("avx2")) return block_avx2;
#endif
  return block_baseline;
}

ListedFn listed_fn() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return listed_avx512;
  if (__builtin_cpu_supports("avx2")) return listed_avx2;
#endif
  return listed_baseline;
}

double exact_key(const RowKeys& keys, float logit, uint32_t word) {
  const double weight = coupled_weight(logit, keys.max_logit, keys.temperature);
  if (!(weight > 0.0)) return std::numeric_limits<double>::infinity();
  return -std::log(uniform_of_word(word)) / weight;
}

/// Offers every token of one block whose bound does not rule it out.
void scan_block(const RowKeys& keys, BlockFn fn, uint32_t begin, const float* logits, Best& best) {
  constexpr float kSlack = 1e-3f;
  uint32_t words[kBlock];
  float bounds[kBlock];
  fn(keys, begin, logits, words, bounds);
  for (int i = 0; i < kBlock; ++i) {
    if (bounds[i] <= best.log2_key + kSlack) {
      best.offer(exact_key(keys, logits[i], words[i]), static_cast<int32_t>(begin) + i);
    }
  }
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
  const float max_logit = row_max(logits);
  RowKeys keys{seed, position, max_logit, temperature, 1.44269504f / temperature};
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
  // The likeliest token first: its key bounds all others tightly from the start.
  const auto likeliest =
      static_cast<uint32_t>(std::find(logits.begin(), logits.end(), max_logit) - logits.begin());
  best.offer(noise_exponential(seed, position, likeliest), static_cast<int32_t>(likeliest));

  const BlockFn fn = block_fn();
  size_t begin = 0;
  for (; begin + kBlock <= logits.size(); begin += kBlock) {
    const float block_max = row_max(logits.subspan(begin, kBlock));
    // Even the smallest noise, 2^-33, cannot bring this block's likeliest token below the best key.
    if (-33.0f - (block_max - max_logit) * keys.log2_scale > best.log2_key + 1e-3f) continue;
    scan_block(keys, fn, static_cast<uint32_t>(begin), logits.data() + begin, best);
  }
  if (begin < logits.size()) {
    float tail[kBlock];
    std::fill(std::copy(logits.begin() + static_cast<std::ptrdiff_t>(begin), logits.end(), tail),
              tail + kBlock, -kInfinity);
    scan_block(keys, fn, static_cast<uint32_t>(begin), tail, best);
  }
  return best.id;
}

int32_t coupled_pick_listed(std::span<const int32_t> ids, std::span<const float> logits, float temperature,
                            uint64_t seed, uint64_t position) {
  constexpr float kSlack = 1e-3f;
  const float max_logit = row_max(logits);
  if (!std::isfinite(max_logit)) return -1;
  const RowKeys keys{seed, position, max_logit, temperature, 1.44269504f / temperature};
  const auto likeliest = std::find(logits.begin(), logits.end(), max_logit) - logits.begin();
  Best best;
  const int32_t likeliest_id = ids[static_cast<size_t>(likeliest)];
  best.offer(noise_exponential(seed, position, static_cast<uint32_t>(likeliest_id)), likeliest_id);
  const ListedFn fn = listed_fn();
  for (size_t begin = 0; begin < ids.size(); begin += kBlock) {
    const size_t n = std::min<size_t>(kBlock, ids.size() - begin);
    int32_t block_ids[kBlock] = {};
    float block_logits[kBlock];
    uint32_t words[kBlock];
    float bounds[kBlock];
    std::copy_n(ids.data() + begin, n, block_ids);
    std::fill(std::copy_n(logits.data() + begin, n, block_logits), block_logits + kBlock, -kInfinity);
    fn(keys, block_ids, block_logits, words, bounds);
    for (size_t i = 0; i < n; ++i) {
      if (bounds[i] <= best.log2_key + kSlack) {
        best.offer(exact_key(keys, block_logits[i], words[i]), block_ids[i]);
      }
    }
  }
  return best.id;
}

}  // namespace dspark
