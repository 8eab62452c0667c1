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
//   kind   quants                                              scales                     supers   bias
//   Q4_0   4 x 64 B: low nibble group 2z, high nibble 2z+1     f16 d                               8
//   Q4_1   same                                                f16 d, f16 m                        0
//   Q5_0   same + 64 B: bit g of byte i = bit 4 of group g     f16 d                               16
//   Q5_1   same as Q5_0                                        f16 d, f16 m                        0
//   Q8_0   8 x 64 B, value + 128                               f16 d                               128
//   Q4_K   as Q4_0                                             u8 sc, u8 m                d, dmin  0
//   Q5_K   as Q5_0                                             u8 sc, u8 m                d, dmin  0
//   Q6_K   as Q4_0 + 2 x 64 B: bits 2(g%4).. of byte i of      i8 sc (elements 0-15),     d        32
//          half g/4 = bits 4-5 of group g                      i8 sc (16-31)
// Weight = d (q - bias) [+ m];  d sc (q - bias) - dmin m  for the K-quants.
// Float kinds: F32 [K][16] floats; BF16 [ceil(K/2)][16][2] (pairs of K in one 32-bit lane); F16 [K][16].

#include <cstddef>
#include <cstdint>

namespace dspark {

/// One block of 32 activations in int8. q = round(x / scale), scale = max|x| / 127.
/// The biases let kernels multiply with unsigned weights: sum (w - 8) q = sum w q + bias8.
struct alignas(64) ActBlock {
  int8_t q[32];
  float scale;
  float sum;              // scale * sum(q): what a block's additive minimum is multiplied with
  int32_t bias8;          // -8 * sum(q)
  int32_t bias8_half[2];  // -8 * sum(q) of elements 0-15 and 16-31
  int32_t unused[3];
};
static_assert(sizeof(ActBlock) == 64);

/// Rows that one kernel call computes together. Quantised activations are stored tile after tile; inside a
/// tile of m rows (the last one may be smaller): block after block, row after row.
inline constexpr int kRowTile = 8;

/// Blocks of a chunk.
inline constexpr int kChunkBlocks = 8;

/// Bytes of the three regions, per block / per chunk.
struct PanelLayout {
  uint16_t quant_bytes;
  uint16_t scale_bytes;
  uint16_t super_bytes;
};

/// Offset of the super region in a chunk of n blocks.
constexpr int64_t super_offset(const PanelLayout& layout, int64_t n) {
  return n * layout.quant_bytes + (n * layout.scale_bytes + 63) / 64 * 64;
}
/// Size of a chunk of n blocks.
constexpr int64_t chunk_bytes(const PanelLayout& layout, int64_t n) {
  return super_offset(layout, n) + (layout.super_bytes + 63) / 64 * 64;
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
/// Float kernels: rows x[r * x_stride + k].
using FloatTileFn = void (*)(const uint8_t* panel, const float* x, int64_t x_stride, int64_t n_in,
                             const TileOut& out);
/// Quantises one row of n floats into blocks acts[b * block_stride].
using QuantizeRowFn = void (*)(const float* x, int64_t n, ActBlock* acts, int64_t block_stride);

inline constexpr int kNumPackKinds = 11;

/// One instruction set's kernels; index [kind][m - 1]. Null where the kind is of the other sort.
struct MatmulKernels {
  IntTileFn int_tile[kNumPackKinds][kRowTile];
  FloatTileFn float_tile[kNumPackKinds][kRowTile];
  QuantizeRowFn quantize_row;
};
extern const MatmulKernels kMatmulPortable;
#if defined(__x86_64__)
extern const MatmulKernels kMatmulAvx2;
extern const MatmulKernels kMatmulAvx512;
#endif

}  // namespace dspark
