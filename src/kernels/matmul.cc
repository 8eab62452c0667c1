#include "kernels/matmul.h"

#include <algorithm>

#include "kernels/isa.h"
#include "kernels/panels.h"

namespace dspark {
namespace {

const MatmulKernels& kernels() {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::kAvx512:
    case Isa::kAvx512Vnni:
      return kMatmulAvx512;
    case Isa::kAvx2:
      return kMatmulAvx2;
    case Isa::kPortable:
      break;
  }
#endif
  return kMatmulPortable;
}

void reserve(AlignedBuffer& buffer, size_t bytes) {
  if (buffer.size() < bytes) buffer = AlignedBuffer(bytes);
}

// Weights of one task: small enough that a slow or late thread can be helped, large enough to hide the claim.
constexpr size_t kTaskBytes = 48 << 10;
// Tasks per thread and job are not cut finer than this.
constexpr int64_t kTasksPerThread = 12;
// Row tiles of one task: a task covers a chunk of panels times a range of rows.
constexpr int64_t kTaskRows = 256;

// Activations below this number are quantised before the other threads would have started.
constexpr int64_t kInlineElements = 6144;

// A job cut into tasks: `chunk` panels times kTaskRows rows each.
struct JobPlan {
  int64_t chunk = 1;
  int64_t n_chunks = 0;
  int64_t first_task = 0;
};

bool has_pairs(PackKind kind) {
  const IntPairKernels* pairs = kernels().pairs;
  return pairs != nullptr && pairs->tile[static_cast<size_t>(kind)][kRowTile - 1] != nullptr;
}

JobPlan plan_job(const PackedMatrix& w, int64_t n_rows, int n_threads) {
  JobPlan plan;
  const int64_t by_bytes = static_cast<int64_t>(kTaskBytes / w.panel_bytes);
  const int64_t by_count = w.n_panels / (n_threads * kTasksPerThread);
  plan.chunk = std::clamp<int64_t>(std::max(by_bytes, by_count), 1, w.n_panels);
  if (n_threads == 1 && n_rows <= kRowTile) plan.chunk = w.n_panels;
  // Many rows: the chunk's panels stay in the cache while all row tiles pass over them, two at a time where
  // that is faster and leaves tasks enough.
  if (n_rows > kRowTile) plan.chunk = std::clamp<int64_t>(by_bytes, 1, 8);
  if (n_rows > kRowTile && has_pairs(w.kind) && w.n_panels >= 2 * n_threads) {
    plan.chunk = std::clamp<int64_t>((by_bytes + 1) / 2 * 2, 2, 8);
  }
  plan.n_chunks = (w.n_panels + plan.chunk - 1) / plan.chunk;
  return plan;
}

/// Where the columns of `n_panels` panels from `panel` on go, of the tile that begins with `row`.
TileOut tile_out(const MatmulJob& job, int64_t row, int64_t panel, int64_t y_panel, int64_t n_panels) {
  const int64_t column = panel * kPanelRows;
  const int64_t n_columns = std::min(n_panels * kPanelRows, job.w->n_out - column);
  return {job.y + row * job.y_stride + column - y_panel * kPanelRows, job.y_stride,
          job.bias != nullptr ? job.bias + column : nullptr, static_cast<int32_t>(n_columns)};
}

// y_panel: the panel whose first column is job.y[0].
void run_chunk(const MatmulKernels& table, const MatmulJob& job, const Activations& x, int64_t first_panel,
               int64_t last_panel, int64_t first_row, int64_t last_row, int64_t y_panel = 0) {
  const PackedMatrix& w = *job.w;
  const auto kind = static_cast<size_t>(w.kind);
  const bool int8 = uses_int8_activations(w.kind);
  for (int64_t row = first_row; row < last_row; row += kRowTile) {
    const int64_t m = std::min<int64_t>(kRowTile, last_row - row);
    const ActBlock* acts = int8 ? x.blocks.as<ActBlock>() + row * x.n_blocks : nullptr;
    // The first tile of rows brings the panels into the cache.
    const bool cached = row > first_row;
    const IntPairFn pair =
        int8 && cached && table.pairs != nullptr ? table.pairs->tile[kind][m - 1] : nullptr;
    int64_t p = first_panel;
    for (; pair != nullptr && p + 1 < last_panel; p += 2) {
      pair(w.data.data() + static_cast<size_t>(p) * w.panel_bytes, static_cast<int64_t>(w.panel_bytes), acts,
           x.n_blocks, tile_out(job, row, p, y_panel, 2));
    }
    for (; p < last_panel; ++p) {
      const uint8_t* panel = w.data.data() + static_cast<size_t>(p) * w.panel_bytes;
      const TileOut out = tile_out(job, row, p, y_panel, 1);
      if (int8) {
        table.int_tile[kind][m - 1](panel, acts, x.n_blocks, out);
      } else {
        table.float_tile[kind][m - 1](panel, x.x + row * x.stride, x.stride, x.n_in, out);
      }
    }
  }
}

}  // namespace

