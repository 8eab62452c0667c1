// Attention of one tile, written once for all instruction sets: see kernels/attention.h for the contract and
// attention_micro-inl.h for the inner loops.
#pragma once

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/attention_micro-inl.h"
#include "kernels/cpu/kv_write-inl.h"
#include "kernels/cpu/math-inl.h"

namespace dspark {
namespace {

constexpr float kMinusInfinity = -__builtin_inff();

// Parts of a thread's workspace, each on a cache line.
struct Workspace {
  uint8_t* query;  // packed query vectors, block after block
  float* state;    // merged results of every query vector
  float* partial;  // one block's results of one chunk
  float* scores;   // kBlock x kKvChunk
  uint8_t* weights;
};

size_t query_block_bytes(int32_t head_dim) {
  return static_cast<size_t>(head_dim) * kBlock * sizeof(float);
}

size_t workspace_bytes(int32_t n_vectors, int32_t head_dim) {
  const int32_t v_dim = (head_dim + 15) / 16 * 16;
  const size_t n_blocks = static_cast<size_t>((n_vectors + kBlock - 1) / kBlock);
  const size_t floats =
      (n_blocks + 1) * kBlock * static_cast<size_t>(partial_floats(v_dim)) + 2 * kBlock * kKvChunk;
  return n_blocks * query_block_bytes(head_dim) + floats * sizeof(float) + 64;
}

Workspace carve(const AttentionTile& tile) {
  const size_t n_blocks = static_cast<size_t>((tile.n_rows * tile.group + kBlock - 1) / kBlock);
  const size_t stride = static_cast<size_t>(partial_floats(tile.layout.v_dim));
  Workspace work;
  work.query = static_cast<uint8_t*>(tile.workspace);
  work.scores = reinterpret_cast<float*>(work.query +
                                         (n_blocks * query_block_bytes(tile.layout.head_dim) + 63) / 64 * 64);
  work.weights = reinterpret_cast<uint8_t*>(work.scores + kBlock * kKvChunk);
  work.partial = work.scores + 2 * kBlock * kKvChunk;
  work.state = work.partial + kBlock * stride;
  return work;
}

// Positions of `chunk` that row `row` of the tile sees, relative to the chunk: [begin, end), empty if none.
struct Visible {
  int begin;
  int end;
};
DSPARK_INLINE int clamp_to_chunk(int32_t x) {
  return x < 0 ? 0 : x > kKvChunk ? kKvChunk : x;
}
// First and last position that row `row` of the tile sees.
DSPARK_INLINE int32_t oldest_position(const AttentionTile& tile, int32_t row) {
  if (tile.window == 0) return 0;
  const int32_t oldest =
      tile.block_end > 0 ? tile.block_begin - tile.window : tile.pos_begin + row - tile.window + 1;
  return oldest > 0 ? oldest : 0;
}
DSPARK_INLINE int32_t newest_position(const AttentionTile& tile, int32_t row) {
  return tile.block_end > 0 ? tile.block_end - 1 : tile.pos_begin + row;
}
DSPARK_INLINE Visible visible(const AttentionTile& tile, int32_t chunk, int32_t row) {
  const int begin = clamp_to_chunk(oldest_position(tile, row) - chunk * kKvChunk);
  const int end = clamp_to_chunk(newest_position(tile, row) - chunk * kKvChunk + 1);
  return {begin, end > begin ? end : begin};
}

const uint8_t* block_of(const AttentionTile& tile, int32_t page) {
  return tile.cache + static_cast<size_t>(tile.pages[page]) * tile.page_bytes;
}

// Pages of `chunk` that rows [first_row, last_row] need. The first block of a tile brings the data into the
// cache, so it prefetches what comes next; later blocks find it there.
ChunkPages chunk_pages(const AttentionTile& tile, int32_t chunk, int32_t first_row, int32_t last_row,
                       bool last_block) {
  ChunkPages pages;
  const int begin = visible(tile, chunk, first_row).begin, end = visible(tile, chunk, last_row).end;
  const int32_t base = chunk * (kKvChunk / kKvPageSize);
  pages.first = begin / kKvPageSize;
  pages.last = (end + kKvPageSize - 1) / kKvPageSize;
  for (int i = pages.first; i < pages.last; ++i) pages.block[i] = block_of(tile, base + i);
  const int32_t last_page = newest_position(tile, tile.n_rows - 1) / kKvPageSize;
  // Pages are read in the order K of all, V of all, then the next chunk's.
  const int n = pages.last - pages.first;
  const auto ahead = [&](int i) {
    if (i < n) return pages.block[pages.first + i];
    if (i < 2 * n) return pages.block[pages.first + i - n] + tile.layout.v_offset;
    const int32_t page = base + pages.last + i - 2 * n;
    return last_block && page <= last_page ? block_of(tile, page) : pages.block[pages.first];
  };
  for (int i = 0; i < n; ++i) {
    pages.k_ahead[pages.first + i] = ahead(i + kPagesAhead);
    pages.v_ahead[pages.first + i] = ahead(i + n + kPagesAhead);
  }
  return pages;
}

// Caps and masks scores of positions [begin, end) of whole pages, in place; `see` is what is not masked.
// Returns the maximum.
float finish_scores(const AttentionTile& tile, float* s, int begin, int end, Visible see) {
  if (tile.softcap != 0.0f) {
    const VecF scale = set1(tile.scale), cap = set1(tile.softcap);
    for (int i = begin; i < end; i += kLanes) store(s + i, tanh_of(load(s + i) * scale / cap) * cap);
  }
  // Only the vectors at the two ends can hold masked positions beside visible ones.
  const VecF lowest = set1(kMinusInfinity);
  const VecF first = set1(static_cast<float>(see.begin)), limit = set1(static_cast<float>(see.end));
  const auto mask = [&](int i) {
    const VecF position = set1(static_cast<float>(i)) + iota();
    store(s + i, select(less(position, first), lowest, select(less(position, limit), load(s + i), lowest)));
  };
  for (int i = begin; i < end && i < see.begin; i += kLanes) mask(i);
  for (int i = see.end > begin ? see.end / kLanes * kLanes : begin; i < end; i += kLanes) mask(i);
  VecF largest = lowest;
  for (int i = begin; i < end; i += kLanes) largest = max(largest, load(s + i));
  return reduce_max(largest);
}

template <class Cache, int R>
void weigh_values(const ChunkPages& pages, const KvHeadLayout& layout, const typename Cache::Weight* p,
                  float* out) {
  const int64_t stride = partial_floats(layout.v_dim);
  constexpr int kStep = kColumns<R>;
  int32_t column = 0;
  for (; column + kStep * kLanes <= layout.v_dim; column += kStep * kLanes) {
    Cache::template values<R, kStep>(pages, layout, p, column, out + column, stride);
  }
  for (; column < layout.v_dim; column += kLanes) {
    Cache::template values<R, 1>(pages, layout, p, column, out + column, stride);
  }
}

// Partial results of query vectors [vector, vector + R) for one chunk.
template <class Cache, int R>
void block_of_chunk(const AttentionTile& tile, const Workspace& work, int32_t chunk, int32_t vector,
                    float* partials) {
  using Query = typename Cache::Query;
  using Weight = typename Cache::Weight;
  const int32_t first_row = vector / tile.group, last_row = (vector + R - 1) / tile.group;
  const ChunkPages pages =
      chunk_pages(tile, chunk, first_row, last_row, vector + R == tile.n_rows * tile.group);
  const Query* q =
      reinterpret_cast<const Query*>(work.query + vector / kBlock * query_block_bytes(tile.layout.head_dim));
  for (int i = pages.first; i < pages.last; ++i) {
    Cache::template scores<R>(pages.block[i], tile.layout, q, work.scores + i * kKvPageSize,
                              pages.k_ahead[i]);
  }
  Weight* weights = reinterpret_cast<Weight*>(work.weights);
  const int32_t stride = partial_floats(tile.layout.v_dim);
  // Softmax in powers of two: weight = 2^(score * multiplier - maximum).
  constexpr float kLog2E = 1.44269504f;
  const float multiplier = tile.softcap != 0.0f ? kLog2E : tile.scale * kLog2E;
  for (int r = 0; r < R; ++r) {
    float* s = work.scores + r * kKvChunk;
    const int begin = pages.first * kKvPageSize, end = pages.last * kKvPageSize;
    const Visible see = visible(tile, chunk, (vector + r) / tile.group);
    const float maximum = finish_scores(tile, s, begin, end, see) * multiplier;
    partials[r * stride + tile.layout.v_dim] = maximum;
    partials[r * stride + tile.layout.v_dim + 1] =
        Cache::weights(s, weights + r * kKvChunk, begin, end, multiplier, maximum);
  }
  weigh_values<Cache, R>(pages, tile.layout, weights, partials);
}

// block_of_chunk with R known at compile time.
template <class Cache, int R = kBlock>
void any_block_of_chunk(int n, const AttentionTile& tile, const Workspace& work, int32_t chunk,
                        int32_t vector, float* partials) {
  if constexpr (R >= 1) {
    if (n == R) return block_of_chunk<Cache, R>(tile, work, chunk, vector, partials);
    any_block_of_chunk<Cache, R - 1>(n, tile, work, chunk, vector, partials);
  }
}

template <class Cache>
void pack_queries(const AttentionTile& tile, const Workspace& work) {
  using Query = typename Cache::Query;
  const int32_t head_dim = tile.layout.head_dim;
  for (int32_t v = 0; v < tile.n_rows * tile.group; ++v) {
    Query* packed =
        reinterpret_cast<Query*>(work.query + v / kBlock * query_block_bytes(head_dim)) + v % kBlock;
    Cache::pack_query(
        tile.q + v / tile.group * tile.q_stride + static_cast<int64_t>(v % tile.group) * head_dim, head_dim,
        packed);
  }
}

// state = state merged with the partial result of the next chunk. The one formula for all callers.
void merge(float* state, const float* partial, int32_t v_dim, bool first) {
  const int32_t n = partial_floats(v_dim);
  if (first) {
    for (int32_t i = 0; i < n; i += kLanes) store(state + i, load(partial + i));
    return;
  }
  const float largest = state[v_dim] > partial[v_dim] ? state[v_dim] : partial[v_dim];
  const VecF keep = exp2_or_zero<false>(set1(state[v_dim] - largest));
  const VecF add = exp2_or_zero<false>(set1(partial[v_dim] - largest));
  // The last 16 floats hold maximum and sum: the sum merges like a value, the maximum is set afterwards.
  for (int32_t i = 0; i < n; i += kLanes)
    store(state + i, fma(load(partial + i), add, load(state + i) * keep));
  state[v_dim] = largest;
}

void write_row(const AttentionTile& tile, int32_t vector, const float* state) {
  const int32_t head_dim = tile.layout.head_dim;
  float* out =
      tile.out + vector / tile.group * tile.out_stride + static_cast<int64_t>(vector % tile.group) * head_dim;
  const VecF inverse = set1(1.0f / state[tile.layout.v_dim + 1]);
  int32_t d = 0;
  for (; d + kLanes <= head_dim; d += kLanes) store(out + d, load(state + d) * inverse);
  if (d < head_dim) store_n(out + d, load(state + d) * inverse, head_dim - d);
}

int32_t first_chunk(const AttentionTile& tile, int32_t row) {
  return oldest_position(tile, row) / kKvChunk;
}

bool sees(const AttentionTile& tile, int32_t chunk, int32_t vector) {
  const Visible see = visible(tile, chunk, vector / tile.group);
  return see.end > see.begin;
}

template <class Cache>
void tile_of(const AttentionTile& tile) {
  const Workspace work = carve(tile);
  const int32_t n_vectors = tile.n_rows * tile.group, v_dim = tile.layout.v_dim,
                stride = partial_floats(v_dim);
  pack_queries<Cache>(tile, work);
  for (int32_t chunk = tile.chunk_begin; chunk < tile.chunk_end; ++chunk) {
    for (int32_t v = 0; v < n_vectors; v += kBlock) {
      const int n = n_vectors - v < kBlock ? n_vectors - v : kBlock;
      if (!sees(tile, chunk, v) && !sees(tile, chunk, v + n - 1)) continue;
      any_block_of_chunk<Cache>(n, tile, work, chunk, v, work.partial);
      for (int r = 0; r < n; ++r) {
        if (!sees(tile, chunk, v + r)) continue;
        merge(work.state + (v + r) * stride, work.partial + r * stride, v_dim,
              chunk == first_chunk(tile, (v + r) / tile.group));
      }
    }
  }
  for (int32_t v = 0; v < n_vectors; ++v) write_row(tile, v, work.state + v * stride);
}

template <class Cache>
void chunks_of(const AttentionTile& tile, float* partials) {
  const Workspace work = carve(tile);
  const int32_t n_vectors = tile.n_rows * tile.group, stride = partial_floats(tile.layout.v_dim);
  pack_queries<Cache>(tile, work);
  for (int32_t chunk = tile.chunk_begin; chunk < tile.chunk_end; ++chunk) {
    for (int32_t v = 0; v < n_vectors; v += kBlock) {
      const int n = n_vectors - v < kBlock ? n_vectors - v : kBlock;
      if (!sees(tile, chunk, v) && !sees(tile, chunk, v + n - 1)) continue;
      const int64_t at = static_cast<int64_t>(chunk - tile.chunk_begin) * n_vectors + v;
      any_block_of_chunk<Cache>(n, tile, work, chunk, v, partials + at * stride);
    }
  }
}

void run_tile(const AttentionTile& tile) {
  switch (tile.dtype) {
    case KvDType::kF32:
      return tile_of<F32Cache>(tile);
    case KvDType::kBF16:
      return tile_of<Bf16Kernel>(tile);
    case KvDType::kQ8_0:
      return tile_of<Q8Cache>(tile);
  }
}

void run_chunks(const AttentionTile& tile, float* partials) {
  switch (tile.dtype) {
    case KvDType::kF32:
      return chunks_of<F32Cache>(tile, partials);
    case KvDType::kBF16:
      return chunks_of<Bf16Kernel>(tile, partials);
    case KvDType::kQ8_0:
      return chunks_of<Q8Cache>(tile, partials);
  }
}

void merge_chunks(const AttentionTile& tile, const float* partials) {
  const Workspace work = carve(tile);
  const int32_t n_vectors = tile.n_rows * tile.group, v_dim = tile.layout.v_dim,
                stride = partial_floats(v_dim);
  for (int32_t v = 0; v < n_vectors; ++v) {
    for (int32_t chunk = tile.chunk_begin; chunk < tile.chunk_end; ++chunk) {
      if (!sees(tile, chunk, v)) continue;
      const int64_t at = static_cast<int64_t>(chunk - tile.chunk_begin) * n_vectors + v;
      merge(work.state, partials + at * stride, v_dim, chunk == first_chunk(tile, v / tile.group));
    }
    write_row(tile, v, work.state);
  }
}

constexpr AttentionKernels kAttentionKernels = {write_row, workspace_bytes, run_tile, run_chunks,
                                                merge_chunks};

}  // namespace
}  // namespace dspark
