#include "train_data/filters.h"

#include <algorithm>
#include <unordered_set>

#include "train_data/jobs.h"

namespace dspark {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

/// Next code point of `text` from `at` on; U+FFFD for a broken byte.
char32_t next_character(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(at++);
  if (lead < 0x80) return lead;
  const int n_more = lead >= 0xF0 && lead < 0xF8 ? 3 : lead >= 0xE0 ? 2 : 1;
  if (lead < 0xC2 || lead >= 0xF8) return kReplacement;
  char32_t value = lead & (0x3Fu >> n_more);
  for (int i = 0; i < n_more; ++i) {
    if (at >= text.size() || (byte(at) & 0xC0) != 0x80) return kReplacement;
    value = value << 6 | (byte(at++) & 0x3Fu);
  }
  return value;
}

bool is_space(char32_t c) {
  return c == ' ' || (c >= '\t' && c <= '\r') || c == 0xA0 || c == 0x3000;
}

bool is_foreign(char32_t c) {
  if (c == kReplacement || c < 0x20 || c == 0x7F) return true;
  if (c < 0x400) return false;                    // Latin, its accents, Greek
  if (c >= 0x1E00 && c < 0x2C00) return false;    // more Latin and Greek, punctuation, symbols, arrows
  if (c >= 0xFE00 && c < 0xFE10) return false;    // variants of symbols
  if (c >= 0x1D400 && c < 0x1D800) return false;  // mathematical letters
  return c < 0x1F000 || c >= 0x1FB00;             // emoji and pictures lie in between
}

}  // namespace

const char* drop_reason_name(DropReason reason) {
  switch (reason) {
    case DropReason::kNone:
      return "kept";
    case DropReason::kShort:
      return "too short";
    case DropReason::kLoop:
      return "repetition loop";
    case DropReason::kDuplicate:
      return "duplicate";
    case DropReason::kForeign:
      return "other script";
    case DropReason::kGibberish:
      return "gibberish";
  }
  return "?";
}

double repeated_ngram_share(std::span<const int32_t> ids, int32_t n) {
  const auto length = static_cast<size_t>(n);
  if (n < 1 || ids.size() < length) return 0.0;
  const size_t n_grams = ids.size() - length + 1;
  std::unordered_set<std::string_view> seen;
  size_t n_repeated = 0;
  for (size_t i = 0; i < n_grams; ++i) {
    const std::string_view gram(reinterpret_cast<const char*>(ids.data() + i), length * sizeof(int32_t));
    if (!seen.insert(gram).second) ++n_repeated;
  }
  return static_cast<double>(n_repeated) / static_cast<double>(n_grams);
}

double foreign_share(std::string_view utf8) {
  int64_t n = 0, n_foreign = 0;
  for (size_t at = 0; at < utf8.size();) {
    const char32_t c = next_character(utf8, at);
    if (is_space(c)) continue;
    ++n;
    if (is_foreign(c)) ++n_foreign;
  }
  return n == 0 ? 0.0 : static_cast<double>(n_foreign) / static_cast<double>(n);
}

size_t longest_word(std::string_view text) {
  size_t longest = 0, length = 0;
  for (const char c : text) {
    length = is_space(static_cast<uint8_t>(c)) && static_cast<uint8_t>(c) < 0x80 ? 0 : length + 1;
    longest = std::max(longest, length);
  }
  return longest;
}

DropReason CorpusFilter::check(const CorpusRecord& record) {
  const std::span<const int32_t> answer = record.answer();
  if (static_cast<int64_t>(answer.size()) < options_.min_answer_tokens) return DropReason::kShort;
  if (options_.max_loop_share < 1.0 &&
      repeated_ngram_share(answer, options_.loop_ngram) > options_.max_loop_share) {
    return DropReason::kLoop;
  }
  const std::string_view bytes(reinterpret_cast<const char*>(record.tokens.data()),
                               record.tokens.size() * sizeof(int32_t));
  const std::pair<uint64_t, uint64_t> hash = {hash_of(0, bytes, "first"), hash_of(0, bytes, "second")};
  if (options_.drop_duplicates && seen_.count(hash) != 0) return DropReason::kDuplicate;
  if (foreign_share(record.answer_text()) > options_.max_foreign_share) return DropReason::kForeign;
  if (options_.max_word_bytes > 0 &&
      longest_word(record.answer_text()) > static_cast<size_t>(options_.max_word_bytes)) {
    return DropReason::kGibberish;
  }
  if (options_.drop_duplicates) seen_.insert(hash);
  return DropReason::kNone;
}

void FilterCounts::add(const CorpusRecord& record, DropReason reason) {
  ++records[reason];
  const auto n = static_cast<int64_t>(record.answer().size());
  if (reason == DropReason::kNone) {
    kept_prompt_tokens += record.prompt_tokens;
    kept_answer_tokens += n;
  } else {
    dropped_answer_tokens += n;
  }
}

}  // namespace dspark
