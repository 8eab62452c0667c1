#include "server/reasoning_tokens.h"

namespace dspark {

void ReasoningTokens::add_token(size_t bytes) {
  if (bytes > 0) waiting_.push_back({end_, end_ + bytes, false});
  end_ += bytes;
}

void ReasoningTokens::add_event(const OutputEvent& event) {
  const bool is_reasoning = event.kind == OutputEvent::Kind::kReasoning;
  if (!is_reasoning && event.kind != OutputEvent::Kind::kContent) return;  // has no place in the text
  const size_t end = event.begin + event.text.size();
  while (!waiting_.empty() && waiting_.front().begin < end) {
    Token& token = waiting_.front();
    if (is_reasoning && !token.counted && token.end > event.begin) {
      token.counted = true;
      ++count_;
    }
    if (token.end > end) return;  // the rest of it may come with the next event
    waiting_.pop_front();
  }
}

}  // namespace dspark
