// Shared prefixes with real kernels: texts, log-probabilities and drafts are bit for bit those of an engine
// that computes everything, with every kind of drafter, with sliding windows and shared key/value layers, at
// any thread count.

#include <gtest/gtest.h>

#include <cstring>

#include "engine/draft_golden.h"
#include "engine/generation.h"

namespace dspark {
namespace {

using test::DraftGolden;

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<std::vector<int32_t>> drafts;  // of every round
  int32_t cached_tokens = 0;
  friend bool operator==(const Answer& a, const Answer& b) {
    return a.tokens == b.tokens && a.drafts == b.drafts && a.logprobs.size() == b.logprobs.size() &&
           std::memcmp(a.logprobs.data(), b.logprobs.data(), a.logprobs.size() * sizeof(float)) == 0;
  }
};

Answer answer(Engine& engine, const std::vector<int32_t>& prompt, int32_t max_tokens) {
  GenerateRequest request;
  request.prompt = prompt;
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  request.sampling.temperature = 0.7f;
  request.sampling.seed = 3;
  request.n_logprobs = 0;
  Answer got;
  const auto result = generate(engine, request, [&got](const StreamUpdate& update) {
    for (const TokenEvent& event : update.tokens) got.logprobs.push_back(event.logprob);
    if (update.round != nullptr)
      got.drafts.emplace_back(update.round->drafts.begin(), update.round->drafts.end());
  });
  EXPECT_TRUE(result.ok()) << result.status().to_string();
  if (!result.ok()) return got;
  got.tokens = result->tokens;
  got.cached_tokens = result->stats.cached_tokens;
  EXPECT_TRUE(engine.check_integrity().ok()) << engine.check_integrity().to_string();
  return got;
}

/// A conversation of three turns, a fork of it, and the first turn again.
std::vector<Answer> conversation(Engine& engine, int32_t vocab_size) {
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 75; ++i) prompt.push_back((i * i + 11 * i + 5) % vocab_size);
  const std::vector<int32_t> first = prompt;
  std::vector<Answer> answers;
  for (int turn = 0; turn < 3; ++turn) {
    answers.push_back(answer(engine, prompt, 30));
    prompt.insert(prompt.end(), answers.back().tokens.begin(), answers.back().tokens.end());
    for (int32_t i = 0; i < 9 + turn; ++i) prompt.push_back((i * 31 + turn) % vocab_size);
  }
  prompt.resize(100);
  prompt[96] = (prompt[96] + 1) % vocab_size;  // the token behind a page differs
  answers.push_back(answer(engine, prompt, 30));
  answers.push_back(answer(engine, first, 30));
  return answers;
}

/// The conversation with an engine of its own.
std::vector<Answer> conversation_of(const DraftGolden& golden, int n_threads, bool shares) {
  LoadedModel loaded = test::load_golden_target(golden, n_threads, false);
  EngineOptions options;
  options.context_length = 256;
  options.max_sequences = 2;
  options.prefill_rows = 40;
  options.policy = VerifyPolicy::fixed(4);
  options.prefix_cache = shares;
  const auto engine = test::golden_engine(loaded, golden, options);
  return engine == nullptr ? std::vector<Answer>() : conversation(*engine, loaded.model->config().vocab_size);
}

class PrefixModel : public testing::TestWithParam<DraftGolden> {};

TEST_P(PrefixModel, AHitChangesNothingButTime) {
  const std::vector<Answer> computed = conversation_of(GetParam(), 1, false);
  ASSERT_EQ(computed.size(), 5u);
  for (const Answer& one : computed) EXPECT_EQ(one.cached_tokens, 0);
  for (const int n_threads : {1, 2, 4}) {
    SCOPED_TRACE(testing::Message() << n_threads << " threads");
    const std::vector<Answer> shared = conversation_of(GetParam(), n_threads, true);
    ASSERT_EQ(shared.size(), computed.size());
    for (size_t i = 0; i < shared.size(); ++i) EXPECT_TRUE(shared[i] == computed[i]) << "answer " << i;
    EXPECT_EQ(shared[0].cached_tokens, 0);
    EXPECT_EQ(shared[1].cached_tokens, 96);
    EXPECT_EQ(shared[2].cached_tokens, 128);
    EXPECT_GE(shared[3].cached_tokens, 64);
    EXPECT_EQ(shared[4].cached_tokens, 64);
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, PrefixModel, testing::ValuesIn(test::draft_goldens()),
                         [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace dspark
