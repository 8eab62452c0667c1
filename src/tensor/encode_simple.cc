// Writers of F32, F16, BF16 and the simple blocks of 32 elements. Bit layouts: blocks.h.
//
// Levels are chosen with the scale as it will be read back (rounded to binary16), not the exact one.

#include <cstring>

#include "tensor/blocks.h"
#include "tensor/encode_blocks.h"
#include "tensor/fit.h"

namespace dspark {
namespace {

void encode_f32(const float* src, uint8_t* dst, int64_t n) {
  std::memcpy(dst, src, static_cast<size_t>(n) * sizeof(float));
}

template <uint16_t (*kConvert)(float)>
void encode_16_bit(const float* src, uint8_t* dst, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t bits = kConvert(src[i]);
    std::memcpy(dst + 2 * i, &bits, sizeof(bits));
  }
}

template <typename Block, void (*kEncodeBlock)(const float*, Block&)>
void encode_each_block(const float* src, uint8_t* dst, int64_t n) {
  auto* block = reinterpret_cast<Block*>(dst);
  for (int64_t i = 0; i < n; i += kBlock32) kEncodeBlock(src + i, *block++);
}

/// q[j] = nearest level of (x[j] - offset) / scale, shifted up by `bias`.
void choose_levels(const float* x, float scale, float offset, int low, int high, int bias, uint8_t* q) {
  const float inverse = inverse_or_zero(scale);
  for (int j = 0; j < kBlock32; ++j) {
    const int level =
        round_to_level((x[j] - offset) * inverse, static_cast<float>(low), static_cast<float>(high));
    q[j] = static_cast<uint8_t>(level + bias);
  }
}

void pack_nibbles(const uint8_t* q, uint8_t* qs) {
  for (int j = 0; j < 16; ++j) qs[j] = static_cast<uint8_t>((q[j] & 15) | (q[j + 16] & 15) << 4);
}

void pack_fifth_bits(const uint8_t* q, uint8_t* qh) {
  for (int j = 0; j < 4; ++j) {
    int byte = 0;
    for (int k = 0; k < 8; ++k) byte |= (q[8 * j + k] >> 4) << k;
    qh[j] = static_cast<uint8_t>(byte);
  }
}

void encode_q4_0(const float* x, BlockQ4_0& b) {
  uint8_t q[kBlock32];
  const uint16_t d = to_scale_bits(fit_symmetric<kBlock32>(x, -8, 7));
  choose_levels(x, f16_to_f32(d), 0.0f, -8, 7, 8, q);
  b.d = d;
  pack_nibbles(q, b.qs);
}

void encode_q5_0(const float* x, BlockQ5_0& b) {
  uint8_t q[kBlock32];
  const uint16_t d = to_scale_bits(fit_symmetric<kBlock32>(x, -16, 15));
  choose_levels(x, f16_to_f32(d), 0.0f, -16, 15, 16, q);
  b.d = d;
  pack_nibbles(q, b.qs);
  pack_fifth_bits(q, b.qh);
}

void encode_q4_1(const float* x, BlockQ4_1& b) {
  uint8_t q[kBlock32];
  const AffineFit fit = fit_affine<kBlock32>(x, 15, false);
  const uint16_t d = to_scale_bits(fit.scale);
  const uint16_t m = to_scale_bits(fit.offset);
  choose_levels(x, f16_to_f32(d), f16_to_f32(m), 0, 15, 0, q);
  b.d = d;
  b.m = m;
  pack_nibbles(q, b.qs);
}

void encode_q5_1(const float* x, BlockQ5_1& b) {
  uint8_t q[kBlock32];
  const AffineFit fit = fit_affine<kBlock32>(x, 31, false);
  const uint16_t d = to_scale_bits(fit.scale);
  const uint16_t m = to_scale_bits(fit.offset);
  choose_levels(x, f16_to_f32(d), f16_to_f32(m), 0, 31, 0, q);
  b.d = d;
  b.m = m;
  pack_nibbles(q, b.qs);
  pack_fifth_bits(q, b.qh);
}

/// Eight bits leave nothing to search for: the largest magnitude becomes 127.
void encode_q8_0(const float* x, BlockQ8_0& b) {
  float peak = 0.0f;
  for (int j = 0; j < kBlock32; ++j) peak = std::max(peak, std::fabs(x[j]));
  const uint16_t d = to_scale_bits(peak / 127.0f);
  const float inverse = inverse_or_zero(f16_to_f32(d));
  b.d = d;
  for (int j = 0; j < kBlock32; ++j)
    b.qs[j] = static_cast<int8_t>(round_to_level(x[j] * inverse, -127.0f, 127.0f));
}

}  // namespace

EncodeFn find_simple_encoder(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return encode_f32;
    case DType::kF16:
      return encode_16_bit<f32_to_f16>;
    case DType::kBF16:
      return encode_16_bit<f32_to_bf16>;
    case DType::kQ4_0:
      return encode_each_block<BlockQ4_0, encode_q4_0>;
    case DType::kQ4_1:
      return encode_each_block<BlockQ4_1, encode_q4_1>;
    case DType::kQ5_0:
      return encode_each_block<BlockQ5_0, encode_q5_0>;
    case DType::kQ5_1:
      return encode_each_block<BlockQ5_1, encode_q5_1>;
    case DType::kQ8_0:
      return encode_each_block<BlockQ8_0, encode_q8_0>;
    default:
      return nullptr;
  }
}

}  // namespace dspark
