// Register blocks of attention: scores of one page and weighted sums of values, per cache type.
//
// Every output element is one chain of multiply-adds in ascending order of the summed index. How many query
// vectors (R), panels (P) or value columns (NV) go side by side changes speed only, never bits.
#pragma once

#include "kernels/cpu/math-inl.h"
#include "kernels/kv_layout.h"

namespace dspark {
namespace {

/// Query vectors of a block: with two panels (or two columns) as many accumulators as registers allow.
constexpr int kBlock = kLanes == 16 ? 8 : kLanes == 8 ? 4 : 2;
constexpr int kPanelVecs = kKvPanel / kLanes;
/// K panels scored at a time; vectors of value columns summed at a time by R query vectors.
constexpr int kPanels = kLanes == 16 ? 2 : 1;
template <int R>
constexpr int kColumns = kLanes == 16  ? (R <= 4 ? 4 : 2)
                         : kLanes == 8 ? (R <= 2 ? 4 : 2)
                                       : 4;

/// The pages of one chunk: address of the head's block in each, and what to prefetch while reading it.
struct ChunkPages {
  int first;  // pages [first, last) of the chunk are visible to some row
  int last;
  const uint8_t* block[kKvChunk / kKvPageSize];
  const uint8_t* k_ahead[kKvChunk / kKvPageSize];
  const uint8_t* v_ahead[kKvChunk / kKvPageSize];
};

/// How far ahead to prefetch, in K or V blocks of one page: far enough for memory latency when one query
/// vector makes short work of a page, near enough to stay in the second-level cache.
constexpr int kPagesAhead = 4;

DSPARK_INLINE void prefetch(const uint8_t* p) {
  __builtin_prefetch(p, 0, 2);
}

template <int N>
DSPARK_INLINE void clear(VecF* acc) {
#pragma GCC unroll 32
  for (int i = 0; i < N; ++i) acc[i] = set1(0.0f);
}

// Scores of R query vectors: s[r * kKvChunk + lane of the page].
template <int R, int P>
DSPARK_INLINE void store_scores(const VecF* acc, float* s) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int i = 0; i < P * kPanelVecs; ++i)
      store(s + r * kKvChunk + i * kLanes, acc[r * P * kPanelVecs + i]);
  }
}

// Adding +0 turns a sum of -0 into +0: pages with only masked positions, which a larger block may visit and
// a smaller one not, must not show in the sign of zero.
template <int R, int NV>
DSPARK_INLINE void store_values(const VecF* acc, float* out, int64_t stride) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int i = 0; i < NV; ++i) store(out + r * stride + i * kLanes, acc[r * NV + i] + set1(0.0f));
  }
}

template <int R, int N>
DSPARK_INLINE void multiply_add(VecF* acc, const VecF* x, const float* scalars, int64_t scalar_stride) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const VecF s = set1(scalars[r * scalar_stride]);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) acc[r * N + i] = fma(x[i], s, acc[r * N + i]);
  }
}

/// Queries and weights in float: q[d * kBlock + r], p[r * kKvChunk + position].
struct FloatArithmetic {
  using Query = float;
  using Weight = float;
  static constexpr int kQueryDims = 1;  // dims of one Query

  static void pack_query(const float* q, int32_t head_dim, Query* packed) {
    for (int32_t d = 0; d < head_dim; ++d) packed[d * kBlock] = q[d];
  }
  /// p = 2^(s * multiplier - shift) for positions [begin, end) of whole pages; returns the sum.
  static float weights(const float* s, Weight* p, int begin, int end, float multiplier, float shift) {
    const VecF minus_shift = set1(-shift);
    VecF sum = set1(0.0f);
    for (int i = begin; i < end; i += kLanes) {
      const VecF x = exp2_or_zero<false>(fma(load(s + i), set1(multiplier), minus_shift));
      store(p + i, x);
      sum = sum + x;
    }
    return reduce_add(sum);
  }
};

