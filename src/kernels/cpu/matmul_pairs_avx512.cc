// AVX-512 VNNI kernels for two neighbouring panels that are in the cache and three or more rows. A kernel of
// one panel loads an activation quad for every multiplication and keeps the load ports as busy as the
// multipliers; here a loaded quad serves both panels, four rows at a time. Panels that come from memory gain
// nothing by it, nor do kinds whose halves have scales of their own (their sums leave no registers). A number
// is computed by the same operations in the same order as in a tile of one panel (matmul_avx512.cc).
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/panel_kinds_avx512-inl.h"
#include "kernels/matmul.h"
#include "kernels/panels.h"

namespace dspark {
namespace {

// Two panels, one behind the other in memory.
template <int M>
struct PairSums {
  __m512 first[M], second[M];
};

// Adds group pair z of M rows to the integer sums.
template <class K, int M>
DSPARK_INLINE void dot_pair_groups(const uint8_t* q0, const uint8_t* q1, int z, const ActBlock* a,
                                   __m512i (&sum0)[M], __m512i (&sum1)[M]) {
  __m512i even0, odd0, even1, odd1;
  K::Bits::pair(q0, z, even0, odd0);
  K::Bits::pair(q1, z, even1, odd1);
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r) {
    __m512i quad = broadcast_quad(a[r], 2 * z);
    asm("" : "+v"(quad));  // loaded once: the compiler would fold a load into each multiplication
    sum0[r] = _mm512_dpbusd_epi32(sum0[r], even0, quad);
    sum1[r] = _mm512_dpbusd_epi32(sum1[r], even1, quad);
  }
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r) {
    __m512i quad = broadcast_quad(a[r], 2 * z + 1);
    asm("" : "+v"(quad));
    sum0[r] = _mm512_dpbusd_epi32(sum0[r], odd0, quad);
    sum1[r] = _mm512_dpbusd_epi32(sum1[r], odd1, quad);
  }
}

template <class K, int M>
DSPARK_INLINE void add_whole(const __m512i (&sum)[M], const BlockScales& scales, const ActBlock* a,
                             __m512 (&acc)[M]) {
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r) {
    const __m512 s = _mm512_mul_ps(scales.scale[0], _mm512_set1_ps(a[r].scale));
    acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r]), s, acc[r]);
    if constexpr (K::kMin) acc[r] = _mm512_fmadd_ps(scales.min[0], _mm512_set1_ps(a[r].sum), acc[r]);
  }
}

template <class K>
struct SuperScales {
  DSPARK_INLINE static SuperScales load(const uint8_t* chunk, int64_t n) {
    SuperScales out{_mm512_setzero_ps(), _mm512_setzero_ps()};
    if constexpr (K::kLayout.super_bytes > 0) {
      const uint8_t* super = chunk + super_offset(K::kLayout, n);
      out.d = load_f16(super);
      if constexpr (K::kMin) out.dmin = _mm512_sub_ps(_mm512_setzero_ps(), load_f16(super + 32));
    }
    return out;
  }
  __m512 d, dmin;
};

template <class K, int M>
DSPARK_INLINE void pair_block(const uint8_t* q0, const uint8_t* q1, const BlockScales& scales0,
                              const BlockScales& scales1, const ActBlock* a, PairSums<M>& acc) {
  __m512i sum0[M], sum1[M];
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r) sum0[r] = sum1[r] = start_sum<K>(a[r], -1);
#pragma GCC unroll 4
  for (int z = 0; z < 4; ++z) dot_pair_groups<K, M>(q0, q1, z, a, sum0, sum1);
  add_whole<K, M>(sum0, scales0, a, acc.first);
  add_whole<K, M>(sum1, scales1, a, acc.second);
}

template <int M>
DSPARK_INLINE void store_panel(const __m512 (&acc)[M], const TileOut& out) {
  const __mmask16 mask = static_cast<__mmask16>((1u << out.n_lanes) - 1);
  const __m512 bias = out.bias != nullptr ? _mm512_maskz_loadu_ps(mask, out.bias) : _mm512_setzero_ps();
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r) {
    const __m512 y = out.bias != nullptr ? _mm512_add_ps(acc[r], bias) : acc[r];
    _mm512_mask_storeu_ps(out.y + r * out.y_stride, mask, y);
  }
}

