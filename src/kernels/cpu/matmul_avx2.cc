// AVX2 panel kernels: the same blocks and order as the AVX-512 ones, eight output rows at a time and at most
// four activation rows (16 registers). Integer dots by maddubs: exact, because unsigned weights here are
// below 64, and bytes go through |w| * sign(a, w), whose pair sums stay below 2^15.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/matmul.h"
#include "kernels/panels.h"

namespace dspark {
namespace {

#define DSPARK_INLINE inline __attribute__((always_inline))

DSPARK_INLINE __m256 load_f16(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}
DSPARK_INLINE __m256 load_u8(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
DSPARK_INLINE __m256 load_i8(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
DSPARK_INLINE __m256i load_quants(const uint8_t* p) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
}
DSPARK_INLINE __m256i and8(__m256i x, int8_t mask) {
  return _mm256_and_si256(x, _mm256_set1_epi8(mask));
}
DSPARK_INLINE __m256i shift_bits(__m256i x, int left) {
  return left >= 0 ? _mm256_slli_epi16(x, left) : _mm256_srli_epi16(x, -left);
}

// Unpacking of groups 2z and 2z + 1; q points at the block plus the offset of the lane half (0 or 32 bytes).
struct Nibbles {
  static constexpr int kQuantBytes = 256;
  static constexpr bool kSigned = false;
  DSPARK_INLINE static void pair(const uint8_t* q, int z, __m256i& g0, __m256i& g1) {
    const __m256i x = load_quants(q + 64 * z);
    g0 = and8(x, 0x0f);
    g1 = and8(_mm256_srli_epi16(x, 4), 0x0f);
  }
};
struct FiveBits {
  static constexpr int kQuantBytes = 320;
  static constexpr bool kSigned = false;
  DSPARK_INLINE static void pair(const uint8_t* q, int z, __m256i& g0, __m256i& g1) {
    const __m256i high = load_quants(q + 256);
    Nibbles::pair(q, z, g0, g1);
    g0 = _mm256_or_si256(g0, and8(shift_bits(high, 4 - 2 * z), 0x10));
    g1 = _mm256_or_si256(g1, and8(shift_bits(high, 3 - 2 * z), 0x10));
  }
};
struct SixBits {
  static constexpr int kQuantBytes = 384;
  static constexpr bool kSigned = false;
  DSPARK_INLINE static void pair(const uint8_t* q, int z, __m256i& g0, __m256i& g1) {
    const __m256i high = load_quants(q + 256 + 64 * (z / 2));
    const int bit = 4 * (z % 2);
    Nibbles::pair(q, z, g0, g1);
    g0 = _mm256_or_si256(g0, and8(shift_bits(high, 4 - bit), 0x30));
    g1 = _mm256_or_si256(g1, and8(shift_bits(high, 2 - bit), 0x30));
  }
};
struct Bytes {
  static constexpr int kQuantBytes = 512;
  static constexpr bool kSigned = true;
  DSPARK_INLINE static void pair(const uint8_t* q, int z, __m256i& g0, __m256i& g1) {
    const __m256i flip = _mm256_set1_epi8(static_cast<char>(0x80));
    g0 = _mm256_xor_si256(load_quants(q + 128 * z), flip);
    g1 = _mm256_xor_si256(load_quants(q + 128 * z + 64), flip);
  }
};

template <const int8_t (&kTable)[16]>
struct TableNibbles {
  static constexpr int kQuantBytes = 256;
  static constexpr bool kSigned = true;
  DSPARK_INLINE static void pair(const uint8_t* q, int z, __m256i& g0, __m256i& g1) {
    const __m256i table =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kTable)));
    Nibbles::pair(q, z, g0, g1);
    g0 = _mm256_shuffle_epi8(table, g0);
    g1 = _mm256_shuffle_epi8(table, g1);
  }
};

