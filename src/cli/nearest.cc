#include "cli/nearest.h"

#include <algorithm>
#include <cstddef>

namespace dspark::cli {
namespace {

std::string_view without_dashes(std::string_view word) {
  const size_t first = word.find_first_not_of('-');
  return first == std::string_view::npos ? std::string_view() : word.substr(first);
}

}  // namespace

int edit_distance(std::string_view a, std::string_view b) {
  a = without_dashes(a);
  b = without_dashes(b);
  const size_t width = b.size() + 1;
  std::vector<int> table((a.size() + 1) * width);
  const auto at = [&](size_t i, size_t j) -> int& { return table[i * width + j]; };
  for (size_t i = 0; i <= a.size(); ++i) at(i, 0) = static_cast<int>(i);
  for (size_t j = 0; j <= b.size(); ++j) at(0, j) = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const int replaced = at(i - 1, j - 1) + (a[i - 1] == b[j - 1] ? 0 : 1);
      at(i, j) = std::min({at(i - 1, j) + 1, at(i, j - 1) + 1, replaced});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) at(i, j) = std::min(at(i, j), at(i - 2, j - 2) + 1);
    }
  }
  return at(a.size(), b.size());
}

std::string nearest_word(std::string_view word, const std::vector<std::string>& candidates) {
  // A mistyped word can be anything on a command line; do not build a table for a pasted document.
  if (word.size() > 64) return {};
  const int limit = std::max(1, static_cast<int>(without_dashes(word).size() + 2) / 3);
  int best = limit + 1;
  std::string nearest;
  for (const std::string& candidate : candidates) {
    const int edits = edit_distance(word, candidate);
    if (edits < best) {
      best = edits;
      nearest = candidate;
    }
  }
  return nearest;
}

}  // namespace dspark::cli