void Activations::assign(ThreadPool& pool, const float* rows, int64_t row_count, int64_t columns,
                         int64_t row_stride, bool quantize) {
  x = rows;
  n_rows = row_count;
  n_in = columns;
  stride = row_stride;
  quantized = quantize;
  n_blocks = (columns + kActBlock - 1) / kActBlock;
  if (!quantize) return;
  reserve(blocks, static_cast<size_t>(n_rows * n_blocks) * sizeof(ActBlock));
  const QuantizeRowFn quantize_row = kernels().quantize_row;
  const auto one_row = [&](int64_t row, int) {
    const int64_t first = row / kRowTile * kRowTile;  // of its tile
    const int64_t m = std::min<int64_t>(kRowTile, n_rows - first);
    quantize_row(x + row * stride, n_in, blocks.as<ActBlock>() + first * n_blocks + row - first, m);
  };
  if (n_rows * n_in < kInlineElements) {
    for (int64_t row = 0; row < n_rows; ++row) one_row(row, 0);
  } else {
    pool.parallel_for(n_rows, one_row);
  }
}

void Activations::assign_groups(ThreadPool& pool, const float* rows, std::span<const int32_t> group_rows,
                                int64_t columns, int64_t row_stride, bool quantize) {
  x = rows;
  n_rows = 0;
  for (int32_t n : group_rows) n_rows += n;
  n_in = columns;
  stride = row_stride;
  quantized = quantize;
  n_blocks = (columns + kActBlock - 1) / kActBlock;
  if (!quantize) return;
  reserve(blocks, static_cast<size_t>(n_rows * n_blocks) * sizeof(ActBlock));
  const QuantizeRowFn quantize_row = kernels().quantize_row;
  // Tiles start anew with each group.
  const auto one_group = [&](int64_t begin, int64_t n) {
    for (int64_t row = 0; row < n; ++row) {
      const int64_t first = begin + row / kRowTile * kRowTile;
      const int64_t m = std::min<int64_t>(kRowTile, begin + n - first);
      quantize_row(x + (begin + row) * stride, n_in,
                   blocks.as<ActBlock>() + first * n_blocks + begin + row - first, m);
    }
  };
  if (n_rows * n_in < kInlineElements) {
    int64_t begin = 0;
    for (int32_t n : group_rows) {
      one_group(begin, n);
      begin += n;
    }
    return;
  }
  pool.parallel_for(static_cast<int64_t>(group_rows.size()), [&](int64_t group, int) {
    int64_t begin = 0;
    for (int64_t g = 0; g < group; ++g) begin += group_rows[static_cast<size_t>(g)];
    one_group(begin, group_rows[static_cast<size_t>(group)]);
  });
}

void matmul(ThreadPool& pool, std::span<const MatmulJob> jobs, const Activations& x) {
  if (x.n_rows == 0) return;
  constexpr size_t kMaxJobs = 8;
  DSPARK_DCHECK(jobs.size() <= kMaxJobs);
  JobPlan plans[kMaxJobs];
  int64_t n_tasks = 0;
  const int64_t n_row_parts = (x.n_rows + kTaskRows - 1) / kTaskRows;
  for (size_t j = 0; j < jobs.size(); ++j) {
    DSPARK_DCHECK(jobs[j].w->n_in == x.n_in);
    plans[j] = plan_job(*jobs[j].w, x.n_rows, pool.n_threads());
    plans[j].first_task = n_tasks;
    n_tasks += plans[j].n_chunks * n_row_parts;
  }
  const MatmulKernels& table = kernels();
  pool.parallel_for(n_tasks, [&](int64_t task, int) {
    size_t j = jobs.size() - 1;
    while (task < plans[j].first_task) --j;
    const int64_t chunk = (task - plans[j].first_task) / n_row_parts;
    const int64_t part = (task - plans[j].first_task) % n_row_parts;
    const int64_t first_panel = chunk * plans[j].chunk;
    const int64_t last_panel = std::min(jobs[j].w->n_panels, first_panel + plans[j].chunk);
    run_chunk(table, jobs[j], x, first_panel, last_panel, part * kTaskRows,
              std::min(x.n_rows, (part + 1) * kTaskRows));
  });
}

void matmul_panels(const MatmulJob& job, const Activations& x, int64_t first_panel, int64_t end_panel) {
  run_chunk(kernels(), job, x, first_panel, end_panel, 0, x.n_rows, first_panel);
}

void matmul_groups(ThreadPool& pool, std::span<GroupJob> jobs, const Activations& x) {
  if (jobs.empty()) return;
  int64_t n_tasks = 0;
  for (GroupJob& job : jobs) {
    DSPARK_DCHECK(job.w->n_in == x.n_in);
    job.chunk =
        std::clamp<int64_t>(static_cast<int64_t>(kTaskBytes / job.w->panel_bytes), 1, job.w->n_panels);
    job.first_task = n_tasks;
    n_tasks += (job.w->n_panels + job.chunk - 1) / job.chunk;
  }
  const MatmulKernels& table = kernels();
  pool.parallel_for(n_tasks, [&](int64_t task, int) {
    const auto behind = std::upper_bound(jobs.begin(), jobs.end(), task,
                                         [](int64_t t, const GroupJob& job) { return t < job.first_task; });
    const GroupJob& job = *(behind - 1);
    const int64_t first_panel = (task - job.first_task) * job.chunk;
    const MatmulJob part{job.w, job.y, job.y_stride, nullptr};
    run_chunk(table, part, x, first_panel, std::min(job.w->n_panels, first_panel + job.chunk), job.row_begin,
              job.row_begin + job.n_rows);
  });
}

}  // namespace dspark
