#pragma once
// A vocabulary without a tokenizer: every byte, and many longer tokens that cross the borders of what a
// grammar distinguishes.

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "constrain/token_trie.h"

namespace dspark::test {

/// Ids 0..255 are the bytes, then `pieces`, then one control token without text: the end id.
struct FakeVocab {
  std::vector<std::string> texts;
  int32_t end_id = 0;

  explicit FakeVocab(size_t n_random = 400, uint32_t seed = 1) {
    for (int byte = 0; byte < 256; ++byte) texts.emplace_back(1, static_cast<char>(byte));
    for (const char* piece : {"{\"",
                              "\":",
                              "\": ",
                              ", \"",
                              "\",",
                              "\"}",
                              "\"}]",
                              "[]",
                              "{}",
                              "[[",
                              "]]",
                              "}}",
                              "true",
                              "false",
                              "null",
                              "tru",
                              "als",
                              " \"",
                              "\n  ",
                              "\n\n",
                              "  ",
                              "0.",
                              "12",
                              "2024-",
                              "-0",
                              "1e",
                              "\\\"",
                              "\\u00",
                              "\\n",
                              "name",
                              "value",
                              "\xC3\xA9",
                              "\xE4\xB8\x96\xE7",
                              "\x95\x8C",
                              "\xF0\x9F\x8C",
                              "<tool_call>",
                              "\"name\": \"",
                              "id",
                              "kind",
                              "\"a\":1",
                              "abc",
                              "xy",
                              "@",
                              ".com",
                              "://",
                              "\xD0\xBA"}) {
      texts.emplace_back(piece);
    }
    std::mt19937 random(seed);
    constexpr std::string_view kAlphabet = "{}[]\":, \\abcdefxyz0123456789.-+eE\ntruefalsnl";
    for (size_t i = 0; i < n_random; ++i) {
      std::string text;
      const size_t length = 2 + random() % 3;
      while (text.size() < length) text += kAlphabet[random() % kAlphabet.size()];
      texts.push_back(std::move(text));
    }
    texts.emplace_back();
    end_id = static_cast<int32_t>(texts.size()) - 1;
  }

  int32_t size() const { return static_cast<int32_t>(texts.size()); }
  std::shared_ptr<const TokenTrie> trie() const {
    return std::make_shared<const TokenTrie>(
        size(), [this](int32_t id) -> std::string_view { return texts[static_cast<size_t>(id)]; });
  }
};

}  // namespace dspark::test