struct F32Cache : FloatArithmetic {
  template <int R>
  static void scores(const uint8_t* block, const KvHeadLayout& layout, const Query* q, float* s,
                     const uint8_t* ahead) {
    constexpr int kVecs = kPanels * kPanelVecs;
    for (int panel = 0; panel < kKvPageSize / kKvPanel; panel += kPanels) {
      VecF acc[R * kVecs];
      clear<R * kVecs>(acc);
      for (int32_t d = 0; d < layout.head_dim; ++d) {
        VecF x[kVecs];
#pragma GCC unroll 8
        for (int i = 0; i < kVecs; ++i) {
          const size_t at =
              (panel + i / kPanelVecs) * layout.k_panel_bytes + d * size_t{64} + i % kPanelVecs * kLanes * 4;
          x[i] = load(reinterpret_cast<const float*>(block + at));
          prefetch(ahead + at);
        }
        multiply_add<R, kVecs>(acc, x, q + d * kBlock, 1);
      }
      store_scores<R, kPanels>(acc, s + panel * kKvPanel);
    }
  }

  template <int R, int NV>
  static void values(const ChunkPages& pages, const KvHeadLayout& layout, const Weight* p, int32_t column,
                     float* out, int64_t stride) {
    VecF acc[R * NV];
    clear<R * NV>(acc);
    for (int page = pages.first; page < pages.last; ++page) {
      const float* v = reinterpret_cast<const float*>(pages.block[page] + layout.v_offset) + column;
      for (int i = 0; i < kKvPageSize; ++i) {
        VecF x[NV];
#pragma GCC unroll 8
        for (int n = 0; n < NV; ++n) {
          x[n] = load(v + i * layout.v_dim + n * kLanes);
          prefetch(pages.v_ahead[page] + (i * layout.v_dim + column + n * kLanes) * size_t{4});
        }
        multiply_add<R, NV>(acc, x, p + page * kKvPageSize + i, kKvChunk);
      }
    }
    store_values<R, NV>(acc, out, stride);
  }
};

/// bf16 cache, float arithmetic: each 32-bit lane gives two floats.
struct Bf16Cache : FloatArithmetic {
  template <int R>
  static void scores(const uint8_t* block, const KvHeadLayout& layout, const Query* q, float* s,
                     const uint8_t* ahead) {
    constexpr int kVecs = kPanels * kPanelVecs;
    for (int panel = 0; panel < kKvPageSize / kKvPanel; panel += kPanels) {
      VecF acc[R * kVecs];
      clear<R * kVecs>(acc);
      for (int32_t d = 0; d < layout.head_dim; d += 2) {
        VecF low[kVecs], high[kVecs];
#pragma GCC unroll 8
        for (int i = 0; i < kVecs; ++i) {
          const size_t at =
              (panel + i / kPanelVecs) * layout.k_panel_bytes + d * size_t{32} + i % kPanelVecs * kLanes * 4;
          const VecI pair = load_i(block + at);
          prefetch(ahead + at);
          low[i] = low_bf16(pair);
          high[i] = high_bf16(pair);
        }
        multiply_add<R, kVecs>(acc, low, q + d * kBlock, 1);
        multiply_add<R, kVecs>(acc, high, q + (d + 1) * kBlock, 1);
      }
      store_scores<R, kPanels>(acc, s + panel * kKvPanel);
    }
  }

