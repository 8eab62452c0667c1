// Plain number types and the simple blocks of 32 elements.
//
// The products and sums stand exactly as in the reference decoders (scale times integer, then plus minimum,
// in float), because results are compared bit by bit.

#include <bit>
#include <cstring>

#include "tensor/blocks.h"
#include "tensor/decode_blocks.h"
#include "tensor/dtype.h"
#include "tensor/half.h"

namespace dspark {
namespace {

void decode_f32(const uint8_t* src, float* dst, int64_t n) {
  std::memcpy(dst, src, static_cast<size_t>(n) * sizeof(float));
}

/// Any fixed-width number through a conversion; memcpy because file data promises no alignment.
template <typename Stored, float (*kConvert)(Stored)>
void decode_each(const uint8_t* src, float* dst, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    Stored value;
    std::memcpy(&value, src + static_cast<size_t>(i) * sizeof(Stored), sizeof(Stored));
    dst[i] = kConvert(value);
  }
}

template <typename T>
float as_float(T value) {
  return static_cast<float>(value);
}

float bool_to_f32(uint8_t value) {
  return value != 0 ? 1.0f : 0.0f;
}

/// OCP 8-bit floating point, E4M3: bias 7, no infinity, exponent and mantissa all ones is NaN.
float e4m3_to_f32(uint8_t v) {
  const int exponent = (v >> 3) & 15;
  const int mantissa = v & 7;
  const uint32_t sign = static_cast<uint32_t>(v & 0x80) << 24;
  if (exponent == 15 && mantissa == 7) return std::bit_cast<float>(sign | 0x7fc00000u);
  const float magnitude = exponent == 0 ? static_cast<float>(mantissa) * 0x1p-9f
                                        : std::bit_cast<float>(static_cast<uint32_t>(exponent + 120) << 23 |
                                                               static_cast<uint32_t>(mantissa) << 20);
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

/// OCP 8-bit floating point, E5M2: the upper byte of a binary16 number.
float e5m2_to_f32(uint8_t v) {
  return f16_to_f32(static_cast<uint16_t>(v << 8));
}

/// A power of two, 2^(v - 127); 255 is NaN (OCP microscaling formats).
float e8m0_to_f32(uint8_t v) {
  if (v == 255) return std::bit_cast<float>(0x7fc00000u);
  return std::bit_cast<float>(v == 0 ? 0x00400000u : static_cast<uint32_t>(v) << 23);
}

uint32_t load_u32(const uint8_t* bytes) {
  uint32_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

void decode_q4_0(const BlockQ4_0& b, float* dst) {
  const float d = f16_to_f32(b.d);
  for (int j = 0; j < 16; ++j) {
    dst[j] = d * static_cast<float>((b.qs[j] & 15) - 8);
    dst[j + 16] = d * static_cast<float>((b.qs[j] >> 4) - 8);
  }
}

void decode_q4_1(const BlockQ4_1& b, float* dst) {
  const float d = f16_to_f32(b.d);
  const float m = f16_to_f32(b.m);
  for (int j = 0; j < 16; ++j) {
    dst[j] = d * static_cast<float>(b.qs[j] & 15) + m;
    dst[j + 16] = d * static_cast<float>(b.qs[j] >> 4) + m;
  }
}

void decode_q5_0(const BlockQ5_0& b, float* dst) {
  const float d = f16_to_f32(b.d);
  const uint32_t qh = load_u32(b.qh);
  for (int j = 0; j < 16; ++j) {
    const int low = (b.qs[j] & 15) | static_cast<int>(((qh >> j) & 1) << 4);
    const int high = (b.qs[j] >> 4) | static_cast<int>(((qh >> (j + 16)) & 1) << 4);
    dst[j] = d * static_cast<float>(low - 16);
    dst[j + 16] = d * static_cast<float>(high - 16);
  }
}

void decode_q5_1(const BlockQ5_1& b, float* dst) {
  const float d = f16_to_f32(b.d);
  const float m = f16_to_f32(b.m);
  const uint32_t qh = load_u32(b.qh);
  for (int j = 0; j < 16; ++j) {
    const int low = (b.qs[j] & 15) | static_cast<int>(((qh >> j) & 1) << 4);
    const int high = (b.qs[j] >> 4) | static_cast<int>(((qh >> (j + 16)) & 1) << 4);
    dst[j] = d * static_cast<float>(low) + m;
    dst[j + 16] = d * static_cast<float>(high) + m;
  }
}

void decode_q8_0(const BlockQ8_0& b, float* dst) {
  const float d = f16_to_f32(b.d);
  for (int j = 0; j < 32; ++j) dst[j] = d * static_cast<float>(b.qs[j]);
}

}  // namespace

DecodeFn find_simple_decoder(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return decode_f32;
    case DType::kF16:
      return decode_each<uint16_t, f16_to_f32>;
    case DType::kBF16:
      return decode_each<uint16_t, bf16_to_f32>;
    case DType::kF64:
      return decode_each<double, as_float<double>>;
    case DType::kI8:
      return decode_each<int8_t, as_float<int8_t>>;
    case DType::kI16:
      return decode_each<int16_t, as_float<int16_t>>;
    case DType::kI32:
      return decode_each<int32_t, as_float<int32_t>>;
    case DType::kI64:
      return decode_each<int64_t, as_float<int64_t>>;
    case DType::kU8:
      return decode_each<uint8_t, as_float<uint8_t>>;
    case DType::kU16:
      return decode_each<uint16_t, as_float<uint16_t>>;
    case DType::kU32:
      return decode_each<uint32_t, as_float<uint32_t>>;
    case DType::kU64:
      return decode_each<uint64_t, as_float<uint64_t>>;
    case DType::kBool:
      return decode_each<uint8_t, bool_to_f32>;
    case DType::kF8_E4M3:
      return decode_each<uint8_t, e4m3_to_f32>;
    case DType::kF8_E5M2:
      return decode_each<uint8_t, e5m2_to_f32>;
    case DType::kF8_E8M0:
      return decode_each<uint8_t, e8m0_to_f32>;
    case DType::kQ4_0:
      return decode_each_block<BlockQ4_0, 32, decode_q4_0>;
    case DType::kQ4_1:
      return decode_each_block<BlockQ4_1, 32, decode_q4_1>;
    case DType::kQ5_0:
      return decode_each_block<BlockQ5_0, 32, decode_q5_0>;
    case DType::kQ5_1:
      return decode_each_block<BlockQ5_1, 32, decode_q5_1>;
    case DType::kQ8_0:
      return decode_each_block<BlockQ8_0, 32, decode_q8_0>;
    default:
      return nullptr;
  }
}

}  // namespace dspark
