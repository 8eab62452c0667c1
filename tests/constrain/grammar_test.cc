// GBNF: what it means, and what is said about mistakes.

#include "constrain/grammar.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace dspark {
namespace {

void expect_texts(const std::string& source, const std::vector<std::string>& in,
                  const std::vector<std::string>& out) {
  const Result<Grammar> grammar = Grammar::from_gbnf(source);
  ASSERT_TRUE(grammar.ok()) << grammar.status().message() << "\n" << source;
  for (const std::string& text : in) EXPECT_TRUE(grammar->matches(text)) << source << " <- " << text;
  for (const std::string& text : out) EXPECT_FALSE(grammar->matches(text)) << source << " <- " << text;
}

void expect_error(const std::string& source, const std::string& message) {
  const Result<Grammar> grammar = Grammar::from_gbnf(source, "g");
  ASSERT_FALSE(grammar.ok()) << source;
  EXPECT_NE(grammar.status().message().find(message), std::string::npos) << source << "\n"
                                                                         << grammar.status().message();
}

TEST(Gbnf, ReadsLiteralsAndAlternatives) {
  expect_texts("root ::= \"yes\" | \"no\"", {"yes", "no"}, {"", "ye", "yesno", "yes "});
  expect_texts("root ::= \"a\" \"b\" | ", {"ab", ""}, {"a"});
  expect_texts(R"(root ::= "\"\\\n\x41é\u00e9\U0001F30D")", {"\"\\\nA\xC3\xA9\xC3\xA9\xF0\x9F\x8C\x8D"},
               {"A"});
}

TEST(Gbnf, ReadsClasses) {
  expect_texts("root ::= [a-cx]", {"a", "b", "x"}, {"d", "", "ab"});
  expect_texts("root ::= [^a-c]", {"d", "\n", "\xC3\xA9", "\xF4\x8F\xBF\xBF"},
               {"a", "\xC3", "\xED\xA0\x80", "\xC0\x80"});
  expect_texts("root ::= [α-ω\\]-]+", {"αβγ", "]", "-"}, {"a", "Α"});
  expect_texts("root ::= .", {"a", "\n", "世"}, {"", "ab", "\xE4\xB8"});
}

TEST(Gbnf, RepeatsItems) {
  expect_texts("root ::= \"ab\"*", {"", "ab", "abab"}, {"aba"});
  expect_texts("root ::= \"a\"+ \"b\"?", {"a", "aab"}, {"", "b", "abb"});
  expect_texts("root ::= [0-9]{2}", {"12"}, {"1", "123"});
  expect_texts("root ::= [0-9]{2,}", {"12", "12345"}, {"1"});
  expect_texts("root ::= ( \"a\" | \"b\" ){1,3}", {"a", "ab", "bab"}, {"", "abab"});
  expect_texts("root ::= \"a\"{0,1}", {"", "a"}, {"aa"});
  expect_texts("root ::= (\"a\"?)* \"b\"", {"b", "aaab"}, {"aa"});
}

TEST(Gbnf, FollowsRulesAcrossLinesAndComments) {
  expect_texts(
      "# a list\nroot ::= # here\n  \"[\" (item (\",\" item)*)? \"]\"\nitem ::= [a-z]+\n  | root # nested\n",
      {"[]", "[a,b]", "[[a],[[]],b]"}, {"[a,]", "[[a]", "a"});
}

TEST(Gbnf, HandlesRecursionWithoutLeftRecursion) {
  expect_texts("root ::= \"a\" root \"b\" | \"\"", {"", "ab", "aaabbb"}, {"aab", "abb", "ba"});
  expect_texts("root ::= \"x\" root | \"x\"", {"x", std::string(5000, 'x')}, {"", "xy"});
  // Exponentially many ways to read it.
  std::string text(60, 'a');
  expect_texts("root ::= s\ns ::= \"a\" s s | \"a\" s | \"a\"", {text}, {text + "b"});
}

TEST(Gbnf, LimitsNesting) {
  const Result<Grammar> grammar = Grammar::from_gbnf("root ::= \"(\" root \")\" | \"x\"");
  ASSERT_TRUE(grammar.ok());
  EXPECT_TRUE(grammar->matches_start(std::string(1000, '(')));
  EXPECT_FALSE(grammar->matches_start(std::string(5000, '(')));
}

TEST(Gbnf, NamesThePlaceOfMistakes) {
  expect_error("root ::= \"a", "g:1:10: the literal is not closed");
  expect_error("root ::= a\n  b ::= \"x\"", "g:1:10: rule 'a' is not defined");
  expect_error("start ::= \"a\"", "g: no rule named 'root'");
  expect_error("root = \"a\"", "g:1:1: expected a rule");
  expect_error("root ::= \"é\" [z-a]", "g:1:15: the range of a class ends before it begins");
  expect_error("root ::= (\"a\"\n", "g:1:10: '(' is never closed");
  expect_error("root ::= \"a\")", "found ')'");
  expect_error("root ::= \"a\"{3,2}", "maximum is below");
  expect_error("root ::= \"a\"{999999}", "at most");
  expect_error("root ::= \"\\q\"", "unknown escape");
  expect_error("root ::= \"\\ud800\"", "not a Unicode character");
  expect_error("root ::= \"a\"\nroot ::= \"b\"", "g:2:1: rule 'root' is defined twice");
  expect_error("root ::= <think>", "tokens");
  expect_error("root ::= *", "expected a literal");
  expect_error("root ::= root \"a\" | \"a\"", "left recursion: root -> root");
  expect_error("root ::= x\nx ::= \"a\"? y\ny ::= x \"b\" | \"c\"", "left recursion");
  expect_error("root ::= \"a\" root", "can never end");
  expect_error("root ::= []", "can never end");
  expect_error("root ::= (((\"a\"{9999}){9999}){9999}){9999}", "too large");
  expect_error("root ::= " + std::string(100000, '('), "nested deeper");
  expect_error("root ::= \"a\"" + std::string(100000, '*'), "too many repetitions");
}

}  // namespace
}  // namespace dspark
