#include "text/token_matcher.h"

#include <algorithm>

namespace dspark {

TokenMatcher::TokenMatcher(const Vocab& vocab, std::vector<int32_t> ids) {
  std::erase_if(ids, [&](int32_t id) { return vocab.text(id).empty(); });
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return vocab.text(a) < vocab.text(b); });
  // Of equal texts the one that Vocab::find gives.
  const auto same = [&](int32_t a, int32_t b) { return vocab.text(a) == vocab.text(b); };
  ids.erase(std::unique(ids.begin(), ids.end(), same), ids.end());
  for (int32_t id : ids) {
    texts_.add(vocab.text(id));
    ++first_[static_cast<uint8_t>(vocab.text(id)[0]) + 1];
  }
  for (int b = 0; b < 256; ++b) first_[b + 1] += first_[b];
  ids_ = std::move(ids);
}

// Narrows the range of texts that agree with `rest` byte by byte.
int32_t TokenMatcher::longest_at(std::string_view rest, size_t& length) const {
  const uint8_t lead = static_cast<uint8_t>(rest[0]);
  size_t low = first_[lead];
  size_t high = first_[lead + 1];
  int32_t best = -1;
  for (size_t depth = 1; low < high; ++depth) {
    if (texts_[low].size() == depth) {  // the shortest sorts first
      best = ids_[low++];
      length = depth;
    }
    if (depth == rest.size()) break;
    const uint8_t wanted = static_cast<uint8_t>(rest[depth]);
    const auto bound = [&](int limit) {  // first text in the range whose next byte is >= limit
      size_t a = low;
      size_t b = high;
      while (a < b) {
        const size_t middle = (a + b) / 2;
        if (static_cast<uint8_t>(texts_[middle][depth]) < limit) {
          a = middle + 1;
        } else {
          b = middle;
        }
      }
      return a;
    };
    const size_t next_low = bound(wanted);
    high = bound(wanted + 1);
    low = next_low;
  }
  return best;
}

TokenMatcher::Match TokenMatcher::find(std::string_view text, size_t from) const {
  for (size_t i = from; i < text.size(); ++i) {
    const uint8_t lead = static_cast<uint8_t>(text[i]);
    if (first_[lead] == first_[lead + 1]) continue;
    size_t length = 0;
    const int32_t id = longest_at(text.substr(i), length);
    if (id >= 0) return {i, i + length, id};
  }
  return {text.size(), text.size(), -1};
}

}  // namespace dspark
