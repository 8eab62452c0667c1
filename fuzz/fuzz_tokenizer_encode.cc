// Any bytes as text for small tokenizers of both kinds: nothing may get lost, and streaming must agree with
// decoding at once.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include "text/vocab.h"

namespace {

using dspark::MetadataMap;
using dspark::Tokenizer;
using Strings = std::vector<std::string>;

Tokenizer must(dspark::Result<Tokenizer> made) {
  if (!made.ok()) std::abort();
  return std::move(made).value();
}

// All bytes, a few merges, two special tokens.
Tokenizer byte_level(const char* pre) {
  const dspark::ByteAlphabet alphabet;
  Strings tokens;
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    tokens.emplace_back();
    alphabet.encode({&byte, 1}, tokens.back());
  }
  const Strings merges = {"a b",           "ab c", "\u0120 a", "\u0120 \u0120", "\u0120\u0120 \u0120\u0120",
                          "\u00c3 \u00a9", "1 2"};
  for (std::string merge : merges) tokens.push_back(merge.erase(merge.find(' ', 1), 1));
  tokens.insert(tokens.end(), {"<s>", "<|im_end|>"});
  std::vector<int64_t> types(tokens.size(), 1);
  types[types.size() - 1] = types[types.size() - 2] = 3;
  return must(Tokenizer::from_gguf(MetadataMap{{"tokenizer.ggml.model", std::string("gpt2")},
                                               {"tokenizer.ggml.pre", std::string(pre)},
                                               {"tokenizer.ggml.tokens", tokens},
                                               {"tokenizer.ggml.token_type", types},
                                               {"tokenizer.ggml.merges", merges}}));
}

Tokenizer byte_fallback() {
  Strings tokens = {"<unk>", "<s>", "</s>", "  ", "\n\n"};
  std::vector<int64_t> types = {2, 3, 3, 4, 4};
  const char* digits = "0123456789ABCDEF";
  for (int b = 0; b < 256; ++b) tokens.push_back(std::string("<0x") + digits[b / 16] + digits[b % 16] + ">");
  types.resize(tokens.size(), 6);
  for (const char* piece :
       {"a", "b", "ab", "abab", "\u2581", "\u2581a", "\u2581\u2581", "\u00e9", "<", "s", ">", "<s"}) {
    tokens.emplace_back(piece);
  }
  types.resize(tokens.size(), 1);
  std::vector<double> scores;
  for (size_t i = 0; i < tokens.size(); ++i) scores.push_back(-static_cast<double>(i * 7 % 13));
  return must(Tokenizer::from_gguf(MetadataMap{{"tokenizer.ggml.model", std::string("llama")},
                                               {"tokenizer.ggml.tokens", tokens},
                                               {"tokenizer.ggml.token_type", types},
                                               {"tokenizer.ggml.scores", scores},
                                               {"tokenizer.ggml.add_space_prefix", false}}));
}

void check(const Tokenizer& tokenizer, std::string_view text, bool parse_special) {
  const std::vector<int32_t> ids = tokenizer.encode(text, false, parse_special);
  const std::string back = tokenizer.decode(ids, false);
  const bool has_mark = text.find("\u2581") != std::string_view::npos;  // comes back as a space
  if (dspark::is_valid_utf8(text) && !has_mark && back != text) std::abort();
  dspark::StreamingDetokenizer stream(tokenizer, false);
  std::string streamed;
  for (const int32_t id : ids) streamed += stream.push(id);
  streamed += stream.flush();
  if (streamed != dspark::to_valid_utf8(back)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<Tokenizer>* tokenizers = [] {
    auto* made = new std::vector<Tokenizer>;  // lives as long as the process
    for (const char* pre : {"smollm", "llama-bpe", "qwen2", "deepseek-v3", "gpt-4o", "default"}) {
      made->push_back(byte_level(pre));
    }
    made->push_back(byte_fallback());
    return made;
  }();
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  check((*tokenizers)[data[0] % tokenizers->size()], text, data[0] >= 128);
  return 0;
}