  template <int R, int NV>
  static void values(const ChunkPages& pages, const KvHeadLayout& layout, const Weight* p, int32_t column,
                     float* out, int64_t stride) {
    VecF acc[R * NV];
    clear<R * NV>(acc);
    for (int page = pages.first; page < pages.last; ++page) {
      const uint8_t* v = pages.block[page] + layout.v_offset;
      for (int i = 0; i < kKvPageSize; i += 2) {
        VecF low[NV], high[NV];
#pragma GCC unroll 8
        for (int n = 0; n < NV; ++n) {
          const size_t at = (i / 2 * layout.v_dim + column + n * kLanes) * size_t{4};
          const VecI pair = load_i(v + at);
          prefetch(pages.v_ahead[page] + at);
          low[n] = low_bf16(pair);
          high[n] = high_bf16(pair);
        }
        const Weight* weight = p + page * kKvPageSize + i;
        multiply_add<R, NV>(acc, low, weight, kKvChunk);
        multiply_add<R, NV>(acc, high, weight + 1, kKvChunk);
      }
    }
    store_values<R, NV>(acc, out, stride);
  }
};

struct Q8Cache : FloatArithmetic {
  template <int R>
  static void scores(const uint8_t* block, const KvHeadLayout& layout, const Query* q, float* s,
                     const uint8_t* ahead) {
    const int32_t n_blocks = layout.head_dim / kKvScaleBlock;
    for (int panel = 0; panel < kKvPageSize / kKvPanel; ++panel) {
      const uint16_t* scales =
          reinterpret_cast<const uint16_t*>(block + layout.k_scale_offset) + panel * n_blocks * kKvPanel;
      VecF acc[R * kPanelVecs];
      clear<R * kPanelVecs>(acc);
      for (int32_t d = 0; d < layout.head_dim; d += 4) {
        VecF x[4][kPanelVecs];
#pragma GCC unroll 8
        for (int i = 0; i < kPanelVecs; ++i) {
          const size_t at = panel * layout.k_panel_bytes + d * size_t{16} + i * kLanes * 4;
          const VecI four = load_i(block + at);
          const VecF scale = load_bf16(scales + d / kKvScaleBlock * kKvPanel + i * kLanes);
          prefetch(ahead + at);
          x[0][i] = to_float(shift_right_signed<24>(shift_left<24>(four))) * scale;
          x[1][i] = to_float(shift_right_signed<24>(shift_left<16>(four))) * scale;
          x[2][i] = to_float(shift_right_signed<24>(shift_left<8>(four))) * scale;
          x[3][i] = to_float(shift_right_signed<24>(four)) * scale;
        }
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) multiply_add<R, kPanelVecs>(acc, x[j], q + (d + j) * kBlock, 1);
      }
      store_scores<R, 1>(acc, s + panel * kKvPanel);
    }
  }

  template <int R, int NV>
  static void values(const ChunkPages& pages, const KvHeadLayout& layout, const Weight* p, int32_t column,
                     float* out, int64_t stride) {
    VecF acc[R * NV];
    clear<R * NV>(acc);
    for (int page = pages.first; page < pages.last; ++page) {
      const int8_t* v = reinterpret_cast<const int8_t*>(pages.block[page] + layout.v_offset);
      const uint16_t* scales = reinterpret_cast<const uint16_t*>(pages.block[page] + layout.v_scale_offset);
      for (int i = 0; i < kKvPageSize; ++i) {
        VecF x[NV];
#pragma GCC unroll 8
        for (int n = 0; n < NV; ++n) {
          const int32_t at = i * layout.head_dim + column + n * kLanes;
          const uint32_t scale_bits = uint32_t{scales[at / kKvScaleBlock]} << 16;
          prefetch(pages.v_ahead[page] + at);
          x[n] = to_float(load_i8(v + at)) * float_of(seti(static_cast<int32_t>(scale_bits)));
        }
        multiply_add<R, NV>(acc, x, p + page * kKvPageSize + i, kKvChunk);
      }
    }
    store_values<R, NV>(acc, out, stride);
  }
};

#if defined(__AVX512BF16__)
/// bf16 cache with the bf16 dot instruction: queries and weights are rounded to bf16 as K and V are, pairs
/// are multiplied exactly and summed in float. Twice the multiplications of Bf16Cache per instruction.
struct Bf16DotCache {
  using Query = uint32_t;  // two neighbouring dims
  using Weight = uint16_t;
  static constexpr int kQueryDims = 2;

