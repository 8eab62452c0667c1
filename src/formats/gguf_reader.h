#pragma once
// The GGUF container, versions 2 and 3 (github.com/ggml-org/ggml, docs/gguf.md):
//   "GGUF" u32 version u64 n_tensors u64 n_keys, n_keys x {string key, u32 type, value},
//   n_tensors x {string name, u32 n_dims, u64 dims[n_dims] (contiguous first), u32 type, u64 offset},
//   padding to general.alignment (default 32), tensor data. Little endian; string = u64 length + bytes.

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"
#include "tensor/tensor.h"

namespace dspark {

/// Type ids of GGUF metadata values.
enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

/// "u32", "string", ...; "?" for an unknown id.
const char* gguf_type_name(uint32_t type);
/// Bytes of one value of a fixed-size type; 0 for strings, arrays and unknown ids.
size_t gguf_type_bytes(uint32_t type);

inline constexpr uint64_t kGgufDefaultAlignment = 32;
inline constexpr size_t kGgufMaxNameBytes = 64;  // longest tensor name (the reference keeps one for the NUL)
inline constexpr uint32_t kGgufMaxDims = 4;

/// Everything a GGUF file says. `raw` and the tensors' data point into the bytes that were parsed.
struct GgufContents {
  uint32_t version = 0;
  uint64_t alignment = kGgufDefaultAlignment;
  std::vector<RawMeta> raw;  // order of the file
  std::map<std::string, MetaValue, std::less<>> metadata;
  std::vector<TensorView> tensors;  // order of the file; shapes row-major
};

/// Parses a whole file held in memory; `where` names it in messages. Every length, count and offset is
/// checked against `bytes` before it is used, and memory use is bounded by a small multiple of the header's
/// size. errors: corrupt_data; unsupported for versions, tensor types and value types (arrays of arrays) that
/// this reader does not know.
Result<GgufContents> parse_gguf(std::span<const uint8_t> bytes, const std::string& where);

}  // namespace dspark
