// Which answers are dropped, and for what.

#include "train_data/filters.h"

#include <gtest/gtest.h>

#include <numeric>

namespace dspark::test {
namespace {

CorpusRecord answer_of(std::vector<int32_t> ids, std::string text = "a fine answer") {
  CorpusRecord record;
  record.tokens = {1, 2, 3};
  record.prompt_tokens = 3;
  record.tokens.insert(record.tokens.end(), ids.begin(), ids.end());
  record.conversations = {{"user", "?"}, {"assistant", std::move(text)}};
  return record;
}

std::vector<int32_t> counting(size_t n, int32_t first = 0) {
  std::vector<int32_t> ids(n);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

/// `n` ids that repeat with `period`.
std::vector<int32_t> periodic(size_t n, int32_t period) {
  std::vector<int32_t> ids(n);
  for (size_t i = 0; i < n; ++i) ids[i] = static_cast<int32_t>(i) % period;
  return ids;
}

TEST(Filters, RepeatedShare) {
  EXPECT_EQ(repeated_ngram_share(counting(11), 12), 0.0);
  EXPECT_EQ(repeated_ngram_share(counting(100), 12), 0.0);
  // 100 - 12 + 1 = 89 n-grams, 20 of them new.
  EXPECT_DOUBLE_EQ(repeated_ngram_share(periodic(100, 20), 12), 69.0 / 89.0);
  EXPECT_DOUBLE_EQ(repeated_ngram_share(std::vector<int32_t>{5, 5, 5}, 1), 2.0 / 3.0);
}

TEST(Filters, MinimumLength) {
  CorpusFilter filter({});
  EXPECT_EQ(filter.check(answer_of(counting(13))), DropReason::kShort);
  EXPECT_EQ(filter.check(answer_of(counting(14))), DropReason::kNone);
}

TEST(Filters, LoopsAtTheLimit) {
  // 40 ids: 29 n-grams; a period of p leaves 29 - p repeats.
  CorpusFilter filter({});
  EXPECT_EQ(filter.check(answer_of(periodic(40, 21))), DropReason::kNone);  // 8 of 29 = 0.276
  EXPECT_EQ(filter.check(answer_of(periodic(40, 20))), DropReason::kLoop);  // 9 of 29 = 0.310
  FilterOptions off;
  off.max_loop_share = 1.0;
  CorpusFilter lenient(off);
  EXPECT_EQ(lenient.check(answer_of(periodic(40, 1))), DropReason::kNone);
}

TEST(Filters, DuplicatesNeedTheSamePromptAndAnswer) {
  CorpusFilter filter({});
  const CorpusRecord first = answer_of(counting(20));
  EXPECT_EQ(filter.check(first), DropReason::kNone);
  EXPECT_EQ(filter.check(first), DropReason::kDuplicate);
  CorpusRecord other_prompt = first;
  other_prompt.tokens[0] = 9;
  EXPECT_EQ(filter.check(other_prompt), DropReason::kNone);
  FilterOptions keep;
  keep.drop_duplicates = false;
  CorpusFilter lenient(keep);
  EXPECT_EQ(lenient.check(first), DropReason::kNone);
  EXPECT_EQ(lenient.check(first), DropReason::kNone);
}

TEST(Filters, OtherScripts) {
  EXPECT_EQ(foreign_share("plain text, caf\xC3\xA9, \xCF\x80 \xE2\x89\x88 3"), 0.0);
  EXPECT_EQ(foreign_share("\xE2\x9C\x85 \xF0\x9F\x98\x80 \xF0\x9D\x91\xA5"), 0.0);  // tick, emoji, math x
  EXPECT_DOUBLE_EQ(foreign_share("ab \xE4\xBD\xA0\xE5\xA5\xBD"), 0.5);
  EXPECT_DOUBLE_EQ(foreign_share("a\xFF"), 0.5);     // a byte that is no character
  EXPECT_DOUBLE_EQ(foreign_share("\xE4\xBD"), 1.0);  // half a character
  EXPECT_DOUBLE_EQ(foreign_share("a\xC3\x28"
                                 "b"),
                   0.25);
  EXPECT_EQ(foreign_share(""), 0.0);
  CorpusFilter filter({});
  EXPECT_EQ(filter.check(answer_of(counting(20), "\xE4\xBD\xA0\xE5\xA5\xBD hi")), DropReason::kForeign);
}

TEST(Filters, Gibberish) {
  EXPECT_EQ(longest_word("ab cdef\ngh"), 4u);
  CorpusFilter filter({});
  EXPECT_EQ(filter.check(answer_of(counting(20), std::string(400, 'x'))), DropReason::kNone);
  EXPECT_EQ(filter.check(answer_of(counting(21), std::string(401, 'x'))), DropReason::kGibberish);
}

TEST(Filters, Counts) {
  FilterCounts counts;
  counts.add(answer_of(counting(20)), DropReason::kNone);
  counts.add(answer_of(counting(5)), DropReason::kShort);
  counts.add(answer_of(counting(6)), DropReason::kShort);
  EXPECT_EQ(counts.kept_answer_tokens, 20);
  EXPECT_EQ(counts.kept_prompt_tokens, 3);
  EXPECT_EQ(counts.dropped_answer_tokens, 11);
  EXPECT_EQ(counts.records[DropReason::kShort], 2);
}

}  // namespace
}  // namespace dspark::test
