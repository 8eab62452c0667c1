// Any bytes as a GGUF file: an error or tensors inside the bytes, nothing else.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "formats/gguf_reader.h"

namespace {

/// Reads every byte, so that the sanitizer sees a view that leaves the input.
uint8_t touch(std::span<const uint8_t> bytes) {
  uint8_t sum = 0;
  for (const uint8_t byte : bytes) sum = static_cast<uint8_t>(sum + byte);
  return sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parsed = dspark::parse_gguf({data, size}, "input");
  if (!parsed.ok()) {
    if (parsed.status().message().empty()) std::abort();
    return 0;
  }
  volatile uint8_t sink = 0;
  for (const dspark::TensorView& tensor : parsed->tensors) {
    if (tensor.n_bytes != static_cast<size_t>(tensor.n_rows()) * tensor.row_bytes()) std::abort();
    sink = touch({tensor.data, tensor.n_bytes});
  }
  if (parsed->raw.size() != parsed->metadata.size()) std::abort();
  for (const dspark::RawMeta& raw : parsed->raw) {
    sink = touch(raw.value);
    if (parsed->metadata.find(raw.key) == parsed->metadata.end()) std::abort();
  }
  static_cast<void>(sink);
  return 0;
}
