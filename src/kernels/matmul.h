#pragma once
// Matrix products of activations with packed weights: y[r, o] = sum_k x[r, k] * w[o, k] (+ bias[o]).
//
// Contract (batch invariance): the bits of y[r, o] depend on row r of x and row o of w only - not on the
// number of rows, the place of r among them, the thread count or the task that computed it. Results may
// differ between instruction sets.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/aligned_buffer.h"
#include "base/arena.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "tensor/tensor.h"

namespace dspark {

/// Output rows of one panel: SIMD lanes are output rows, K runs serially.
inline constexpr int kPanelRows = 16;
/// Elements of one activation block: one int8 scale each.
inline constexpr int kActBlock = 32;

/// How a panel is laid out (kernels/panels.h). Stored types without a kind of their own are decoded to F32.
enum class PackKind : uint8_t {
  kF32,
  kBF16,
  kF16,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kMXFP4
};

/// True for kinds that multiply with int8 activations, false for float activations.
bool uses_int8_activations(PackKind kind);

/// Weights of one linear layer, repacked without loss into panels of kPanelRows output rows.
/// The last panel is padded with zero rows.
struct PackedMatrix {
  PackKind kind = PackKind::kF32;
  DType source = DType::kF32;  // type in the file
  int64_t n_out = 0;
  int64_t n_in = 0;
  int64_t n_panels = 0;
  size_t panel_bytes = 0;
  std::span<uint8_t> data;               // (n_panels, panel_bytes)
  std::shared_ptr<AlignedBuffer> owner;  // keeps `data` alive
};

/// Packs a [out, in] tensor. `float_activations`: decode to F32 and multiply in float whatever the type
/// (the exact path of tests; costs memory). `row_order` (or empty): packed row i = stored row row_order[i];
/// any choice of rows, n_out is their number. `on_read` is called (on the calling thread) with each part of
/// the tensor's bytes after it was packed, so that a large tensor's file pages need not all be resident at
/// once; not when row_order leaves rows out. errors: unsupported type or shape, out_of_memory; the message
/// names the tensor. requires: entries of row_order in [0, out).
Result<PackedMatrix> pack_matrix(ThreadPool& pool, const TensorView& tensor, bool float_activations = false,
                                 std::span<const int32_t> row_order = {}, Arena* arena = nullptr,
                                 const std::function<void(std::span<const uint8_t>)>& on_read = {});

/// The input rows of one or more products: the floats, and (made on demand) their int8 blocks.
/// Reused between calls: buffers grow to the largest size seen and stay.
class Activations {
 public:
  /// Takes rows x[r * stride .. + n_in). The floats must stay valid and unchanged until the last matmul.
  /// With `quantize`, each block of kActBlock gets a scale max|x|/127 and round-to-nearest-even int8 values.
  void assign(ThreadPool& pool, const float* x, int64_t n_rows, int64_t n_in, int64_t stride, bool quantize);
  /// The same for matmul_groups: `group_rows` cuts the rows into groups (their sizes, in order).
  void assign_groups(ThreadPool& pool, const float* x, std::span<const int32_t> group_rows, int64_t n_in,
                     int64_t stride, bool quantize);

  const float* x = nullptr;
  int64_t n_rows = 0;
  int64_t n_in = 0;
  int64_t stride = 0;
  bool quantized = false;
  int64_t n_blocks = 0;  // n_in / kActBlock rounded up; the last block is zero-padded
  AlignedBuffer blocks;  // ActBlock, tiled as kernels/panels.h says
};

/// One product of a group that shares its input.
struct MatmulJob {
  const PackedMatrix* w = nullptr;
  float* y = nullptr;           // (n_rows, y_stride)
  int64_t y_stride = 0;         // floats between rows, >= w->n_out
  const float* bias = nullptr;  // (n_out) or nullptr
};

/// All jobs in one parallel phase. requires: w->n_in == x.n_in; x.quantized if a job's kind uses int8.
void matmul(ThreadPool& pool, std::span<const MatmulJob> jobs, const Activations& x);

/// A part of a product on the calling thread, for loops that go on working with the columns while they are in
/// the cache: columns [first_panel * kPanelRows, end_panel * kPanelRows) of all rows, the first of them at
/// job.y[0]. The same bits as matmul. requires: as matmul; 0 <= first_panel < end_panel <= w->n_panels.
void matmul_panels(const MatmulJob& job, const Activations& x, int64_t first_panel, int64_t end_panel);

/// One group of rows times a matrix of its own: experts of a mixture, heads with their own projections.
struct GroupJob {
  const PackedMatrix* w = nullptr;
  int64_t row_begin = 0;  // a group of the assigned rows, exactly
  int64_t n_rows = 0;
  float* y = nullptr;  // row r of the input goes to y + r * y_stride
  int64_t y_stride = 0;
  int64_t chunk = 0;       // filled by matmul_groups: panels of one task
  int64_t first_task = 0;  // filled by matmul_groups
};

/// All jobs in one parallel phase; any number of jobs may read the same group. Bits as of matmul.
/// requires: x was given to assign_groups with these groups; x.quantized if a job's kind uses int8.
void matmul_groups(ThreadPool& pool, std::span<GroupJob> jobs, const Activations& x);

}  // namespace dspark
