#include "kernels/rows.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/row_kernels.h"
#include "kernels/isa.h"
#include "kernels/row_math.h"

namespace dspark {
namespace {

const RowKernels& active_kernels() {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::kAvx512:
    case Isa::kAvx512Vnni:
      return row_kernels_avx512();
    case Isa::kAvx2:
      return row_kernels_avx2();
    case Isa::kPortable:
      break;
  }
#endif
  return row_kernels_portable();
}

// Element operations below which waking the threads costs more than it brings.
constexpr int64_t kInlineElements = 16384;
// Weight of an element that needs exp, tanh or the like, against one that is loaded and added.
constexpr int64_t kHeavy = 4;

// fn(begin, end) over [0, n) in parts of whole `step`s, in parallel when `elements` are many.
template <typename F>
void in_parts(ThreadPool& pool, int64_t n, int64_t step, int64_t elements, F&& fn) {
  const int64_t n_steps = (n + step - 1) / step;
  if (elements <= kInlineElements || n_steps < 2 || pool.n_threads() == 1) return fn(0, n);
  const int64_t n_parts = std::min<int64_t>(n_steps, int64_t{4} * pool.n_threads());
  pool.parallel_for(n_parts, [&](int64_t part, int) {
    const int64_t begin = part * n_steps / n_parts * step;
    const int64_t end = std::min(n, (part + 1) * n_steps / n_parts * step);
    fn(begin, end);
  });
}

// Makes table.angles those of `positions`.
void update_angles(ThreadPool& pool, const RopeTable& table, std::span<const int32_t> positions) {
  RopeAngles& angles = table.angles;
  if (std::ranges::equal(angles.positions, positions)) return;
  const int64_t half = static_cast<int64_t>(table.inv_freq.size());
  const int64_t n_rows = static_cast<int64_t>(positions.size());
  angles.positions.assign(positions.begin(), positions.end());
  angles.cos_sin.resize(static_cast<size_t>(n_rows * 2 * half));
  constexpr int64_t kSinCos = 32;
  in_parts(pool, n_rows, 1, n_rows * half * kSinCos, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* cos = angles.cos_sin.data() + r * 2 * half;
      for (int64_t j = 0; j < half; ++j) {
        const double angle = static_cast<double>(positions[static_cast<size_t>(r)]) *
                             static_cast<double>(table.inv_freq[static_cast<size_t>(j)]);
        cos[j] = static_cast<float>(std::cos(angle) * static_cast<double>(table.attention_factor));
        cos[half + j] = static_cast<float>(std::sin(angle) * static_cast<double>(table.attention_factor));
      }
    }
  });
}

}  // namespace

void rms_norm(ThreadPool& pool, float* y, int64_t y_stride, const float* x, int64_t x_stride,
              const float* weight, float eps, int64_t n_rows, int64_t dim) {
  const RowKernels& kernels = active_kernels();
  in_parts(pool, n_rows, 1, n_rows * dim, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      kernels.rms_norm(y + r * y_stride, x + r * x_stride, weight, eps, dim);
    }
  });
}

void rms_norm_heads(ThreadPool& pool, float* x, int64_t stride, const float* weight, float eps,
                    int64_t n_rows, int32_t n_heads, int32_t head_dim) {
  const RowKernels& kernels = active_kernels();
  in_parts(pool, n_rows, 1, n_rows * n_heads * head_dim, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int32_t h = 0; h < n_heads; ++h) {
        float* head = x + r * stride + static_cast<int64_t>(h) * head_dim;
        kernels.rms_norm(head, head, weight, eps, head_dim);
      }
    }
  });
}

void apply_rope(ThreadPool& pool, float* x, int64_t stride, const RopeTable& table,
                std::span<const int32_t> positions, int32_t n_heads, int32_t head_dim) {
  const RowKernels& kernels = active_kernels();
  update_angles(pool, table, positions);
  const int64_t n_rows = static_cast<int64_t>(positions.size());
  const float* angles = table.angles.cos_sin.data();
  in_parts(pool, n_rows, 1, n_rows * n_heads * head_dim, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* cos = angles + r * head_dim;
      kernels.rotate(x + r * stride, cos, cos + head_dim / 2, n_heads, head_dim / 2);
    }
  });
}

void gated_activation(ThreadPool& pool, float* out, const float* gate, const float* up, int64_t n_rows,
                      int64_t dim, GateActivation act) {
  constexpr int64_t kStep = 512;
  in_parts(pool, n_rows * dim, kStep, n_rows * dim * kHeavy, [&](int64_t begin, int64_t end) {
    gated_activation_row(out + begin, gate + begin, up + begin, end - begin, act);
  });
}

void add_rows(ThreadPool& pool, float* x, const float* y, int64_t n_rows, int64_t dim) {
  const RowKernels& kernels = active_kernels();
  constexpr int64_t kStep = 1024;
  in_parts(pool, n_rows * dim, kStep, n_rows * dim,
           [&](int64_t begin, int64_t end) { kernels.add(x + begin, y + begin, end - begin); });
}

void softcap_rows(ThreadPool& pool, float* x, int64_t n_rows, int64_t dim, float cap) {
  const RowKernels& kernels = active_kernels();
  constexpr int64_t kStep = 512;
  in_parts(pool, n_rows * dim, kStep, n_rows * dim * kHeavy,
           [&](int64_t begin, int64_t end) { kernels.softcap(x + begin, end - begin, cap); });
}

float dot_row(const float* a, const float* b, int64_t n) {
  return active_kernels().dot(a, b, n);
}

float max_row(const float* x, int64_t n) {
  return active_kernels().max(x, n);
}

void softmax_row(float* x, int64_t n) {
  const RowKernels& kernels = active_kernels();
  const float sum = kernels.exp_sum(x, n, kernels.max(x, n));
  kernels.scale(x, n, 1.0f / sum);
}

void rms_norm_row(float* y, const float* x, const float* weight, float eps, int64_t n) {
  active_kernels().rms_norm(y, x, weight, eps, n);
}

void gated_activation_row(float* out, const float* gate, const float* up, int64_t n, GateActivation act) {
  const RowKernels& kernels = active_kernels();
  (act == GateActivation::kSilu ? kernels.silu_gate : kernels.gelu_tanh_gate)(out, gate, up, n);
}

void add_row(float* x, const float* y, int64_t n) {
  active_kernels().add(x, y, n);
}

void scale_row(float* x, int64_t n, float factor) {
  active_kernels().scale(x, n, factor);
}

void softcap_row(float* x, int64_t n, float cap) {
  active_kernels().softcap(x, n, cap);
}

}  // namespace dspark
