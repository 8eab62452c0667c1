// K types: super-blocks of 256 elements in groups of 16 or 32 with quantised scales. Bit layouts: blocks.h.

#include "tensor/blocks.h"
#include "tensor/decode_blocks.h"
#include "tensor/dtype.h"
#include "tensor/half.h"

namespace dspark {
namespace {

void decode_q2_k(const BlockQ2_K& b, float* dst) {
  const float d = f16_to_f32(b.d);
  const float dmin = f16_to_f32(b.dmin);
  for (int g = 0; g < 16; ++g) {
    const float scale = d * static_cast<float>(b.scales[g] & 15);
    const float min = dmin * static_cast<float>(b.scales[g] >> 4);
    // Eight groups per 128 elements: the shift grows every 32 elements, the bytes alternate between halves.
    const uint8_t* qs = b.qs + 32 * (g / 8) + 16 * (g % 2);
    const int shift = 2 * ((g / 2) % 4);
    for (int l = 0; l < 16; ++l) dst[16 * g + l] = scale * static_cast<float>((qs[l] >> shift) & 3) - min;
  }
}

void decode_q3_k(const BlockQ3_K& b, float* dst) {
  const float d = f16_to_f32(b.d);
  for (int g = 0; g < 16; ++g) {
    const int low = g < 8 ? b.scales[g] & 15 : b.scales[g - 8] >> 4;
    const int high = (b.scales[8 + g % 4] >> (2 * (g / 4))) & 3;
    const float scale = d * static_cast<float>((low | (high << 4)) - 32);
    const uint8_t* qs = b.qs + 32 * (g / 8) + 16 * (g % 2);
    const uint8_t* hmask = b.hmask + 16 * (g % 2);
    const int shift = 2 * ((g / 2) % 4);
    for (int l = 0; l < 16; ++l) {
      const int q = ((qs[l] >> shift) & 3) | (((hmask[l] >> (g / 2)) & 1) << 2);
      dst[16 * g + l] = scale * static_cast<float>(q - 4);
    }
  }
}

void decode_q4_k(const BlockQ4_K& b, float* dst) {
  const float d = f16_to_f32(b.d);
  const float dmin = f16_to_f32(b.dmin);
  for (int g = 0; g < 8; ++g) {
    uint8_t s, m;
    unpack_scale_min_k4(b.scales, g, &s, &m);
    const float scale = d * static_cast<float>(s);
    const float min = dmin * static_cast<float>(m);
    const uint8_t* qs = b.qs + 32 * (g / 2);
    const int shift = 4 * (g % 2);
    for (int l = 0; l < 32; ++l) dst[32 * g + l] = scale * static_cast<float>((qs[l] >> shift) & 15) - min;
  }
}

void decode_q5_k(const BlockQ5_K& b, float* dst) {
  const float d = f16_to_f32(b.d);
  const float dmin = f16_to_f32(b.dmin);
  for (int g = 0; g < 8; ++g) {
    uint8_t s, m;
    unpack_scale_min_k4(b.scales, g, &s, &m);
    const float scale = d * static_cast<float>(s);
    const float min = dmin * static_cast<float>(m);
    const uint8_t* qs = b.qs + 32 * (g / 2);
    const int shift = 4 * (g % 2);
    for (int l = 0; l < 32; ++l) {
      const int q = ((qs[l] >> shift) & 15) | (((b.qh[l] >> g) & 1) << 4);
      dst[32 * g + l] = scale * static_cast<float>(q) - min;
    }
  }
}

void decode_q6_k(const BlockQ6_K& b, float* dst) {
  const float d = f16_to_f32(b.d);
  for (int g = 0; g < 16; ++g) {
    const float scale = d * static_cast<float>(b.scales[g]);
    const int half = g / 8;           // which 128 elements
    const int quarter = (g / 2) % 4;  // which 32 of them
    const int offset = 16 * (g % 2);  // which 16 of those
    const uint8_t* ql = b.ql + 64 * half + 32 * (quarter % 2) + offset;
    const uint8_t* qh = b.qh + 32 * half + offset;
    const int low_shift = 4 * (quarter / 2);
    const int high_shift = 2 * quarter;
    for (int l = 0; l < 16; ++l) {
      const int q = ((ql[l] >> low_shift) & 15) | (((qh[l] >> high_shift) & 3) << 4);
      dst[16 * g + l] = scale * static_cast<float>(q - 32);
    }
  }
}

}  // namespace

DecodeFn find_k_decoder(DType dtype) {
  switch (dtype) {
    case DType::kQ2_K:
      return decode_each_block<BlockQ2_K, kSuperBlock, decode_q2_k>;
    case DType::kQ3_K:
      return decode_each_block<BlockQ3_K, kSuperBlock, decode_q3_k>;
    case DType::kQ4_K:
      return decode_each_block<BlockQ4_K, kSuperBlock, decode_q4_k>;
    case DType::kQ5_K:
      return decode_each_block<BlockQ5_K, kSuperBlock, decode_q5_k>;
    case DType::kQ6_K:
      return decode_each_block<BlockQ6_K, kSuperBlock, decode_q6_k>;
    default:
      return nullptr;
  }
}

}  // namespace dspark
