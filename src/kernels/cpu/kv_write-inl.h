// Rounding of K and V rows to the cache type, and their place in the page: see kernels/kv_layout.h.
#pragma once

#include "kernels/cpu/simd-inl.h"
#include "kernels/kv_layout.h"

namespace dspark {
namespace {

// Stored numbers are always finite: a page that held an overflown sequence may be read, and multiplied with
// zero, by the next one. Infinities become +-limit, NaN becomes 0.
DSPARK_INLINE VecF finite(VecF x, float limit) {
  return select_or_zero(is_number(x), max(set1(-limit), min(set1(limit), x)));
}

constexpr float kLargestFloat = 3.40282347e38f;
constexpr float kLargestBf16 = 3.38953139e38f;

// bf16 bits in the low half of every lane: to nearest, ties to even.
DSPARK_INLINE VecI bf16_bits(VecF x) {
  const VecI bits = bits_of(finite(x, kLargestBf16));
  const VecI odd = andi(shift_right<16>(bits), seti(1));
  return shift_right<16>(addi(bits, addi(odd, seti(0x7fff))));
}

// fn(column, vector of floats, lanes) over a row.
template <typename F>
DSPARK_INLINE void for_row(const float* x, int32_t n, F&& fn) {
  int32_t d = 0;
  for (; d + kLanes <= n; d += kLanes) fn(d, load(x + d), kLanes);
  if (d < n) fn(d, load_n(x + d, n - d), n - d);
}

void write_f32(const KvHeadLayout& layout, uint8_t* block, int slot, const float* k, const float* v) {
  float* k_out = reinterpret_cast<float*>(block + slot / kKvPanel * layout.k_panel_bytes) + slot % kKvPanel;
  float* v_out = reinterpret_cast<float*>(block + layout.v_offset) + slot * layout.v_dim;
  for_row(k, layout.head_dim, [&](int32_t d, VecF x, int n) {
    float lanes[kLanes];
    store(lanes, finite(x, kLargestFloat));
    for (int i = 0; i < n; ++i) k_out[(d + i) * kKvPanel] = lanes[i];
  });
  for_row(v, layout.head_dim,
          [&](int32_t d, VecF x, int n) { store_n(v_out + d, finite(x, kLargestFloat), n); });
}

void write_bf16(const KvHeadLayout& layout, uint8_t* block, int slot, const float* k, const float* v) {
  uint32_t* k_out =
      reinterpret_cast<uint32_t*>(block + slot / kKvPanel * layout.k_panel_bytes) + slot % kKvPanel;
  for_row(k, layout.head_dim, [&](int32_t d, VecF x, int n) {
    uint32_t bits[kLanes];
    store_i(bits, bf16_bits(x));
    for (int i = 0; i < n; i += 2) k_out[(d + i) / 2 * kKvPanel] = bits[i] | bits[i + 1] << 16;
  });
  // Two positions share a 32-bit lane of V; the other one's half stays. Lanes past head_dim are padding, into
  // which the zeros of a partly filled vector go.
  uint32_t* v_out = reinterpret_cast<uint32_t*>(block + layout.v_offset) + slot / 2 * layout.v_dim;
  for_row(v, layout.head_dim, [&](int32_t d, VecF x, int) {
    const VecI bits = bf16_bits(x), old = load_i(v_out + d);
    store_i(v_out + d, slot % 2 == 0 ? ori(andi(old, seti(-65536)), bits)
                                     : ori(andi(old, seti(65535)), shift_left<16>(bits)));
  });
}

// One block of 32 elements in int8. Returns the scale's bits: max|x| / 127 rounded up to bf16, so that
// quotients stay within +-127.
uint16_t quantise_block(const float* x, int8_t* q) {
  VecF largest = set1(0.0f);
  for (int i = 0; i < kKvScaleBlock; i += kLanes)
    largest = max(largest, abs(finite(load(x + i), kLargestFloat)));
  const float exact = reduce_max(largest) / 127.0f;
  uint32_t bits;
  __builtin_memcpy(&bits, &exact, sizeof(bits));
  const uint32_t scale_bits = (bits + 0xffffu) >> 16 << 16;
  float scale;
  __builtin_memcpy(&scale, &scale_bits, sizeof(scale));
  // Blocks of denormals become zeros instead of being divided by (nearly) nothing.
  constexpr float kSmallestNormal = 1.17549435e-38f;
  const VecF inverse = set1(scale >= kSmallestNormal ? 1.0f / scale : 0.0f);
  const VecF magic = set1(12582912.0f);  // adding it rounds to an integer, ties to even
  for (int i = 0; i < kKvScaleBlock; i += kLanes) {
    int32_t lanes[kLanes];
    const VecF quotient = finite(load(x + i), kLargestFloat) * inverse;
    const VecF limited = max(set1(-127.0f), min(set1(127.0f), quotient));
    store_i(lanes, bits_of(limited + magic));
    for (int j = 0; j < kLanes; ++j) q[i + j] = static_cast<int8_t>(lanes[j] & 0xff);
  }
  return static_cast<uint16_t>(scale_bits >> 16);
}

void write_q8(const KvHeadLayout& layout, uint8_t* block, int slot, const float* k, const float* v) {
  const int32_t n_blocks = layout.head_dim / kKvScaleBlock;
  const int panel = slot / kKvPanel, lane = slot % kKvPanel;
  uint32_t* k_out = reinterpret_cast<uint32_t*>(block + panel * layout.k_panel_bytes) + lane;
  uint16_t* k_scale =
      reinterpret_cast<uint16_t*>(block + layout.k_scale_offset) + panel * n_blocks * kKvPanel + lane;
  int8_t* v_out = reinterpret_cast<int8_t*>(block + layout.v_offset) + slot * layout.head_dim;
  uint16_t* v_scale = reinterpret_cast<uint16_t*>(block + layout.v_scale_offset) + slot * n_blocks;
  for (int32_t b = 0; b < n_blocks; ++b) {
    int8_t q[kKvScaleBlock];
    k_scale[b * kKvPanel] = quantise_block(k + b * kKvScaleBlock, q);
    for (int i = 0; i < kKvScaleBlock; i += 4) {
      uint32_t four;
      __builtin_memcpy(&four, q + i, sizeof(four));
      k_out[(b * kKvScaleBlock + i) / 4 * kKvPanel] = four;
    }
    v_scale[b] = quantise_block(v + b * kKvScaleBlock, v_out + b * kKvScaleBlock);
  }
}

void write_row(KvDType dtype, const KvHeadLayout& layout, uint8_t* block, int slot, const float* k,
               const float* v) {
  switch (dtype) {
    case KvDType::kF32:
      return write_f32(layout, block, slot, k, v);
    case KvDType::kBF16:
      return write_bf16(layout, block, slot, k, v);
    case KvDType::kQ8_0:
      return write_q8(layout, block, slot, k, v);
  }
}

}  // namespace
}  // namespace dspark
