// Plans the work of one attention call: tiles of rows, cut by chunks where one tile would be too much for one
// thread. The arithmetic is in cpu/attention-inl.h; how the work is cut never shows in the results.

#include "kernels/attention.h"

#include <algorithm>
#include <atomic>
#include <tuple>
#include <utility>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/isa.h"

namespace dspark {

const AttentionKernels& active_attention_kernels() {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::kAvx512:
      return attention_kernels_avx512bf16();
    case Isa::kAvx512Vnni:
      return attention_kernels_avx512();
    case Isa::kAvx2:
      return attention_kernels_avx2();
    case Isa::kPortable:
      break;
  }
#endif
  return attention_kernels_portable();
}

namespace {

constexpr int32_t kTileVectors = 64;  // query vectors that share one walk over the cache
constexpr int64_t kReadCost = 4;      // reading one position of K and V, in units of one query vector's work
constexpr int64_t kInlineCost = 1 << 17;  // multiply-adds that take about as long as waking the threads
constexpr int64_t kTasksPerThread = 8;    // aim when tiles are cut
// Bounds for a call (see reserve): tiles that are cut, and tasks that cutting adds, per thread.
constexpr int64_t kMostCutTiles = kTasksPerThread;
constexpr int64_t kMostCutTasks = 4 * kTasksPerThread;

// Most rows of a tile: about kTileVectors vectors, a multiple of the kernels' blocks of eight.
int32_t largest_tile(int32_t group) {
  if (group > 8) return std::max(1, kTileVectors / group);
  return 8 * std::max(1, kTileVectors / (8 * group));
}

size_t workspace_bytes_of(const AttentionKernels& kernels, int32_t group, int32_t head_dim) {
  return (kernels.workspace_bytes(largest_tile(group) * group, head_dim) + 127) / 128 * 128;
}

// returns: false when memory is short.
bool grow_to(AlignedBuffer& buffer, size_t bytes) {
  if (buffer.size() < bytes) buffer = AlignedBuffer(bytes);
  return buffer.size() >= bytes;
}

struct Call {
  const KvPool& cache;
  int layer;
  std::span<const KvRun> runs;
  const AttentionArgs& args;
  AttentionScratch& scratch;
  const AttentionKernels& kernels;
  int32_t group = 0;
  int32_t tile_rows = 0;
  size_t workspace_bytes = 0;  // of one thread

