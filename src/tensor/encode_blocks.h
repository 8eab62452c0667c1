#pragma once
// Private to the tensor room: one encoder per stored type.

#include <cstdint>

#include "tensor/dtype.h"

namespace dspark {

/// Encodes n floats to one type; the contract is encode_row's.
using EncodeFn = void (*)(const float* src, uint8_t* dst, int64_t n);

/// The encoder of `dtype`, or nullptr when it belongs to none of the file's types.
EncodeFn find_simple_encoder(DType dtype);  // encode_simple.cc: F32, F16, BF16, blocks of 32
EncodeFn find_k_encoder(DType dtype);       // encode_k.cc: Q4_K, Q5_K, Q6_K

}  // namespace dspark
