#include "speculate/noise_scan.h"

#include <bit>

#include "base/philox.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dspark {
namespace {

// A lower bound of log2(key) comes from E = -log(u) >= 1 - u and log2(2^e (1 + m)) >= e + m. The first takes
// log2(E / (1 - exp(-E))), next to nothing for noise well below 1, the second at most 0.09. 1 - u = (~word +
// 0.5) / 2^32 is halved and rounded down so that it fits a signed conversion; then the bits of the float,
// read as an integer, are its logarithm: exponent in front, mantissa behind.
constexpr float kHalfStep = 0.25f;
constexpr float kMantissa = 0x1p-23f;
constexpr float kLog2Offset = 127.0f + 31.0f;  // the float's bias, and the scale of the halved word
constexpr float kSlack = 1e-3f;                // more than float rounding takes from a bound
constexpr float kLeastNoise = -33.0f;          // log2 of the smallest E

/// Logit below which even the smallest noise leaves a key above the limit. The slack covers the rounding of
/// the quotient; rounding the difference keeps order, so no logit that is at least the true one is lost.
float logit_floor(const NoiseRow& row, float log2_limit) {
  return row.max_logit - (log2_limit + kSlack - kLeastNoise) / row.log2_scale;
}

float log2_bound(const NoiseRow& row, float logit, uint32_t word) {
  const float half = static_cast<float>(static_cast<int32_t>(~word >> 1)) + kHalfStep;
  const float log2_noise = static_cast<float>(std::bit_cast<int32_t>(half)) * kMantissa - kLog2Offset;
  return log2_noise - (logit - row.max_logit) * row.log2_scale;
}

NoiseMask listed_baseline(const NoiseRow& row, const int32_t* ids, const float* logits, float log2_limit) {
  const float floor = logit_floor(row, log2_limit);
  NoiseMask mask{};
  for (int i = 0; i < kNoiseBlock; ++i) {
    if (!(logits[i] >= floor)) continue;
    const uint32_t word = noise_word(row.seed, row.position, static_cast<uint32_t>(ids[i]));
    if (log2_bound(row, logits[i], word) <= log2_limit + kSlack) {
      mask[static_cast<size_t>(i) / 64] |= uint64_t{1} << (i % 64);
    }
  }
  return mask;
}

NoiseMask block_baseline(const NoiseRow& row, uint32_t block_begin, const float* logits, float log2_limit) {
  const float floor = logit_floor(row, log2_limit);
  NoiseMask mask{};
  for (uint32_t begin = 0; begin < kNoiseBlock; begin += 4) {
    const float* four = logits + begin;
    if (!(four[0] >= floor || four[1] >= floor || four[2] >= floor || four[3] >= floor)) continue;
    // One generator call for all four: see noise_word().
    const std::array<uint32_t, 4> words =
        philox4x32_10({(block_begin + begin) >> 2, static_cast<uint32_t>(row.position),
                       static_cast<uint32_t>(row.position >> 32), 0},
                      {static_cast<uint32_t>(row.seed), static_cast<uint32_t>(row.seed >> 32)});
    for (uint32_t j = 0; j < 4; ++j) {
      const uint64_t reached = log2_bound(row, four[j], words[j]) <= log2_limit + kSlack ? 1 : 0;
      mask[begin / 64] |= reached << (begin % 64 + j);
    }
  }
  return mask;
}

#if defined(__x86_64__)
// One generator call per 64-bit lane, the counter's words in the low halves: products read only those, so
// what is left in the high halves does no harm. Several chains hide the latency of a product.
constexpr int kChains = 4;

#define DSPARK_AVX2 __attribute__((target("avx2")))
#define DSPARK_AVX512 __attribute__((target("avx512f,avx512dq,bmi2,popcnt")))

DSPARK_AVX512 inline void philox512(const NoiseRow& row, __m512i (&c)[kChains][4]) {
  const __m512i multiplier0 = _mm512_set1_epi64(kPhiloxMultiplier0);
  const __m512i multiplier1 = _mm512_set1_epi64(kPhiloxMultiplier1);
  uint32_t k0 = static_cast<uint32_t>(row.seed), k1 = static_cast<uint32_t>(row.seed >> 32);
  for (int chain = 0; chain < kChains; ++chain) {
    c[chain][1] = _mm512_set1_epi64(static_cast<int64_t>(row.position & 0xffffffffu));
    c[chain][2] = _mm512_set1_epi64(static_cast<int64_t>(row.position >> 32));
    c[chain][3] = _mm512_setzero_si512();
  }
  for (int round = 0; round < 10; ++round, k0 += kPhiloxWeyl0, k1 += kPhiloxWeyl1) {
    const __m512i key0 = _mm512_set1_epi64(k0), key1 = _mm512_set1_epi64(k1);
    for (int chain = 0; chain < kChains; ++chain) {
      const __m512i product0 = _mm512_mul_epu32(multiplier0, c[chain][0]);
      const __m512i product1 = _mm512_mul_epu32(multiplier1, c[chain][2]);
      c[chain][0] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product1, 32), c[chain][1], key0, 0x96);
      c[chain][2] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product0, 32), c[chain][3], key1, 0x96);
      c[chain][1] = product1;
      c[chain][3] = product0;
    }
  }
}