template <class BitsT, int kBiasShiftT, ScaleMode kModeT>
struct Kind {
  using Bits = BitsT;
  static constexpr int kBiasShift = kBiasShiftT;
  static constexpr ScaleMode kMode = kModeT;
  static constexpr bool kHalves = kMode == ScaleMode::kByteHalves || kMode == ScaleMode::kByteHalvesMin;
  static constexpr bool kMin =
      kMode == ScaleMode::kF16Min || kMode == ScaleMode::kByteMin || kMode == ScaleMode::kByteHalvesMin;
  static constexpr PanelLayout kLayout = panel_layout(Bits::kQuantBytes, kMode);
};
using KindQ4_0 = Kind<Nibbles, 0, ScaleMode::kF16>;
using KindQ4_1 = Kind<Nibbles, -1, ScaleMode::kF16Min>;
using KindQ5_0 = Kind<FiveBits, 1, ScaleMode::kF16>;
using KindQ5_1 = Kind<FiveBits, -1, ScaleMode::kF16Min>;
using KindQ8_0 = Kind<Bytes, -1, ScaleMode::kF16>;  // signed product: no bias to undo
using KindQ2_K = Kind<Nibbles, -1, ScaleMode::kByteHalvesMin>;
using KindQ3_K = Kind<Nibbles, 0, ScaleMode::kByteHalves>;
using KindQ4_K = Kind<Nibbles, -1, ScaleMode::kByteMin>;
using KindQ5_K = Kind<FiveBits, -1, ScaleMode::kByteMin>;
using KindQ6_K = Kind<SixBits, 2, ScaleMode::kByteHalves>;
using KindIQ4_NL = Kind<TableNibbles<kIq4Values>, -1, ScaleMode::kF16>;
using KindIQ4_XS = Kind<TableNibbles<kIq4Values>, -1, ScaleMode::kByte>;
using KindMXFP4 = Kind<TableNibbles<kE2m1Doubled>, -1, ScaleMode::kE8M0>;

template <class Bits>
DSPARK_INLINE __m256i dot4(__m256i sum, __m256i w, const ActBlock& a, int g) {
  int32_t quad;
  __builtin_memcpy(&quad, a.q + 4 * g, 4);
  __m256i x = _mm256_set1_epi32(quad);
  if constexpr (Bits::kSigned) {
    x = _mm256_sign_epi8(x, w);
    w = _mm256_abs_epi8(w);
  }
  const __m256i pairs = _mm256_maddubs_epi16(w, x);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

template <class K>
DSPARK_INLINE __m256i start_sum(const ActBlock& a, int half) {
  if constexpr (K::kBiasShift < 0) return _mm256_setzero_si256();
  const __m256i b = _mm256_set1_epi32(half < 0 ? a.bias8 : a.bias8_half[half]);
  return _mm256_slli_epi32(b, K::kBiasShift < 0 ? 0 : K::kBiasShift);
}

template <class K, int R>
DSPARK_INLINE void dot_pairs(const uint8_t* q, int first_z, int last_z, const ActBlock* a,
                             __m256i (&sum)[R]) {
#pragma GCC unroll 4
  for (int z = first_z; z < last_z; ++z) {
    __m256i g0, g1;
    K::Bits::pair(q, z, g0, g1);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      sum[r] = dot4<typename K::Bits>(sum[r], g0, a[r], 2 * z);
      sum[r] = dot4<typename K::Bits>(sum[r], g1, a[r], 2 * z + 1);
    }
  }
}

// Scales of eight lanes of a block; index 1 only where halves have their own.
struct BlockScales {
  __m256 scale[2];
  __m256 min[2];
};

DSPARK_INLINE __m256 load_half_e8m0(const uint8_t* p) {
  const __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
  const __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
  const __m256i small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
  return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, subnormal, small));
}

template <class K>
DSPARK_INLINE BlockScales load_scales(const uint8_t* s, const uint8_t* super, int lane) {
  BlockScales out{};
  if constexpr (K::kMode == ScaleMode::kF16 || K::kMode == ScaleMode::kF16Min) {
    out.scale[0] = load_f16(s + 2 * lane);
    if constexpr (K::kMin) out.min[0] = load_f16(s + 32 + 2 * lane);
  } else if constexpr (K::kMode == ScaleMode::kE8M0) {
    out.scale[0] = load_half_e8m0(s + lane);
  } else {
    constexpr int kParts = K::kHalves ? 2 : 1;
    const __m256 d = load_f16(super + 2 * lane);
    for (int i = 0; i < kParts; ++i) {
      if constexpr (K::kMin) {
        const __m256 dmin = _mm256_sub_ps(_mm256_setzero_ps(), load_f16(super + 32 + 2 * lane));
        out.scale[i] = _mm256_mul_ps(d, load_u8(s + 16 * i + lane));
        out.min[i] = _mm256_mul_ps(dmin, load_u8(s + 16 * (kParts + i) + lane));
      } else {
        out.scale[i] = _mm256_mul_ps(d, load_i8(s + 16 * i + lane));
      }
    }
  }
  return out;
}

