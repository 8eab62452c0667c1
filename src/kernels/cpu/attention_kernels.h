#pragma once
// The piece of attention that is written once per instruction set. Plain data only: see simd-inl.h.

#include <cstddef>
#include <cstdint>

#include "kernels/kv_layout.h"

namespace dspark {

/// Rows of one run times the query heads that share one kv head, over a range of chunks.
/// Query vector v of the tile is row v / group, head v % group.
struct AttentionTile {
  KvDType dtype = KvDType::kF32;
  KvHeadLayout layout;
  const uint8_t* cache = nullptr;  // this layer and kv head in page 0
  size_t page_bytes = 0;
  const int32_t* pages = nullptr;  // of the sequence, from position 0
  const float* q = nullptr;        // first row, first head of the group
  int64_t q_stride = 0;
  float* out = nullptr;
  int64_t out_stride = 0;
  int32_t n_rows = 0;
  int32_t group = 0;
  int32_t pos_begin = 0;  // position of the first row
  // A block whose rows all see the same: positions of its first row and behind its last; block_end 0: none.
  int32_t block_begin = 0;
  int32_t block_end = 0;
  int32_t window = 0;
  float scale = 1.0f;
  float softcap = 0.0f;
  int32_t chunk_begin = 0;  // chunks that some row of the tile sees
  int32_t chunk_end = 0;
  void* workspace = nullptr;  // workspace_bytes, 64-byte aligned, of the calling thread
};

/// Floats of one partial result: v_dim weighted values, their maximum and sum, padding to a cache line.
inline constexpr int32_t partial_floats(int32_t v_dim) {
  return v_dim + 16;
}

struct AttentionKernels {
  /// Stores one row of one head: k and v (head_dim floats) at position `slot` of the page whose block of that
  /// head is `block`. requires: no other thread writes into the same page.
  void (*write_row)(KvDType dtype, const KvHeadLayout& layout, uint8_t* block, int slot, const float* k,
                    const float* v);
  /// Workspace for tiles of up to n_vectors query vectors.
  size_t (*workspace_bytes)(int32_t n_vectors, int32_t head_dim);
  /// All chunks of the tile, merged, into `out`.
  void (*run_tile)(const AttentionTile& tile);
  /// The partial results of each chunk by itself: chunk c, query vector v at
  /// partials + ((c - chunk_begin) * n_rows * group + v) * partial_floats(v_dim).
  void (*run_chunks)(const AttentionTile& tile, float* partials);
  /// Merges what run_chunks made for chunks [chunk_begin, chunk_end) into `out`. Same bits as run_tile.
  void (*merge_chunks)(const AttentionTile& tile, const float* partials);
};

/// Those of active_isa().
const AttentionKernels& active_attention_kernels();
const AttentionKernels& attention_kernels_portable();
const AttentionKernels& attention_kernels_avx2();
const AttentionKernels& attention_kernels_avx512();
const AttentionKernels& attention_kernels_avx512bf16();

}  // namespace dspark
