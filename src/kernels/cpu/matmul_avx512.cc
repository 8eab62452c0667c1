// AVX-512 VNNI panel kernels. Lanes are output rows; one vpdpbusd multiplies 4 K-elements of 16 rows with 4
// activations broadcast from memory. A block of 32 K is summed exactly in int32, then scaled into a float
// accumulator, block after block: the same operations for a row whatever the tile it is in.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/panel_kinds_avx512-inl.h"
#include "kernels/matmul.h"
#include "kernels/panels.h"

namespace dspark {
namespace {

template <int M>
DSPARK_INLINE void store_tile(const __m512 (&acc)[M], const TileOut& out) {
  const __mmask16 mask = static_cast<__mmask16>((1u << out.n_lanes) - 1);
  const __m512 bias = out.bias != nullptr ? _mm512_maskz_loadu_ps(mask, out.bias) : _mm512_setzero_ps();
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) {
    const __m512 y = out.bias != nullptr ? _mm512_add_ps(acc[r], bias) : acc[r];
    _mm512_mask_storeu_ps(out.y + r * out.y_stride, mask, y);
  }
}

// Adds group pair z of M rows to the integer sums.
template <class K, int M>
DSPARK_INLINE void dot_pair(const uint8_t* q, int z, const ActBlock* a, __m512i (&sum)[M]) {
  __m512i g0, g1;
  K::Bits::pair(q, z, g0, g1);
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) sum[r] = _mm512_dpbusd_epi32(sum[r], g0, broadcast_quad(a[r], 2 * z));
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) sum[r] = _mm512_dpbusd_epi32(sum[r], g1, broadcast_quad(a[r], 2 * z + 1));
}

// One block whose 32 weights share a scale.
template <class K, int M>
DSPARK_INLINE void block_whole(const uint8_t* q, const BlockScales& scales, const ActBlock* a,
                               __m512 (&acc)[M]) {
  __m512i sum[M];
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) sum[r] = start_sum<K>(a[r], -1);
#pragma GCC unroll 4
  for (int z = 0; z < 4; ++z) dot_pair<K, M>(q, z, a, sum);
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) {
    const __m512 s = _mm512_mul_ps(scales.scale[0], _mm512_set1_ps(a[r].scale));
    acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r]), s, acc[r]);
    if constexpr (K::kMin) acc[r] = _mm512_fmadd_ps(scales.min[0], _mm512_set1_ps(a[r].sum), acc[r]);
  }
}

// One block whose two halves have their own scales.
template <class K, int M>
DSPARK_INLINE void block_halves(const uint8_t* q, const BlockScales& scales, const ActBlock* a,
                                __m512 (&acc)[M]) {
  __m512i sum0[M], sum1[M];
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) sum0[r] = start_sum<K>(a[r], 0);
#pragma GCC unroll 2
  for (int z = 0; z < 2; ++z) dot_pair<K, M>(q, z, a, sum0);
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) sum1[r] = start_sum<K>(a[r], 1);
#pragma GCC unroll 2
  for (int z = 2; z < 4; ++z) dot_pair<K, M>(q, z, a, sum1);
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) {
    __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(sum0[r]), scales.scale[0]);
    t = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum1[r]), scales.scale[1], t);
    acc[r] = _mm512_fmadd_ps(t, _mm512_set1_ps(a[r].scale), acc[r]);
    if constexpr (K::kMin) {
      acc[r] = _mm512_fmadd_ps(scales.min[0], _mm512_set1_ps(a[r].sum_half[0]), acc[r]);
      acc[r] = _mm512_fmadd_ps(scales.min[1], _mm512_set1_ps(a[r].sum_half[1]), acc[r]);
    }
  }
}

// Software prefetch of the bytes that lie kNear / kFar behind those of this block. Found by trying (Zen 4,
// weights in DRAM): one or two rows are bound by memory and want lines straight in L1, far ahead; more rows
// compute longer than memory needs, and far prefetches into L1 would hold its miss buffers, so those go to L2
// and a near one brings the line in (8 rows of Q8_0: 6.0 -> 3.4 ms per 76 MB on one core).
template <int M, int64_t kBytes>
DSPARK_INLINE void prefetch_ahead(const uint8_t* p) {
  constexpr int64_t kFar = 16384, kNear = M <= 2 ? 12288 : 2048;
#pragma GCC unroll 10
  for (int64_t line = 0; line < (kBytes + 63) / 64; ++line) {
    if constexpr (M > 2) _mm_prefetch(reinterpret_cast<const char*>(p + kFar + 64 * line), _MM_HINT_T1);
    _mm_prefetch(reinterpret_cast<const char*>(p + kNear + 64 * line), _MM_HINT_T0);
  }
}

