#pragma once
// Which answers are not worth training on, and why.

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "train_data/corpus.h"

namespace dspark {

struct FilterOptions {
  int32_t min_answer_tokens = 14;  // as the reference
  int32_t loop_ngram = 12;         // tokens
  double max_loop_share = 0.3;     // of n-grams that the answer has had before; 1: off
  bool drop_duplicates = true;     // prompt and answer equal, token by token
  double max_foreign_share = 0.3;  // of visible characters in other scripts or broken; 1: off
  int32_t max_word_bytes = 400;    // longest run without white space; 0: off
};

enum class DropReason : uint8_t { kNone, kShort, kLoop, kDuplicate, kForeign, kGibberish };
/// "kept", "too short", "repetition loop", "duplicate", "other script", "gibberish".
const char* drop_reason_name(DropReason reason);

/// Share of the n-grams of `ids` that occurred before in `ids`; 0 when there is none.
double repeated_ngram_share(std::span<const int32_t> ids, int32_t n);
/// Share of the characters (white space left out) that are letters outside the Latin and Greek scripts,
/// control characters or U+FFFD. Symbols and emoji are not counted as foreign.
double foreign_share(std::string_view utf8);
/// Bytes of the longest run without white space.
size_t longest_word(std::string_view text);

/// Applied to records in order: of equal records the first is kept.
class CorpusFilter {
 public:
  explicit CorpusFilter(const FilterOptions& options) : options_(options) {}
  /// The first reason, in the order of DropReason, to drop `record`; kNone: keep it.
  DropReason check(const CorpusRecord& record);

 private:
  FilterOptions options_;
  std::set<std::pair<uint64_t, uint64_t>> seen_;  // 106 bits of hash per kept record
};

/// What a filter did to one task.
struct FilterCounts {
  std::map<DropReason, int64_t> records;  // kNone: kept
  int64_t kept_prompt_tokens = 0;
  int64_t kept_answer_tokens = 0;
  int64_t dropped_answer_tokens = 0;
  void add(const CorpusRecord& record, DropReason reason);
};

}  // namespace dspark