DSPARK_AVX512 inline uint64_t reach512(const NoiseRow& row, __m512 logits, __m512i words, float log2_limit) {
  const __m512i inverse = _mm512_ternarylogic_epi32(words, words, words, 0x55);
  const __m512 half =
      _mm512_add_ps(_mm512_cvtepi32_ps(_mm512_srli_epi32(inverse, 1)), _mm512_set1_ps(kHalfStep));
  const __m512 log2_noise = _mm512_fmsub_ps(_mm512_cvtepi32_ps(_mm512_castps_si512(half)),
                                            _mm512_set1_ps(kMantissa), _mm512_set1_ps(kLog2Offset));
  const __m512 behind = _mm512_sub_ps(logits, _mm512_set1_ps(row.max_logit));
  const __m512 bound = _mm512_fnmadd_ps(behind, _mm512_set1_ps(row.log2_scale), log2_noise);
  return _mm512_cmp_ps_mask(bound, _mm512_set1_ps(log2_limit + kSlack), _CMP_LE_OQ);
}

/// Words 2 a and 2 a + 1 of a generator call side by side.
DSPARK_AVX512 inline __m512i pair512(__m512i even, __m512i odd) {
  return _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
}

/// A list of places in a block.
struct Places512 {
  static constexpr int kBatch = 8 * kChains;
  alignas(64) uint32_t place[kNoiseBlock + kBatch];
  int n = 0;

  /// Appends first + i for every set bit i.
  DSPARK_AVX512 void append(uint32_t first, __mmask16 which) {
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i places = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int32_t>(first)));
    _mm512_storeu_si512(place + n, _mm512_maskz_compress_epi32(which, places));
    n += std::popcount(static_cast<uint32_t>(which));
  }
};

/// Generator calls (groups of four tokens) of which a token reaches the floor: of a vocabulary a small part.
DSPARK_AVX512 inline void find_calls512(const float* logits, __m512 floor, Places512& calls) {
  for (int begin = 0; begin < kNoiseBlock; begin += 64) {
    uint64_t reached = 0;
    for (int i = 0; i < 64; i += 16) {
      const __mmask16 part = _mm512_cmp_ps_mask(_mm512_loadu_ps(logits + begin + i), floor, _CMP_GE_OQ);
      reached |= uint64_t{part} << i;
    }
    if (reached == 0) continue;
    // A vector of a byte for every four tokens would need more than AVX512F; two steps of shifts do it too.
    reached |= reached >> 1;
    reached |= reached >> 2;
    calls.append(static_cast<uint32_t>(begin) / 4,
                 static_cast<__mmask16>(_pext_u64(reached, 0x1111111111111111u)));
  }
}

/// The four logits of each of four calls.
DSPARK_AVX512 inline __m512 logits_of_calls512(const float* logits, const uint32_t* calls) {
  __m512 four = _mm512_castps128_ps512(_mm_loadu_ps(logits + 4 * calls[0]));
  four = _mm512_insertf32x4(four, _mm_loadu_ps(logits + 4 * calls[1]), 1);
  four = _mm512_insertf32x4(four, _mm_loadu_ps(logits + 4 * calls[2]), 2);
  return _mm512_insertf32x4(four, _mm_loadu_ps(logits + 4 * calls[3]), 3);
}

