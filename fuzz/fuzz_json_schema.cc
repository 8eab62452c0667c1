// Any bytes as a JSON schema: no crash, no hang, no unbounded memory.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "constrain/grammar.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto grammar =
      dspark::Grammar::from_json_schema(std::string_view(reinterpret_cast<const char*>(data), size));
  if (grammar.ok()) (void)grammar->matches_start("{\"a\":[1,\"b\"");
  return 0;
}