  const KvHeadLayout& layout() const { return cache.head_layout[static_cast<size_t>(layer)]; }
  int32_t n_kv_heads() const { return cache.layers[static_cast<size_t>(layer)].n_kv_heads; }
};

// First position that row `row` of a run sees, and the one behind the last.
int32_t oldest(const Call& call, const KvRun& run, int32_t row) {
  if (call.args.window == 0) return 0;
  if (call.args.whole_run) return std::max(0, run.pos_begin - call.args.window);
  return std::max(0, run.pos_begin + row - call.args.window + 1);
}
int32_t seen_end(const Call& call, const KvRun& run, int32_t row) {
  return run.pos_begin + (call.args.whole_run ? run.n_rows : row + 1);
}

int64_t cost(const Call& call, const KvRun& run, int32_t first_row, int32_t n_rows) {
  const int64_t positions = seen_end(call, run, first_row + n_rows - 1) - oldest(call, run, first_row);
  return (kReadCost + int64_t{n_rows} * call.group) * positions * call.layout().head_dim;
}

// Calls fn(run_idx, first_row, n_rows) for all tiles of one kv head.
template <typename F>
void for_each_tile(const Call& call, F&& fn) {
  const int32_t step = call.tile_rows;
  for (size_t i = 0; i < call.runs.size(); ++i) {
    for (int32_t row = 0; row < call.runs[i].n_rows; row += step) {
      fn(static_cast<int32_t>(i), row, std::min(step, call.runs[i].n_rows - row));
    }
  }
}

// Chunks that some row of a tile sees: [first, second).
std::pair<int32_t, int32_t> chunks_of(const Call& call, const KvRun& run, int32_t first_row, int32_t n_rows) {
  return {oldest(call, run, first_row) / kKvChunk,
          (seen_end(call, run, first_row + n_rows - 1) - 1) / kKvChunk + 1};
}

// Makes tiles smaller, down to one block of vectors, while there are fewer pieces of work than threads want:
// a short context of few kv heads.
void shrink_tiles(Call& call, int n_threads) {
  const int32_t smallest = (7 + call.group) / call.group;
  while (call.tile_rows > smallest) {
    int64_t n_pieces = 0;
    for_each_tile(call, [&](int32_t run_idx, int32_t row, int32_t n_rows) {
      const auto [first, last] = chunks_of(call, call.runs[static_cast<size_t>(run_idx)], row, n_rows);
      n_pieces += int64_t{last - first} * call.n_kv_heads();
    });
    if (n_pieces >= 2 * n_threads) return;
    call.tile_rows = std::max(smallest, call.tile_rows / 2);
  }
}

// Adds the tasks of one tile, cut into about `n_parts`. Returns the floats of partial results it needs.
int64_t add_tile(Call& call, AttentionTask task, int64_t n_parts, int64_t partial_at) {
  const KvRun& run = call.runs[static_cast<size_t>(task.run_idx)];
  std::tie(task.tile_chunk_begin, task.tile_chunk_end) = chunks_of(call, run, task.first_row, task.n_rows);
  const int32_t n_chunks = task.tile_chunk_end - task.tile_chunk_begin;
  const int32_t parts = static_cast<int32_t>(std::clamp<int64_t>(n_parts, 1, n_chunks));
  const int32_t step = (n_chunks + parts - 1) / parts;
  if (step < n_chunks) {
    task.shared_idx = static_cast<int32_t>(call.scratch.pending.size());
    task.partial_at = partial_at;
    call.scratch.pending.push_back((n_chunks + step - 1) / step);
  }
  for (int32_t chunk = task.tile_chunk_begin; chunk < task.tile_chunk_end; chunk += step) {
    task.chunk_begin = chunk;
    task.chunk_end = std::min(chunk + step, task.tile_chunk_end);
    call.scratch.tasks.push_back(task);
  }
  if (task.shared_idx < 0) return 0;
  return int64_t{n_chunks} * task.n_rows * call.group * partial_floats(call.layout().v_dim);
}

// Fills scratch.tasks and sizes the buffers. Returns the cost of everything.
int64_t plan(Call& call, int n_threads) {
  AttentionScratch& scratch = call.scratch;
  scratch.tasks.clear();
  scratch.pending.clear();
  int64_t total = 0;
  for_each_tile(call, [&](int32_t run_idx, int32_t row, int32_t n_rows) {
    total += cost(call, call.runs[static_cast<size_t>(run_idx)], row, n_rows);
  });
  total *= call.n_kv_heads();
  const bool cut = n_threads > 1 && total > kInlineCost;
  if (cut) shrink_tiles(call, n_threads);
  const int64_t share = std::max<int64_t>(1, total / (kTasksPerThread * n_threads));
  int64_t floats = 0;
  for (int32_t kv_head = 0; kv_head < call.n_kv_heads(); ++kv_head) {
    for_each_tile(call, [&](int32_t run_idx, int32_t row, int32_t n_rows) {
      AttentionTask task;
      task.run_idx = run_idx;
      task.kv_head = kv_head;
      task.first_row = row;
      task.n_rows = n_rows;
      const int64_t tile_cost = cost(call, call.runs[static_cast<size_t>(run_idx)], row, n_rows);
      // Tiles up to twice the share stay whole: partial results cost something too.
      const int64_t parts = cut && tile_cost > 2 * share ? (tile_cost + share - 1) / share : 1;
      floats += add_tile(call, task, parts, floats);
    });
  }
  grow_to(scratch.partials, static_cast<size_t>(floats) * sizeof(float));
  call.workspace_bytes = workspace_bytes_of(call.kernels, call.group, call.layout().head_dim);
  grow_to(scratch.workspaces, call.workspace_bytes * static_cast<size_t>(n_threads));
  return total;
}

void run_task(const Call& call, const AttentionTask& task, int thread_idx) {
  const KvRun& run = call.runs[static_cast<size_t>(task.run_idx)];
  const AttentionArgs& args = call.args;
  AttentionTile tile;
  tile.dtype = call.cache.dtype;
  tile.layout = call.layout();
  tile.cache = call.cache.page_layer(0, call.layer) + static_cast<size_t>(task.kv_head) * tile.layout.bytes;
  tile.page_bytes = call.cache.page_bytes;
  tile.pages = run.pages.data();
  const int64_t row = run.row_begin + task.first_row;
  const int64_t column = static_cast<int64_t>(task.kv_head) * call.group * tile.layout.head_dim;
  tile.q = args.q + row * args.q_stride + column;
  tile.q_stride = args.q_stride;
  tile.out = args.out + row * args.out_stride + column;
  tile.out_stride = args.out_stride;
  tile.n_rows = task.n_rows;
  tile.group = call.group;
  tile.pos_begin = run.pos_begin + task.first_row;
  if (args.whole_run) {
    tile.block_begin = run.pos_begin;
    tile.block_end = run.pos_begin + run.n_rows;
  }
  tile.window = args.window;
  tile.scale = args.scale;
  tile.softcap = args.softcap;
  tile.chunk_begin = task.chunk_begin;
  tile.chunk_end = task.chunk_end;
  tile.workspace = call.scratch.workspaces.data() + call.workspace_bytes * static_cast<size_t>(thread_idx);
  if (task.shared_idx < 0) return call.kernels.run_tile(tile);

  float* partials = call.scratch.partials.as<float>() + task.partial_at;
  const int64_t chunk_floats = int64_t{task.n_rows} * call.group * partial_floats(tile.layout.v_dim);
  call.kernels.run_chunks(tile, partials + (task.chunk_begin - task.tile_chunk_begin) * chunk_floats);
  // Whoever finishes a tile's last part merges it: no second parallel phase.
  std::atomic_ref<int32_t> pending(call.scratch.pending[static_cast<size_t>(task.shared_idx)]);
  if (pending.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  tile.chunk_begin = task.tile_chunk_begin;
  tile.chunk_end = task.tile_chunk_end;
  call.kernels.merge_chunks(tile, partials);
}

}  // namespace

// Tiles have at least one row. A tile that is cut costs more than two shares, and shares are a part in
// kTasksPerThread * n_threads of everything; shrunk tiles, which each read their context, cost up to half as
// much again: fewer than kMostCutTiles * n_threads are cut, into fewer than kMostCutTasks * n_threads tasks.
bool AttentionScratch::reserve(int n_threads, const AttentionCapacity& capacity) {
  const int32_t group = capacity.n_heads / capacity.shape.n_kv_heads;
  const bool cut = n_threads > 1;
  tasks.reserve(static_cast<size_t>(capacity.n_rows * capacity.shape.n_kv_heads +
                                    (cut ? kMostCutTasks * n_threads : 0)));
  const size_t workspace = workspace_bytes_of(active_attention_kernels(), group, capacity.shape.head_dim);
  if (!grow_to(workspaces, workspace * static_cast<size_t>(n_threads))) return false;
  if (!cut) return true;
  pending.reserve(static_cast<size_t>(kMostCutTiles * n_threads));
  const int64_t vectors =
      std::min(kMostCutTiles * n_threads * largest_tile(group) * group, capacity.n_rows * capacity.n_heads);
  const int64_t chunks = (capacity.context_length + kKvChunk - 1) / kKvChunk;
  const int64_t floats = vectors * chunks * partial_floats((capacity.shape.head_dim + 15) / 16 * 16);
  return grow_to(partials, std::min(kMostReserved, static_cast<size_t>(floats) * sizeof(float)));
}

void attention(ThreadPool& pool, const KvPool& cache, int layer, std::span<const KvRun> runs,
               const AttentionArgs& args, AttentionScratch& scratch) {
  Call call{cache, layer, runs, args, scratch, active_attention_kernels()};
  call.group = args.n_heads / call.n_kv_heads();
  call.tile_rows = largest_tile(call.group);
  const int64_t total = plan(call, pool.n_threads());
  const int64_t n_tasks = static_cast<int64_t>(scratch.tasks.size());
  const auto work = [&](int64_t task, int thread) {
    run_task(call, scratch.tasks[static_cast<size_t>(task)], thread);
  };
  if (total <= kInlineCost) {
    for (int64_t task = 0; task < n_tasks; ++task) work(task, 0);
  } else {
    pool.parallel_for(n_tasks, work);
  }
}

}  // namespace dspark