/// Sets the places of four calls: bits 4 k .. 4 k + 3 of `reached` belong to calls[k].
inline void set_places(const uint32_t* calls, uint64_t reached, NoiseMask& mask) {
  for (; reached != 0; reached &= reached - 1) {
    const auto bit = static_cast<uint32_t>(std::countr_zero(reached));
    const uint32_t place = 4 * calls[bit / 4] + bit % 4;
    mask[place / 64] |= uint64_t{1} << (place % 64);
  }
}

DSPARK_AVX512 NoiseMask block_avx512(const NoiseRow& row, uint32_t block_begin, const float* logits,
                                     float log2_limit) {
  // Interleaving pairs by 64 bits gives the calls of lanes 0, 2, 4, 6, and of 1, 3, 5, 7: lanes are filled so
  // that these are neighbours in the list.
  const __m512i order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
  const __m512i first_call = _mm512_set1_epi64(block_begin >> 2);
  NoiseMask mask{};
  Places512 calls;
  find_calls512(logits, _mm512_set1_ps(logit_floor(row, log2_limit)), calls);
  // What fills the last batch are calls of the block as well: looking at one twice changes nothing.
  for (int i = calls.n; i < (calls.n + Places512::kBatch - 1) / Places512::kBatch * Places512::kBatch; ++i) {
    calls.place[i] = 0;
  }
  for (int begin = 0; begin < calls.n; begin += Places512::kBatch) {
    const uint32_t* batch = calls.place + begin;
    __m512i c[kChains][4];
    for (int chain = 0; chain < kChains; ++chain) {
      const __m512i listed =
          _mm512_cvtepu32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(batch + 8 * chain)));
      c[chain][0] = _mm512_add_epi64(first_call, _mm512_permutexvar_epi64(order, listed));
    }
    philox512(row, c);
    for (int chain = 0; chain < kChains; ++chain) {
      const uint32_t* listed = batch + 8 * chain;
      const __m512i low = pair512(c[chain][0], c[chain][1]), high = pair512(c[chain][2], c[chain][3]);
      const uint64_t first =
          reach512(row, logits_of_calls512(logits, listed), _mm512_unpacklo_epi64(low, high), log2_limit);
      const uint64_t second =
          reach512(row, logits_of_calls512(logits, listed + 4), _mm512_unpackhi_epi64(low, high), log2_limit);
      set_places(listed, first | second << 16, mask);
    }
  }
  return mask;
}

/// The word of every lane's token: two bits of its id choose among the four of the call.
DSPARK_AVX512 inline __m256i own_words512(const __m512i (&c)[4], __m512i ids) {
  const __mmask8 odd = _mm512_test_epi64_mask(ids, _mm512_set1_epi64(1));
  const __mmask8 upper = _mm512_test_epi64_mask(ids, _mm512_set1_epi64(2));
  const __m512i low = _mm512_mask_blend_epi64(odd, c[0], c[1]),
                high = _mm512_mask_blend_epi64(odd, c[2], c[3]);
  return _mm512_cvtepi64_epi32(_mm512_mask_blend_epi64(upper, low, high));
}

DSPARK_AVX512 NoiseMask listed_avx512(const NoiseRow& row, const int32_t* ids, const float* logits,
                                      float log2_limit) {
  const __m512 floor = _mm512_set1_ps(logit_floor(row, log2_limit));
  NoiseMask mask{};
  Places512 places;
  for (int i = 0; i < kNoiseBlock; i += 16) {
    const __mmask16 reached = _mm512_cmp_ps_mask(_mm512_loadu_ps(logits + i), floor, _CMP_GE_OQ);
    if (reached != 0) places.append(static_cast<uint32_t>(i), reached);
  }
  for (int i = places.n; i < (places.n + Places512::kBatch - 1) / Places512::kBatch * Places512::kBatch;
       ++i) {
    places.place[i] = 0;
  }
  for (int begin = 0; begin < places.n; begin += Places512::kBatch) {
    __m512i c[kChains][4], own[kChains];
    __m512 batch_logits[kChains / 2];
    for (int half = 0; half < kChains / 2; ++half) {
      const __m512i at = _mm512_loadu_si512(places.place + begin + 16 * half);
      const __m512i own_ids = _mm512_i32gather_epi32(at, ids, 4);
      batch_logits[half] = _mm512_i32gather_ps(at, logits, 4);
      own[2 * half] = _mm512_cvtepu32_epi64(_mm512_castsi512_si256(own_ids));
      own[2 * half + 1] = _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(own_ids, 1));
    }
    for (int chain = 0; chain < kChains; ++chain) c[chain][0] = _mm512_srli_epi64(own[chain], 2);
    philox512(row, c);
    for (int half = 0; half < kChains / 2; ++half) {
      const __m256i first = own_words512(c[2 * half], own[2 * half]);
      const __m256i second = own_words512(c[2 * half + 1], own[2 * half + 1]);
      const __m512i words = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
      uint64_t reached = reach512(row, batch_logits[half], words, log2_limit);
      for (; reached != 0; reached &= reached - 1) {
        const uint32_t place = places.place[begin + 16 * half + std::countr_zero(reached)];
        mask[place / 64] |= uint64_t{1} << (place % 64);
      }
    }
  }
  return mask;
}

