// What --show-drafts prints for given rounds.

#include "cli/draft_view.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <vector>

namespace dspark::cli {
namespace {

enum : int32_t { kA, kB, kFirstByte, kSecondByte, kBreak, kEnd };

/// a, b, the two bytes of an accented letter, a line break, and a control token.
Tokenizer small_tokenizer() {
  const MetadataMap metadata = {
      {"tokenizer.ggml.model", std::string("gpt2")},
      {"tokenizer.ggml.pre", std::string("gpt-2")},
      {"tokenizer.ggml.tokens",
       std::vector<std::string>{"a", "b", "\xC3\x83", "\xC2\xA9", "\xC4\x8A", "<end>"}},
      {"tokenizer.ggml.token_type", std::vector<int64_t>{1, 1, 1, 1, 1, 3}},
      {"tokenizer.ggml.merges", std::vector<std::string>{}},
      {"tokenizer.ggml.bos_token_id", int64_t{5}},
      {"tokenizer.ggml.eos_token_id", int64_t{5}}};
  auto tokenizer = Tokenizer::from_gguf(metadata);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().to_string();
  return std::move(tokenizer).value();
}

/// One update of a request.
struct Step {
  std::vector<TokenEvent> events;
  std::vector<int32_t> drafts;
  RoundView round;

  static Step prompt(int32_t token) {
    Step step;
    step.events.push_back({.token = token});
    return step;
  }
  /// `last` < 0: the text ended inside the run.
  static Step of_round(std::vector<int32_t> drafts, int32_t n_verified, int32_t n_accepted, int32_t last) {
    Step step;
    step.drafts = std::move(drafts);
    for (int32_t i = 0; i < n_accepted; ++i) {
      step.events.push_back({.token = step.drafts[static_cast<size_t>(i)],
                             .origin = TokenOrigin::kAccepted,
                             .draft_idx = static_cast<int16_t>(i)});
    }
    const auto origin = n_accepted == n_verified ? TokenOrigin::kBonus : TokenOrigin::kCorrection;
    if (last >= 0) step.events.push_back({.token = last, .origin = origin});
    const auto n_drafted = static_cast<int32_t>(step.drafts.size());
    step.round.counts = {n_drafted, n_verified, last < 0 ? n_accepted : n_verified, n_accepted,
                         static_cast<int32_t>(step.events.size())};
    return step;
  }
  std::string shown(DraftView& view) {
    StreamUpdate update;
    update.tokens = events;
    round.drafts = drafts;
    if (round.counts.acceptance_length > 0) update.round = &round;
    return view.render(update);
  }
};

TEST(DraftView, MarksEveryTokenByItsOrigin) {
  const Tokenizer tokenizer = small_tokenizer();
  DraftView view(tokenizer, false);
  EXPECT_EQ(view.legend(),
            "drafts: [accepted] [=looked up=] <correction> (bonus) {-rejected-} {~trimmed~}\n");
  EXPECT_EQ(Step::prompt(kA).shown(view), "a");
  EXPECT_EQ(Step::of_round({kA, kB, kB, kBreak, kA}, 4, 2, kA).shown(view), "[ab]{-b\\n-}{~a~}<a>");
  EXPECT_EQ(Step::of_round({kA, kB, kB}, 2, 2, kBreak).shown(view), "[ab]{~b~}(\n)");
  EXPECT_EQ(Step::of_round({kB}, 0, 0, kA).shown(view), "{~b~}(a)");
  // A stop inside the run: what lies behind it was neither rejected nor trimmed.
  EXPECT_EQ(Step::of_round({kA, kEnd, kB}, 3, 2, -1).shown(view), "[a<end>]");
  EXPECT_EQ(view.finish(), "");
}

TEST(DraftView, CharactersStayWhole) {
  const Tokenizer tokenizer = small_tokenizer();
  DraftView view(tokenizer, false);
  EXPECT_EQ(Step::of_round({kA, kFirstByte}, 2, 2, kSecondByte).shown(view), "[a](\xC3\xA9)");
  EXPECT_EQ(Step::of_round({kFirstByte, kB}, 2, 1, kSecondByte).shown(view), "{-b-}<\xC3\xA9>");
  EXPECT_EQ(Step::of_round({kB, kFirstByte}, 2, 0, kFirstByte).shown(view), "{-b-}");
  EXPECT_EQ(view.finish(), "\xC3");
}

TEST(DraftView, ColoursInsteadOfMarks) {
  const Tokenizer tokenizer = small_tokenizer();
  DraftView view(tokenizer, true);
  EXPECT_EQ(Step::of_round({kA, kB}, 2, 1, kA).shown(view),
            "\033[32ma\033[0m\033[31;9mb\033[0m\033[33ma\033[0m");
  EXPECT_EQ(Step::prompt(kA).shown(view), "a");
}

}  // namespace
}  // namespace dspark::cli
