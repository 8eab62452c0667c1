// The kinds of integer panels for AVX-512: how their quants are unpacked and their scales read. For the files
// of kernels/cpu that multiply with them.
#ifndef DSPARK_KERNELS_CPU_PANEL_KINDS_AVX512_INL_H_
#define DSPARK_KERNELS_CPU_PANEL_KINDS_AVX512_INL_H_

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/panels.h"

namespace dspark {
namespace {

#define DSPARK_INLINE inline __attribute__((always_inline))

DSPARK_INLINE __m512 load_f16(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
}
DSPARK_INLINE __m512 load_u8(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(p))));
}
DSPARK_INLINE __m512 load_i8(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(p))));
}
DSPARK_INLINE __m512i load_quants(const uint8_t* p) {
  return _mm512_load_si512(p);
}
DSPARK_INLINE __m512i low_nibbles(__m512i x) {
  return _mm512_and_si512(x, _mm512_set1_epi8(0x0f));
}
DSPARK_INLINE __m512i high_nibbles(__m512i x) {
  return low_nibbles(_mm512_srli_epi16(x, 4));
}
// a | (b & mask) in one instruction.
DSPARK_INLINE __m512i or_masked(__m512i a, __m512i b, int8_t mask) {
  return _mm512_ternarylogic_epi32(a, b, _mm512_set1_epi8(mask), 0xf8);
}
DSPARK_INLINE __m512i shift_bits(__m512i x, int left) {
  return left >= 0 ? _mm512_slli_epi16(x, static_cast<unsigned>(left))
                   : _mm512_srli_epi16(x, static_cast<unsigned>(-left));
}

// Unpacking of the two groups 2z and 2z + 1 of one block.
struct Nibbles {
  static constexpr int kQuantBytes = 256;
  DSPARK_INLINE static void pair(const uint8_t* q, int z, __m512i& g0, __m512i& g1) {
    const __m512i x = load_quants(q + 64 * z);
    g0 = low_nibbles(x);
    g1 = high_nibbles(x);
  }
};
struct FiveBits {
  static constexpr int kQuantBytes = 320;
  DSPARK_INLINE static void pair(const uint8_t* q, int z, __m512i& g0, __m512i& g1) {
    const __m512i high = load_quants(q + 256);
    Nibbles::pair(q, z, g0, g1);
    g0 = or_masked(g0, shift_bits(high, 4 - 2 * z), 0x10);
    g1 = or_masked(g1, shift_bits(high, 3 - 2 * z), 0x10);
  }
};
struct SixBits {
  static constexpr int kQuantBytes = 384;
  DSPARK_INLINE static void pair(const uint8_t* q, int z, __m512i& g0, __m512i& g1) {
    const __m512i high = load_quants(q + 256 + 64 * (z / 2));
    const int bit = 4 * (z % 2);  // groups 2z and 2z + 1 sit at bits 4 (z % 2) and 4 (z % 2) + 2
    Nibbles::pair(q, z, g0, g1);
    g0 = or_masked(g0, shift_bits(high, 4 - bit), 0x30);
    g1 = or_masked(g1, shift_bits(high, 2 - bit), 0x30);
  }
};
struct Bytes {
  static constexpr int kQuantBytes = 512;
  DSPARK_INLINE static void pair(const uint8_t* q, int z, __m512i& g0, __m512i& g1) {
    g0 = load_quants(q + 128 * z);
    g1 = load_quants(q + 128 * z + 64);
  }
};

// Nibbles as indices into 16 signed values; +128 makes the result unsigned.
template <const int8_t (&kTable)[16]>
struct TableNibbles {
  static constexpr int kQuantBytes = 256;
  DSPARK_INLINE static void pair(const uint8_t* q, int z, __m512i& g0, __m512i& g1) {
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kTable));
    const __m512i table =
        _mm512_broadcast_i32x4(_mm_xor_si128(values, _mm_set1_epi8(static_cast<char>(0x80))));
    Nibbles::pair(q, z, g0, g1);
    g0 = _mm512_shuffle_epi8(table, g0);
    g1 = _mm512_shuffle_epi8(table, g1);
  }
};

// kBiasShift: the stored quants exceed the values by 8 << kBiasShift (-1: by nothing).
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
using KindQ8_0 = Kind<Bytes, 4, ScaleMode::kF16>;
using KindQ2_K = Kind<Nibbles, -1, ScaleMode::kByteHalvesMin>;
using KindQ3_K = Kind<Nibbles, 0, ScaleMode::kByteHalves>;
using KindQ4_K = Kind<Nibbles, -1, ScaleMode::kByteMin>;
using KindQ5_K = Kind<FiveBits, -1, ScaleMode::kByteMin>;
using KindQ6_K = Kind<SixBits, 2, ScaleMode::kByteHalves>;
using KindIQ4_NL = Kind<TableNibbles<kIq4Values>, 4, ScaleMode::kF16>;
using KindIQ4_XS = Kind<TableNibbles<kIq4Values>, 4, ScaleMode::kByte>;
using KindMXFP4 = Kind<TableNibbles<kE2m1Doubled>, 4, ScaleMode::kE8M0>;

// Scales of a block in 16 lanes; index 1 only where halves have their own.
struct BlockScales {
  __m512 scale[2];
  __m512 min[2];
};

DSPARK_INLINE __m512 load_half_e8m0(const uint8_t* p) {
  const __m512i e = _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
  const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
  const __m512i subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
  const __mmask16 small = _mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2));
  return _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, small, subnormal));
}

// d and dmin: super-scales of the chunk (dmin already negative).
template <class K>
DSPARK_INLINE BlockScales load_scales(const uint8_t* s, __m512 d, __m512 dmin) {
  BlockScales out{};
  if constexpr (K::kMode == ScaleMode::kF16 || K::kMode == ScaleMode::kF16Min) {
    out.scale[0] = load_f16(s);
    if constexpr (K::kMin) out.min[0] = load_f16(s + 32);
  } else if constexpr (K::kMode == ScaleMode::kE8M0) {
    out.scale[0] = load_half_e8m0(s);
  } else if constexpr (K::kMin) {
    constexpr int kParts = K::kHalves ? 2 : 1;
    for (int i = 0; i < kParts; ++i) {
      out.scale[i] = _mm512_mul_ps(d, load_u8(s + 16 * i));
      out.min[i] = _mm512_mul_ps(dmin, load_u8(s + 16 * (kParts + i)));
    }
  } else {
    out.scale[0] = _mm512_mul_ps(d, load_i8(s));
    if constexpr (K::kHalves) out.scale[1] = _mm512_mul_ps(d, load_i8(s + 16));
  }
  return out;
}

DSPARK_INLINE __m512i broadcast_quad(const ActBlock& a, int g) {
  int32_t quad;
  __builtin_memcpy(&quad, a.q + 4 * g, 4);
  return _mm512_set1_epi32(quad);
}

// -bias * sum(q) of a whole block (half < 0) or of one half, in every lane.
template <class K>
DSPARK_INLINE __m512i start_sum(const ActBlock& a, int half) {
  if constexpr (K::kBiasShift < 0) return _mm512_setzero_si512();
  const __m512i b = _mm512_set1_epi32(half < 0 ? a.bias8 : a.bias8_half[half]);
  return _mm512_slli_epi32(b, static_cast<unsigned>(K::kBiasShift < 0 ? 0 : K::kBiasShift));
}

}  // namespace
}  // namespace dspark

#endif  // DSPARK_KERNELS_CPU_PANEL_KINDS_AVX512_INL_H_
