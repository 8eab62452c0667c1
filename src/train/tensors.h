#pragma once
// Private to the room: the one place that names the tensor library.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <map>
#include <string>

namespace dspark {

/// Tensors by DeepSpec name ("fc.weight", "layers.0.mlp.up_proj.weight", ...).
using TensorMap = std::map<std::string, at::Tensor, std::less<>>;

/// How the matrix products are computed: fp32 (tests, reference values) or bf16 operands with fp32 sums.
enum class Precision : uint8_t { kFloat32, kBFloat16 };

}  // namespace dspark
