#include "train/head_product.h"

#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

namespace dspark {
namespace {

using at::Tensor;

constexpr int64_t kColumnTile = 64;

/// [k, n] bf16 -> [k / 2, n, 2]: pairs along k side by side, as the dot instruction reads them.
Tensor pack_pairs(const Tensor& matrix) {
  return matrix.view({matrix.size(0) / 2, 2, matrix.size(1)}).transpose(1, 2).contiguous();
}

/// out [m, n] fp32 (+)= a [m, k] bf16 times the packed matrix.
void multiply_packed(const Tensor& a, const Tensor& packed, Tensor& out, bool add) {
  const int64_t m = a.size(0);
  const int64_t k = a.size(1);
  const int64_t n = packed.size(1);
  const auto* left = a.const_data_ptr<at::BFloat16>();
  const auto* right = packed.const_data_ptr<at::BFloat16>();
  auto* result = out.mutable_data_ptr<float>();
  const int64_t n_tiles = (n + kColumnTile - 1) / kColumnTile;
  at::parallel_for(0, n_tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t column = tile * kColumnTile;
      const int64_t width = std::min(kColumnTile, n - column);
      at::native::cpublas::brgemm(m, width, k, k, n, n, add, left, right + column * 2, result + column, true);
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

HeadProduct::HeadProduct(const Tensor& weight, Precision precision, bool transposed_too)
    : precision_(precision) {
  if (precision == Precision::kFloat32) {
    weight_ = weight.to(at::kFloat).contiguous();
    return;
  }
  weight_ = weight.to(at::kBFloat16).contiguous();
  const bool even = weight_.size(0) % 2 == 0 && weight_.size(1) % 2 == 0;
  if (!weight_.device().is_cpu() || !cpu_has_bf16_dot() || !even) return;
  packed_ = pack_pairs(weight_.t().contiguous());
  if (transposed_too) packed_backward_ = pack_pairs(weight_);
}

void HeadProduct::forward(const Tensor& x, Tensor& out, bool add) const {
  if (packed_.defined()) {
    multiply_packed(x.to(at::kBFloat16).contiguous(), packed_, out, add);
    return;
  }
  const Tensor product = at::matmul(x.to(weight_.scalar_type()), weight_.t());
  if (add) {
    out.add_(product);
  } else {
    out.copy_(product);
  }
}

Tensor HeadProduct::backward(const Tensor& g) const {
  if (packed_backward_.defined()) {
    Tensor out = at::empty({g.size(0), weight_.size(1)}, g.options().dtype(at::kFloat));
    multiply_packed(g.to(at::kBFloat16).contiguous(), packed_backward_, out, false);
    return out;
  }
  return at::matmul(g.to(weight_.scalar_type()), weight_).to(at::kFloat);
}

}  // namespace dspark
