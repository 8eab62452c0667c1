#pragma once
// Private to the room: products with a large matrix [rows, width] whose results must not be rounded to bf16,
// as logits of size 20 would lose what the distributions are made of.

#include "train/tensors.h"

namespace dspark {

/// One matrix, prepared for products from both sides. In bf16 mode the operands are rounded to bf16 and the
/// sums are fp32: on a CPU with bf16 dot products from a copy packed once, on another from the rounded
/// numbers held as fp32. A device uses the tensor library's product, which rounds its result.
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
  /// x as the other operand of a product that is not packed.
  at::Tensor operand(const at::Tensor& x) const;

  Precision precision_ = Precision::kFloat32;
  at::Tensor weight_;           // fp32 on a CPU unless packed, else bf16 in bf16 mode
  at::Tensor packed_;           // for forward(): tiles of bf16 pairs along the width
  at::Tensor packed_backward_;  // for backward(): the same along the rows
};

/// Whether this CPU multiplies bf16 pairs (AVX-512 BF16).
bool cpu_has_bf16_dot();

/// The precision of a run. A CPU without bf16 dot products emulates them slower than it computes in fp32, so
/// it gets bf16 only when `force_bf16` asks for it. `force_float32` wins over everything.
Precision choose_precision(bool force_float32, bool force_bf16, bool on_cpu, bool has_bf16_dot);

}  // namespace dspark
