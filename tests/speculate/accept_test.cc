// The accept rules on the reference cases, and the draws behind them.

#include "speculate/accept.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "speculate/golden_json.h"
#include "speculate/rule_probe.h"
#include "speculate/stats.h"

namespace dspark {
namespace {

using nlohmann::json;

constexpr double kTolerance = 1e-6;  // of the reference files

std::vector<json> rule_files(const std::string& name) {
  return test::fixture_and_golden(name, "draft/rules/" + name, "rules");
}

/// Rounds own their rows; the spans of `round` point into them.
struct OwnedRound {
  std::vector<std::vector<float>> draft_rows;
  test::Round round;
};

OwnedRound round_of(const json& c, const std::vector<int32_t>& drafts) {
  OwnedRound owned;
  owned.draft_rows = c["p_d"].get<std::vector<std::vector<float>>>();
  owned.round.drafts = drafts;
  owned.round.target = c["p_t"].get<std::vector<std::vector<float>>>();
  for (const auto& row : owned.draft_rows) owned.round.draft.push_back({row, {}});
  return owned;
}

/// Of a full run nothing but the first `accepted` rows counts; the stop cuts it afterwards, as the engine
/// does.
void expect_next(const json& expect, const std::vector<double>& next) {
  for (size_t v = 0; v < next.size(); ++v) {
    EXPECT_NEAR(next[v], expect["correction"][v].get<double>(), kTolerance) << "token " << v;
  }
}

TEST(AcceptRejection, ReferenceCases) {
  for (const json& file : rule_files("accept_token.json")) {
    ASSERT_GE(file.size(), 50u);
    for (const json& c : file) {
      SCOPED_TRACE(c["name"].get<std::string>());
      const json& expect = c["expect"];
      const OwnedRound owned = round_of(c, c["drafted"]);
      const auto coins = c["uniforms"].get<std::vector<double>>();
      const AcceptResult result = test::judge(AcceptRule::kRejection, owned.round, {coins, 0.5});
      const auto stop_ids = c["stop_token_ids"].get<std::vector<int32_t>>();
      int32_t stop = -1;
      for (int32_t e = result.accepted - 1; e >= 0; --e) {
        const int32_t draft = owned.round.drafts[static_cast<size_t>(e)];
        if (std::find(stop_ids.begin(), stop_ids.end(), draft) != stop_ids.end()) stop = e;
      }
      const auto verified = static_cast<int32_t>(owned.round.drafts.size());
      const RoundRecord record = make_round_record(verified + 1, verified, result.accepted, stop);
      EXPECT_EQ(stop >= 0, expect["stopped_inside_run"].get<bool>());
      EXPECT_EQ(record.accepted, expect["accepted"].get<int32_t>());
      EXPECT_EQ(record.proposal_length, expect["effective_proposal_length"].get<int32_t>());
      EXPECT_EQ(record.acceptance_length, expect["acceptance_length"].get<int32_t>());
      EXPECT_EQ(record.drafted - record.verified, 1);
      if (stop >= 0) continue;
      EXPECT_EQ(result.is_bonus, expect["correction_kind"] == "bonus");
      expect_next(expect, test::next_distribution(AcceptRule::kRejection, owned.round, coins));
    }
  }
}

TEST(AcceptBlock, ReferenceCases) {
  for (const json& file : rule_files("accept_block.json")) {
    ASSERT_GE(file["cases"].size(), 20u);
    for (const json& c : file["cases"]) {
      if (c.contains("paths")) continue;  // the worked example, below
      SCOPED_TRACE(c["name"].get<std::string>());
      const json& expect = c["expect"];
      const OwnedRound owned = round_of(c, c["drafted"]);
      const auto coins = c["uniforms"].get<std::vector<double>>();
      EXPECT_EQ(test::judge(AcceptRule::kBlock, owned.round, {coins, 0.5}).accepted,
                expect["accepted"].get<int32_t>());
      expect_next(expect, test::next_distribution(AcceptRule::kBlock, owned.round, coins));
      double weight = 1.0;
      for (size_t i = 0; i < owned.round.drafts.size(); ++i) {
        const auto x = static_cast<size_t>(owned.round.drafts[i]);
        weight = block_weight(weight, static_cast<double>(owned.round.target[i][x]),
                              static_cast<double>(owned.draft_rows[i][x]));
        EXPECT_NEAR(weight, expect["p"][i].get<double>(), kTolerance);
      }
      // h_i shows in the coins unless a later prefix is certain.
      const std::vector<double> h = test::coin_thresholds(AcceptRule::kBlock, owned.round);
      bool hidden = false;
      for (size_t i = h.size(); i-- > 0;) {
        if (!hidden) {
          EXPECT_NEAR(h[i], expect["h"][i].get<double>(), kTolerance) << i;
        }
        hidden = hidden || expect["h"][i].get<double>() > 1.0 - kTolerance;
      }
    }
  }
}

TEST(AcceptBlock, WorkedExample) {
  for (const json& file : rule_files("accept_block.json")) {
    const json& c = file["cases"].back();
    ASSERT_EQ(c["name"], "worked_example_paths");
    ASSERT_EQ(c["paths"].size(), 4u);
    double mean_block = 0.0, mean_token = 0.0;
    for (const json& path : c["paths"]) {
      const auto drafts = path["drafted"].get<std::vector<int32_t>>();
      const OwnedRound owned = round_of(c, drafts);
      const std::vector<double> h = test::coin_thresholds(AcceptRule::kBlock, owned.round);
      EXPECT_NEAR(h[1], path["h"][1].get<double>(), kTolerance);
      if (h[1] < 1.0) {
        EXPECT_NEAR(h[0], path["h"][0].get<double>(), kTolerance);
      }
      double weight = 1.0;
      for (int32_t x : drafts) weight *= x == 0 ? 2.0 / 3.0 : 1.0 / 3.0;
      for (const auto& o : test::outcomes(AcceptRule::kBlock, owned.round))
        mean_block += weight * o.probability * o.accepted;
      for (const auto& o : test::outcomes(AcceptRule::kRejection, owned.round))
        mean_token += weight * o.probability * o.accepted;
    }
    EXPECT_NEAR(mean_block, file["worked_example"]["mean_accepted_block"].get<double>(), kTolerance);
    EXPECT_NEAR(mean_token, file["worked_example"]["mean_accepted_token"].get<double>(), kTolerance);
    EXPECT_NEAR(mean_block, 11.0 / 9.0, kTolerance);
    EXPECT_NEAR(mean_token, 10.0 / 9.0, kTolerance);
  }
}

TEST(AcceptRules, OneHotRowsAcceptIffEqual) {
  const std::vector<float> one = {0, 1, 0, 0}, two = {0, 0, 1, 0};
  for (AcceptRule rule : {AcceptRule::kRejection, AcceptRule::kBlock}) {
    for (double u : {0.0, 0.5, test::kAlmostOne}) {
      const std::vector<double> coins(2, u);
      // Empty distributions: drafts that were certain.
      AcceptResult r = test::judge(rule, {{1, 2}, {one, two, one}, {{}, {}}}, {coins, u});
      EXPECT_EQ(r.accepted, 2);
      EXPECT_EQ(r.last_pick, 1);
      r = test::judge(rule, {{1, 1}, {one, two, one}, {{}, {}}}, {coins, u});
      EXPECT_EQ(r.accepted, 1);
      EXPECT_EQ(r.last_pick, 2);
      r = test::judge(rule, {{3, 2}, {one, two, one}, {{}, {}}}, {coins, u});
      EXPECT_EQ(r.accepted, 0);
      EXPECT_EQ(r.last_pick, 1);
    }
  }
}

/// A reduced vocabulary says the same as a full row with zeros.
TEST(AcceptRules, ReducedVocabularyEqualsAFullRow) {
  std::mt19937 rng(21);
  for (int trial = 0; trial < 60; ++trial) {
    const size_t vocab = rng() % 900 + 4;
    const auto random_row = [&](size_t n) {
      std::vector<float> row(n);
      for (float& p : row) p = rng() % 4 == 0 ? 0.0f : static_cast<float>(rng() % 1000 + 1);
      row[rng() % n] += 1.0f;
      const float sum = std::accumulate(row.begin(), row.end(), 0.0f);
      for (float& p : row) p /= sum;
      return row;
    };
    std::vector<int32_t> ids;
    for (size_t v = 0; v < vocab; ++v) {
      if (rng() % 3 == 0) ids.push_back(static_cast<int32_t>(v));
    }
    if (ids.empty()) ids.push_back(2);
    const std::vector<float> reduced = random_row(ids.size());
    std::vector<float> full(vocab, 0.0f);
    for (size_t i = 0; i < ids.size(); ++i) full[static_cast<size_t>(ids[i])] = reduced[i];
    const int32_t draft = ids[rng() % ids.size()];
    const DraftDistribution a{full, {}}, b{reduced, ids};
    EXPECT_EQ(draft_probability(a, draft), draft_probability(b, draft));
    const std::vector<float> target = random_row(vocab);
    DrawScratch scratch_a, scratch_b;
    const double scale = static_cast<double>(rng() % 11) / 10.0;
    const Residual residual_a{target, scale, a, draft}, residual_b{target, scale, b, draft};
    const double mass = residual_mass(residual_a, scratch_a);
    ASSERT_EQ(mass, residual_mass(residual_b, scratch_b));
    if (!(mass > 0.0)) continue;
    for (int i = 0; i < 20; ++i) {
      const double u = static_cast<double>(rng()) * 0x1p-32;
      ASSERT_EQ(draw_residual(residual_a, u, scratch_a), draw_residual(residual_b, u, scratch_b));
    }
  }
}

/// Drafts that neither model would say: never accepted, and the correction is the target's own choice.
TEST(AcceptRules, ImpossibleDrafts) {
  EXPECT_EQ(block_weight(0.5, 0.25, 0.0), 1.0);  // the drafter cannot have said it: the ratio is infinite
  EXPECT_EQ(block_weight(0.5, 0.0, 0.0), 0.0);
  EXPECT_EQ(block_weight(0.0, 0.25, 0.0), 0.0);
  EXPECT_EQ(block_weight(0.5, 0.25, 0.0625), 1.0);
  EXPECT_EQ(block_weight(0.5, 0.25, 0.5), 0.25);
  const std::vector<float> p = {0, 0.5f, 0.5f, 0};
  for (AcceptRule rule : {AcceptRule::kRejection, AcceptRule::kBlock}) {
    const test::Round round{{0}, {p, p}, {{p, {}}}};
    EXPECT_EQ(test::judge(rule, round, {std::vector<double>{0.0}, 0.5}).accepted, 0);
    const std::vector<double> next = test::next_distribution(rule, round, {0.0});
    for (size_t v = 0; v < p.size(); ++v) EXPECT_NEAR(next[v], static_cast<double>(p[v]), 1e-12);
  }
}

/// A certain later draft carries an earlier one that would be rejected on its own.
TEST(AcceptBlock, LaterDraftsSaveEarlierOnes) {
  const std::vector<float> third = {1.0f / 3, 2.0f / 3}, two_thirds = {2.0f / 3, 1.0f / 3};
  const test::Round round{{0, 1}, {third, third, third}, {{two_thirds, {}}, {two_thirds, {}}}};
  for (double u : {0.0, 0.5, 0.99}) {
    EXPECT_EQ(test::judge(AcceptRule::kBlock, round, {std::vector<double>{u, 0.99}, 0.5}).accepted, 2);
  }
  EXPECT_EQ(test::judge(AcceptRule::kRejection, round, {std::vector<double>{0.6, 0.99}, 0.5}).accepted, 0);
}

TEST(AcceptRules, DraftOutsideItsVocabularyIsUnlikelyNotUnsafe) {
  const std::vector<float> probs = {0.5f, 0.5f};
  const std::vector<int32_t> ids = {1, 3};
  EXPECT_EQ(draft_probability({probs, ids}, 2), 0.0);
  EXPECT_EQ(draft_probability({probs, ids}, 4), 0.0);
  EXPECT_EQ(draft_probability({probs, {}}, 5), 0.0);  // a padded target vocabulary
  const std::vector<float> target = {0.25f, 0.25f, 0.25f, 0.25f};
  DrawScratch scratch;
  EXPECT_NEAR(residual_mass({target, 1.0, {probs, {}}, 0}, scratch), 0.5, 1e-12);  // tokens 2 and 3 stay
}

TEST(Draw, SmallestIndexWhoseSumExceeds) {
  std::mt19937 rng(22);
  DrawScratch scratch;
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<float> row(rng() % 1500 + 1);
    for (float& p : row) p = rng() % 3 == 0 ? 0.0f : static_cast<float>(rng() % 64);  // exact sums
    row[rng() % row.size()] += 1.0f;
    double total = 0.0;
    for (float p : row) total += static_cast<double>(p);
    const double u = trial % 10 == 0 ? 0.0 : trial % 10 == 1 ? test::kAlmostOne : rng() * 0x1p-32;
    double sum = 0.0;
    int32_t want = 0;
    for (size_t v = 0; v < row.size(); ++v) {
      sum += static_cast<double>(row[v]);
      if (sum > u * total) {
        want = static_cast<int32_t>(v);
        break;
      }
    }
    ASSERT_EQ(draw_index(row, u, scratch), want) << row.size() << " " << u;
  }
  // An equal sum is not more: u on a boundary takes the next index.
  EXPECT_EQ(draw_index(std::vector<float>{0.5f, 0.0f, 0.5f}, 0.5, scratch), 2);
  EXPECT_EQ(draw_index(std::vector<float>(1024, 1.0f), 0.5, scratch), 512);
  EXPECT_EQ(draw_index(std::vector<float>{0.0f, 0.0f, 0.0f}, 0.5, scratch), 0);
  EXPECT_EQ(draw_index(std::vector<float>{0.0f, 0.3f, 0.0f}, test::kAlmostOne, scratch), 1);
}

TEST(RoundNoise, NumbersOfARoundAreItsOwn) {
  // Key and counter as documented: Philox at (offset, anchor, purpose), the first two words, 53 bits.
  const auto words = philox4x32_10({3, 0x89abcdefu, 0x1234567u, 2}, {0xdeadbeefu, 0xcafeu});
  const double want = static_cast<double>(((uint64_t{words[0]} << 32) | words[1]) >> 11) * 0x1p-53;
  const RoundNoise noise{0xcafedeadbeefu, 0x0123456789abcdefu};
  EXPECT_EQ(noise.coin(2), want);
  std::vector<double> seen;
  double sum = 0.0;
  for (uint64_t anchor = 0; anchor < 40; ++anchor) {
    for (uint32_t offset = 1; offset <= 16; ++offset) {
      for (auto purpose : {NoisePurpose::kDraft, NoisePurpose::kCoin, NoisePurpose::kDraw}) {
        seen.push_back(uniform_at(7, anchor, offset, purpose));
        EXPECT_GE(seen.back(), 0.0);
        EXPECT_LT(seen.back(), 1.0);
        sum += seen.back();
      }
    }
  }
  EXPECT_NEAR(sum / static_cast<double>(seen.size()), 0.5, 0.03);
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(std::adjacent_find(seen.begin(), seen.end()), seen.end());
}

TEST(AcceptRuleNames, RoundTripAndRefusal) {
  for (const char* name : {"coupled", "rejection", "block"}) {
    const auto rule = parse_accept_rule(name);
    ASSERT_TRUE(rule.ok());
    EXPECT_EQ(accept_rule_name(*rule), name);
  }
  const auto bad = parse_accept_rule("Block");
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(bad.status().message().find("'Block'"), std::string::npos);
}

}  // namespace
}  // namespace dspark
