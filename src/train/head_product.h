#pragma once
// Private to the room: products with a large matrix [rows, width] whose results must not be rounded to bf16,
// as logits of size 20 would lose what the distributions are made of.

#include "train/tensors.h"

namespace dspark {

/// One matrix, prepared for products from both sides. In bf16 mode on a CPU with bf16 dot products the
/// operands are bf16 and the sums fp32, from a copy packed once; otherwise the tensor library's own product
/// is used.
class HeadProduct {
 public:
  /// `weight` fp32 or bf16 [rows, width]. `transposed_too`: prepare backward() as well.
  HeadProduct(const at::Tensor& weight, Precision precision, bool transposed_too);
  HeadProduct() = default;

  int64_t rows() const { return weight_.size(0); }
  /// x fp32 [n, width] -> fp32 [n, rows], written to `out`, or added to it.
  void forward(const at::Tensor& x, at::Tensor& out, bool add) const;
  /// g fp32 [n, rows] -> fp32 [n, width].
  at::Tensor backward(const at::Tensor& g) const;

 private:
  Precision precision_ = Precision::kFloat32;
  at::Tensor weight_;           // fp32, or bf16 in bf16 mode
  at::Tensor packed_;           // for forward(): tiles of bf16 pairs along the width
  at::Tensor packed_backward_;  // for backward(): the same along the rows
};

/// Whether this CPU multiplies bf16 pairs (AVX-512 BF16).
bool cpu_has_bf16_dot();

}  // namespace dspark
