#pragma once
// The obviously right matrix product: decode a weight row to float, multiply in double. The judge of every
// kernel.

#include <cstdint>
#include <vector>

#include "tensor/tensor.h"

namespace dspark::reference {

/// y[o] = sum_k x[k] * w[o, k] for all rows of a [out, in] tensor of any decodable type.
std::vector<double> matvec(const TensorView& w, const float* x);

/// Sum_k |x[k] * w[o, k]|: what rounding errors of any summation order are measured against.
std::vector<double> matvec_magnitude(const TensorView& w, const float* x);

/// x as int8 activations see it: per block of 32, scale max|x|/127, round to nearest even, times scale.
std::vector<float> through_int8(const float* x, int64_t n);

}  // namespace dspark::reference
