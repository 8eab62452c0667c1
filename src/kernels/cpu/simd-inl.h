// A dozen vector operations on floats, the same names for every instruction set, chosen by the flags of the
// including file: AVX-512, AVX2, or the compiler's generic 4-lane vectors (any CPU).
//
// For the kernels in this folder only. Everything has internal linkage and no standard header with inline
// functions is included, so instances for different instruction sets cannot be merged by the linker.
#pragma once

#include <cstddef>
#include <cstdint>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define DSPARK_INLINE inline __attribute__((always_inline))

namespace dspark {
namespace {

#if defined(__AVX512F__)

constexpr int kLanes = 16;
using VecF = __m512;
using VecI = __m512i;
using Mask = __mmask16;

DSPARK_INLINE VecF load(const float* p) {
  return _mm512_loadu_ps(p);
}
DSPARK_INLINE void store(float* p, VecF x) {
  _mm512_storeu_ps(p, x);
}
DSPARK_INLINE Mask first_lanes(int n) {
  return static_cast<Mask>((1u << n) - 1u);
}
DSPARK_INLINE VecF load_n(const float* p, int n) {
  return _mm512_maskz_loadu_ps(first_lanes(n), p);
}
DSPARK_INLINE void store_n(float* p, VecF x, int n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), x);
}
DSPARK_INLINE VecF set1(float x) {
  return _mm512_set1_ps(x);
}
DSPARK_INLINE VecF fma(VecF a, VecF b, VecF c) {
  return _mm512_fmadd_ps(a, b, c);
}
DSPARK_INLINE VecF fnma(VecF a, VecF b, VecF c) {
  return _mm512_fnmadd_ps(a, b, c);
}
DSPARK_INLINE VecF max(VecF a, VecF b) {
  return _mm512_max_ps(a, b);
}
DSPARK_INLINE VecF min(VecF a, VecF b) {
  return _mm512_min_ps(a, b);
}
DSPARK_INLINE VecF abs(VecF a) {
  return _mm512_abs_ps(a);
}
DSPARK_INLINE VecI bits_of(VecF x) {
  return _mm512_castps_si512(x);
}
DSPARK_INLINE VecF float_of(VecI x) {
  return _mm512_castsi512_ps(x);
}
DSPARK_INLINE VecI seti(int32_t x) {
  return _mm512_set1_epi32(x);
}
DSPARK_INLINE VecI addi(VecI a, VecI b) {
  return _mm512_add_epi32(a, b);
}
template <int kBits>
DSPARK_INLINE VecI shift_left(VecI x) {
  return _mm512_slli_epi32(x, kBits);
}
template <int kBits>
DSPARK_INLINE VecI shift_right_signed(VecI x) {
  return _mm512_srai_epi32(x, kBits);
}
template <int kBits>
DSPARK_INLINE VecI shift_right(VecI x) {
  return _mm512_srli_epi32(x, kBits);
}
DSPARK_INLINE VecI andi(VecI a, VecI b) {
  return _mm512_and_si512(a, b);
}
DSPARK_INLINE VecI ori(VecI a, VecI b) {
  return _mm512_or_si512(a, b);
}
DSPARK_INLINE void store_i(void* p, VecI x) {
  _mm512_storeu_si512(p, x);
}
DSPARK_INLINE VecF to_float(VecI x) {
  return _mm512_cvtepi32_ps(x);
}
DSPARK_INLINE Mask less(VecF a, VecF b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
DSPARK_INLINE Mask is_number(VecF a) {
  return _mm512_cmp_ps_mask(a, a, _CMP_ORD_Q);
}
DSPARK_INLINE VecF select(Mask m, VecF yes, VecF no) {
  return _mm512_mask_blend_ps(m, no, yes);
}
DSPARK_INLINE VecF select_or_zero(Mask m, VecF yes) {
  return _mm512_maskz_mov_ps(m, yes);
}
DSPARK_INLINE VecI load_i(const void* p) {
  return _mm512_loadu_si512(p);
}
DSPARK_INLINE VecI load_i8(const int8_t* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
DSPARK_INLINE VecF load_bf16(const uint16_t* p) {
  return float_of(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
}
DSPARK_INLINE VecF iota() {
  return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

#elif defined(__AVX2__)

constexpr int kLanes = 8;
using VecF = __m256;
using VecI = __m256i;
using Mask = __m256;

alignas(64) constexpr int32_t kLaneMasks[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

DSPARK_INLINE VecI first_lanes(int n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kLaneMasks + 8 - n));
}
DSPARK_INLINE VecF load(const float* p) {
  return _mm256_loadu_ps(p);
}
DSPARK_INLINE void store(float* p, VecF x) {
  _mm256_storeu_ps(p, x);
}
DSPARK_INLINE VecF load_n(const float* p, int n) {
  return _mm256_maskload_ps(p, first_lanes(n));
}
DSPARK_INLINE void store_n(float* p, VecF x, int n) {
  _mm256_maskstore_ps(p, first_lanes(n), x);
}
DSPARK_INLINE VecF set1(float x) {
  return _mm256_set1_ps(x);
}
DSPARK_INLINE VecF fma(VecF a, VecF b, VecF c) {
  return _mm256_fmadd_ps(a, b, c);
}
DSPARK_INLINE VecF fnma(VecF a, VecF b, VecF c) {
  return _mm256_fnmadd_ps(a, b, c);
}
DSPARK_INLINE VecF max(VecF a, VecF b) {
  return _mm256_max_ps(a, b);
}
DSPARK_INLINE VecF min(VecF a, VecF b) {
  return _mm256_min_ps(a, b);
}
DSPARK_INLINE VecI bits_of(VecF x) {
  return _mm256_castps_si256(x);
}
DSPARK_INLINE VecF float_of(VecI x) {
  return _mm256_castsi256_ps(x);
}
DSPARK_INLINE VecI seti(int32_t x) {
  return _mm256_set1_epi32(x);
}
DSPARK_INLINE VecI addi(VecI a, VecI b) {
  return _mm256_add_epi32(a, b);
}
template <int kBits>
DSPARK_INLINE VecI shift_left(VecI x) {
  return _mm256_slli_epi32(x, kBits);
}
template <int kBits>
DSPARK_INLINE VecI shift_right_signed(VecI x) {
  return _mm256_srai_epi32(x, kBits);
}
template <int kBits>
DSPARK_INLINE VecI shift_right(VecI x) {
  return _mm256_srli_epi32(x, kBits);
}
DSPARK_INLINE VecI andi(VecI a, VecI b) {
  return _mm256_and_si256(a, b);
}
DSPARK_INLINE VecI ori(VecI a, VecI b) {
  return _mm256_or_si256(a, b);
}
DSPARK_INLINE void store_i(void* p, VecI x) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), x);
}
DSPARK_INLINE VecF to_float(VecI x) {
  return _mm256_cvtepi32_ps(x);
}
DSPARK_INLINE VecF abs(VecF a) {
  return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
DSPARK_INLINE Mask less(VecF a, VecF b) {
  return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}
DSPARK_INLINE Mask is_number(VecF a) {
  return _mm256_cmp_ps(a, a, _CMP_ORD_Q);
}
DSPARK_INLINE VecF select(Mask m, VecF yes, VecF no) {
  return _mm256_blendv_ps(no, yes, m);
}
DSPARK_INLINE VecF select_or_zero(Mask m, VecF yes) {
  return _mm256_and_ps(m, yes);
}
DSPARK_INLINE VecI load_i(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
DSPARK_INLINE VecI load_i8(const int8_t* p) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
DSPARK_INLINE VecF load_bf16(const uint16_t* p) {
  return float_of(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
}
DSPARK_INLINE VecF iota() {
  return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
}

#else

constexpr int kLanes = 4;
typedef float VecF __attribute__((vector_size(16)));
typedef int32_t VecI __attribute__((vector_size(16)));
using Mask = VecI;

DSPARK_INLINE VecF load(const float* p) {
  VecF x;
  __builtin_memcpy(&x, p, sizeof(x));
  return x;
}
DSPARK_INLINE void store(float* p, VecF x) {
  __builtin_memcpy(p, &x, sizeof(x));
}
DSPARK_INLINE VecF load_n(const float* p, int n) {
  VecF x = {0, 0, 0, 0};
  for (int i = 0; i < n; ++i) x[i] = p[i];
  return x;
}
DSPARK_INLINE void store_n(float* p, VecF x, int n) {
  for (int i = 0; i < n; ++i) p[i] = x[i];
}
DSPARK_INLINE VecF set1(float x) {
  return VecF{x, x, x, x};
}
DSPARK_INLINE VecF fma(VecF a, VecF b, VecF c) {
  return a * b + c;
}
DSPARK_INLINE VecF fnma(VecF a, VecF b, VecF c) {
  return c - a * b;
}
DSPARK_INLINE VecI bits_of(VecF x) {
  return reinterpret_cast<VecI>(x);
}
DSPARK_INLINE VecF float_of(VecI x) {
  return reinterpret_cast<VecF>(x);
}
DSPARK_INLINE VecI seti(int32_t x) {
  return VecI{x, x, x, x};
}
DSPARK_INLINE VecI addi(VecI a, VecI b) {
  return a + b;
}
template <int kBits>
DSPARK_INLINE VecI shift_left(VecI x) {
  return x << kBits;
}
template <int kBits>
DSPARK_INLINE VecI shift_right_signed(VecI x) {
  return x >> kBits;
}
template <int kBits>
DSPARK_INLINE VecI shift_right(VecI x) {
  typedef uint32_t VecU __attribute__((vector_size(16)));
  return reinterpret_cast<VecI>(reinterpret_cast<VecU>(x) >> kBits);
}
DSPARK_INLINE VecI andi(VecI a, VecI b) {
  return a & b;
}
DSPARK_INLINE VecI ori(VecI a, VecI b) {
  return a | b;
}
DSPARK_INLINE void store_i(void* p, VecI x) {
  __builtin_memcpy(p, &x, sizeof(x));
}
DSPARK_INLINE VecF to_float(VecI x) {
  return __builtin_convertvector(x, VecF);
}
DSPARK_INLINE VecF abs(VecF a) {
  return float_of(bits_of(a) & seti(INT32_MAX));
}
DSPARK_INLINE Mask less(VecF a, VecF b) {
  return a < b;
}
DSPARK_INLINE Mask is_number(VecF a) {
  return a == a;
}
DSPARK_INLINE VecF select(Mask m, VecF yes, VecF no) {
  return float_of((m & bits_of(yes)) | (~m & bits_of(no)));
}
DSPARK_INLINE VecF select_or_zero(Mask m, VecF yes) {
  return float_of(m & bits_of(yes));
}
DSPARK_INLINE VecF max(VecF a, VecF b) {
  return select(less(b, a), a, b);
}
DSPARK_INLINE VecF min(VecF a, VecF b) {
  return select(less(a, b), a, b);
}
DSPARK_INLINE VecI load_i(const void* p) {
  VecI x;
  __builtin_memcpy(&x, p, sizeof(x));
  return x;
}
DSPARK_INLINE VecI load_i8(const int8_t* p) {
  return VecI{p[0], p[1], p[2], p[3]};
}
DSPARK_INLINE VecF load_bf16(const uint16_t* p) {
  return float_of(VecI{p[0], p[1], p[2], p[3]} << 16);
}
DSPARK_INLINE VecF iota() {
  return VecF{0, 1, 2, 3};
}

#endif

/// Low and high bf16 of every 32-bit lane as floats.
DSPARK_INLINE VecF low_bf16(VecI pair) {
  return float_of(shift_left<16>(pair));
}
DSPARK_INLINE VecF high_bf16(VecI pair) {
  return float_of(andi(pair, seti(-65536)));
}

/// Sum and maximum over the lanes, always in the same order: halves are folded onto each other.
#if defined(__AVX2__)
#if defined(__AVX512F__)
DSPARK_INLINE __m256 upper_half(__m512 x) {
  return _mm512_extractf32x8_ps(x, 1);
}
DSPARK_INLINE __m256 fold_add(__m512 x) {
  return _mm256_add_ps(_mm512_castps512_ps256(x), upper_half(x));
}
DSPARK_INLINE __m256 fold_max(__m512 x) {
  return _mm256_max_ps(_mm512_castps512_ps256(x), upper_half(x));
}
#else
DSPARK_INLINE __m256 fold_add(__m256 x) {
  return x;
}
DSPARK_INLINE __m256 fold_max(__m256 x) {
  return x;
}
#endif
DSPARK_INLINE float reduce_add(VecF x) {
  const __m256 y = fold_add(x);
  __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  z = _mm_add_ps(z, _mm_movehl_ps(z, z));
  return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
}
DSPARK_INLINE float reduce_max(VecF x) {
  const __m256 y = fold_max(x);
  __m128 z = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  z = _mm_max_ps(z, _mm_movehl_ps(z, z));
  return _mm_cvtss_f32(_mm_max_ss(z, _mm_movehdup_ps(z)));
}
#else
DSPARK_INLINE float reduce_add(VecF x) {
  return (x[0] + x[2]) + (x[1] + x[3]);
}
DSPARK_INLINE float reduce_max(VecF x) {
  const float a = x[0] > x[2] ? x[0] : x[2], b = x[1] > x[3] ? x[1] : x[3];
  return a > b ? a : b;
}
#endif

}  // namespace
}  // namespace dspark
