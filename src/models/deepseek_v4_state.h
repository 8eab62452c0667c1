#pragma once
// What DeepSeek V4 remembers of a sequence, laid out in the pages of the cache.
//
// Everything is indexed by position: the key row of a token, its projections for the compressors, and the
// entry of a window of tokens, which stands in the page of the window's last token. A row depends on tokens
// up to its own position only. So nothing has to be undone when drafts are rejected (an entry is not looked
// at before its last token is there, and is written anew when that token comes), pages can be shared between
// sequences with the same prefix, and a sequence can be computed again after it lost its pages.

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/kv_cache.h"
#include "models/config.h"

namespace dspark {

/// Kinds of rows in a layer's part of a page.
enum class V4Field : uint8_t {
  kKey,         // (head_dim) rotated key, which is the value too; one per position
  kKv,          // compressor's projection, one per position; (2 * head_dim) in sparse layers
  kGate,        // compressor's gate, the same sizes
  kIndexKv,     // (2 * index_dim) of the indexer, one per position
  kIndexGate,   // the same
  kEntry,       // (head_dim) rotated entry, one per window
  kIndexEntry,  // (index_dim) rotated entry of the indexer, one per window
  kCount
};

/// Where the rows of one layer stand in its part of a page.
struct V4LayerLayout {
  struct Rows {
    int32_t n = 0;      // rows in a page
    int32_t width = 0;  // floats of a row
    size_t offset = 0;  // bytes from the start of the layer's part
    size_t row_bytes = 0;
  };
  Rows rows[static_cast<size_t>(V4Field::kCount)];
  size_t bytes = 0;

  const Rows& of(V4Field field) const { return rows[static_cast<size_t>(field)]; }
};

/// Layout of a layer with entries of `rate` tokens (0: none) for cache elements of `dtype`.
V4LayerLayout v4_layout(const ModelConfig& config, V4Attention attention, KvDType dtype);
/// The shape to ask of KvPool::create so that a page has room for the layer, whatever the element type.
KvLayerShape v4_kv_shape(const ModelConfig& config, V4Attention attention);

/// Encodes `width` floats as `dtype` (Q8_0: int8 with a bf16 scale per 32); what is not finite becomes 0 or
/// the largest number.
void v4_encode_row(KvDType dtype, const float* src, int32_t width, uint8_t* dst);
void v4_decode_row(KvDType dtype, const uint8_t* src, int32_t width, float* dst);

/// One layer's rows in a cache.
class V4Rows {
 public:
  V4Rows(KvPool& cache, int layer, const V4LayerLayout& layout)
      : cache_(&cache), layer_(layer), layout_(&layout) {}

  /// Row of a position.
  void write(std::span<const int32_t> pages, V4Field field, int32_t position, const float* row) {
    v4_encode_row(cache_->dtype, row, layout_->of(field).width,
                  at(pages, field, position, position % kKvPageSize));
  }
  void read(std::span<const int32_t> pages, V4Field field, int32_t position, float* row) const {
    v4_decode_row(cache_->dtype, at(pages, field, position, position % kKvPageSize), layout_->of(field).width,
                  row);
  }
  /// Entry of window `window` of `rate` tokens.
  void write_entry(std::span<const int32_t> pages, V4Field field, int32_t window, int32_t rate,
                   const float* row) {
    const int32_t last = window * rate + rate - 1;
    v4_encode_row(cache_->dtype, row, layout_->of(field).width,
                  at(pages, field, last, last % kKvPageSize / rate));
  }
  void read_entry(std::span<const int32_t> pages, V4Field field, int32_t window, int32_t rate,
                  float* row) const {
    const int32_t last = window * rate + rate - 1;
    v4_decode_row(cache_->dtype, at(pages, field, last, last % kKvPageSize / rate), layout_->of(field).width,
                  row);
  }

 private:
  uint8_t* at(std::span<const int32_t> pages, V4Field field, int32_t position, int32_t row) const {
    const V4LayerLayout::Rows& rows = layout_->of(field);
    return cache_->page_layer(pages[static_cast<size_t>(position / kKvPageSize)], layer_) + rows.offset +
           static_cast<size_t>(row) * rows.row_bytes;
  }

  KvPool* cache_;
  int layer_;
  const V4LayerLayout* layout_;
};

}  // namespace dspark
