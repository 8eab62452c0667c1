// 4-bit float types, ternary and binary types.

#include <bit>

#include "tensor/blocks.h"
#include "tensor/decode_blocks.h"
#include "tensor/dtype.h"
#include "tensor/half.h"

namespace dspark {
namespace {

/// 2^(e - 128): half of the block scale, because kE2m1Doubled holds doubled values. Exact, subnormals
/// included.
float half_e8m0(uint8_t e) {
  const uint32_t bits = e < 2 ? 0x00200000u << e : static_cast<uint32_t>(e - 1) << 23;
  return std::bit_cast<float>(bits);
}

/// Half of an unsigned E4M3 scale (bias 7). 0x7f, the NaN of the format, stands for 0.
float half_ue4m3(uint8_t v) {
  if (v == 0 || v == 0x7f) return 0.0f;
  const int exponent = (v >> 3) & 15;
  const auto mantissa = static_cast<uint32_t>(v & 7);
  if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-10f;
  return std::bit_cast<float>(static_cast<uint32_t>(exponent + 119) << 23 | mantissa << 20);
}

void decode_mxfp4(const BlockMXFP4& b, float* dst) {
  const float d = half_e8m0(b.e);
  for (int j = 0; j < 16; ++j) {
    dst[j] = d * static_cast<float>(kE2m1Doubled[b.qs[j] & 15]);
    dst[j + 16] = d * static_cast<float>(kE2m1Doubled[b.qs[j] >> 4]);
  }
}

void decode_nvfp4(const BlockNVFP4& b, float* dst) {
  for (int g = 0; g < 4; ++g) {
    const float d = half_ue4m3(b.d[g]);
    for (int j = 0; j < 8; ++j) {
      const uint8_t q = b.qs[8 * g + j];
      dst[16 * g + j] = d * static_cast<float>(kE2m1Doubled[q & 15]);
      dst[16 * g + j + 8] = d * static_cast<float>(kE2m1Doubled[q >> 4]);
    }
  }
}

/// Digit `k` (0 = most significant) of a byte that holds ceil(256 * t / 243) for a five-digit base-3 number
/// t: multiplying by 3^k modulo 256 shifts the wanted digit to the front of the fraction.
int ternary_digit(uint8_t packed, int k) {
  constexpr uint8_t kPowers[5] = {1, 3, 9, 27, 81};
  const auto fraction = static_cast<uint8_t>(packed * kPowers[k]);
  return (fraction * 3) >> 8;
}

void decode_tq1_0(const BlockTQ1_0& b, float* dst) {
  const float d = f16_to_f32(b.d);
  // Elements 0..159: digit k of bytes 0..31; 160..239: of bytes 32..47; 240..255: of the four qh bytes.
  for (int k = 0; k < 5; ++k) {
    for (int l = 0; l < 32; ++l) dst[32 * k + l] = d * static_cast<float>(ternary_digit(b.qs[l], k) - 1);
    for (int l = 0; l < 16; ++l)
      dst[160 + 16 * k + l] = d * static_cast<float>(ternary_digit(b.qs[32 + l], k) - 1);
  }
  for (int k = 0; k < 4; ++k) {
    for (int l = 0; l < 4; ++l) dst[240 + 4 * k + l] = d * static_cast<float>(ternary_digit(b.qh[l], k) - 1);
  }
}

void decode_tq2_0(const BlockTQ2_0& b, float* dst) {
  const float d = f16_to_f32(b.d);
  for (int s = 0; s < 8; ++s) {
    const uint8_t* qs = b.qs + 32 * (s / 4);
    const int shift = 2 * (s % 4);
    for (int l = 0; l < 32; ++l) dst[32 * s + l] = d * static_cast<float>(((qs[l] >> shift) & 3) - 1);
  }
}

void decode_q1_0(const BlockQ1_0& b, float* dst) {
  const float d = f16_to_f32(b.d);
  for (int j = 0; j < 128; ++j) dst[j] = ((b.qs[j / 8] >> (j % 8)) & 1) != 0 ? d : -d;
}

}  // namespace

DecodeFn find_low_bit_decoder(DType dtype) {
  switch (dtype) {
    case DType::kMXFP4:
      return decode_each_block<BlockMXFP4, 32, decode_mxfp4>;
    case DType::kNVFP4:
      return decode_each_block<BlockNVFP4, 64, decode_nvfp4>;
    case DType::kTQ1_0:
      return decode_each_block<BlockTQ1_0, kSuperBlock, decode_tq1_0>;
    case DType::kTQ2_0:
      return decode_each_block<BlockTQ2_0, kSuperBlock, decode_tq2_0>;
    case DType::kQ1_0:
      return decode_each_block<BlockQ1_0, 128, decode_q1_0>;
    default:
      return nullptr;
  }
}

}  // namespace dspark
