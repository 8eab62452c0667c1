// Sets of texts: membership, what is in both and in neither, and the grammar of their texts.

#include "constrain/text_set.h"

#include <gtest/gtest.h>

#include <regex>
#include <string>
#include <vector>

#include "constrain/grammar.h"

namespace dspark {
namespace {

TextSet matching(const char* pattern) {
  Result<TextSet> set = TextSet::matching(pattern);
  EXPECT_TRUE(set.ok()) << pattern << ": " << set.status().message();
  return set.ok() ? *set : TextSet::all();
}

TextSet both(const TextSet& a, const TextSet& b) {
  Result<TextSet> set = a.intersect(b);
  EXPECT_TRUE(set.ok()) << set.status().message();
  return set.ok() ? *set : TextSet::all();
}

// All texts of up to `length` characters of an alphabet.
std::vector<std::string> short_texts(const std::string& alphabet, size_t length) {
  std::vector<std::string> texts{""};
  for (size_t i = 0; i < texts.size(); ++i) {
    if (texts[i].size() == length) continue;
    for (const char c : alphabet) texts.push_back(texts[i] + c);
  }
  return texts;
}

// The grammar of JSON strings that hold the texts of a set.
Grammar grammar_of(const TextSet& set) {
  GrammarIr ir;
  JsonTerminals json(ir);
  const GrammarIr::Node content = set.content(ir, json);
  EXPECT_GE(content, 0);
  ir.root = ir.add_rule("root");
  ir.set_body(ir.root, json.quoted(content));
  Result<Grammar> grammar = Grammar::from_ir(ir);
  EXPECT_TRUE(grammar.ok()) << grammar.status().message();
  return *grammar;
}

TEST(TextSet, AgreesWithAnotherReaderOfPatterns) {
  const std::vector<std::string> texts = short_texts("ab-1", 5);
  for (const char* pattern :
       {"^a+$", "^a", "b$", "ab", "^(a|b1)*$", "^[a-b]{2,3}$", "^a?b{0,2}-$", "^(ab|a)(b|)$", "^[^a]*$",
        "^\\w+$", "\\d", "", "^$", "^a|b$", "^.{3}$", "^(a*b)*1?$"}) {
    const TextSet set = matching(pattern);
    const TextSet others = set.complement();
    const std::regex judge(pattern);
    for (const std::string& text : texts) {
      const bool expected = std::regex_search(text, judge);
      ASSERT_EQ(set.contains(text), expected) << pattern << ": " << text;
      ASSERT_EQ(others.contains(text), !expected) << pattern << ": " << text;
    }
  }
}

TEST(TextSet, ListsAndLengths) {
  const TextSet listed = TextSet::of({"a", "ab", "\xC3\xA9", "\xF0\x9F\x8C\x8D"});
  for (const char* text : {"a", "ab", "\xC3\xA9", "\xF0\x9F\x8C\x8D"})
    EXPECT_TRUE(listed.contains(text)) << text;
  for (const char* text : {"", "b", "abc", "\xC3\xA8", "\xF0\x9F\x8C\x8E", "\xF0\x9F\x8C\x8D "}) {
    EXPECT_FALSE(listed.contains(text)) << text;
    EXPECT_TRUE(listed.complement().contains(text)) << text;
  }
  // Characters count, not bytes.
  const Result<TextSet> two = TextSet::lengths(2, 3);
  ASSERT_TRUE(two.ok());
  for (const char* text : {"ab", "abc", "\xC3\xA9\xC3\xA9", "\xF0\x9F\x8C\x8D\xC3\xA9x"})
    EXPECT_TRUE(two->contains(text));
  for (const char* text : {"", "a", "\xC3\xA9", "abcd"}) EXPECT_FALSE(two->contains(text)) << text;
  const Result<TextSet> open = TextSet::lengths(2, GrammarIr::kUnbounded);
  ASSERT_TRUE(open.ok());
  EXPECT_FALSE(open->contains("a"));
  EXPECT_TRUE(open->contains(std::string(1000, 'a')));
}

TEST(TextSet, WhatIsInBoth) {
  const TextSet set = both(matching("^[a-z]+(-[a-z]+)*$"), *TextSet::lengths(3, 5));
  for (const char* text : {"abc", "a-b", "ab-cd", "a-b-c"}) EXPECT_TRUE(set.contains(text)) << text;
  for (const char* text : {"ab", "abcdef", "a--b", "-ab", "ab-"}) EXPECT_FALSE(set.contains(text)) << text;
  EXPECT_TRUE(both(matching("^a"), matching("^b")).empty());
  EXPECT_TRUE(both(set, set.complement()).empty());
  EXPECT_FALSE(set.empty());
  EXPECT_TRUE(TextSet::all().complement().empty());
  EXPECT_TRUE(TextSet::of({}).empty());
  const TextSet both_needed = both(matching("[A-Z]"), matching("[0-9]"));
  EXPECT_TRUE(both_needed.contains("x1Y"));
  EXPECT_FALSE(both_needed.contains("x1y"));
}

TEST(TextSet, GrammarHasTheSameTexts) {
  const TextSet set = both(matching("^[ab]*b-?$"), *TextSet::lengths(2, 4));
  const Grammar grammar = grammar_of(set);
  for (const std::string& text : short_texts("ab-", 6)) {
    EXPECT_EQ(grammar.matches("\"" + text + "\""), set.contains(text)) << text;
  }
}

TEST(TextSet, GrammarWritesEscapes) {
  const Grammar not_a = grammar_of(TextSet::of({"a"}).complement());
  for (const char* text : {R"("")", R"("b")", R"("ab")", R"("\n")", R"("\"")", R"("\\")", "\"\xC3\xA9\"",
                           "\"\xF0\x9F\x8C\x8D\"", R"("b\u0061")"}) {
    EXPECT_TRUE(not_a.matches(text)) << text;
  }
  for (const char* text : {R"("a")", R"("\u0061")", "\"\n\"", R"(")", R"("\x")", "\"\x7F\""}) {
    EXPECT_FALSE(not_a.matches(text)) << text;
  }
}

TEST(TextSet, RefusesWhatIsTooLarge) {
  // The last character but n: a state per choice of the last n.
  for (const char* pattern :
       {"a.{20}$", "^(a{100}){100}$", "^(.*a){40}b(.*c){40}$|^(.*d){900}$", "a{10000}{10000}"}) {
    const Result<TextSet> set = TextSet::matching(pattern);
    EXPECT_FALSE(set.ok()) << pattern;
  }
  EXPECT_EQ(TextSet::matching("^[acegikmoqsuwyACEGIKMOQSUWY02468]{10000}$").status().code(),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(TextSet::lengths(0, 100000).status().code(), StatusCode::kResourceExhausted);
  const Result<TextSet> product = matching("^[a-z]+(-[a-z]+)*$").intersect(*TextSet::lengths(0, 4000));
  EXPECT_EQ(product.status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(TextSet::matching("(a").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(TextSet::matching("(?=a)").status().code(), StatusCode::kUnsupported);
}

}  // namespace
}  // namespace dspark