// M rows of a tile of `tile_rows`.
template <class K, int M>
__attribute__((noinline)) void pair_rows(const uint8_t* panel, int64_t panel_bytes, const ActBlock* a,
                                         int64_t tile_rows, int64_t n_blocks, const TileOut& out) {
  constexpr PanelLayout kLayout = K::kLayout;
  PairSums<M> acc;
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r) acc.first[r] = acc.second[r] = _mm512_setzero_ps();
  while (n_blocks > 0) {
    const int64_t n = n_blocks < kChunkBlocks ? n_blocks : kChunkBlocks;
    const uint8_t* q = panel;
    const uint8_t* s = panel + n * kLayout.quant_bytes;
    const SuperScales<K> super0 = SuperScales<K>::load(panel, n);
    const SuperScales<K> super1 = SuperScales<K>::load(panel + panel_bytes, n);
    for (int64_t b = 0; b < n; ++b, q += kLayout.quant_bytes, s += kLayout.scale_bytes, a += tile_rows) {
      const BlockScales scales0 = load_scales<K>(s, super0.d, super0.dmin);
      const BlockScales scales1 = load_scales<K>(s + panel_bytes, super1.d, super1.dmin);
      pair_block<K, M>(q, q + panel_bytes, scales0, scales1, a, acc);
    }
    panel += chunk_bytes(kLayout, n);
    n_blocks -= n;
  }
  const int32_t n_first = out.n_lanes < kPanelRows ? out.n_lanes : kPanelRows;
  store_panel<M>(acc.first, {out.y, out.y_stride, out.bias, n_first});
  const float* bias = out.bias != nullptr ? out.bias + kPanelRows : nullptr;
  store_panel<M>(acc.second, {out.y + kPanelRows, out.y_stride, bias, out.n_lanes - n_first});
}

// A whole tile of m rows: more than four rows and two panels of sums have no room in the registers, so the
// second half reads the panels again, out of the nearest cache.
template <class K, int m>
void pair_tile(const uint8_t* panel, int64_t panel_bytes, const ActBlock* acts, int64_t n_blocks,
               const TileOut& out) {
  if constexpr (m <= 4) {
    pair_rows<K, m>(panel, panel_bytes, acts, m, n_blocks, out);
  } else {
    constexpr int kFirst = (m + 1) / 2;
    pair_rows<K, kFirst>(panel, panel_bytes, acts, m, n_blocks, out);
    const TileOut rest{out.y + kFirst * out.y_stride, out.y_stride, out.bias, out.n_lanes};
    pair_rows<K, m - kFirst>(panel, panel_bytes, acts + kFirst, m, n_blocks, rest);
  }
}

#define DSPARK_PAIRS(K)                                                                                    \
  {                                                                                                        \
    nullptr, nullptr, pair_tile<K, 3>, pair_tile<K, 4>, pair_tile<K, 5>, pair_tile<K, 6>, pair_tile<K, 7>, \
        pair_tile<K, 8>                                                                                    \
  }
#define DSPARK_NONE \
  { nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr }

}  // namespace

// clang-format off
const IntPairKernels kIntPairsAvx512 = {
    {DSPARK_NONE, DSPARK_NONE, DSPARK_NONE,
     DSPARK_PAIRS(KindQ4_0), DSPARK_PAIRS(KindQ4_1), DSPARK_PAIRS(KindQ5_0), DSPARK_PAIRS(KindQ5_1),
     DSPARK_PAIRS(KindQ8_0), DSPARK_NONE, DSPARK_NONE, DSPARK_PAIRS(KindQ4_K),
     DSPARK_PAIRS(KindQ5_K), DSPARK_NONE, DSPARK_PAIRS(KindIQ4_NL), DSPARK_PAIRS(KindIQ4_XS),
     DSPARK_PAIRS(KindMXFP4)},
};
// clang-format on

}  // namespace dspark
