#include "kernels/kv_cache.h"

#include <fmt/format.h>

#include <cstdint>
#include <limits>

namespace dspark {
namespace {

KvHeadLayout make_layout(KvDType dtype, int32_t head_dim) {
  KvHeadLayout layout;
  const size_t dim = static_cast<size_t>(head_dim);
  const size_t v_dim = (dim + 15) / 16 * 16;
  layout.head_dim = head_dim;
  layout.v_dim = static_cast<int32_t>(v_dim);
  const size_t element = dtype == KvDType::kF32 ? 4 : dtype == KvDType::kBF16 ? 2 : 1;
  const size_t scales = dtype == KvDType::kQ8_0 ? kKvPageSize * (dim / kKvScaleBlock) * sizeof(uint16_t) : 0;
  layout.k_panel_bytes = kKvPanel * dim * element;
  layout.k_scale_offset = kKvPageSize * dim * element;
  layout.v_offset = layout.k_scale_offset + scales;
  layout.v_scale_offset = layout.v_offset + kKvPageSize * v_dim * element;
  layout.bytes = layout.v_scale_offset + scales;
  return layout;
}

}  // namespace

Result<KvPool> KvPool::create(KvDType dtype, std::vector<KvLayerShape> layers, int32_t n_pages) {
  if (layers.empty() || n_pages < 1) {
    return invalid_argument(fmt::format("kv cache: want at least one layer and one page, found {} and {}",
                                        layers.size(), n_pages));
  }
  KvPool pool;
  pool.dtype = dtype;
  pool.n_pages = n_pages;
  const int32_t step = dtype == KvDType::kQ8_0 ? kKvScaleBlock : 8;
  constexpr int32_t kMaxHeadDim = 1 << 16, kMaxHeads = 1 << 16;  // keeps all sizes far from overflow
  for (size_t l = 0; l < layers.size(); ++l) {
    const KvLayerShape& shape = layers[l];
    if (shape.head_dim < step || shape.head_dim % step != 0 || shape.head_dim > kMaxHeadDim) {
      return invalid_argument(
          fmt::format("kv cache: layer {}: want head_dim a multiple of {} up to {}, found {}", l, step,
                      kMaxHeadDim, shape.head_dim));
    }
    if (shape.n_kv_heads < 1 || shape.n_kv_heads > kMaxHeads) {
      return invalid_argument(
          fmt::format("kv cache: layer {}: want 1 to {} kv heads, found {}", l, kMaxHeads, shape.n_kv_heads));
    }
    pool.head_layout.push_back(make_layout(dtype, shape.head_dim));
    pool.layer_offset.push_back(pool.page_bytes);
    pool.page_bytes += pool.head_layout.back().bytes * static_cast<size_t>(shape.n_kv_heads);
  }
  const size_t limit = std::numeric_limits<size_t>::max() / 2 / static_cast<size_t>(n_pages);
  if (pool.page_bytes <= limit) pool.data = AlignedBuffer(pool.page_bytes * static_cast<size_t>(n_pages));
  if (pool.data.data() == nullptr) {
    return out_of_memory(
        fmt::format("kv cache: cannot allocate {} pages of {} bytes", n_pages, pool.page_bytes));
  }
  pool.layers = std::move(layers);
  return pool;
}

}  // namespace dspark
