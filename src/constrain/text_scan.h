#pragma once
// Small questions about pieces of text that the readers of answers share.

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace dspark {

inline constexpr std::string_view kBlanks = " \n\t\r";

inline size_t leading_blanks(std::string_view text) {
  return std::min(text.find_first_not_of(kBlanks), text.size());
}
inline size_t trailing_blanks(std::string_view text) {
  const size_t last = text.find_last_not_of(kBlanks);
  return last == std::string_view::npos ? text.size() : text.size() - last - 1;
}
inline std::string_view trimmed(std::string_view text) {
  text.remove_prefix(leading_blanks(text));
  text.remove_suffix(trailing_blanks(text));
  return text;
}
/// Bytes at the end of `text` that may be the beginning of `marker`.
inline size_t partial_match(std::string_view text, std::string_view marker) {
  size_t n = std::min(text.size(), marker.size() - 1);
  while (n > 0 && !text.ends_with(marker.substr(0, n))) --n;
  return n;
}

}  // namespace dspark