  static void pack_query(const float* q, int32_t head_dim, Query* packed) {
    alignas(32) uint32_t pairs[8];
    for (int32_t d = 0; d < head_dim; d += 16) {
      const int n = head_dim - d < 16 ? head_dim - d : 16;
      _mm256_store_si256(reinterpret_cast<__m256i*>(pairs), (__m256i)_mm512_cvtneps_pbh(load_n(q + d, n)));
      for (int i = 0; i < n / 2; ++i) packed[(d / 2 + i) * kBlock] = pairs[i];
    }
  }
  /// As FloatArithmetic::weights, rounded to bf16; the sum is that of the rounded ones.
  static float weights(const float* s, Weight* p, int begin, int end, float multiplier, float shift) {
    const VecF minus_shift = set1(-shift);
    const __m512bh ones = (__m512bh)_mm512_set1_epi32(0x3f803f80);
    VecF sum = set1(0.0f);
    for (int i = begin; i < end; i += 2 * kLanes) {
      const VecF low = exp2_or_zero<true>(fma(load(s + i), set1(multiplier), minus_shift));
      const VecF high = exp2_or_zero<true>(fma(load(s + i + kLanes), set1(multiplier), minus_shift));
      const __m512bh both_halves = _mm512_cvtne2ps_pbh(high, low);
      _mm512_storeu_si512(p + i, (__m512i)both_halves);
      sum = _mm512_dpbf16_ps(sum, both_halves, ones);
    }
    return reduce_add(sum);
  }

  template <int R, int N>
  DSPARK_INLINE static void dot(VecF* acc, const VecI* x, const uint32_t* pairs, int64_t pair_stride) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512bh pair = (__m512bh)_mm512_set1_epi32(static_cast<int32_t>(pairs[r * pair_stride]));
#pragma GCC unroll 8
      for (int i = 0; i < N; ++i) acc[r * N + i] = _mm512_dpbf16_ps(acc[r * N + i], (__m512bh)x[i], pair);
    }
  }

  template <int R>
  static void scores(const uint8_t* block, const KvHeadLayout& layout, const Query* q, float* s,
                     const uint8_t* ahead) {
    VecF acc[R * 2];
    clear<R * 2>(acc);
    for (int32_t pair = 0; pair < layout.head_dim / 2; ++pair) {
      const size_t at = pair * size_t{64};
      const VecI x[2] = {load_i(block + at), load_i(block + layout.k_panel_bytes + at)};
      prefetch(ahead + at);
      prefetch(ahead + layout.k_panel_bytes + at);
      dot<R, 2>(acc, x, q + pair * kBlock, 1);
    }
    store_scores<R, 2>(acc, s);
  }

  template <int R, int NV>
  static void values(const ChunkPages& pages, const KvHeadLayout& layout, const Weight* p, int32_t column,
                     float* out, int64_t stride) {
    VecF acc[R * NV];
    clear<R * NV>(acc);
    for (int page = pages.first; page < pages.last; ++page) {
      const uint8_t* v = pages.block[page] + layout.v_offset;
      const uint8_t* ahead = pages.v_ahead[page];
      const uint32_t* weights = reinterpret_cast<const uint32_t*>(p + page * kKvPageSize);
      for (int pair = 0; pair < kKvPageSize / 2; ++pair) {
        const size_t at = (pair * layout.v_dim + column) * size_t{4};
        VecI x[NV];
#pragma GCC unroll 8
        for (int n = 0; n < NV; ++n) {
          x[n] = load_i(v + at + n * 64);
          prefetch(ahead + at + n * 64);
        }
        dot<R, NV>(acc, x, weights + pair, kKvChunk / 2);
      }
    }
    store_values<R, NV>(acc, out, stride);
  }
};
using Bf16Kernel = Bf16DotCache;
#else
using Bf16Kernel = Bf16Cache;
#endif

}  // namespace
}  // namespace dspark