// One chunk of n blocks; returns the next chunk.
template <class K, int M>
DSPARK_INLINE const uint8_t* chunk_tile(const uint8_t* chunk, const ActBlock* a, int64_t n,
                                        __m512 (&acc)[M]) {
  constexpr PanelLayout kLayout = K::kLayout;
  constexpr int64_t kBytesPerBlock = chunk_bytes(kLayout, kChunkBlocks) / kChunkBlocks;
  const uint8_t* s = chunk + n * kLayout.quant_bytes;
  __m512 d = _mm512_setzero_ps(), dmin = _mm512_setzero_ps();
  if constexpr (kLayout.super_bytes > 0) {
    const uint8_t* super = chunk + super_offset(kLayout, n);
    d = load_f16(super);
    if constexpr (K::kMin) dmin = _mm512_sub_ps(_mm512_setzero_ps(), load_f16(super + 32));
  }
  const uint8_t* q = chunk;
  for (int64_t b = 0; b < n; ++b, q += kLayout.quant_bytes, s += kLayout.scale_bytes, a += M) {
    prefetch_ahead<M, kBytesPerBlock>(chunk + b * kBytesPerBlock);
    const BlockScales scales = load_scales<K>(s, d, dmin);
    if constexpr (K::kHalves) {
      block_halves<K, M>(q, scales, a, acc);
    } else {
      block_whole<K, M>(q, scales, a, acc);
    }
  }
  return chunk + chunk_bytes(kLayout, n);
}

template <class K, int M>
void int_tile(const uint8_t* panel, const ActBlock* a, int64_t n_blocks, const TileOut& out) {
  __m512 acc[M];
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) acc[r] = _mm512_setzero_ps();
  for (; n_blocks >= kChunkBlocks; n_blocks -= kChunkBlocks, a += kChunkBlocks * M) {
    panel = chunk_tile<K, M>(panel, a, kChunkBlocks, acc);
  }
  if (n_blocks > 0) chunk_tile<K, M>(panel, a, n_blocks, acc);
  store_tile<M>(acc, out);
}

// Float panels: even and odd K in two accumulators, added at the end.
struct PanelF32 {
  DSPARK_INLINE static void pair(const uint8_t* p, int64_t k2, __m512& w0, __m512& w1) {
    w0 = _mm512_load_ps(reinterpret_cast<const float*>(p) + k2 * 32);
    w1 = _mm512_load_ps(reinterpret_cast<const float*>(p) + k2 * 32 + 16);
  }
};
struct PanelBf16 {
  DSPARK_INLINE static void pair(const uint8_t* p, int64_t k2, __m512& w0, __m512& w1) {
    const __m512i x = load_quants(p + k2 * 64);
    w0 = _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
    w1 = _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u))));
  }
};
struct PanelF16 {
  DSPARK_INLINE static void pair(const uint8_t* p, int64_t k2, __m512& w0, __m512& w1) {
    w0 = load_f16(p + k2 * 64);
    w1 = load_f16(p + k2 * 64 + 32);
  }
};

template <class P, int M>
void float_tile(const uint8_t* panel, const float* x, int64_t x_stride, int64_t n_in, const TileOut& out) {
  __m512 even[M], odd[M];
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) even[r] = odd[r] = _mm512_setzero_ps();
  for (int64_t k2 = 0; k2 < n_in / 2; ++k2) {
    __m512 w0, w1;
    P::pair(panel, k2, w0, w1);
#pragma GCC unroll 8
    for (int r = 0; r < M; ++r) {
      even[r] = _mm512_fmadd_ps(w0, _mm512_set1_ps(x[r * x_stride + 2 * k2]), even[r]);
      odd[r] = _mm512_fmadd_ps(w1, _mm512_set1_ps(x[r * x_stride + 2 * k2 + 1]), odd[r]);
    }
  }
  if (n_in % 2 != 0) {
    __m512 w0, w1;
    P::pair(panel, n_in / 2, w0, w1);
#pragma GCC unroll 8
    for (int r = 0; r < M; ++r)
      even[r] = _mm512_fmadd_ps(w0, _mm512_set1_ps(x[r * x_stride + n_in - 1]), even[r]);
  }
