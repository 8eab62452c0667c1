// kv_write of kernels/attention.h: rounds rows of K and V to the cache type and scatters them into panels.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/attention.h"

namespace dspark {
namespace {

// Stored numbers are always finite: a page that held an overflown sequence may be read, multiplied with
// zero, by the next one.
float finite(float x) {
  constexpr float kMax = std::numeric_limits<float>::max();
  if (x > kMax) return kMax;
  if (x < -kMax) return -kMax;
  return x == x ? x : 0.0f;
}

// To nearest, ties to even; what would round to infinity becomes the largest finite number.
uint16_t to_bf16(float x) {
  uint32_t bits;
  x = finite(x);
  std::memcpy(&bits, &x, sizeof(bits));
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>((rounded & 0x7fffu) < 0x7f80u ? rounded : rounded - 1u);
}

float from_bf16(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Scale of a block of 32: max|x| / 127 rounded up to bf16, so that quotients stay within +-127.
uint16_t block_scale(const float* x) {
  float largest = 0.0f;
  for (int i = 0; i < kKvScaleBlock; ++i) largest = std::fmax(largest, std::fabs(finite(x[i])));
  const float scale = largest / 127.0f;
  uint32_t bits;
  std::memcpy(&bits, &scale, sizeof(bits));
  return static_cast<uint16_t>((bits + 0xffffu) >> 16);
}

int8_t quantise(float x, float inverse_scale) {
  const float q = std::nearbyintf(finite(x) * inverse_scale);
  return static_cast<int8_t>(std::fmin(127.0f, std::fmax(-127.0f, q)));
}

// One row of one head at position `slot` of its page; block: the head's bytes in that page.
void write_f32(const KvHeadLayout& layout, uint8_t* block, int slot, const float* k, const float* v) {
  float* k_out = reinterpret_cast<float*>(block + slot / kKvPanel * layout.k_panel_bytes) + slot % kKvPanel;
  float* v_out = reinterpret_cast<float*>(block + layout.v_offset) + slot * layout.v_dim;
  for (int32_t d = 0; d < layout.head_dim; ++d) {
    k_out[d * kKvPanel] = finite(k[d]);
    v_out[d] = finite(v[d]);
  }
}

void write_bf16(const KvHeadLayout& layout, uint8_t* block, int slot, const float* k, const float* v) {
  uint16_t* k_out =
      reinterpret_cast<uint16_t*>(block + slot / kKvPanel * layout.k_panel_bytes) + slot % kKvPanel * 2;
  uint16_t* v_out =
      reinterpret_cast<uint16_t*>(block + layout.v_offset) + slot / 2 * layout.v_dim * 2 + slot % 2;
  for (int32_t d = 0; d < layout.head_dim; d += 2) {
    k_out[d * kKvPanel] = to_bf16(k[d]);
    k_out[d * kKvPanel + 1] = to_bf16(k[d + 1]);
  }
  for (int32_t d = 0; d < layout.head_dim; ++d) v_out[2 * d] = to_bf16(v[d]);
}

void write_q8(const KvHeadLayout& layout, uint8_t* block, int slot, const float* k, const float* v) {
  const int32_t n_blocks = layout.head_dim / kKvScaleBlock;
  const int panel = slot / kKvPanel, lane = slot % kKvPanel;
  int8_t* k_out = reinterpret_cast<int8_t*>(block + panel * layout.k_panel_bytes) + lane * 4;
  uint16_t* k_scale =
      reinterpret_cast<uint16_t*>(block + layout.k_scale_offset) + panel * n_blocks * kKvPanel + lane;
  int8_t* v_out = reinterpret_cast<int8_t*>(block + layout.v_offset) + slot * layout.head_dim;
  uint16_t* v_scale = reinterpret_cast<uint16_t*>(block + layout.v_scale_offset) + slot * n_blocks;
  for (int32_t b = 0; b < n_blocks; ++b) {
    const float* k_block = k + b * kKvScaleBlock;
    const float* v_block = v + b * kKvScaleBlock;
    k_scale[b * kKvPanel] = block_scale(k_block);
    v_scale[b] = block_scale(v_block);
    const float k_step = from_bf16(k_scale[b * kKvPanel]), v_step = from_bf16(v_scale[b]);
    // The smallest normal: blocks of denormals become zeros instead of dividing by (nearly) nothing.
    constexpr float kTiny = std::numeric_limits<float>::min();
    const float k_inverse = k_step >= kTiny ? 1.0f / k_step : 0.0f;
    const float v_inverse = v_step >= kTiny ? 1.0f / v_step : 0.0f;
    for (int32_t i = 0; i < kKvScaleBlock; ++i) {
      const int32_t d = b * kKvScaleBlock + i;
      k_out[d / 4 * 64 + d % 4] = quantise(k_block[i], k_inverse);
      v_out[d] = quantise(v_block[i], v_inverse);
    }
  }
}

struct Source {
  const float* k;
  const float* v;
  int64_t k_stride;
  int64_t v_stride;
};

// Rows [first, last) of a run, all heads.
void write_rows(KvPool& cache, int layer, const KvRun& run, int32_t first, int32_t last, const Source& src) {
  const KvHeadLayout& layout = cache.head_layout[static_cast<size_t>(layer)];
  const auto write = cache.dtype == KvDType::kF32    ? write_f32
                     : cache.dtype == KvDType::kBF16 ? write_bf16
                                                     : write_q8;
  const int32_t n_heads = cache.layers[static_cast<size_t>(layer)].n_kv_heads;
  for (int32_t i = first; i < last; ++i) {
    const int32_t pos = run.pos_begin + i;
    uint8_t* block = cache.page_layer(run.pages[static_cast<size_t>(pos / kKvPageSize)], layer);
    const int64_t row = run.row_begin + i;
    for (int32_t h = 0; h < n_heads; ++h) {
      const int64_t column = static_cast<int64_t>(h) * layout.head_dim;
      write(layout, block + static_cast<size_t>(h) * layout.bytes, pos % kKvPageSize,
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
    // Tasks of whole pages, so that no two threads write into one cache line.
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
      const int32_t first = page_pos > 0 ? page_pos : 0;
      const int32_t last = page_pos + kKvPageSize < run.n_rows ? page_pos + kKvPageSize : run.n_rows;
      write_rows(cache, layer, run, first, last, src);
    });
  }
}

}  // namespace dspark
