#pragma once
// Where tokens begin in the text that they make.

#include <cstdint>
#include <string>
#include <string_view>

namespace dspark {

/// For one stream of tokens. Memory: at most one unfinished character and a token.
class TextOffsets {
 public:
  /// bytes: what the next token adds to the text. returns: characters in front of it, in the text as clients
  /// read it (to_valid_utf8); a token that goes on with a character begins where that character does.
  int64_t add(std::string_view bytes);

 private:
  std::string pending_;  // unfinished character
  int64_t n_chars_ = 0;  // in front of pending_
};

}  // namespace dspark
