#pragma once
// Finds tokens that are matched as text, before words are cut: special and user-defined ones.

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/vocab.h"

namespace dspark {

/// Leftmost, then longest. Built once, then const. thread: const members from any thread.
class TokenMatcher {
 public:
  struct Match {
    size_t begin = 0;
    size_t end = 0;
    int32_t id = -1;  // -1: none
  };

  /// `ids` with empty texts are left out. The vocab must outlive the matcher only for this call.
  TokenMatcher(const Vocab& vocab, std::vector<int32_t> ids);
  TokenMatcher() = default;

  bool empty() const { return ids_.empty(); }
  /// First match at or after `from`.
  Match find(std::string_view text, size_t from) const;

 private:
  int32_t longest_at(std::string_view rest, size_t& length) const;

  StringPool texts_;  // sorted
  std::vector<int32_t> ids_;
  uint32_t first_[257] = {};  // texts starting with byte b: [first_[b], first_[b + 1])
};

}  // namespace dspark
