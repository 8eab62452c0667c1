#pragma once
// The merge loop of BPE: both kinds, by rank of id pairs (tokenizer.json, GPT-2) and by score of the merged
// text (SentencePiece).

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text/vocab.h"

namespace dspark {

/// Marks pairs of bytes that stand side by side inside some token. Between two characters whose facing bytes
/// are no such pair no merge can happen, so text may be cut there without changing the result: this turns a
/// page without pre-tokeniser into short words.
class BytePairSet {
 public:
  void add_all(std::string_view text);
  bool contains(uint8_t left, uint8_t right) const {
    return (words_[left * 4u + right / 64u] >> (right % 64u) & 1u) != 0;
  }

 private:
  std::vector<uint64_t> words_ = std::vector<uint64_t>(1024);
};

/// Merges the symbols of words. The best pair first (lowest rank / highest score), the leftmost of equals.
/// thread: one object per thread (it keeps scratch memory).
class BpeMerger {
 public:
  struct Symbol {
    int32_t id = -1;  // -1: no token has this text
    uint32_t begin = 0;
    uint32_t end = 0;  // byte range in the text given to merge()
  };

  /// By rank of id pairs.
  explicit BpeMerger(const MergeTable* merges) : merges_(merges) {}
  /// By text: `order[id]` is the sort key of a token (lower first), UINT32_MAX = never made by merging.
  BpeMerger(const Vocab* vocab, const std::vector<uint32_t>* order) : vocab_(vocab), order_(order) {}

  /// Merges in place until nothing merges. O(n log n).
  void merge(std::string_view text, std::vector<Symbol>& symbols);

 private:
  using Hit = MergeTable::Hit;
  struct Candidate {
    uint64_t key;  // rank in the upper half, position in the lower
    int32_t left;
    int32_t right;
    int32_t merged;
    uint32_t end;  // of the merged symbol: tells whether the candidate is still current
    uint32_t middle;
    bool operator<(const Candidate& other) const { return key > other.key; }  // min-heap
  };

  Hit look_up(std::string_view text, const Symbol& left, const Symbol& right) const;
  void merge_short(std::string_view text, std::vector<Symbol>& symbols);
  void merge_long(std::string_view text, std::vector<Symbol>& symbols);
  void push(std::string_view text, const std::vector<Symbol>& symbols, int32_t left, int32_t right);

  const MergeTable* merges_ = nullptr;
  const Vocab* vocab_ = nullptr;
  const std::vector<uint32_t>* order_ = nullptr;
  std::vector<Hit> hits_;          // merge_short: hit of symbols i and i + 1
  std::vector<Candidate> heap_;    // merge_long
  std::vector<int32_t> previous_;  // merge_long: linked list
  std::vector<int32_t> next_;
};

}  // namespace dspark
