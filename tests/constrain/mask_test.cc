// Masks against the definition: a token is allowed iff the grammar can go on behind its text.

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "constrain/fake_vocab.h"
#include "constrain/grammar_constraint.h"
#include "constrain/json_terminals.h"

namespace dspark {
namespace {

using test::FakeVocab;

constexpr const char* kJson = R"(root ::= value
value ::= object | array | string | "true" | "false" | "null" | [0-9]{1,4}
object ::= "{" (string ":" value ("," string ":" value)*)? "}"
array ::= "[" (value ("," value)*)? "]"
string ::= "\"" ([^"\\\x00-\x1f] | "\\" ["\\n])* "\"")";

int32_t pick(TokenMask mask, std::mt19937& random, int32_t size) {
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < size; ++id) {
    if (mask_allows(mask, id)) ids.push_back(id);
  }
  return ids.empty() ? -1 : ids[random() % ids.size()];
}

TEST(GrammarConstraint, MasksAgreeWithTheGrammar) {
  const FakeVocab vocab;
  for (const char* source :
       {kJson, "root ::= [^a-m\"]{0,3} \"é世\" .*", "root ::= (\"ab\" | \"abc\" | \"bc\")+"}) {
    const Result<Grammar> grammar = Grammar::from_gbnf(source);
    ASSERT_TRUE(grammar.ok());
    const GrammarConstraint constraint(*grammar, vocab.trie());
    const std::vector<int32_t> ends{vocab.end_id};
    std::mt19937 random(7);
    for (int text_idx = 0; text_idx < 4; ++text_idx) {
      const auto state = constraint.start(ends);
      std::string text;
      for (int step = 0; step < 25 && !state->finished(); ++step) {
        const TokenMask mask = state->allowed();
        for (int32_t id = 0; id < vocab.size(); ++id) {
          const std::string& token = vocab.texts[static_cast<size_t>(id)];
          const bool expected =
              id == vocab.end_id ? grammar->matches(text) : grammar->matches_start(text + token);
          ASSERT_EQ(mask_allows(mask, id), expected) << source << " behind " << text << " token " << token;
          if (id % 37 == 0) {
            ASSERT_EQ(state->allows(id), expected);
          }
        }
        const int32_t token = pick(state->allowed(), random, vocab.size() - 1);
        if (token < 0) break;
        ASSERT_TRUE(state->advance(token));
        text += vocab.texts[static_cast<size_t>(token)];
      }
    }
  }
}

TEST(GrammarConstraint, RollsBack) {
  const FakeVocab vocab;
  const Result<Grammar> grammar = Grammar::from_gbnf(kJson);
  ASSERT_TRUE(grammar.ok());
  const GrammarConstraint constraint(*grammar, vocab.trie(), {200});
  const std::vector<int32_t> ends{vocab.end_id};
  std::mt19937 random(3);
  const auto state = constraint.start(ends);
  for (int round = 0; round < 60 && !state->finished(); ++round) {
    const TokenMask before = state->allowed();
    const std::vector<uint32_t> copy(before.begin(), before.end());
    const int32_t first = pick(before, random, vocab.size());
    int32_t n = 0;
    for (int i = 0; i < 1 + round % 60; ++i) {
      const int32_t token = i == 0 ? first : pick(state->allowed(), random, vocab.size());
      if (token < 0 || !state->advance(token)) break;
      ++n;
    }
    state->rollback(n);
    const TokenMask after = state->allowed();
    ASSERT_TRUE(std::equal(copy.begin(), copy.end(), after.begin(), after.end())) << round;
    ASSERT_TRUE(state->advance(first));
  }
}

TEST(GrammarConstraint, EndsOnlyWhereTheGrammarMay) {
  const FakeVocab vocab;
  const std::vector<int32_t> ends{vocab.end_id, 'x'};
  const auto state =
      GrammarConstraint(*Grammar::from_gbnf("root ::= \"ab\"+ | \"x\"+"), vocab.trie()).start(ends);
  EXPECT_FALSE(state->allows(vocab.end_id));
  EXPECT_FALSE(state->allows('x')) << "an end id is nothing but an end";
  EXPECT_FALSE(mask_allows(state->allowed(), 'x'));
  ASSERT_TRUE(state->advance('a'));
  EXPECT_FALSE(state->advance('a'));
  ASSERT_TRUE(state->advance('b'));
  EXPECT_FALSE(state->finished());
  EXPECT_TRUE(mask_allows(state->allowed(), vocab.end_id));
  EXPECT_TRUE(mask_allows(state->allowed(), 'x'));
  ASSERT_TRUE(state->advance(vocab.end_id));
  EXPECT_TRUE(state->finished());
  EXPECT_FALSE(state->advance('a'));
  state->rollback(1);
  EXPECT_FALSE(state->finished());
  EXPECT_TRUE(state->allows('a'));
}

TEST(GrammarConstraint, FinishesWhenNothingCanFollow) {
  const FakeVocab vocab;
  const auto state = GrammarConstraint(*Grammar::from_gbnf("root ::= \"{\" \"}\""), vocab.trie()).start({});
  EXPECT_FALSE(state->finished());
  ASSERT_TRUE(state->advance('{'));
  ASSERT_TRUE(state->advance('}'));
  EXPECT_TRUE(state->finished());
}

