// Grammars in the engine: texts are valid, and the same with and without speculation.

#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "constrain/fake_vocab.h"
#include "constrain/grammar_constraint.h"
#include "draft/ngram.h"
#include "engine/engine.h"
#include "engine/fake_model.h"

namespace dspark {
namespace {

using test::FakeModel;
using test::FakeVocab;

// Room for the shortest text of every schema, byte by byte.
constexpr int32_t kMaxTokens = 150;

struct Answer {
  std::string text;
  FinishReason reason = FinishReason::kNone;
  SpeculationStats speculation;
};

std::vector<Answer> run(const FakeVocab& vocab, const GrammarConstraint& constraint, bool drafts,
                        AcceptRule rule, float temperature) {
  FakeModel model(vocab.size());
  EngineOptions options;
  options.max_sequences = 3;
  options.context_length = 256;
  options.policy = drafts ? VerifyPolicy::fixed(5) : VerifyPolicy::off();
  options.accept_rule = rule;
  options.eos_ids = {vocab.end_id};
  options.token_bytes = [&vocab](int32_t token, std::string& out) {
    out += vocab.texts[static_cast<size_t>(token)];
  };
  auto engine =
      Engine::create(model, options, drafts ? std::make_unique<NgramDrafter>(NgramOptions{}) : nullptr);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  std::vector<Answer> answers(8);
  const auto limited = constraint.with_options({kMaxTokens});
  for (size_t i = 0; i < answers.size(); ++i) {
    GenerateRequest request;
    request.prompt = {'p', static_cast<int32_t>('a' + i)};
    request.max_tokens = kMaxTokens;
    request.sampling.temperature = temperature;
    request.sampling.seed = i;
    request.constraint = limited;
    Answer& answer = answers[i];
    const auto id = (*engine)->submit(std::move(request), [&answer](const StreamUpdate& update) {
      answer.text += update.text;
      answer.reason = update.finish_reason;
      answer.speculation = update.stats->speculation;
    });
    EXPECT_TRUE(id.ok()) << id.status().message();
  }
  while ((*engine)->has_work()) (*engine)->step();
  return answers;
}

const char* const kSchemas[] = {
    R"({"type":"array","minItems":4,"maxItems":9,"items":{"type":"object","properties":{"name":{"enum":["left","right"]},
        "value":{"type":"integer","minimum":0,"maximum":99}},"required":["name","value"],"additionalProperties":false}})",
    R"({"$defs":{"t":{"type":"object","properties":{"id":{"type":"string","maxLength":6},"kids":{"type":"array",
        "items":{"$ref":"#/$defs/t"},"maxItems":2}},"required":["id","kids"],"additionalProperties":false}},"$ref":"#/$defs/t"})",
    R"({"type":"object"})"};

TEST(ConstrainedEngine, TextsAreValidAndTheSameWithDrafts) {
  const FakeVocab vocab;
  const auto trie = vocab.trie();
  int64_t n_accepted = 0;
  for (const char* schema : kSchemas) {
    const Result<Grammar> grammar = Grammar::from_json_schema(schema);
    ASSERT_TRUE(grammar.ok()) << grammar.status().message();
    const GrammarConstraint constraint(*grammar, trie);
    for (const float temperature : {0.0f, 1.5f}) {
      const auto plain = run(vocab, constraint, false, AcceptRule::kCoupled, temperature);
      const auto drafted = run(vocab, constraint, true, AcceptRule::kCoupled, temperature);
      for (size_t i = 0; i < plain.size(); ++i) {
        EXPECT_TRUE(grammar->matches(plain[i].text)) << plain[i].text;
        EXPECT_EQ(plain[i].reason, FinishReason::kStop) << plain[i].text;
        EXPECT_EQ(plain[i].text, drafted[i].text);
        EXPECT_EQ(plain[i].reason, drafted[i].reason);
        n_accepted += drafted[i].speculation.accepted;
      }
    }
  }
  EXPECT_GT(n_accepted, 0) << "nothing was drafted, so nothing was tested";
}

TEST(ConstrainedEngine, OtherRulesKeepTextsValid) {
  const FakeVocab vocab;
  const auto trie = vocab.trie();
  for (const char* schema : kSchemas) {
    const Result<Grammar> grammar = Grammar::from_json_schema(schema);
    ASSERT_TRUE(grammar.ok());
    const GrammarConstraint constraint(*grammar, trie);
    for (const AcceptRule rule : {AcceptRule::kRejection, AcceptRule::kBlock}) {
      for (const Answer& answer : run(vocab, constraint, true, rule, 1.0f)) {
        EXPECT_TRUE(grammar->matches(answer.text)) << answer.text;
        EXPECT_EQ(answer.reason, FinishReason::kStop);
      }
    }
  }
}

}  // namespace
}  // namespace dspark
