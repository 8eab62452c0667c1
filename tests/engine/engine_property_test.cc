// The promise of the engine: the text of a request is what plain decoding gives, whatever drafts, batches,
// prefill budgets and neighbours do; and nothing is leaked however requests end.

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "draft/ngram.h"
#include "draft/test_drafters.h"
#include "engine/engine.h"
#include "engine/reference_generation.h"

namespace dspark {
namespace {

using test::Expected;

/// Output of one request, collected from its stream.
struct Collected {
  std::vector<TokenEvent> events;
  std::string text;
  std::vector<size_t> text_ends;  // where each update's text ended
  FinishReason reason = FinishReason::kNone;
  GenerateStats stats;
  SpeculationStats rounds;  // summed up from the updates
  int n_final = 0;
  std::vector<int32_t> tokens() const {
    std::vector<int32_t> ids;
    for (const TokenEvent& event : events) ids.push_back(event.token);
    return ids;
  }
};

/// No released piece ended inside a character of the text.
void expect_whole_characters(const std::string& text, const std::vector<size_t>& ends) {
  for (const size_t end : ends) {
    EXPECT_FALSE(end > 0 && end < text.size() && text[end - 1] == '\xC3' && text[end] == '\xA9') << end;
  }
}

/// A round tells the same story as its tokens.
void expect_round_agrees(const StreamUpdate& update) {
  const RoundView& round = *update.round;
  const RoundRecord& counts = round.counts;
  ASSERT_EQ(round.drafts.size(), static_cast<size_t>(counts.drafted));
  EXPECT_GE(counts.drafted, counts.verified);
  EXPECT_GE(counts.verified, counts.proposal_length);
  EXPECT_GE(counts.proposal_length, counts.accepted);
  ASSERT_EQ(update.tokens.size(), static_cast<size_t>(counts.acceptance_length));
  EXPECT_TRUE(round.confidence.empty() || round.confidence.size() == round.drafts.size());
  EXPECT_EQ(round.confidence.size(), round.confidence_logits.size());
  for (size_t i = 0; i < update.tokens.size(); ++i) {
    EXPECT_EQ(update.tokens[i].position, round.anchor_position + 1 + static_cast<int32_t>(i));
    const bool accepted = update.tokens[i].origin == TokenOrigin::kAccepted;
    EXPECT_EQ(accepted, static_cast<int32_t>(i) < counts.accepted);
    if (accepted) {
      EXPECT_EQ(update.tokens[i].token, round.drafts[i]);
    } else if (static_cast<int32_t>(i) < counts.verified) {
      EXPECT_NE(update.tokens[i].token, round.drafts[i]) << "a right draft was rejected";
    }
  }
}

StreamCallback collect(Collected& out) {
  return [&out](const StreamUpdate& update) {
    EXPECT_EQ(out.n_final, 0) << "update after the last";
    if (update.round != nullptr) {
      expect_round_agrees(update);
      out.rounds.add(update.round->counts);
    }
    out.events.insert(out.events.end(), update.tokens.begin(), update.tokens.end());
    out.text.append(update.text);
    out.reason = update.finish_reason;
    out.stats = *update.stats;
    out.text_ends.push_back(out.text.size());
    if (update.finish_reason != FinishReason::kNone) ++out.n_final;
    EXPECT_LE(update.prompt_done, update.prompt_tokens);
  };
}

void expect_events_agree(const GenerateRequest& request, const Collected& got) {
  const SpeculationStats& s = got.stats.speculation;
  int64_t n_accepted = 0, n_last = 0;
  for (size_t i = 0; i < got.events.size(); ++i) {
    const TokenEvent& event = got.events[i];
    EXPECT_EQ(event.position, static_cast<int32_t>(request.prompt.size() + i));
    EXPECT_EQ(event.draft_idx >= 0, event.origin == TokenOrigin::kAccepted);
    n_accepted += event.origin == TokenOrigin::kAccepted ? 1 : 0;
    n_last += event.origin == TokenOrigin::kBonus || event.origin == TokenOrigin::kCorrection ? 1 : 0;
  }
  EXPECT_EQ(s.accepted, n_accepted);
  EXPECT_EQ(s.rounds, got.rounds.rounds);
  EXPECT_EQ(s.drafted, got.rounds.drafted);
  EXPECT_EQ(s.proposal_tokens, got.rounds.proposal_tokens);
  EXPECT_EQ(s.accepted_at, got.rounds.accepted_at);
  EXPECT_LE(n_last, s.rounds);
  EXPECT_GE(s.drafted, s.verified);
  EXPECT_GE(s.verified, s.accepted);
  EXPECT_EQ(s.trimmed, s.drafted - s.verified);
  EXPECT_EQ(got.stats.output_tokens, static_cast<int32_t>(got.events.size()));
  // Every token but the prompt's own belongs to a round.
  EXPECT_EQ(s.committed_tokens, std::max<int64_t>(0, static_cast<int64_t>(got.events.size()) - 1));
}

/// A random engine around `model`. `texts`: prompts with their right continuations, for oracles.
std::unique_ptr<Engine> random_engine(std::mt19937& rng, test::FakeModel& model,
                                      const std::vector<std::vector<int32_t>>& texts,
                                      int32_t context_length) {
  EngineOptions options;
  options.max_sequences = static_cast<int32_t>(rng() % 5 + 1);
  options.context_length = context_length;
  options.kv_dtype = KvDType::kF32;
  options.prefill_rows = std::array{1, 3, 7, 32, 512}[rng() % 5];
  options.max_batch_rows = options.max_sequences + static_cast<int32_t>(rng() % 3 == 0 ? 1 + rng() % 8 : 600);
  if (rng() % 2 == 0) options.logit_bytes = 0;
  if (rng() % 2 == 0) options.kv_tokens = context_length + static_cast<int32_t>(rng() % 300);
  options.policy = VerifyPolicy::fixed(static_cast<int32_t>(rng() % 17));
  if (rng() % 8 == 0) options.policy = VerifyPolicy::off();
  if (rng() % 4 == 0) {
    options.policy = VerifyPolicy::from_threshold(static_cast<float>(rng() % 100) / 100.0f);
  }
  if (rng() % 3 == 0) {
    options.policy = rng() % 3 == 0 ? VerifyPolicy::causal() : VerifyPolicy::adaptive();
    options.costs = CostTable{};
    const double per_row = 1e-5 * static_cast<double>(rng() % 20);
    for (int32_t n = 1; n < 40; ++n) options.costs->verify.push_back({n, 1e-4 + per_row * n});
    options.costs->draft = {{1, 1e-6}, {4, 4e-6}};
  }
  options.eos_ids = {test::kFakeEos};
  options.token_bytes = test::fake_token_bytes;
  const std::vector<int32_t> taps = rng() % 2 == 0 ? std::vector<int32_t>{0, 2} : std::vector<int32_t>{};
  std::unique_ptr<test::ScriptedDrafter> scripted;
  std::unique_ptr<Drafter> drafter;
  switch (rng() % 6) {
    case 0:
      break;
    case 1:
      drafter = std::make_unique<NgramDrafter>(NgramOptions{.min_n = 1, .max_n = 3});
      break;
    case 2:
      scripted = test::garbage_drafter(rng(), test::kFakeVocab, taps);
      break;
    case 3:
      scripted = test::oracle_drafter(texts, test::kFakeVocab, 1, 0, taps);
      break;
    case 4:
      scripted = test::oracle_drafter(texts, test::kFakeVocab, 0, 0, taps);
      break;
    default:
      scripted = test::oracle_drafter(texts, test::kFakeVocab, 0, 4, taps);
  }
  if (scripted != nullptr) {
    if (rng() % 2 == 0) scripted->be_confident(rng());
    drafter = std::move(scripted);
  }
  auto engine = Engine::create(model, options, std::move(drafter));
  EXPECT_TRUE(engine.ok()) << engine.status().to_string();
  return std::move(engine).value();
}

/// Requests of one round, with what they must give.
struct Workload {
  std::vector<GenerateRequest> requests;
  std::vector<Expected> expected;
  std::vector<std::vector<int32_t>> texts;
};

Workload random_workload(std::mt19937& rng, int32_t context_length) {
  Workload work;
  for (uint32_t i = rng() % 6 + 1; i > 0; --i) {
    work.requests.push_back(test::random_request(rng));
    GenerateRequest& request = work.requests.back();
    if (request.sampling.greedy()) {  // greedy acceptance is by equality, whatever rule is named
      request.accept_rule =
          std::array{AcceptRule::kRejection, AcceptRule::kBlock, AcceptRule::kCoupled}[rng() % 3];
    }
    work.expected.push_back(test::expected_output(work.requests.back(), context_length));
    work.texts.push_back(work.requests.back().prompt);
    const auto& tokens = work.expected.back().tokens;
    work.texts.back().insert(work.texts.back().end(), tokens.begin(), tokens.end());
  }
  return work;
}

constexpr int32_t kContext = 180;

TEST(EngineProperty, TextIsThatOfPlainDecoding) {
  std::mt19937 rng(20260101);
  SpeculationStats total;
  std::map<TokenOrigin, int> origins;
  std::map<FinishReason, int> reasons;
  for (int round = 0; round < 150; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    const Workload work = random_workload(rng, kContext);
    for (int variant = 0; variant < 4; ++variant) {
      test::FakeModel model;
      const auto engine = random_engine(rng, model, work.texts, kContext);
      std::vector<Collected> got(work.requests.size());
      size_t n_submitted = 0;
      while (n_submitted < got.size() || engine->has_work()) {
        if (n_submitted < got.size() && rng() % 3 == 0) {
          ASSERT_TRUE(engine->submit(work.requests[n_submitted], collect(got[n_submitted])).ok());
          ++n_submitted;
        }
        engine->step();
        const Status intact = engine->check_integrity();
        ASSERT_TRUE(intact.ok()) << intact.to_string();
      }
      EXPECT_LE(model.largest_batch, engine->options().max_batch_rows);
      // Anchors and drafts, and the last rows of prompts.
      const int64_t most_rows = 3 * int64_t{engine->options().max_sequences} + 16;
      if (engine->options().logit_bytes == 0) EXPECT_LE(model.most_logit_rows, most_rows);
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(got[i].tokens(), work.expected[i].tokens) << "request " << i;
        ASSERT_EQ(got[i].text, work.expected[i].text);
        ASSERT_EQ(got[i].reason, work.expected[i].reason);
        expect_events_agree(work.requests[i], got[i]);
        expect_whole_characters(got[i].text, got[i].text_ends);
        total.add(got[i].stats.speculation);
        ++reasons[got[i].reason];
        for (const TokenEvent& event : got[i].events) ++origins[event.origin];
      }
      EXPECT_EQ(engine->stats().requests_finished, static_cast<int64_t>(got.size()));
    }
    if (HasFailure()) return;
  }
  // The test must have been to all the places it claims to cover.
  EXPECT_GT(total.accepted, 1000);
  EXPECT_GT(total.verified - total.accepted, 1000);
  EXPECT_GT(total.trimmed, 100);
  EXPECT_GT(total.accepted_at[12], 10);
  for (auto origin :
       {TokenOrigin::kPlain, TokenOrigin::kAccepted, TokenOrigin::kCorrection, TokenOrigin::kBonus}) {
    EXPECT_GT(origins[origin], 500) << token_origin_name(origin);
  }
  EXPECT_GT(reasons[FinishReason::kStop], 100);
  EXPECT_GT(reasons[FinishReason::kLength], 100);
}

TEST(EngineProperty, CancellingAnywhereLeaksNothing) {
  std::mt19937 rng(42);
  int n_cancelled = 0;
  for (int round = 0; round < 200; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    const Workload work = random_workload(rng, kContext);
    test::FakeModel model;
    const auto engine = random_engine(rng, model, work.texts, kContext);
    std::vector<Collected> got(work.requests.size());
    std::vector<RequestId> ids;
    for (size_t i = 0; i < got.size(); ++i) {
      const auto id = engine->submit(work.requests[i], collect(got[i]));
      ASSERT_TRUE(id.ok());
      ids.push_back(*id);
    }
    while (engine->has_work()) {
      if (rng() % 4 == 0) engine->cancel(ids[rng() % ids.size()]);
      engine->step();
      ASSERT_TRUE(engine->check_integrity().ok()) << engine->check_integrity().to_string();
    }
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(got[i].n_final, 1);
      const Expected& want = work.expected[i];
      const std::vector<int32_t> tokens = got[i].tokens();
      if (got[i].reason != FinishReason::kCancelled) {
        ASSERT_EQ(tokens, want.tokens);
        ASSERT_EQ(got[i].text, want.text);
        continue;
      }
      ++n_cancelled;
      ASSERT_LE(tokens.size(), want.tokens.size());
      ASSERT_TRUE(std::equal(tokens.begin(), tokens.end(), want.tokens.begin()));
    }
    if (const auto* scripted = dynamic_cast<const test::ScriptedDrafter*>(engine->drafter())) {
      EXPECT_EQ(scripted->n_live_slots(), 0u) << "a sequence was not released";
    }
    if (HasFailure()) return;
  }
  EXPECT_GT(n_cancelled, 100);
}

}  // namespace
}  // namespace dspark
