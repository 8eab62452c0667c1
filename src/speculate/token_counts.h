#pragma once
// Which ids a sequence has used, for the penalties.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace dspark {

/// Occurrences per distinct id. Pushing and popping drafted tokens costs O(1), so penalties can be applied to
/// each verified position as if the drafts before it were committed.
class TokenCounts {
 public:
  struct Entry {
    int32_t token = 0;
    int32_t in_output = 0;
    bool in_prompt = false;
  };

  /// Starts over with a prompt.
  void reset(std::span<const int32_t> prompt);
  /// Room for n_more further distinct ids: pushing those takes no memory.
  void reserve(size_t n_more);
  /// An output token.
  void push(int32_t token) { ++find_or_insert(token).in_output; }
  /// Takes back a push of the same token. requires: it was pushed.
  void pop(int32_t token) { --find_or_insert(token).in_output; }
  /// Every id seen since reset, each once; entries without any occurrence left are possible after pop.
  std::span<const Entry> entries() const { return entries_; }

 private:
  Entry& find_or_insert(int32_t token);
  void rehash(size_t n_buckets);

  std::vector<Entry> entries_;
  std::vector<int32_t> buckets_;  // index into entries_ or -1; size a power of two, linear probing
};

}  // namespace dspark
