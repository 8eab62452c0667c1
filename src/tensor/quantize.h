#pragma once
// Decoding of stored rows to float and encoding of float rows to quantised blocks.

#include <cstdint>

#include "base/status.h"
#include "tensor/dtype.h"

namespace dspark {

/// True when decode_row can read `dtype`.
bool can_decode(DType dtype);
/// True when encode_row can write `dtype`.
bool can_encode(DType dtype);

/// Decodes `n` elements at `src` to `dst` (n floats). Bit-exact against the GGUF reference decoders.
/// requires: can_decode(dtype), n % block_elements == 0.
void decode_row(DType dtype, const uint8_t* src, float* dst, int64_t n);

/// Encodes `n` floats to `dst` (dtype_row_bytes(dtype, n) bytes).
/// requires: can_encode(dtype), n % block_elements == 0, finite inputs.
void encode_row(DType dtype, const float* src, uint8_t* dst, int64_t n);

}  // namespace dspark
