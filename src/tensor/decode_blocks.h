#pragma once
// Private to the tensor room: one decoder per stored type, and the loop over blocks they share.

#include <cstdint>

#include "tensor/dtype.h"

namespace dspark {

/// Decodes n elements of one type; the contract is decode_row's.
using DecodeFn = void (*)(const uint8_t* src, float* dst, int64_t n);

/// The decoder of `dtype`, or nullptr when it belongs to none of the file's types.
DecodeFn find_simple_decoder(DType dtype);    // decode_simple.cc: plain numbers, blocks of 32
DecodeFn find_k_decoder(DType dtype);         // decode_k.cc: super-blocks of 256
DecodeFn find_low_bit_decoder(DType dtype);   // decode_low_bit.cc: ternary, binary and 4-bit float types
DecodeFn find_codebook_decoder(DType dtype);  // decode_iq.cc: IQ types

/// Runs a decoder of one block over a row.
template <typename Block, int kElements, void (*kDecodeBlock)(const Block&, float*)>
void decode_each_block(const uint8_t* src, float* dst, int64_t n) {
  const auto* block = reinterpret_cast<const Block*>(src);  // packed structs: any alignment will do
  for (int64_t i = 0; i < n; i += kElements) kDecodeBlock(*block++, dst + i);
}

}  // namespace dspark
