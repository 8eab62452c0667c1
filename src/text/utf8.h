#pragma once
// UTF-8: strict decoding for text that leaves the program, lenient decoding for text that enters a tokenizer.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace dspark {

/// What stands at the start of some bytes.
struct Utf8Step {
  enum class Kind { kValid, kInvalid, kIncomplete };
  Kind kind = Kind::kInvalid;
  /// kValid: bytes of the character. kInvalid: bytes to replace by one U+FFFD (the longest start of a valid
  /// character, at least 1; Unicode 3.9 "maximal subpart"). kIncomplete: all bytes there are.
  size_t length = 1;
};

/// Strict (no overlong forms, surrogates or values above 10FFFF). requires: bytes not empty.
Utf8Step utf8_step(std::string_view bytes);

/// Bytes that a lead byte announces by its upper four bits: 1..4; a stray continuation byte counts as 1. This
/// is how SentencePiece-style tokenizers cut text that may be broken.
inline size_t utf8_announced_length(uint8_t lead) {
  return lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/// Appends the UTF-8 form of a code point below 0x200000 (surrogates too, as three bytes).
void append_utf8(std::string& out, uint32_t code_point);

/// True when `text` is strictly valid.
bool is_valid_utf8(std::string_view text);

/// Strictly valid text: every maximal invalid part becomes U+FFFD.
std::string to_valid_utf8(std::string_view bytes);

/// Text as byte-level tokenizers of other engines see it: overlong forms are re-encoded, surrogates stay,
/// every byte that starts no sequence becomes one U+FFFD.
std::string repair_for_byte_level(std::string_view bytes);

/// Text of the same length that is strictly valid: every surrogate becomes U+E000, every other bad byte
/// U+001A. Patterns are matched against this, so that positions keep their meaning.
std::string mask_invalid(std::string_view text);

}  // namespace dspark
