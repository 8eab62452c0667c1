#pragma once
// Row-wise operations: norms, rotary embedding, activations. Every row is computed by itself, in one fixed
// order.

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"

namespace dspark {

/// y[r] = x[r] * rsqrt(mean(x[r]^2) + eps) * weight. weight may be nullptr (all ones). In place allowed.
/// Rows are `dim` floats, `x_stride` / `y_stride` apart. Gemma's (1 + w) is folded into `weight` at load.
void rms_norm(ThreadPool& pool, float* y, int64_t y_stride, const float* x, int64_t x_stride,
              const float* weight, float eps, int64_t n_rows, int64_t dim);

/// The same over every head of every row: x (n_rows, n_heads * head_dim), in place; weight (head_dim).
void rms_norm_heads(ThreadPool& pool, float* x, int64_t stride, const float* weight, float eps,
                    int64_t n_rows, int32_t n_heads, int32_t head_dim);

/// Cosines and sines of the rows that a table was last used for: all layers of a pass share them.
struct RopeAngles {
  std::vector<int32_t> positions;  // of the rows
  std::vector<float> cos_sin;      // (rows, head_dim): first half cosines, second half sines
};

/// Rotary embedding tables: cos/sin for pairs (j, j + head_dim/2).
/// thread: apply_rope with one table from one thread at a time (it fills `angles`).
struct RopeTable {
  std::vector<float> inv_freq;    // head_dim / 2; 0 for pairs that do not rotate
  float attention_factor = 1.0f;  // YaRN: multiplies cos and sin
  mutable RopeAngles angles;      // requires: the fields above do not change after the first use

  /// Makes room for passes of up to `n_rows` rows, so that apply_rope takes no memory for them.
  void reserve(int64_t n_rows) const {
    const auto n = static_cast<size_t>(n_rows);
    angles.positions.reserve(n);
    angles.cos_sin.reserve(n * 2 * inv_freq.size());
  }
};

/// Rotates x (n_rows, n_heads * head_dim) in place; position of row r is positions[r].
/// Angles are computed in double as position * inv_freq and rounded once, so they are the same for any batch.
void apply_rope(ThreadPool& pool, float* x, int64_t stride, const RopeTable& table,
                std::span<const int32_t> positions, int32_t n_heads, int32_t head_dim);

enum class GateActivation : uint8_t { kSilu, kGeluTanh };

/// out[r, i] = act(gate[r, i]) * up[r, i]. out may be gate.
void gated_activation(ThreadPool& pool, float* out, const float* gate, const float* up, int64_t n_rows,
                      int64_t dim, GateActivation act);

/// x[r] += y[r] over dim floats, dense rows.
void add_rows(ThreadPool& pool, float* x, const float* y, int64_t n_rows, int64_t dim);

/// x = cap * tanh(x / cap), dense.
void softcap_rows(ThreadPool& pool, float* x, int64_t n_rows, int64_t dim, float cap);

}  // namespace dspark