template <class K, int R>
DSPARK_INLINE void add_halves(const uint8_t* q, const BlockScales& scales, const ActBlock* a,
                              __m256 (&acc)[R]) {
  __m256i sum[R];
  __m256 first[R];
  for (int r = 0; r < R; ++r) sum[r] = start_sum<K>(a[r], 0);
  dot_pairs<K, R>(q, 0, 2, a, sum);
  for (int r = 0; r < R; ++r) {
    first[r] = _mm256_mul_ps(_mm256_cvtepi32_ps(sum[r]), scales.scale[0]);
    sum[r] = start_sum<K>(a[r], 1);
  }
  dot_pairs<K, R>(q, 2, 4, a, sum);
  for (int r = 0; r < R; ++r) {
    const __m256 t = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r]), scales.scale[1], first[r]);
    acc[r] = _mm256_fmadd_ps(t, _mm256_set1_ps(a[r].scale), acc[r]);
    if constexpr (K::kMin) {
      acc[r] = _mm256_fmadd_ps(scales.min[0], _mm256_set1_ps(a[r].sum_half[0]), acc[r]);
      acc[r] = _mm256_fmadd_ps(scales.min[1], _mm256_set1_ps(a[r].sum_half[1]), acc[r]);
    }
  }
}

template <class K, int R>
DSPARK_INLINE void add_block(const uint8_t* q, const BlockScales& scales, const ActBlock* a,
                             __m256 (&acc)[R]) {
  if constexpr (K::kHalves) return add_halves<K, R>(q, scales, a, acc);
  __m256i sum[R];
  for (int r = 0; r < R; ++r) sum[r] = start_sum<K>(a[r], -1);
  dot_pairs<K, R>(q, 0, 4, a, sum);
  for (int r = 0; r < R; ++r) {
    const __m256 scale = _mm256_mul_ps(scales.scale[0], _mm256_set1_ps(a[r].scale));
    acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r]), scale, acc[r]);
    if constexpr (K::kMin) acc[r] = _mm256_fmadd_ps(scales.min[0], _mm256_set1_ps(a[r].sum), acc[r]);
  }
}

// Eight lanes of one row, cut to the valid ones.
DSPARK_INLINE void store_row(__m256 acc, const TileOut& out, int r, int lane) {
  const int valid = out.n_lanes - lane;
  if (valid <= 0) return;
  const __m256i ids = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(valid), ids);
  if (out.bias != nullptr) acc = _mm256_add_ps(acc, _mm256_maskload_ps(out.bias + lane, mask));
  _mm256_maskstore_ps(out.y + r * out.y_stride + lane, mask, acc);
}

// Weights a DRAM round trip ahead of use (the distance is the AVX-512 kernel's).
template <int kBytes>
DSPARK_INLINE void prefetch_ahead(const uint8_t* p) {
#pragma GCC unroll 10
  for (int line = 0; line < kBytes; line += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(p + 12288 + line), _MM_HINT_T0);
  }
}

// Rows first..first+R-1 of a tile of `m` rows, lanes lane..lane+7.
template <class K, int R>
void int_part(const uint8_t* panel, const ActBlock* a, int64_t n_blocks, const TileOut& out, int m, int first,
              int lane) {
  __m256 acc[R];
  for (int r = 0; r < R; ++r) acc[r] = _mm256_setzero_ps();
  a += first;
  while (n_blocks > 0) {
    const int64_t n = n_blocks < kChunkBlocks ? n_blocks : kChunkBlocks;
    const uint8_t* q = panel + 4 * lane;
    const uint8_t* s = panel + n * K::kLayout.quant_bytes;
    const uint8_t* super = panel + super_offset(K::kLayout, n);
    for (int64_t b = 0; b < n; ++b, a += m, q += K::kLayout.quant_bytes, s += K::kLayout.scale_bytes) {
      if (lane == 0) prefetch_ahead<K::kLayout.quant_bytes>(q);
      add_block<K, R>(q, load_scales<K>(s, super, lane), a, acc);
    }
    panel += chunk_bytes(K::kLayout, n);
    n_blocks -= n;
  }
  for (int r = 0; r < R; ++r) store_row(acc[r], out, first + r, lane);
}

template <class K, int M>
void int_tile(const uint8_t* panel, const ActBlock* a, int64_t n_blocks, const TileOut& out) {
  for (int lane = 0; lane < kPanelRows; lane += 8) {
    if constexpr (M > 4) {
      int_part<K, 4>(panel, a, n_blocks, out, M, 0, lane);
      int_part<K, M - 4>(panel, a, n_blocks, out, M, 4, lane);
    } else {
      int_part<K, M>(panel, a, n_blocks, out, M, 0, lane);
    }
  }
}

struct PanelF32 {
  DSPARK_INLINE static void pair(const uint8_t* p, int64_t k2, int lane, __m256& w0, __m256& w1) {
    w0 = _mm256_load_ps(reinterpret_cast<const float*>(p) + k2 * 32 + lane);
    w1 = _mm256_load_ps(reinterpret_cast<const float*>(p) + k2 * 32 + 16 + lane);
  }
};
struct PanelBf16 {
  DSPARK_INLINE static void pair(const uint8_t* p, int64_t k2, int lane, __m256& w0, __m256& w1) {
    const __m256i x = load_quants(p + k2 * 64 + 4 * lane);
    w0 = _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
    w1 = _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u))));
  }
};
struct PanelF16 {
  DSPARK_INLINE static void pair(const uint8_t* p, int64_t k2, int lane, __m256& w0, __m256& w1) {
    w0 = load_f16(p + k2 * 64 + 2 * lane);
    w1 = load_f16(p + k2 * 64 + 32 + 2 * lane);
  }
};

