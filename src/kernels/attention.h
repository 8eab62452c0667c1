#pragma once
// Attention of ragged batches over the paged cache.
//
// Contract (batch invariance): the context is walked in chunks of kKvChunk positions aligned to absolute
// positions; partial results (maximum, sum, weighted values) are merged in ascending order. The bits of a
// row's output do not depend on the other rows, on threads, or on how the cache was filled.

#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/thread_pool.h"
#include "kernels/kv_cache.h"

namespace dspark {

/// Stores rows of K and V (after norms and RoPE) at their positions.
/// k, v: row r of the batch, head h at [r * stride + h * head_dim]. bf16 rounds to nearest even; q8_0 takes
/// one scale per 32 elements. Infinities become the largest finite number and NaN becomes 0, so that pages
/// passed on from one sequence to the next never hold anything but finite numbers.
void kv_write(ThreadPool& pool, KvPool& cache, int layer, std::span<const KvRun> runs, const float* k,
              const float* v, int64_t k_stride, int64_t v_stride);

struct AttentionArgs {
  const float* q = nullptr;  // (rows, n_heads * head_dim), q_stride floats between rows
  int64_t q_stride = 0;
  float* out = nullptr;  // same shape, out_stride
  int64_t out_stride = 0;
  int32_t n_heads = 0;  // multiple of the layer's n_kv_heads; head h reads kv head h / (n_heads / n_kv_heads)
  float scale = 1.0f;   // > 0
  float softcap = 0.0f;  // 0: none; else scores become cap * tanh(score / cap)
  int32_t window = 0;    // 0: none; else query t sees keys t-window+1 .. t
  /// A drafter's block: every row of a run sees all positions up to the run's last row. With a window, all of
  /// them see the `window` positions before the run and the run itself.
  bool whole_run = false;
};

/// One piece of work of a call: a tile of rows and heads, over all its chunks or (shared) a range of them.
struct AttentionTask {
  int32_t run_idx = 0;
  int32_t kv_head = 0;
  int32_t first_row = 0;  // of the run
  int32_t n_rows = 0;
  int32_t tile_chunk_begin = 0;  // all chunks of the tile
  int32_t tile_chunk_end = 0;
  int32_t chunk_begin = 0;  // of this task
  int32_t chunk_end = 0;
  int32_t shared_idx = -1;  // index of the tile among those cut into several tasks, -1: not cut
  int64_t partial_at = 0;   // floats from the start of the partials to those of tile_chunk_begin
};

/// The largest calls that scratch is made ready for.
struct AttentionCapacity {
  int64_t n_rows = 0;  // of all runs
  int32_t n_heads = 0;
  KvLayerShape shape;          // of the layer
  int64_t context_length = 0;  // most positions of one sequence, a block behind them included
};

/// Scratch of attention, grown on demand and reused. One call at a time.
struct AttentionScratch {
  /// Most bytes of partial results that reserve() takes; what longer contexts on many threads need beyond
  /// comes on demand. Memory that was never used is not resident.
  static constexpr size_t kMostReserved = size_t{64} << 20;

  /// Makes room for such calls on `n_threads` threads, so that they allocate nothing. Room for calls of other
  /// shapes stays. returns: false when memory is short.
  bool reserve(int n_threads, const AttentionCapacity& capacity);

  AlignedBuffer partials;    // partial results of tiles that are cut
  AlignedBuffer workspaces;  // one part per thread
  std::vector<AttentionTask> tasks;
  std::vector<int32_t> pending;  // per cut tile: tasks still running
};

/// Causal attention of every row over its own sequence, positions 0..pos (its own included).
/// requires: kv_write of the same rows done before; q and out do not overlap.
void attention(ThreadPool& pool, const KvPool& cache, int layer, std::span<const KvRun> runs,
               const AttentionArgs& args, AttentionScratch& scratch);

}  // namespace dspark
