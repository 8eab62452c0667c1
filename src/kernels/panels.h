#pragma once
// Memory layout of packed weight panels and of quantised activation blocks; shared by packing and all
// kernels.
//
// A panel holds kPanelRows = 16 output rows of one matrix, K split in blocks of 32. For the integer kinds it
// is a sequence of chunks of up to 8 blocks (one super-block of the K-quants), read front to back; a chunk of
// n blocks is
//   quants  n x quant_bytes  values as unsigned integers (stored value + bias), in 8 groups of 4 K-elements;
//                            byte [lane * 4 + j] of group g is row `lane`, element 4 g + j of the block
//   scales  n x scale_bytes  per block: 16 lanes of each scale, lane after lane; padded to a cache line
//   super   super_bytes      K-quants: 16 lanes of f16 d, then of f16 dmin; padded to a cache line
//
//   quants of a kind                                                     quant_bytes
//     nibbles   4 x 64 B: low nibble group 2z, high nibble 2z + 1        256
//     5 bits    nibbles + 64 B: bit g of byte i = bit 4 of group g       320
//     6 bits    nibbles + 2 x 64 B: bits 2 (g % 4).. of byte i of half   384
//               g / 4 = bits 4-5 of group g
//     bytes     8 x 64 B                                                 512
//   kind                 quants    bias   scales
//   Q4_0  Q5_0  Q8_0     4 5 8     8 16 128   f16 d
//   Q4_1  Q5_1           4 5       0          f16 d, f16 m
//   Q4_K  Q5_K           4 5       0          u8 sc, u8 m; super d, dmin
//   Q6_K  Q3_K           6 4       32 8       i8 sc of elements 0-15, of 16-31; super d   (Q3_K stores q + 4)
//   Q2_K                 4         0          u8 sc, sc, m, m of the halves; super d, dmin
//   IQ4_NL               4, table             f16 d
//   IQ4_XS               4, table             i8 sc; super d
//   MXFP4                4, table             u8 exponent
// Weight = d (q - bias) [+ m];  d sc (q - bias) [- dmin m] with super-scales; table kinds: scale * table[q].
// Float kinds: F32 [K][16] floats; BF16 [ceil(K/2)][16][2] (pairs of K in one 32-bit lane); F16 [K][16].

#include <cstddef>
#include <cstdint>

#include "tensor/blocks.h"

namespace dspark {

/// One block of 32 activations in int8. q = round(x / scale), scale = max|x| / 127.
/// The biases let kernels multiply with unsigned weights: sum (w - 8) q = sum w q + bias8.
struct alignas(64) ActBlock {
  int8_t q[32];
  float scale;
  float sum;              // scale * sum(q): what a block's additive minimum is multiplied with
  int32_t bias8;          // -8 * sum(q)
  int32_t bias8_half[2];  // -8 * sum(q) of elements 0-15 and 16-31
  float sum_half[2];      // scale * sum(q) of the halves
  int32_t unused;
};
static_assert(sizeof(ActBlock) == 64);

/// Rows that one kernel call computes together. Quantised activations are stored tile after tile; inside a
/// tile of m rows (the last one may be smaller): block after block, row after row.
inline constexpr int kRowTile = 8;

/// Which scales a kind stores per block, in this order, each for 16 lanes.
enum class ScaleMode : uint8_t {
  kF16,            // f16 d
  kF16Min,         // f16 d, f16 m
  kByte,           // i8 sc; super: d
  kByteMin,        // u8 sc, u8 m; super: d, dmin
  kByteHalves,     // i8 sc of each half; super: d
  kByteHalvesMin,  // u8 sc of each half, u8 m of each half; super: d, dmin
  kE8M0,           // u8 biased exponent of the block's power of two
};

/// Blocks of a chunk.
inline constexpr int kChunkBlocks = 8;

/// Bytes of the three regions, per block / per chunk.
struct PanelLayout {
  uint16_t quant_bytes;
  uint16_t scale_bytes;
  uint16_t super_bytes;
};

constexpr PanelLayout panel_layout(int quant_bytes, ScaleMode mode) {
  const auto quants = static_cast<uint16_t>(quant_bytes);
  switch (mode) {
    case ScaleMode::kF16:
      return {quants, 32, 0};
    case ScaleMode::kF16Min:
      return {quants, 64, 0};
    case ScaleMode::kByte:
      return {quants, 16, 32};
    case ScaleMode::kByteMin:
      return {quants, 32, 64};
    case ScaleMode::kByteHalves:
      return {quants, 32, 32};
    case ScaleMode::kByteHalvesMin:
      return {quants, 64, 64};
    case ScaleMode::kE8M0:
      return {quants, 16, 0};
  }
  return {};
}

/// Offset of the super region in a chunk of n blocks.
constexpr int64_t super_offset(const PanelLayout& layout, int64_t n) {
  return n * layout.quant_bytes + (n * layout.scale_bytes + 63) / 64 * 64;
}
/// Size of a chunk of n blocks.
constexpr int64_t chunk_bytes(const PanelLayout& layout, int64_t n) {
  return super_offset(layout, n) + (layout.super_bytes + 63) / 64 * 64;
}

/// bits of 2^(e - 128): half an E8M0 scale, since tables of E2M1 values are doubled to be whole numbers.
constexpr uint32_t half_e8m0_bits(uint32_t e) {
  return e >= 2 ? (e - 1) << 23 : 0x00200000u << e;  // 2^-128 and 2^-127 are subnormal
}

/// Where a kernel puts one tile of results.
struct TileOut {
  float* y;  // (m, y_stride), first column of the panel
  int64_t y_stride;
  const float* bias;  // (16) of the panel, or nullptr
  int32_t n_lanes;    // valid columns, 1..16
};

/// Integer kernels: one panel times one tile of m = 1..kRowTile rows.
using IntTileFn = void (*)(const uint8_t* panel, const ActBlock* acts, int64_t n_blocks, const TileOut& out);
/// Integer kernels for two panels, panel_bytes apart, times one tile: out.n_lanes is 17..32 then, columns and
/// bias of the second panel lie behind those of the first. The bits of int_tile.
using IntPairFn = void (*)(const uint8_t* panel, int64_t panel_bytes, const ActBlock* acts, int64_t n_blocks,
                           const TileOut& out);
/// Float kernels: rows x[r * x_stride + k].
using FloatTileFn = void (*)(const uint8_t* panel, const float* x, int64_t x_stride, int64_t n_in,
                             const TileOut& out);
/// Quantises one row of n floats into blocks acts[b * block_stride].
using QuantizeRowFn = void (*)(const float* x, int64_t n, ActBlock* acts, int64_t block_stride);

inline constexpr int kNumPackKinds = 16;

/// For panels that are in the cache. Index [kind][m - 1]; null where one panel at a time is as fast.
struct IntPairKernels {
  IntPairFn tile[kNumPackKinds][kRowTile];
};

/// One instruction set's kernels; index [kind][m - 1]. Null where the kind is of the other sort.
struct MatmulKernels {
  IntTileFn int_tile[kNumPackKinds][kRowTile];
  FloatTileFn float_tile[kNumPackKinds][kRowTile];
  QuantizeRowFn quantize_row;
  const IntPairKernels* pairs;  // nullptr: none
};
extern const MatmulKernels kMatmulPortable;
#if defined(__x86_64__)
extern const MatmulKernels kMatmulAvx2;
extern const MatmulKernels kMatmulAvx512;
extern const IntPairKernels kIntPairsAvx512;
#endif

}  // namespace dspark
