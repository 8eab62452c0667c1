#pragma once
// Remembers what short words became during one encode call: in running text most words have come before.

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace dspark {

/// Direct-mapped. A remembered word points into the output of the same call, so nothing is stored twice.
/// thread: one object per thread.
class WordCache {
 public:
  static constexpr size_t kMaxWord = 16;  // bytes

  /// Takes its memory now; an unused cache costs nothing.
  void enable() { entries_.resize(kEntries); }
  bool accepts(std::string_view word) const {
    return !entries_.empty() && word.size() <= kMaxWord && !word.empty();
  }

  /// Appends the ids of `word` to `out` when it is remembered. requires: accepts(word).
  bool append(std::string_view word, std::vector<int32_t>& out) const {
    const Key key = key_of(word);
    const Entry& entry = entries_[slot_of(key)];
    if (entry.length != word.size() || entry.key.low != key.low || entry.key.high != key.high) return false;
    for (uint32_t i = 0; i < entry.n_ids; ++i) out.push_back(out[entry.begin + i]);
    return true;
  }

  /// `word` became out[begin ..]. requires: accepts(word).
  void remember(std::string_view word, const std::vector<int32_t>& out, size_t begin) {
    if (out.size() > UINT32_MAX) return;
    const Key key = key_of(word);
    entries_[slot_of(key)] = {key, static_cast<uint32_t>(begin), static_cast<uint16_t>(out.size() - begin),
                              static_cast<uint16_t>(word.size())};
  }

 private:
  static constexpr size_t kEntries = 1 << 13;
  struct Key {
    uint64_t low = 0;
    uint64_t high = 0;
  };
  struct Entry {
    Key key;
    uint32_t begin = 0;
    uint16_t n_ids = 0;
    uint16_t length = 0;  // 0: free
  };
  static Key key_of(std::string_view word) {
    Key key;
    std::memcpy(&key.low, word.data(), word.size() < 8 ? word.size() : 8);
    if (word.size() > 8) std::memcpy(&key.high, word.data() + 8, word.size() - 8);
    return key;
  }
  static size_t slot_of(const Key& key) {
    const uint64_t hash = (key.low ^ (key.high * 0xC2B2AE3D27D4EB4Fu)) * 0x9E3779B97F4A7C15u;
    return hash >> (64 - 13);
  }

  std::vector<Entry> entries_;
};

}  // namespace dspark
