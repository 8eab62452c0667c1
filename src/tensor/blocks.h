#pragma once
// Layouts of the quantised blocks of GGUF, as they lie in files. Source: the GGUF/ggml format, checked bit by
// bit against reference decoders (tests/tensor). All fields are little endian; scales named d, m, dmin are
// binary16 bits (half.h). The structs are packed to 1 byte because file data promises no alignment.
//
// "Element j" counts inside the block. Two 4-bit fields of a byte are called low (bits 0-3) and high.

#include <cstdint>

namespace dspark {

constexpr int kBlock32 = 32;       // elements of a simple block
constexpr int kSuperBlock = 256;   // elements of a K- or IQ-type block
constexpr int kScaleBytesK4 = 12;  // eight 6-bit scales and eight 6-bit minima, packed (unpack_scale_min_k4)

#pragma pack(push, 1)

/// x_j = d * (q_j - 8); q of element j in the low half of qs[j], of element j + 16 in the high half, j < 16.
struct BlockQ4_0 {
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

/// x_j = d * q_j + m; nibbles as in Q4_0.
struct BlockQ4_1 {
  uint16_t d;
  uint16_t m;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

/// x_j = d * (q_j - 16); q_j = nibble as in Q4_0, plus 16 * bit j of the 32-bit little-endian word qh.
struct BlockQ5_0 {
  uint16_t d;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

/// x_j = d * q_j + m; q as in Q5_0.
struct BlockQ5_1 {
  uint16_t d;
  uint16_t m;
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

/// x_j = d * qs[j].
struct BlockQ8_0 {
  uint16_t d;
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

/// 16 groups of 16: x = (d * scale) * q - (dmin * min); scales[g] = scale (low) | min (high). The 2-bit q of
/// element 128 h + 32 s + l (h < 2, s < 4, l < 32) is bits 2s..2s+1 of qs[32 h + l].
struct BlockQ2_K {
  uint8_t scales[16];
  uint8_t qs[64];
  uint16_t d;
  uint16_t dmin;
};
static_assert(sizeof(BlockQ2_K) == 84);

/// 16 groups of 16: x = d * (scale - 32) * (q - 4). Low two bits of q as in Q2_K; bit 2 is bit (element / 32)
/// of hmask[element % 32]. The 6-bit scale of group g: low nibble in scales[g % 8] (low half for g < 8),
/// upper two bits in bits 2 (g / 4) of scales[8 + g % 4].
struct BlockQ3_K {
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;
};
static_assert(sizeof(BlockQ3_K) == 110);

/// 8 groups of 32: x = (d * scale) * q - (dmin * min). q of element 64 h + l (h < 4, l < 32) in the low half
/// of qs[32 h + l], of element 64 h + 32 + l in the high half.
struct BlockQ4_K {
  uint16_t d;
  uint16_t dmin;
  uint8_t scales[kScaleBytesK4];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

/// As Q4_K with a fifth bit: bit (element / 32) of qh[element % 32] is worth 16.
struct BlockQ5_K {
  uint16_t d;
  uint16_t dmin;
  uint8_t scales[kScaleBytesK4];
  uint8_t qh[32];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

/// 16 groups of 16: x = (d * scales[g]) * (q - 32). For element 128 h + 32 s + l (h < 2, s < 4, l < 32): the
/// low four bits are a half of ql[64 h + 32 (s % 2) + l] (low for s < 2), the upper two are bits 2s..2s+1 of
/// qh[32 h + l].
struct BlockQ6_K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ6_K) == 210);

/// x_j = d * kIq4Values[q_j]; nibbles as in Q4_0.
struct BlockIQ4_NL {
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

/// 8 groups of 32: x = (d * (scale - 32)) * kIq4Values[q]. Scale g: low nibble from scales_l[g / 2] (low half
/// for even g), upper two bits are bits 2g..2g+1 of scales_h. Group g has its nibbles in qs[16 g ..] as in
/// Q4_0.
struct BlockIQ4_XS {
  uint16_t d;
  uint16_t scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

/// x_j = 2^(e - 127) * E2M1 value of q_j (OCP microscaling format); nibbles as in Q4_0.
struct BlockMXFP4 {
  uint8_t e;
  uint8_t qs[16];
};
static_assert(sizeof(BlockMXFP4) == 17);

/// 4 groups of 16: x = scale * E2M1 value; d[g] is an unsigned E4M3 number. Group g: nibbles in qs[8 g ..],
/// element j < 8 low, element j + 8 high.
struct BlockNVFP4 {
  uint8_t d[4];
  uint8_t qs[32];
};
static_assert(sizeof(BlockNVFP4) == 36);

/// x_j = d * (t_j - 1), ternary digits t packed five to a byte (four in qh) as a base-3 fraction.
struct BlockTQ1_0 {
  uint8_t qs[48];
  uint8_t qh[4];
  uint16_t d;
};
static_assert(sizeof(BlockTQ1_0) == 54);

/// x = d * (q - 1); q of element 128 h + 32 s + l is bits 2s..2s+1 of qs[32 h + l].
struct BlockTQ2_0 {
  uint8_t qs[64];
  uint16_t d;
};
static_assert(sizeof(BlockTQ2_0) == 66);

/// x_j = d or -d: bit j % 8 of qs[j / 8] set means +d. 128 elements.
struct BlockQ1_0 {
  uint16_t d;
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ1_0) == 18);

// The types below pick groups of 4 or 8 magnitudes from a codebook (decode_iq.cc says how).
struct BlockIQ2_XXS {
  uint16_t d;
  uint8_t qs[64];
};
static_assert(sizeof(BlockIQ2_XXS) == 66);
struct BlockIQ2_XS {
  uint16_t d;
  uint16_t qs[32];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_XS) == 74);
struct BlockIQ2_S {
  uint16_t d;
  uint8_t qs[32];
  uint8_t signs[32];
  uint8_t qh[8];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_S) == 82);
struct BlockIQ3_XXS {
  uint16_t d;
  uint8_t qs[64];
  uint8_t scales_signs[32];
};
static_assert(sizeof(BlockIQ3_XXS) == 98);
struct BlockIQ3_S {
  uint16_t d;
  uint8_t qs[64];
  uint8_t qh[8];
  uint8_t signs[32];
  uint8_t scales[4];
};
static_assert(sizeof(BlockIQ3_S) == 110);
struct BlockIQ1_S {
  uint16_t d;
  uint8_t qs[32];
  uint16_t qh[8];
};
static_assert(sizeof(BlockIQ1_S) == 50);
struct BlockIQ1_M {
  uint8_t qs[32];
  uint8_t qh[16];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ1_M) == 56);

#pragma pack(pop)

/// The 16 values of the non-linear 4-bit types (IQ4_NL, IQ4_XS).
constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/// Twice the E2M1 values (so that they are whole numbers); bit 3 is the sign.
constexpr int8_t kE2m1Doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// 6-bit scale and minimum of group g (0..7) of Q4_K and Q5_K. The first four lie in the low six bits of
/// packed[g] and packed[g + 4]; of the last four, the low nibbles are in packed[g + 4] (scale low, minimum
/// high) and the upper two bits in bits 6-7 of packed[g - 4] and packed[g].
inline void unpack_scale_min_k4(const uint8_t* packed, int g, uint8_t* scale, uint8_t* min) {
  if (g < 4) {
    *scale = packed[g] & 63;
    *min = packed[g + 4] & 63;
  } else {
    *scale = static_cast<uint8_t>((packed[g + 4] & 15) | ((packed[g - 4] >> 6) << 4));
    *min = static_cast<uint8_t>((packed[g + 4] >> 4) | ((packed[g] >> 6) << 4));
  }
}

}  // namespace dspark
