#include "train/head_product.h"

#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

namespace dspark {
namespace {

using at::Tensor;

// Columns of one tile, and rows of it that one pass uses: a tile's part should stay in the second-level
// cache.
constexpr int64_t kColumnTile = 64;
constexpr int64_t kInnerBlock = 1024;

/// [k, n] bf16 -> [n / tile, k / 2, tile, 2]: tile by tile, pairs along k side by side, as the dot
/// instruction reads them. Missing columns of the last tile are zero.
Tensor pack_pairs(const Tensor& matrix) {
  const int64_t k = matrix.size(0);
  const int64_t n_tiles = (matrix.size(1) + kColumnTile - 1) / kColumnTile;
  Tensor padded = at::zeros({k, n_tiles * kColumnTile}, matrix.options());
  padded.slice(1, 0, matrix.size(1)).copy_(matrix);
  return padded.view({k / 2, 2, n_tiles, kColumnTile}).permute({2, 0, 3, 1}).contiguous();
}

/// out [m, n] fp32 (+)= a [m, k] bf16 times the packed matrix.
void multiply_packed(const Tensor& a, const Tensor& packed, Tensor& out, bool add) {
  const int64_t m = a.size(0);
  const int64_t k = a.size(1);
  const int64_t n = out.size(1);
  const auto* left = a.const_data_ptr<at::BFloat16>();
  const auto* right = packed.const_data_ptr<at::BFloat16>();
  auto* result = out.mutable_data_ptr<float>();
  at::parallel_for(0, packed.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t inner = 0; inner < k; inner += kInnerBlock) {
      const int64_t depth = std::min(kInnerBlock, k - inner);
      for (int64_t tile = begin; tile < end; ++tile) {
        const int64_t column = tile * kColumnTile;
        const int64_t width = std::min(kColumnTile, n - column);
        at::native::cpublas::brgemm(m, width, depth, k, kColumnTile, n, add || inner > 0, left + inner,
                                    right + (tile * k + inner) * kColumnTile, result + column, true);
      }
    }
    at::native::cpublas::brgemm_release(true);
  });
}

}  // namespace

bool cpu_has_bf16_dot() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

Precision choose_precision(bool force_float32, bool force_bf16, bool on_cpu, bool has_bf16_dot) {
  if (force_float32) return Precision::kFloat32;
  return force_bf16 || !on_cpu || has_bf16_dot ? Precision::kBFloat16 : Precision::kFloat32;
}

HeadProduct::HeadProduct(const Tensor& weight, Precision precision, bool transposed_too)
    : precision_(precision) {
  if (precision == Precision::kFloat32) {
    weight_ = weight.to(at::kFloat).contiguous();
    return;
  }
  weight_ = weight.to(at::kBFloat16).contiguous();
  if (!weight_.device().is_cpu()) return;
  const bool even = weight_.size(0) % 2 == 0 && weight_.size(1) % 2 == 0;
  if (!cpu_has_bf16_dot() || !even) {
    weight_ = weight_.to(at::kFloat);
    return;
  }
  packed_ = pack_pairs(weight_.t().contiguous());
  if (transposed_too) packed_backward_ = pack_pairs(weight_);
}

Tensor HeadProduct::operand(const Tensor& x) const {
  const Tensor rounded = precision_ == Precision::kBFloat16 ? x.to(at::kBFloat16) : x;
  return rounded.to(weight_.scalar_type());
}

void HeadProduct::forward(const Tensor& x, Tensor& out, bool add) const {
  if (packed_.defined()) {
    multiply_packed(x.to(at::kBFloat16).contiguous(), packed_, out, add);
    return;
  }
  const Tensor left = operand(x);
  if (left.scalar_type() != out.scalar_type()) {  // a device in bf16 mode
    const Tensor product = at::mm(left, weight_.t());
    if (add) {
      out.add_(product);
    } else {
      out.copy_(product);
    }
  } else if (add) {
    out.addmm_(left, weight_.t());
  } else {
    at::mm_out(out, left, weight_.t());
  }
}

Tensor HeadProduct::backward(const Tensor& g) const {
  if (packed_backward_.defined()) {
    Tensor out = at::empty({g.size(0), weight_.size(1)}, g.options().dtype(at::kFloat));
    multiply_packed(g.to(at::kBFloat16).contiguous(), packed_backward_, out, false);
    return out;
  }
  return at::mm(operand(g), weight_).to(at::kFloat);
}

}  // namespace dspark
