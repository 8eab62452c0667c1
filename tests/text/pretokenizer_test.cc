#include "text/pretokenizer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace dspark {
namespace {

std::vector<std::string> words(const PreTokenizer& pre, const std::string& text) {
  std::vector<std::string> out;
  Regex::Scratch scratch;
  size_t done = 0;
  pre.split(text, scratch, [&](size_t begin, size_t end) {
    EXPECT_LT(begin, end);
    EXPECT_GE(begin, done);
    done = end;
    out.push_back(text.substr(begin, end - begin));
  });
  return out;
}

std::vector<std::string> named_words(const std::string& name, const std::string& text) {
  const Result<PreTokenizer> pre = PreTokenizer::named(name);
  EXPECT_TRUE(pre.ok()) << pre.status().message();
  return words(*pre, text);
}

using Words = std::vector<std::string>;

TEST(PreTokenizer, Families) {
  const std::string text = "it's  1234 I'LL\n\n x";
  EXPECT_EQ(named_words("gpt-2", text), (Words{"it", "'s", " ", " 1234", " I", "'", "LL", "\n\n", " x"}));
  EXPECT_EQ(named_words("smollm", text),
            (Words{"it", "'s", "  ", "1", "2", "3", "4", " I", "'", "LL", "\n\n", " x"}));
  EXPECT_EQ(named_words("llama-bpe", text),
            (Words{"it", "'s", " ", " ", "123", "4", " I", "'LL", "\n\n", " x"}));
  EXPECT_EQ(named_words("qwen2", text),
            (Words{"it", "'s", " ", " ", "1", "2", "3", "4", " I", "'LL", "\n\n", " x"}));
  EXPECT_EQ(named_words("deepseek-v3", "a1234,b"), (Words{"a", "123", "4", ",b"}));
  EXPECT_EQ(named_words("gpt-4o", "HelloWorld's"), (Words{"Hello", "World's"}));
  EXPECT_EQ(named_words("tekken", "HelloWorld12"), (Words{"Hello", "World", "1", "2"}));
  EXPECT_EQ(named_words("", "a,1234"), (Words{"a", ",", "123", "4"}));
  EXPECT_TRUE(named_words("qwen2", "").empty());
}

TEST(PreTokenizer, UnknownNameListsTheKnown) {
  const Result<PreTokenizer> pre = PreTokenizer::named("nonsense");
  ASSERT_FALSE(pre.ok());
  EXPECT_EQ(pre.status().code(), StatusCode::kUnsupported);
  for (const char* part : {"'nonsense'", "smollm", "llama-bpe", "qwen2", "gpt-2"}) {
    EXPECT_NE(pre.status().message().find(part), std::string::npos) << pre.status().message();
  }
}

Result<std::pair<size_t, size_t>> first(const std::string& pattern, const std::string& text) {
  Result<Regex> regex = Regex::compile(pattern);
  if (!regex.ok()) return regex.status();
  Regex::Scratch scratch;
  const auto match = regex->find(text, 0, scratch);
  if (!match) return not_found("no match");
  return *match;
}

TEST(Regex, WhiteSpaceIsUnicodes) {
  EXPECT_TRUE(first("\\s", "x\u3000").ok());
  EXPECT_TRUE(first("\\s", "x\u0085").ok());
  EXPECT_FALSE(first("\\s", "x\u180E").ok());
  EXPECT_TRUE(first("\\S", "\u180E").ok());
  EXPECT_FALSE(first("[^a\\s]", "a\u2003").ok());
  EXPECT_TRUE(first("[[:alpha:]]", "1\u00e9").ok());
  EXPECT_TRUE(first("[]a]", "]").ok());
  EXPECT_TRUE(first("[^]a]b", "xb").ok());
}

TEST(Regex, EmptyMatchesAreSteppedOver) {
  const auto match = first("x*", "\u4f60xx");
  ASSERT_TRUE(match.ok());
  EXPECT_EQ(match->first, 3u);
  EXPECT_EQ(match->second, 5u);
  EXPECT_FALSE(first("x*", "\u4f60\u4f60").ok());
  EXPECT_FALSE(first("$", "abc").ok());
}

TEST(Regex, RefusesWhatItCannotRead) {
  for (const char* bad :
       {"(", "[a", "a{2", "\\p{Nonsense}", "(?<=a*)", "[a[b]]", "[a&&b]", "*", "\\C", "\xFF"}) {
    const std::string pattern = bad;
    if (pattern == "a{2") continue;  // a literal in this dialect
    EXPECT_FALSE(Regex::compile(pattern).ok()) << pattern;
  }
  EXPECT_FALSE(Regex::compile(std::string(100000, 'a')).ok());
}

// Exponential for a plain backtracker: must end, in whatever way.
TEST(Regex, PathologicalPatternsEnd) {
  const std::string text = std::string(3000, 'a') + "b";
  for (const char* pattern : {"(a+)+$", "(a|a)*$", "(.*)*x", "(a|aa)+$"}) {
    Result<Regex> regex = Regex::compile(pattern);
    ASSERT_TRUE(regex.ok());
    Regex::Scratch scratch;
    (void)regex->find(text, 0, scratch);
  }
}

TEST(Regex, LiteralQuotesEverything) {
  const std::string text = "a.b*[c]\\E(d)|\u2581 #";
  Result<Regex> regex = Regex::literal(text);
  ASSERT_TRUE(regex.ok()) << regex.status().message();
  Regex::Scratch scratch;
  const auto match = regex->find("xx" + text, 0, scratch);
  ASSERT_TRUE(match.has_value());
  EXPECT_EQ(match->second - match->first, text.size());
}

}  // namespace
}  // namespace dspark
