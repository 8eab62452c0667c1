// IQ types: a non-linear 4-bit table, and groups of four or eight magnitudes taken from a codebook.

#include <bit>
#include <cstring>

#include "tensor/blocks.h"
#include "tensor/decode_blocks.h"
#include "tensor/dtype.h"
#include "tensor/half.h"
#include "tensor/iq_grids.h"

namespace dspark {
namespace {

constexpr float kIq2Values[4] = {8.0f, 25.0f, 43.0f, 0.0f};  // 2-bit digits; 3 does not occur in the grids
constexpr float kIq3XxsValues[8] = {4.0f, 12.0f, 20.0f, 28.0f, 36.0f, 44.0f, 52.0f, 62.0f};
constexpr float kIq1Delta = 0.125f;

uint32_t load_u32(const uint8_t* bytes) {
  uint32_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

/// Seven stored sign bits; the eighth makes the number of minus signs even.
uint8_t complete_signs(uint32_t seven_bits) {
  return static_cast<uint8_t>(seven_bits | (static_cast<uint32_t>(std::popcount(seven_bits)) & 1u) << 7);
}

/// Eight elements: scale * magnitude, negated where the sign bit is set.
void write_iq2_group(float scale, uint16_t grid, uint8_t signs, float* dst) {
  for (int k = 0; k < 8; ++k) {
    const float value = scale * kIq2Values[(grid >> (2 * k)) & 3];
    dst[k] = ((signs >> k) & 1) != 0 ? -value : value;
  }
}

/// Four elements; `signs` uses its low four bits.
template <bool kXxs>
void write_iq3_group(float scale, uint16_t grid, int signs, float* dst) {
  for (int k = 0; k < 4; ++k) {
    const int digit = (grid >> (3 * k)) & 7;
    const float value = scale * (kXxs ? kIq3XxsValues[digit] : static_cast<float>(2 * digit + 1));
    dst[k] = ((signs >> k) & 1) != 0 ? -value : value;
  }
}

void write_iq1_group(float scale, uint16_t grid, float delta, float* dst) {
  for (int k = 0; k < 8; ++k) dst[k] = scale * (static_cast<float>(((grid >> (2 * k)) & 3) - 1) + delta);
}

/// Per 32 elements: four grid indices (bytes), then a word of four 7-bit signs and a 4-bit scale.
void decode_iq2_xxs(const BlockIQ2_XXS& b, float* dst) {
  const float d = f16_to_f32(b.d);
  for (int g = 0; g < 8; ++g) {
    const uint8_t* index = b.qs + 8 * g;
    const uint32_t word = load_u32(index + 4);
    const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.25f;
    for (int l = 0; l < 4; ++l) {
      const uint8_t signs = complete_signs((word >> (7 * l)) & 127);
      write_iq2_group(scale, kIq2XxsGrid[index[l]], signs, dst + 32 * g + 8 * l);
    }
  }
}

/// Per 8 elements: a 9-bit grid index and 7 signs; a 4-bit scale per 16.
void decode_iq2_xs(const BlockIQ2_XS& b, float* dst) {
  const float d = f16_to_f32(b.d);
  for (int l = 0; l < 32; ++l) {
    const int nibble = (b.scales[l / 4] >> (4 * ((l / 2) % 2))) & 15;
    const float scale = d * (0.5f + static_cast<float>(nibble)) * 0.25f;
    const uint16_t q = b.qs[l];
    write_iq2_group(scale, kIq2XsGrid[q & 511], complete_signs(q >> 9), dst + 8 * l);
  }
}

/// Per 8 elements: a 10-bit grid index (two bits in qh) and 8 signs; a 4-bit scale per 16.
void decode_iq2_s(const BlockIQ2_S& b, float* dst) {
  const float d = f16_to_f32(b.d);
  for (int l = 0; l < 32; ++l) {
    const int nibble = (b.scales[l / 4] >> (4 * ((l / 2) % 2))) & 15;
    const float scale = d * (0.5f + static_cast<float>(nibble)) * 0.25f;
    const int index = b.qs[l] | ((b.qh[l / 4] >> (2 * (l % 4))) & 3) << 8;
    write_iq2_group(scale, kIq2SGrid[index], b.signs[l], dst + 8 * l);
  }
}

/// Per 32 elements: eight grid indices, and a word of four 7-bit signs and a 4-bit scale.
void decode_iq3_xxs(const BlockIQ3_XXS& b, float* dst) {
  const float d = f16_to_f32(b.d);
  for (int g = 0; g < 8; ++g) {
    const uint32_t word = load_u32(b.scales_signs + 4 * g);
    const float scale = d * (0.5f + static_cast<float>(word >> 28)) * 0.5f;
    for (int l = 0; l < 8; ++l) {
      const int signs = complete_signs((word >> (7 * (l / 2))) & 127) >> (4 * (l % 2));
      write_iq3_group<true>(scale, kIq3XxsGrid[b.qs[8 * g + l]], signs, dst + 32 * g + 4 * l);
    }
  }
}

/// Per 4 elements: a 9-bit grid index (one bit in qh) and 4 signs; a 4-bit scale per 32.
void decode_iq3_s(const BlockIQ3_S& b, float* dst) {
  const float d = f16_to_f32(b.d);
  for (int l = 0; l < 64; ++l) {
    const int nibble = (b.scales[l / 16] >> (4 * ((l / 8) % 2))) & 15;
    const float scale = d * static_cast<float>(1 + 2 * nibble);
    const int index = b.qs[l] | ((b.qh[l / 8] >> (l % 8)) & 1) << 8;
    write_iq3_group<false>(scale, kIq3SGrid[index], b.signs[l / 2] >> (4 * (l % 2)), dst + 4 * l);
  }
}

/// Per 32 elements: four 11-bit grid indices (three bits each in qh), a 3-bit scale and the sign of the
/// shift.
void decode_iq1_s(const BlockIQ1_S& b, float* dst) {
  const float d = f16_to_f32(b.d);
  for (int g = 0; g < 8; ++g) {
    const uint16_t qh = b.qh[g];
    const float scale = d * static_cast<float>(2 * ((qh >> 12) & 7) + 1);
    const float delta = (qh & 0x8000) != 0 ? -kIq1Delta : kIq1Delta;
    for (int l = 0; l < 4; ++l) {
      const int index = b.qs[4 * g + l] | ((qh >> (3 * l)) & 7) << 8;
      write_iq1_group(scale, kIq1Grid[index], delta, dst + 32 * g + 8 * l);
    }
  }
}

/// The binary16 scale is spread over the top nibbles of four words; their other bits are four 3-bit scales,
/// one per 16 elements. Per 8 elements: an 11-bit grid index and the sign of the shift in a nibble of qh.
void decode_iq1_m(const BlockIQ1_M& b, float* dst) {
  uint16_t words[4];
  std::memcpy(words, b.scales, sizeof(words));
  const float d = f16_to_f32(static_cast<uint16_t>((words[0] >> 12) | ((words[1] >> 8) & 0x00f0) |
                                                   ((words[2] >> 4) & 0x0f00) | (words[3] & 0xf000)));
  for (int l = 0; l < 32; ++l) {
    const int bits = (words[l / 8] >> (3 * ((l / 2) % 4))) & 7;
    const float scale = d * static_cast<float>(2 * bits + 1);
    const int nibble = b.qh[l / 2] >> (4 * (l % 2));
    const float delta = (nibble & 8) != 0 ? -kIq1Delta : kIq1Delta;
    write_iq1_group(scale, kIq1Grid[b.qs[l] | (nibble & 7) << 8], delta, dst + 8 * l);
  }
}

void decode_iq4_nl(const BlockIQ4_NL& b, float* dst) {
  const float d = f16_to_f32(b.d);
  for (int j = 0; j < 16; ++j) {
    dst[j] = d * static_cast<float>(kIq4Values[b.qs[j] & 15]);
    dst[j + 16] = d * static_cast<float>(kIq4Values[b.qs[j] >> 4]);
  }
}

void decode_iq4_xs(const BlockIQ4_XS& b, float* dst) {
  const float d = f16_to_f32(b.d);
  for (int g = 0; g < 8; ++g) {
    const int low = (b.scales_l[g / 2] >> (4 * (g % 2))) & 15;
    const int high = (b.scales_h >> (2 * g)) & 3;
    const float scale = d * static_cast<float>((low | (high << 4)) - 32);
    const uint8_t* qs = b.qs + 16 * g;
    for (int j = 0; j < 16; ++j) {
      dst[32 * g + j] = scale * static_cast<float>(kIq4Values[qs[j] & 15]);
      dst[32 * g + j + 16] = scale * static_cast<float>(kIq4Values[qs[j] >> 4]);
    }
  }
}

}  // namespace

DecodeFn find_codebook_decoder(DType dtype) {
  switch (dtype) {
    case DType::kIQ2_XXS:
      return decode_each_block<BlockIQ2_XXS, kSuperBlock, decode_iq2_xxs>;
    case DType::kIQ2_XS:
      return decode_each_block<BlockIQ2_XS, kSuperBlock, decode_iq2_xs>;
    case DType::kIQ2_S:
      return decode_each_block<BlockIQ2_S, kSuperBlock, decode_iq2_s>;
    case DType::kIQ3_XXS:
      return decode_each_block<BlockIQ3_XXS, kSuperBlock, decode_iq3_xxs>;
    case DType::kIQ3_S:
      return decode_each_block<BlockIQ3_S, kSuperBlock, decode_iq3_s>;
    case DType::kIQ1_S:
      return decode_each_block<BlockIQ1_S, kSuperBlock, decode_iq1_s>;
    case DType::kIQ1_M:
      return decode_each_block<BlockIQ1_M, kSuperBlock, decode_iq1_m>;
    case DType::kIQ4_NL:
      return decode_each_block<BlockIQ4_NL, 32, decode_iq4_nl>;
    case DType::kIQ4_XS:
      return decode_each_block<BlockIQ4_XS, kSuperBlock, decode_iq4_xs>;
    default:
      return nullptr;
  }
}

}  // namespace dspark