TEST(GrammarConstraint, ReportsDeadEndsByEmptyMasks) {
  const auto trie =
      std::make_shared<const TokenTrie>(2, [](int32_t id) { return std::string_view(id == 0 ? "a" : "b"); });
  EXPECT_FALSE(trie->has_all_bytes());
  const auto state = GrammarConstraint(*Grammar::from_gbnf("root ::= \"ac\""), trie).start({});
  ASSERT_TRUE(state->advance(0));
  EXPECT_EQ(state->allowed()[0], 0u);
  EXPECT_FALSE(state->finished());
}

TEST(GrammarConstraint, CompletesWithinTheTokenLimit) {
  const FakeVocab vocab;
  const Result<Grammar> grammar = Grammar::from_gbnf(kJson);
  ASSERT_TRUE(grammar.ok());
  const GrammarConstraint shared(*grammar, vocab.trie());
  for (int limit = 1; limit <= 40; ++limit) {
    const auto constraint = shared.with_options({limit});
    std::mt19937 random(static_cast<uint32_t>(limit));
    const auto state = constraint->start({});
    std::string text;
    for (int i = 0; i < limit && !state->finished(); ++i) {
      const int32_t token = pick(state->allowed(), random, vocab.size());
      if (token < 0) break;
      ASSERT_TRUE(state->allows(token));
      ASSERT_TRUE(state->advance(token));
      text += vocab.texts[static_cast<size_t>(token)];
    }
    EXPECT_TRUE(grammar->matches(text)) << limit << ": " << text;
  }
}

// States are forgotten and numbered anew without harm to texts in progress.
TEST(GrammarConstraint, CompactsItsStates) {
  const Result<Grammar> grammar = Grammar::from_gbnf(kJson);
  ASSERT_TRUE(grammar.ok());
  StateMachine machine(grammar->automaton());
  const std::string text = R"({"a":[[1,{"b":"c)";
  std::vector<int32_t> history{machine.start()};
  for (char c : text) history.push_back(machine.next(history.back(), static_cast<uint8_t>(c)));
  const size_t n_before = machine.n_states();
  for (int i = 0; i < 200; ++i) {
    int32_t state = machine.start();
    for (int depth = 0; depth < i; ++depth) state = machine.next(state, '[');
  }
  std::vector<std::vector<int32_t>*> live{&history};
  machine.compact(live);
  EXPECT_LT(machine.n_states(), n_before + 5);
  for (size_t i = 0; i < text.size(); ++i) {
    EXPECT_EQ(machine.next(history[i], static_cast<uint8_t>(text[i])), history[i + 1]) << i;
  }
  int32_t end = history.back();
  for (char c : std::string_view("\"}]]}")) end = machine.next(end, static_cast<uint8_t>(c));
  EXPECT_TRUE(machine.is_final(end));
}

TEST(JsonTerminals, KnowsLeapYears) {
  const Result<Grammar> date = Grammar::from_json_schema(R"({"type":"string","format":"date"})");
  ASSERT_TRUE(date.ok());
  for (const char* text :
       {"\"2024-02-29\"", "\"2000-02-29\"", "\"1999-12-31\"", "\"2023-02-28\"", "\"1904-02-29\""}) {
    EXPECT_TRUE(date->matches(text)) << text;
  }
  for (const char* text : {"\"2023-02-29\"", "\"1900-02-29\"", "\"2024-04-31\"", "\"2024-13-01\"",
                           "\"2024-00-10\"", "\"2024-01-00\""}) {
    EXPECT_FALSE(date->matches(text)) << text;
  }
}

// All numbers of a range and none beside it.
TEST(JsonTerminals, RangesAreExact) {
  struct Case {
    const char* schema;
    int first, last;
  };
  for (const Case& c : {Case{R"({"type":"integer","minimum":7,"maximum":1234})", 7, 1234},
                        Case{R"({"type":"integer","minimum":-250,"maximum":-3})", -250, -3},
                        Case{R"({"type":"integer","exclusiveMinimum":-16,"maximum":101.5})", -15, 101},
                        Case{R"({"type":"number","minimum":-15,"exclusiveMaximum":102})", -15, 101}}) {
    const Result<Grammar> grammar = Grammar::from_json_schema(c.schema);
    ASSERT_TRUE(grammar.ok()) << grammar.status().message();
    for (int i = -2500; i <= 2500; ++i) {
      EXPECT_EQ(grammar->matches(std::to_string(i)), c.first <= i && i <= c.last) << c.schema << " " << i;
    }
  }
  const Result<Grammar> number =
      Grammar::from_json_schema(R"({"minimum":-1.25,"exclusiveMaximum":3.5,"type":"number"})");
  ASSERT_TRUE(number.ok());
  for (int i = -5000; i <= 5000; ++i) {
    if (i == 0) continue;
    char text[32];
    std::snprintf(text, sizeof(text), "%.3f", i * 1e-3);
    EXPECT_EQ(number->matches(text), -1250 <= i && i < 3500) << text;
  }
}

}  // namespace
}  // namespace dspark
