#pragma once
// Element types of stored tensors: plain floats and the block-quantised types of GGUF.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace dspark {

/// Storage type of a tensor. The values 0..41 are the type ids of the GGUF format (ggml_type).
/// Types that only safetensors has start at 1000.
enum class DType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ8_1 = 9,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kQ8_K = 15,
  kIQ2_XXS = 16,
  kIQ2_XS = 17,
  kIQ3_XXS = 18,
  kIQ1_S = 19,
  kIQ4_NL = 20,
  kIQ3_S = 21,
  kIQ2_S = 22,
  kIQ4_XS = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kIQ1_M = 29,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kMXFP4 = 39,
  kNVFP4 = 40,
  kQ1_0 = 41,
  kBool = 1000,
  kU8 = 1001,
  kU16 = 1002,
  kU32 = 1003,
  kU64 = 1004,
  kF8_E4M3 = 1005,
  kF8_E5M2 = 1006,
  kF8_E8M0 = 1007,
};

/// Facts about one type. A row of n elements takes n / block_elements * block_bytes bytes;
/// n must be a multiple of block_elements.
struct DTypeInfo {
  DType dtype;
  const char* name;        // "Q4_1", "BF16": GGUF spelling
  int32_t block_elements;  // 1 for plain types
  int32_t block_bytes;
};

/// nullptr when `dtype` is not a known type (bytes from a file may hold anything).
const DTypeInfo* dtype_info(DType dtype);
/// Known GGUF type id -> type; nothing for unknown or removed ids.
std::optional<DType> dtype_from_ggml_id(uint32_t id);
/// "Q4_K", "q4_k", "bf16" -> type; case-insensitive.
std::optional<DType> dtype_from_name(std::string_view name);
/// Name, or "type 123" style fallback is the caller's business: returns "?" when unknown.
const char* dtype_name(DType dtype);
/// Bytes of `n` elements. requires: known dtype and n % block_elements == 0.
size_t dtype_row_bytes(DType dtype, int64_t n);

}  // namespace dspark
