#pragma once
// 16-bit floats: IEEE binary16 ("F16") and bfloat16 ("BF16"). Portable bit arithmetic, so that every
// instruction set and every compiler gives the same bits.

#include <bit>
#include <cstdint>

namespace dspark {

/// binary16 bits -> float, exact for every value: subnormals, infinities; a NaN keeps its payload and is made
/// quiet. Branch-free apart from selects, so loops over it vectorise.
inline float f16_to_f32(uint16_t h) {
  // All three kinds of value are computed and one is selected: cheaper than branches, and vectorisable.
  // Normal numbers: the exponent is rebiased from 15 to 127.
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t shifted = static_cast<uint32_t>(h & 0x7fffu) << 13;
  const uint32_t finite = shifted + (112u << 23);
  // Subnormal: the value is mantissa * 2^-24, an exact float.
  const uint32_t small =
      std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(h & 0x3ffu)) * 0x1p-24f);
  const uint32_t quiet = (h & 0x3ffu) != 0 ? 0x400000u : 0u;
  const uint32_t special = shifted | 0x7f800000u | quiet;
  const uint32_t exponent = h & 0x7c00u;
  const uint32_t magnitude = exponent == 0 ? small : (exponent == 0x7c00u ? special : finite);
  return std::bit_cast<float>(sign | magnitude);
}

/// float -> binary16 bits, round to nearest, ties to even. Overflow gives infinity, NaN stays (quiet) NaN,
/// values below 2^-25 give a signed zero.
inline uint16_t f32_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);  // >= 2^16, infinity included
  if (magnitude < 0x38800000u) {
    // Below 2^-14: adding 0.5 makes the float adder round at exactly 2^-24, the step of subnormals.
    const float rounded = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(rounded) - 0x3f000000u));
  }
  // Rebias, then round the 13 dropped bits to nearest even; a carry runs into the exponent as it should
  // (65520 and more become infinity).
  const uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((magnitude - (112u << 23) + 0xfffu + odd) >> 13));
}

/// bfloat16 bits -> float (exact: the upper half of a float).
inline float bf16_to_f32(uint16_t b) {
  return std::bit_cast<float>(static_cast<uint32_t>(b) << 16);
}

/// float -> bfloat16 bits, round to nearest, ties to even; NaN stays (quiet) NaN.
inline uint16_t f32_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace dspark
