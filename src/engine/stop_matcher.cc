#include "engine/stop_matcher.h"

#include <algorithm>
#include <cstdint>

namespace dspark {
namespace {

/// Bytes at the end of `text` that begin a UTF-8 character without completing it: 0..3.
size_t unfinished_utf8(std::string_view text) {
  const size_t n = std::min<size_t>(3, text.size());
  for (size_t back = 1; back <= n; ++back) {
    const auto byte = static_cast<uint8_t>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;  // continuation byte: its lead is further in front
    const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

/// Longest end of `text` that is a proper beginning of `stop`.
size_t partial_match(std::string_view text, std::string_view stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.substr(text.size() - n) == stop.substr(0, n)) return n;
  }
  return 0;
}

}  // namespace

bool StopMatcher::feed(std::string_view bytes) {
  text_.erase(0, taken_);
  certain_ -= taken_;
  taken_ = 0;
  text_.append(bytes);
  size_t first_end = std::string::npos, begin = 0;
  for (size_t i = 0; i < stops_.size(); ++i) {
    const size_t at = text_.find(stops_[i], certain_);
    if (at == std::string::npos) continue;
    const size_t end = at + stops_[i].size();
    if (end < first_end || (end == first_end && at < begin)) {
      first_end = end;
      begin = at;
      hit_ = i;
    }
  }
  if (first_end != std::string::npos) {
    text_.resize(begin);
    certain_ = begin;
    return true;
  }
  certain_ = text_.size() - held_back();
  return false;
}

size_t StopMatcher::held_back() const {
  const std::string_view open = std::string_view(text_).substr(certain_);
  size_t held = unfinished_utf8(open);
  for (const std::string& stop : stops_) held = std::max(held, partial_match(open, stop));
  // A stop string may begin inside a character; the character stays whole then.
  const bool inside = held > 0 && (static_cast<uint8_t>(open[open.size() - held]) & 0xC0) == 0x80;
  return inside ? held + unfinished_utf8(open.substr(0, open.size() - held)) : held;
}

std::string_view StopMatcher::take() {
  const std::string_view out = std::string_view(text_).substr(taken_, certain_ - taken_);
  taken_ = certain_;
  return out;
}

void StopMatcher::finish() {
  certain_ = text_.size();
}

}  // namespace dspark
