#pragma once
// Paged key/value cache: storage, layout and the views that attention walks.

#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "kernels/kv_layout.h"

namespace dspark {

/// Geometry of one layer's cache.
struct KvLayerShape {
  int32_t n_kv_heads = 0;
  int32_t head_dim = 0;  // of K and of V
};

/// Physical pages. Inside a page: layer after layer; inside a layer: kv head after kv head; inside a head: K,
/// then V. The element order inside a K or V block is described in kernels/kv_layout.h.
struct KvPool {
  KvDType dtype = KvDType::kBF16;
  std::vector<KvLayerShape> layers;
  std::vector<size_t> layer_offset;       // bytes from the start of a page to layer l
  std::vector<KvHeadLayout> head_layout;  // of one kv head in one page, per layer
  size_t page_bytes = 0;
  int32_t n_pages = 0;
  AlignedBuffer data;  // zeroed: masked positions must hold finite numbers

  /// Bytes of K + V of one kv head in one page.
  size_t head_bytes_of(int layer) const { return head_layout[static_cast<size_t>(layer)].bytes; }

  /// errors: invalid_argument (no layer or page; n_kv_heads < 1; head_dim not a multiple of 8, or of 32 for
  /// q8_0), out_of_memory.
  static Result<KvPool> create(KvDType dtype, std::vector<KvLayerShape> layers, int32_t n_pages);
  uint8_t* page_layer(int32_t page, int layer) {
    return data.data() + static_cast<size_t>(page) * page_bytes + layer_offset[static_cast<size_t>(layer)];
  }
  const uint8_t* page_layer(int32_t page, int layer) const {
    return const_cast<KvPool*>(this)->page_layer(page, layer);
  }
};

/// Consecutive rows of one sequence inside a batch: row row_begin + i is at position pos_begin + i.
/// pages[p] holds positions [p * kKvPageSize, (p+1) * kKvPageSize) of the sequence.
struct KvRun {
  int32_t row_begin = 0;
  int32_t n_rows = 0;
  int32_t pos_begin = 0;
  std::span<const int32_t> pages;
};

}  // namespace dspark