DSPARK_AVX2 inline void philox256(const NoiseRow& row, __m256i (&c)[kChains][4]) {
  const __m256i multiplier0 = _mm256_set1_epi64x(kPhiloxMultiplier0);
  const __m256i multiplier1 = _mm256_set1_epi64x(kPhiloxMultiplier1);
  uint32_t k0 = static_cast<uint32_t>(row.seed), k1 = static_cast<uint32_t>(row.seed >> 32);
  for (int chain = 0; chain < kChains; ++chain) {
    c[chain][1] = _mm256_set1_epi64x(static_cast<int64_t>(row.position & 0xffffffffu));
    c[chain][2] = _mm256_set1_epi64x(static_cast<int64_t>(row.position >> 32));
    c[chain][3] = _mm256_setzero_si256();
  }
  for (int round = 0; round < 10; ++round, k0 += kPhiloxWeyl0, k1 += kPhiloxWeyl1) {
    const __m256i key0 = _mm256_set1_epi64x(k0), key1 = _mm256_set1_epi64x(k1);
    for (int chain = 0; chain < kChains; ++chain) {
      const __m256i product0 = _mm256_mul_epu32(multiplier0, c[chain][0]);
      const __m256i product1 = _mm256_mul_epu32(multiplier1, c[chain][2]);
      c[chain][0] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product1, 32), c[chain][1]), key0);
      c[chain][2] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product0, 32), c[chain][3]), key1);
      c[chain][1] = product1;
      c[chain][3] = product0;
    }
  }
}

DSPARK_AVX2 inline uint64_t reach256(const NoiseRow& row, __m256 logits, __m256i words, float log2_limit) {
  const __m256i inverse = _mm256_xor_si256(words, _mm256_set1_epi32(-1));
  const __m256 half =
      _mm256_add_ps(_mm256_cvtepi32_ps(_mm256_srli_epi32(inverse, 1)), _mm256_set1_ps(kHalfStep));
  const __m256 log2_noise =
      _mm256_sub_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_castps_si256(half)), _mm256_set1_ps(kMantissa)),
                    _mm256_set1_ps(kLog2Offset));
  const __m256 behind = _mm256_sub_ps(logits, _mm256_set1_ps(row.max_logit));
  const __m256 bound = _mm256_sub_ps(log2_noise, _mm256_mul_ps(behind, _mm256_set1_ps(row.log2_scale)));
  const __m256 reached = _mm256_cmp_ps(bound, _mm256_set1_ps(log2_limit + kSlack), _CMP_LE_OQ);
  return static_cast<uint32_t>(_mm256_movemask_ps(reached));
}

DSPARK_AVX2 inline __m256i pair256(__m256i even, __m256i odd) {
  return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
}

/// Whether one of n logits is at least the floor; n a multiple of eight.
DSPARK_AVX2 inline bool any_reach256(const float* logits, int n, float floor) {
  __m256 any = _mm256_setzero_ps();
  for (int i = 0; i < n; i += 8) {
    any = _mm256_or_ps(any, _mm256_cmp_ps(_mm256_loadu_ps(logits + i), _mm256_set1_ps(floor), _CMP_GE_OQ));
  }
  return _mm256_movemask_ps(any) != 0;
}

