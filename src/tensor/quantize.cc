#include "tensor/quantize.h"

#include "tensor/decode_blocks.h"
#include "tensor/encode_blocks.h"

namespace dspark {
namespace {

DecodeFn find_decoder(DType dtype) {
  if (DecodeFn fn = find_simple_decoder(dtype); fn != nullptr) return fn;
  if (DecodeFn fn = find_k_decoder(dtype); fn != nullptr) return fn;
  if (DecodeFn fn = find_low_bit_decoder(dtype); fn != nullptr) return fn;
  return find_codebook_decoder(dtype);
}

EncodeFn find_encoder(DType dtype) {
  if (EncodeFn fn = find_simple_encoder(dtype); fn != nullptr) return fn;
  return find_k_encoder(dtype);
}

}  // namespace

bool can_decode(DType dtype) {
  return find_decoder(dtype) != nullptr;
}

bool can_encode(DType dtype) {
  return find_encoder(dtype) != nullptr;
}

void decode_row(DType dtype, const uint8_t* src, float* dst, int64_t n) {
  const DecodeFn fn = find_decoder(dtype);
  DSPARK_DCHECK(fn != nullptr && n % dtype_info(dtype)->block_elements == 0);
  fn(src, dst, n);
}

void encode_row(DType dtype, const float* src, uint8_t* dst, int64_t n) {
  const EncodeFn fn = find_encoder(dtype);
  DSPARK_DCHECK(fn != nullptr && n % dtype_info(dtype)->block_elements == 0);
  fn(src, dst, n);
}

}  // namespace dspark
