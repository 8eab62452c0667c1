// Any bytes as a tokenizer.json: an error or a tokenizer that works. What follows the first zero byte of the
// input is text for it.

#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  dspark::HfTokenizerFiles files;
  files.tokenizer = input.substr(0, zero);
  const std::string_view text = zero == std::string_view::npos ? "a b\n" : input.substr(zero + 1);
  const auto tokenizer = dspark::Tokenizer::from_json(files, nullptr, nullptr);
  if (!tokenizer.ok()) {
    if (tokenizer.status().message().empty()) std::abort();
    return 0;
  }
  for (const bool parse_special : {false, true}) {
    const auto ids = tokenizer->encode(text, true, parse_special);
    for (const int32_t id : ids) {
      if (id < 0 || id >= tokenizer->vocab_size()) std::abort();
    }
    if (tokenizer->decode(ids, true).size() > tokenizer->decode(ids, false).size()) std::abort();
  }
  return 0;
}