#pragma GCC unroll 8
  for (int r = 0; r < M; ++r) even[r] = _mm512_add_ps(even[r], odd[r]);
  store_tile<M>(even, out);
}

DSPARK_INLINE void quantize_block(__m512 lo, __m512 hi, ActBlock& a) {
  const float max = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(lo), _mm512_abs_ps(hi)));
  const __m512 inverse = _mm512_set1_ps(max > 1e-35f ? 127.0f / max : 0.0f);
  const __m128i q0 = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(lo, inverse)));
  const __m128i q1 = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(hi, inverse)));
  _mm_store_si128(reinterpret_cast<__m128i*>(a.q), q0);
  _mm_store_si128(reinterpret_cast<__m128i*>(a.q + 16), q1);
  // Sums of 8 bytes each by sum of absolute differences, which wants them unsigned: every byte counts 128 too
  // much.
  const __m128i flip = _mm_set1_epi8(static_cast<char>(0x80));
  const __m128i s0 = _mm_sad_epu8(_mm_xor_si128(q0, flip), _mm_setzero_si128());
  const __m128i s1 = _mm_sad_epu8(_mm_xor_si128(q1, flip), _mm_setzero_si128());
  const int32_t sum0 = _mm_cvtsi128_si32(s0) + _mm_extract_epi16(s0, 4) - 16 * 128;
  const int32_t sum1 = _mm_cvtsi128_si32(s1) + _mm_extract_epi16(s1, 4) - 16 * 128;
  const float scale = max / 127.0f;
  a.scale = scale;
  a.sum = scale * static_cast<float>(sum0 + sum1);
  a.bias8 = -8 * (sum0 + sum1);
  a.bias8_half[0] = -8 * sum0;
  a.bias8_half[1] = -8 * sum1;
  a.sum_half[0] = scale * static_cast<float>(sum0);
  a.sum_half[1] = scale * static_cast<float>(sum1);
}

void quantize_row(const float* x, int64_t n, ActBlock* acts, int64_t block_stride) {
  int64_t k = 0;
  for (; k + 32 <= n; k += 32, acts += block_stride) {
    quantize_block(_mm512_loadu_ps(x + k), _mm512_loadu_ps(x + k + 16), *acts);
  }
  if (k < n) {
    const uint32_t mask = (1u << (n - k)) - 1;
    quantize_block(_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), x + k),
                   _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), x + k + 16), *acts);
  }
}

#define DSPARK_ROW(FN, K) \
  { FN<K, 1>, FN<K, 2>, FN<K, 3>, FN<K, 4>, FN<K, 5>, FN<K, 6>, FN<K, 7>, FN<K, 8> }
#define DSPARK_NONE \
  { nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr }

}  // namespace

// clang-format off
const MatmulKernels kMatmulAvx512 = {
    {DSPARK_NONE, DSPARK_NONE, DSPARK_NONE,
     DSPARK_ROW(int_tile, KindQ4_0), DSPARK_ROW(int_tile, KindQ4_1), DSPARK_ROW(int_tile, KindQ5_0),
     DSPARK_ROW(int_tile, KindQ5_1), DSPARK_ROW(int_tile, KindQ8_0), DSPARK_ROW(int_tile, KindQ2_K),
     DSPARK_ROW(int_tile, KindQ3_K), DSPARK_ROW(int_tile, KindQ4_K), DSPARK_ROW(int_tile, KindQ5_K),
     DSPARK_ROW(int_tile, KindQ6_K), DSPARK_ROW(int_tile, KindIQ4_NL), DSPARK_ROW(int_tile, KindIQ4_XS),
     DSPARK_ROW(int_tile, KindMXFP4)},
    {DSPARK_ROW(float_tile, PanelF32), DSPARK_ROW(float_tile, PanelBf16), DSPARK_ROW(float_tile, PanelF16),
     DSPARK_NONE, DSPARK_NONE, DSPARK_NONE, DSPARK_NONE, DSPARK_NONE, DSPARK_NONE, DSPARK_NONE, DSPARK_NONE,
     DSPARK_NONE, DSPARK_NONE, DSPARK_NONE, DSPARK_NONE, DSPARK_NONE},
    quantize_row,
    &kIntPairsAvx512,
};
// clang-format on

}  // namespace dspark
