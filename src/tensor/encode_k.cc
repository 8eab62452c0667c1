// Writers of Q4_K, Q5_K and Q6_K. Bit layouts: blocks.h.
//
// Each group is fitted on its own; the group scales are then quantised against the largest of the
// super-block; neighbouring integer scales are tried because rounding a scale and rounding levels interact;
// at last the levels are chosen for the scales as they will be read back.

#include <cstring>

#include "tensor/blocks.h"
#include "tensor/encode_blocks.h"
#include "tensor/fit.h"

namespace dspark {
namespace {

/// What Q4_K and Q5_K have in common: scales of a super-block and the level of every element.
struct AffineSuperBlock {
  uint16_t d = 0;
  uint16_t dmin = 0;
  uint8_t scales[8] = {};
  uint8_t mins[8] = {};
  uint8_t q[kSuperBlock] = {};
};

/// Tries the neighbours of an integer (scale, minimum) pair and keeps the pair with the smallest error.
void refine_affine(const float* x, float d, float dmin, int levels, uint8_t* scale, uint8_t* min) {
  constexpr int kOrder[3] = {0, -1, 1};  // the rounded pair first: it wins ties
  constexpr int kPairs = 12;             // nine, and copies of the first to fill whole vectors
  int s[kPairs], m[kPairs];
  float scales[kPairs], mins[kPairs];
  for (int k = 0; k < kPairs; ++k) {
    s[k] = std::clamp(*scale + (k < 9 ? kOrder[k / 3] : 0), 0, 63);
    m[k] = std::clamp(*min + (k < 9 ? kOrder[k % 3] : 0), 0, 63);
    scales[k] = d * static_cast<float>(s[k]);
    mins[k] = dmin * static_cast<float>(m[k]);
  }
  const int best = best_affine<32, kPairs>(x, scales, mins, 0.0f, static_cast<float>(levels));
  *scale = static_cast<uint8_t>(s[best]);
  *min = static_cast<uint8_t>(m[best]);
}

void fit_affine_super_block(const float* x, int levels, AffineSuperBlock& out) {
  AffineFit fits[8];
  float max_scale = 0.0f;
  float max_min = 0.0f;
  for (int g = 0; g < 8; ++g) {
    fits[g] = fit_affine<32>(x + 32 * g, levels, true);
    max_scale = std::max(max_scale, fits[g].scale);
    max_min = std::max(max_min, -fits[g].offset);
  }
  out.d = to_scale_bits(max_scale / 63.0f);
  out.dmin = to_scale_bits(max_min / 63.0f);
  const float d = f16_to_f32(out.d);
  const float dmin = f16_to_f32(out.dmin);
  for (int g = 0; g < 8; ++g) {
    out.scales[g] = static_cast<uint8_t>(round_to_level(fits[g].scale * inverse_or_zero(d), 0.0f, 63.0f));
    out.mins[g] = static_cast<uint8_t>(round_to_level(-fits[g].offset * inverse_or_zero(dmin), 0.0f, 63.0f));
    refine_affine(x + 32 * g, d, dmin, levels, &out.scales[g], &out.mins[g]);
    const float scale = d * static_cast<float>(out.scales[g]);
    const float min = dmin * static_cast<float>(out.mins[g]);
    const float inverse = inverse_or_zero(scale);
    for (int i = 32 * g; i < 32 * (g + 1); ++i) {
      out.q[i] =
          static_cast<uint8_t>(round_to_level((x[i] + min) * inverse, 0.0f, static_cast<float>(levels)));
    }
  }
}

/// The inverse of unpack_scale_min_k4.
void pack_scale_min_k4(const uint8_t* scales, const uint8_t* mins, uint8_t* packed) {
  for (int g = 0; g < 4; ++g) {
    packed[g] = static_cast<uint8_t>(scales[g] | (scales[g + 4] >> 4) << 6);
    packed[g + 4] = static_cast<uint8_t>(mins[g] | (mins[g + 4] >> 4) << 6);
    packed[g + 8] = static_cast<uint8_t>((scales[g + 4] & 15) | (mins[g + 4] & 15) << 4);
  }
}

void pack_nibbles_k(const uint8_t* q, uint8_t* qs) {
  for (int h = 0; h < 4; ++h) {
    for (int l = 0; l < 32; ++l) {
      qs[32 * h + l] = static_cast<uint8_t>((q[64 * h + l] & 15) | (q[64 * h + 32 + l] & 15) << 4);
    }
  }
}

void encode_q4_k(const float* x, BlockQ4_K& b) {
  AffineSuperBlock s;
  fit_affine_super_block(x, 15, s);
  b.d = s.d;
  b.dmin = s.dmin;
  pack_scale_min_k4(s.scales, s.mins, b.scales);
  pack_nibbles_k(s.q, b.qs);
}

void encode_q5_k(const float* x, BlockQ5_K& b) {
  AffineSuperBlock s;
  fit_affine_super_block(x, 31, s);
  b.d = s.d;
  b.dmin = s.dmin;
  pack_scale_min_k4(s.scales, s.mins, b.scales);
  pack_nibbles_k(s.q, b.qs);
  for (int l = 0; l < 32; ++l) {
    int byte = 0;
    for (int g = 0; g < 8; ++g) byte |= (s.q[32 * g + l] >> 4) << g;
    b.qh[l] = static_cast<uint8_t>(byte);
  }
}

/// Integer scale of one Q6_K group: the rounded one or a neighbour, whichever leaves the smallest error.
int refine_q6_scale(const float* x, float d, float wanted) {
  const int centre = round_to_level(wanted * inverse_or_zero(d), -128.0f, 127.0f);
  const int s[4] = {centre, std::max(centre - 1, -128), std::min(centre + 1, 127), centre};
  float scales[4];
  for (int k = 0; k < 4; ++k) scales[k] = d * static_cast<float>(s[k]);
  constexpr float kNoMin[4] = {};
  return s[best_affine<16, 4>(x, scales, kNoMin, -32.0f, 31.0f)];
}

/// q: levels shifted up by 32, in element order.
void pack_q6(const uint8_t* q, BlockQ6_K& b) {
  for (int h = 0; h < 2; ++h) {
    for (int l = 0; l < 32; ++l) {
      const uint8_t* e = q + 128 * h + l;  // the four quarters lie 32 apart
      b.ql[64 * h + l] = static_cast<uint8_t>((e[0] & 15) | (e[64] & 15) << 4);
      b.ql[64 * h + 32 + l] = static_cast<uint8_t>((e[32] & 15) | (e[96] & 15) << 4);
      b.qh[32 * h + l] =
          static_cast<uint8_t>((e[0] >> 4) | (e[32] >> 4) << 2 | (e[64] >> 4) << 4 | (e[96] >> 4) << 6);
    }
  }
}

void encode_q6_k(const float* x, BlockQ6_K& b) {
  float fits[16];
  float peak = 0.0f;
  for (int g = 0; g < 16; ++g) {
    fits[g] = fit_symmetric<16>(x + 16 * g, -32, 31);
    peak = std::fabs(fits[g]) > std::fabs(peak) ? fits[g] : peak;
  }
  b.d = to_scale_bits(peak / -128.0f);  // the largest scale becomes -128, the widest integer
  const float d = f16_to_f32(b.d);
  uint8_t q[kSuperBlock];
  for (int g = 0; g < 16; ++g) {
    const int s = refine_q6_scale(x + 16 * g, d, fits[g]);
    b.scales[g] = static_cast<int8_t>(s);
    const float inverse = inverse_or_zero(d * static_cast<float>(s));
    for (int i = 16 * g; i < 16 * (g + 1); ++i)
      q[i] = static_cast<uint8_t>(round_to_level(x[i] * inverse, -32.0f, 31.0f) + 32);
  }
  pack_q6(q, b);
}

template <typename Block, void (*kEncodeBlock)(const float*, Block&)>
void encode_each_block(const float* src, uint8_t* dst, int64_t n) {
  auto* block = reinterpret_cast<Block*>(dst);
  for (int64_t i = 0; i < n; i += kSuperBlock) kEncodeBlock(src + i, *block++);
}

}  // namespace

EncodeFn find_k_encoder(DType dtype) {
  switch (dtype) {
    case DType::kQ4_K:
      return encode_each_block<BlockQ4_K, encode_q4_k>;
    case DType::kQ5_K:
      return encode_each_block<BlockQ5_K, encode_q5_k>;
    case DType::kQ6_K:
      return encode_each_block<BlockQ6_K, encode_q6_k>;
    default:
      return nullptr;
  }
}

}  // namespace dspark
