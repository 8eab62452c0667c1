#pragma once
// Element order inside the K and V block of one kv head in one page. Read by kernels/kv_cache.cc and by the
// attention kernels; included by files with their own instruction-set flags, so nothing but plain data here.
//
//   type   K                                                V
//   F32    2 panels of [head_dim][16]                       [32][v_dim]
//   BF16   2 panels of [head_dim / 2][16][2]                [16][v_dim][2]
//   Q8_0   2 panels of [head_dim / 4][16][4] int8,          [32][head_dim] int8,
//          2 panels of [head_dim / 32][16] scales           [32][head_dim / 32] scales
// A panel holds 16 consecutive positions, so that SIMD lanes are positions and the sum over head_dim is
// serial. BF16 puts two neighbours of the summed dimension (dims of K, positions of V) into one 32-bit lane:
// what a bf16 dot instruction wants, and one shift or mask away from floats. Scales are bf16, rounded up.

#include <cstddef>
#include <cstdint>

namespace dspark {

/// Positions of one page. A page holds K and V of all layers for kKvPageSize consecutive, aligned positions.
inline constexpr int kKvPageSize = 32;
/// Positions of one attention chunk: softmax partials are made per chunk and merged in ascending order.
inline constexpr int kKvChunk = 256;
/// Positions of one K panel.
inline constexpr int kKvPanel = 16;
/// Elements that share one scale in a Q8_0 cache.
inline constexpr int kKvScaleBlock = 32;

enum class KvDType : uint8_t { kF32, kBF16, kQ8_0 };

/// Byte offsets inside the block of one kv head in one page. Every part starts on a cache line.
struct KvHeadLayout {
  int32_t head_dim = 0;
  int32_t v_dim = 0;          // head_dim rounded up to 16 lanes; the padding of V stays zero
  size_t k_panel_bytes = 0;   // one panel of K values
  size_t k_scale_offset = 0;  // Q8_0: scales of K
  size_t v_offset = 0;        // values of V
  size_t v_scale_offset = 0;  // Q8_0: scales of V
  size_t bytes = 0;           // K + V
};

}  // namespace dspark
