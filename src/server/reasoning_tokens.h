#pragma once
// How many tokens of an answer were reasoning, for the reports of usage.

#include <cstddef>
#include <cstdint>
#include <deque>

#include "constrain/output_parser.h"

namespace dspark {

/// Counts the tokens of which at least a byte came out as reasoning: not those of the tags around it alone.
/// The count does not depend on how the answer was cut into updates.
class ReasoningTokens {
 public:
  /// The next token of the answer. bytes: what it adds to the text that the parser is fed.
  void add_token(size_t bytes);
  /// What the parser made of the text. requires: the tokens of that text were added before.
  void add_event(const OutputEvent& event);
  int64_t count() const { return count_; }

 private:
  struct Token {
    size_t begin = 0, end = 0;  // of its bytes in the whole text
    bool counted = false;
  };
  std::deque<Token> waiting_;  // it is not clear yet what became of them
  size_t end_ = 0;
  int64_t count_ = 0;
};

}  // namespace dspark