template <class P, int R>
void float_part(const uint8_t* panel, const float* x, int64_t x_stride, int64_t n_in, const TileOut& out,
                int first, int lane) {
  __m256 even[R], odd[R];
  for (int r = 0; r < R; ++r) even[r] = odd[r] = _mm256_setzero_ps();
  x += first * x_stride;
  __m256 w0, w1;
  for (int64_t k2 = 0; k2 < n_in / 2; ++k2) {
    P::pair(panel, k2, lane, w0, w1);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      even[r] = _mm256_fmadd_ps(w0, _mm256_set1_ps(x[r * x_stride + 2 * k2]), even[r]);
      odd[r] = _mm256_fmadd_ps(w1, _mm256_set1_ps(x[r * x_stride + 2 * k2 + 1]), odd[r]);
    }
  }
  if (n_in % 2 != 0) {
    P::pair(panel, n_in / 2, lane, w0, w1);
    for (int r = 0; r < R; ++r)
      even[r] = _mm256_fmadd_ps(w0, _mm256_set1_ps(x[r * x_stride + n_in - 1]), even[r]);
  }
  for (int r = 0; r < R; ++r) store_row(_mm256_add_ps(even[r], odd[r]), out, first + r, lane);
}

template <class P, int M>
void float_tile(const uint8_t* panel, const float* x, int64_t x_stride, int64_t n_in, const TileOut& out) {
  for (int lane = 0; lane < kPanelRows; lane += 8) {
    if constexpr (M > 4) {
      float_part<P, 4>(panel, x, x_stride, n_in, out, 0, lane);
      float_part<P, M - 4>(panel, x, x_stride, n_in, out, 4, lane);
    } else {
      float_part<P, M>(panel, x, x_stride, n_in, out, 0, lane);
    }
  }
}

DSPARK_INLINE float reduce_max(__m256 v) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}
DSPARK_INLINE int32_t reduce_add(__m256i v) {
  __m128i x = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xb1)));
}

void quantize_block(const float* x, ActBlock& a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 amax = _mm256_setzero_ps();
  for (int i = 0; i < 4; ++i) amax = _mm256_max_ps(amax, _mm256_andnot_ps(sign, _mm256_loadu_ps(x + 8 * i)));
  const float max = reduce_max(amax);
  const __m256 inverse = _mm256_set1_ps(max > 1e-35f ? 127.0f / max : 0.0f);
  __m256i q[4];
  for (int i = 0; i < 4; ++i) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inverse));
  const int32_t sum0 = reduce_add(_mm256_add_epi32(q[0], q[1]));
  const int32_t sum1 = reduce_add(_mm256_add_epi32(q[2], q[3]));
  // The two packs leave the eight quads in the order 0 2 4 6 1 3 5 7 of 128-bit halves; the permute undoes
  // it.
  const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_store_si256(reinterpret_cast<__m256i*>(a.q), _mm256_permutevar8x32_epi32(bytes, order));
  a.scale = max / 127.0f;
  a.sum = a.scale * static_cast<float>(sum0 + sum1);
  a.bias8 = -8 * (sum0 + sum1);
  a.bias8_half[0] = -8 * sum0;
  a.bias8_half[1] = -8 * sum1;
  a.sum_half[0] = a.scale * static_cast<float>(sum0);
  a.sum_half[1] = a.scale * static_cast<float>(sum1);
}

void quantize_row(const float* x, int64_t n, ActBlock* acts, int64_t block_stride) {
  int64_t k = 0;
  for (; k + 32 <= n; k += 32, acts += block_stride) quantize_block(x + k, *acts);
  if (k < n) {
    float padded[32] = {};
    for (int64_t j = 0; k + j < n; ++j) padded[j] = x[k + j];
    quantize_block(padded, *acts);
  }
}

#define DSPARK_ROW(FN, K) \
  { FN<K, 1>, FN<K, 2>, FN<K, 3>, FN<K, 4>, FN<K, 5>, FN<K, 6>, FN<K, 7>, FN<K, 8> }
#define DSPARK_NONE \
  { nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr }

}  // namespace

// clang-format off
const MatmulKernels kMatmulAvx2 = {
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
    nullptr,
};
// clang-format on

}  // namespace dspark
