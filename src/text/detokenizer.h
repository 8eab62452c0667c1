#pragma once
// Text from tokens as they come: characters are handed out when they are complete.

#include <cstdint>
#include <string>

#include "text/tokenizer.h"

namespace dspark {

/// For one stream of tokens. The pieces that push() and flush() return, put together, are
/// to_valid_utf8(tokenizer.decode(ids, skip_special)), however the stream is cut. Memory: at most one
/// unfinished character. The tokenizer must outlive it.
class StreamingDetokenizer {
 public:
  explicit StreamingDetokenizer(const Tokenizer& tokenizer, bool skip_special = true);

  /// Text completed by this token: valid UTF-8, often empty in the middle of a character. Bytes that can no
  /// longer become a character come out as U+FFFD, as soon as that is known.
  std::string push(int32_t id);
  /// The end of the stream: an unfinished character becomes U+FFFD. Ready for a new stream afterwards.
  std::string flush();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  bool at_start_;        // one leading space is still to be dropped
  std::string pending_;  // unfinished character
};

}  // namespace dspark
