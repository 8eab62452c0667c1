// kv_write of kernels/attention.h: which rows go to which pages, by whom. Rounding and layout are in
// cpu/kv_write-inl.h.

#include <algorithm>
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/cpu/attention_kernels.h"

namespace dspark {
namespace {

struct Source {
  const float* k;
  const float* v;
  int64_t k_stride;
  int64_t v_stride;
};

// Rows [first, last) of a run, all heads.
void write_rows(KvPool& cache, int layer, const KvRun& run, int32_t first, int32_t last, const Source& src) {
  const KvHeadLayout& layout = cache.head_layout[static_cast<size_t>(layer)];
  const auto write = active_attention_kernels().write_row;
  const int32_t n_heads = cache.layers[static_cast<size_t>(layer)].n_kv_heads;
  for (int32_t i = first; i < last; ++i) {
    const int32_t pos = run.pos_begin + i;
    uint8_t* block = cache.page_layer(run.pages[static_cast<size_t>(pos / kKvPageSize)], layer);
    const int64_t row = run.row_begin + i;
    for (int32_t h = 0; h < n_heads; ++h) {
      const int64_t column = static_cast<int64_t>(h) * layout.head_dim;
      write(cache.dtype, layout, block + static_cast<size_t>(h) * layout.bytes, pos % kKvPageSize,
            src.k + row * src.k_stride + column, src.v + row * src.v_stride + column);
    }
  }
}

}  // namespace

void kv_write(ThreadPool& pool, KvPool& cache, int layer, std::span<const KvRun> runs, const float* k,
              const float* v, int64_t k_stride, int64_t v_stride) {
  const Source src{k, v, k_stride, v_stride};
  const KvLayerShape& shape = cache.layers[static_cast<size_t>(layer)];
  for (const KvRun& run : runs) {
    if (run.n_rows <= 0) continue;
    // Tasks of whole pages: neighbours in a page share cache lines and even 32-bit words.
    const int32_t first_page = run.pos_begin / kKvPageSize;
    const int32_t end_page = (run.pos_begin + run.n_rows - 1) / kKvPageSize + 1;
    constexpr int64_t kInlineElements = 16384;  // about what a parallel phase costs
    const int64_t elements = static_cast<int64_t>(run.n_rows) * shape.n_kv_heads * shape.head_dim;
    if (elements <= kInlineElements) {
      write_rows(cache, layer, run, 0, run.n_rows, src);
      continue;
    }
    pool.parallel_for(end_page - first_page, [&](int64_t task, int) {
      const int32_t page_pos = (first_page + static_cast<int32_t>(task)) * kKvPageSize - run.pos_begin;
      write_rows(cache, layer, run, std::max(page_pos, 0), std::min(page_pos + kKvPageSize, run.n_rows), src);
    });
  }
}

}  // namespace dspark