DSPARK_AVX2 NoiseMask block_avx2(const NoiseRow& row, uint32_t block_begin, const float* logits,
                                 float log2_limit) {
  constexpr int kTokens = 16 * kChains;
  const float floor = logit_floor(row, log2_limit);
  const __m256i lanes = _mm256_set_epi64x(3, 1, 2, 0);  // as above: the calls 0 and 1, and 2 and 3
  NoiseMask mask{};
  for (int begin = 0; begin < kNoiseBlock; begin += kTokens) {
    if (!any_reach256(logits + begin, kTokens, floor)) continue;
    __m256i c[kChains][4];
    for (int chain = 0; chain < kChains; ++chain) {
      const uint32_t call = (block_begin + static_cast<uint32_t>(begin + 16 * chain)) >> 2;
      c[chain][0] = _mm256_add_epi64(lanes, _mm256_set1_epi64x(call));
    }
    philox256(row, c);
    for (int chain = 0; chain < kChains; ++chain) {
      const int at = begin + 16 * chain;
      const __m256i low = pair256(c[chain][0], c[chain][1]), high = pair256(c[chain][2], c[chain][3]);
      const uint64_t first =
          reach256(row, _mm256_loadu_ps(logits + at), _mm256_unpacklo_epi64(low, high), log2_limit);
      const uint64_t second =
          reach256(row, _mm256_loadu_ps(logits + at + 8), _mm256_unpackhi_epi64(low, high), log2_limit);
      mask[static_cast<size_t>(at) / 64] |= (first | second << 8) << (at % 64);
    }
  }
  return mask;
}

/// Lanes of `a`, or of `b` where the top bit of `by` is set.
DSPARK_AVX2 inline __m256i choose256(__m256i a, __m256i b, __m256i by) {
  return _mm256_castpd_si256(
      _mm256_blendv_pd(_mm256_castsi256_pd(a), _mm256_castsi256_pd(b), _mm256_castsi256_pd(by)));
}

/// The words of four tokens, in the low halves of the lanes.
DSPARK_AVX2 inline __m256i own_words256(const __m256i (&c)[4], __m256i ids) {
  const __m256i odd = _mm256_slli_epi64(ids, 63), upper = _mm256_slli_epi64(ids, 62);
  return choose256(choose256(c[0], c[1], odd), choose256(c[2], c[3], odd), upper);
}

DSPARK_AVX2 NoiseMask listed_avx2(const NoiseRow& row, const int32_t* ids, const float* logits,
                                  float log2_limit) {
  constexpr int kTokens = 4 * kChains;
  const float floor = logit_floor(row, log2_limit);
  const __m256i low_halves = _mm256_set_epi32(7, 5, 3, 1, 6, 4, 2, 0);
  NoiseMask mask{};
  for (int begin = 0; begin < kNoiseBlock; begin += kTokens) {
    if (!any_reach256(logits + begin, kTokens, floor)) continue;
    __m256i c[kChains][4], own[kChains];
    for (int chain = 0; chain < kChains; ++chain) {
      own[chain] =
          _mm256_cvtepu32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(ids + begin + 4 * chain)));
      c[chain][0] = _mm256_srli_epi64(own[chain], 2);
    }
    philox256(row, c);
    for (int chain = 0; chain < kChains; chain += 2) {
      const int at = begin + 4 * chain;
      const __m256i first = _mm256_permutevar8x32_epi32(own_words256(c[chain], own[chain]), low_halves);
      const __m256i second =
          _mm256_permutevar8x32_epi32(own_words256(c[chain + 1], own[chain + 1]), low_halves);
      const __m256i words = _mm256_permute2x128_si256(first, second, 0x20);
      mask[static_cast<size_t>(at) / 64] |= reach256(row, _mm256_loadu_ps(logits + at), words, log2_limit)
                                            << (at % 64);
    }
  }
  return mask;
}
#endif

#if defined(__x86_64__)
bool has_avx512() {  // what DSPARK_AVX512 names
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
}
bool has_avx2() {
  return __builtin_cpu_supports("avx2");
}
#endif

}  // namespace

NoiseScan noise_scan() {
#if defined(__x86_64__)
  if (has_avx512()) return {block_avx512, listed_avx512};
  if (has_avx2()) return {block_avx2, listed_avx2};
#endif
  return {block_baseline, listed_baseline};
}

std::vector<NoiseScan> runnable_noise_scans() {
  std::vector<NoiseScan> scans;
#if defined(__x86_64__)
  if (has_avx512()) scans.push_back({block_avx512, listed_avx512});
  if (has_avx2()) scans.push_back({block_avx2, listed_avx2});
#endif
  scans.push_back({block_baseline, listed_baseline});
  return scans;
}

}  // namespace dspark
