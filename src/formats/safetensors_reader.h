#pragma once
// The safetensors container (huggingface.co/docs/safetensors): u64 header length, a JSON object
// {name: {"dtype", "shape", "data_offsets": [begin, end)}, "__metadata__": {string: string}}, tensor data.

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace dspark {

/// Everything a safetensors file says. The tensors' data point into the bytes that were parsed.
struct SafetensorsContents {
  std::map<std::string, std::string, std::less<>> metadata;
  std::vector<TensorView> tensors;  // order of the data
};

/// The library's spelling of an element type; nullptr for types safetensors does not have (block-quantised).
const char* safetensors_dtype_name(DType dtype);
/// Nothing for names outside the set above (upper case only, as the format has it).
std::optional<DType> dtype_from_safetensors_name(std::string_view name);

/// Parses a whole file held in memory; `where` names it in messages. As strict as the reference reader: the
/// tensors must cover the data section exactly, without holes, overlaps or trailing bytes.
/// errors: corrupt_data; unsupported for an unknown dtype.
Result<SafetensorsContents> parse_safetensors(std::span<const uint8_t> bytes, const std::string& where);

}  // namespace dspark
