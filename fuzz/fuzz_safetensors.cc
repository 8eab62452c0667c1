// Any bytes as a safetensors file: an error or tensors that cover the data section exactly.

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "formats/safetensors_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parsed = dspark::parse_safetensors({data, size}, "input");
  if (!parsed.ok()) {
    if (parsed.status().message().empty()) std::abort();
    return 0;
  }
  uint8_t sum = 0;
  const uint8_t* end = nullptr;
  for (const dspark::TensorView& tensor : parsed->tensors) {
    if (end != nullptr && tensor.data != end) std::abort();
    end = tensor.data + tensor.n_bytes;
    for (size_t i = 0; i < tensor.n_bytes; ++i) sum = static_cast<uint8_t>(sum + tensor.data[i]);
  }
  if (end != nullptr && end != data + size) std::abort();
  volatile uint8_t sink = sum;
  static_cast<void>(sink);
  return 0;
}
