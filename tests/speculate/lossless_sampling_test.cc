// Losslessness by counting: whole rounds as an engine runs them, with the real random numbers, against the
// target's distribution of texts. Seeds are fixed; a correct rule would exceed a bound here once in 10^6.

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <deque>

#include "speculate/accept.h"
#include "speculate/coupled.h"
#include "speculate/toy_schedule.h"
#include "speculate/toy_world.h"

namespace dspark {
namespace {

using test::Confidences;
using test::DrafterKind;
using test::Schedule;
using test::World;

/// How random numbers are keyed: as the engine does, or by absolute position, which reuses them in later
/// rounds.
enum class NoiseKey { kRound, kPosition };

struct Noise {
  NoiseKey key;
  RoundNoise round;

  double by_position(int32_t i, NoisePurpose purpose) const {
    return uniform_at(round.seed, round.anchor + static_cast<uint64_t>(i) + 1, 0, purpose);
  }
  double draft(int32_t i) const {
    return key == NoiseKey::kRound
               ? uniform_at(round.seed, round.anchor, static_cast<uint32_t>(i) + 1, NoisePurpose::kDraft)
               : by_position(i, NoisePurpose::kDraft);
  }
  double coin(int32_t i) const {
    return key == NoiseKey::kRound ? round.coin(i) : by_position(i, NoisePurpose::kCoin);
  }
  double draw(int32_t i) const {
    return key == NoiseKey::kRound ? round.draw(i) : by_position(i, NoisePurpose::kDraw);
  }
};

struct Serving {
  AcceptRule rule = AcceptRule::kRejection;
  Schedule schedule = Schedule::kAll;
  int32_t n_drafts = 4;
  std::span<const double> costs = test::kJaggedCosts;
  NoiseKey key = NoiseKey::kRound;
};

std::vector<Candidate> candidates_of(std::span<const float> probs, std::span<const int32_t> ids) {
  std::vector<Candidate> all;
  for (size_t v = 0; v < probs.size(); ++v) {
    all.push_back({ids.empty() ? static_cast<int32_t>(v) : ids[v], 0.0f, static_cast<double>(probs[v])});
  }
  return all;
}

/// A few sequences that share their steps.
class Batch {
 public:
  Batch(World& world, const Serving& serving, std::vector<uint64_t> seeds)
      : world_(world), serving_(serving), seeds_(std::move(seeds)), texts_(seeds_.size(), {0}) {}

  /// Runs until every text has `n_tokens` behind its first token. returns: the texts.
  std::vector<std::vector<int32_t>> run(size_t n_tokens) {
    while (std::any_of(texts_.begin(), texts_.end(), [=](const auto& t) { return t.size() <= n_tokens; })) {
      step();
    }
    for (auto& text : texts_) text.resize(n_tokens + 1);
    return texts_;
  }

 private:
  void step() {
    std::vector<std::vector<int32_t>> drafts;
    Confidences live;
    for (size_t r = 0; r < texts_.size(); ++r) draft(r, drafts.emplace_back(), live.emplace_back());
    // The budget knows the confidences of two steps ago.
    const Confidences hopeful(texts_.size(),
                              std::vector<double>(static_cast<size_t>(serving_.n_drafts), 1.0));
    const Confidences& recorded = records_.size() < 2 ? hopeful : records_.front();
    const auto lengths = test::verify_lengths(serving_.schedule, live, recorded, serving_.costs);
    for (size_t r = 0; r < texts_.size(); ++r) {
      accept(r, std::span(drafts[r]).first(static_cast<size_t>(lengths[r])));
    }
    records_.push_back(live);
    if (records_.size() > 2) records_.pop_front();
  }

  Noise noise_of(size_t r) const { return {serving_.key, {seeds_[r], texts_[r].size() - 1}}; }

  void draft(size_t r, std::vector<int32_t>& drafts, std::vector<double>& confidence) {
    std::vector<int32_t> text = texts_[r];
    for (int32_t i = 0; i < serving_.n_drafts; ++i) {
      const test::Node& node = world_.after(text);
      int32_t token = node.draft;
      if (!node.probs.empty() && serving_.rule == AcceptRule::kCoupled) {
        token = coupled_pick(candidates_of(node.probs, node.ids), seeds_[r], text.size());
      } else if (!node.probs.empty()) {
        const int32_t column = draw_index(node.probs, noise_of(r).draft(i), scratch_);
        token = node.ids.empty() ? column : node.ids[static_cast<size_t>(column)];
      }
      confidence.push_back(node.confidence);
      drafts.push_back(token);
      text.push_back(token);
    }
  }

  void accept(size_t r, std::span<const int32_t> drafts) {
    std::vector<int32_t>& text = texts_[r];
    const size_t n_before = text.size();
    const auto node = [&](int32_t i) -> const test::Node& {
      text.resize(n_before);
      text.insert(text.end(), drafts.begin(), drafts.begin() + i);
      return world_.after(text);
    };
    const auto target_row = [&](int32_t i) { return std::span<const float>(node(i).target); };
    const auto draft_row = [&](int32_t i) { return node(i).distribution(); };
    const auto pick = [&](int32_t i) {
      return coupled_pick(candidates_of(target_row(i), {}), seeds_[r], n_before + static_cast<size_t>(i));
    };
    const Noise noise = noise_of(r);
    const AcceptResult result = serving_.rule == AcceptRule::kCoupled ? accept_run(drafts, pick)
                                : serving_.rule == AcceptRule::kRejection
                                    ? accept_rejection(drafts, target_row, draft_row, noise, scratch_)
                                    : accept_block(drafts, target_row, draft_row, noise, scratch_);
    text.resize(n_before);
    text.insert(text.end(), drafts.begin(), drafts.begin() + result.accepted);
    text.push_back(result.last_pick);
  }

  World& world_;
  Serving serving_;
  std::vector<uint64_t> seeds_;
  std::vector<std::vector<int32_t>> texts_;
  std::deque<Confidences> records_;
  DrawScratch scratch_;
};

struct ChiSquare {
  double value = 0.0;
  double bound = 0.0;  // exceeded once in 10^6 (Wilson and Hilferty's approximation)
};

constexpr size_t kTokens = 3;  // of a text that are looked at

/// Counts of all texts of kTokens tokens against the target's distribution; cells with fewer than 5 expected
/// counts together.
ChiSquare chi_square(World& world, const Serving& serving, size_t vocab, int n_batches,
                     size_t batch_size = 2) {
  size_t n_cells = 1;
  for (size_t i = 0; i < kTokens; ++i) n_cells *= vocab;
  std::vector<double> seen(n_cells, 0.0), expected(n_cells, 0.0);
  for (int i = 0; i < n_batches; ++i) {
    std::vector<uint64_t> seeds;
    for (size_t r = 0; r < batch_size; ++r) seeds.push_back(static_cast<uint64_t>(i) * batch_size + r + 1);
    for (const auto& text : Batch(world, serving, seeds).run(kTokens)) {
      size_t cell = 0;
      for (size_t t = 1; t <= kTokens; ++t) cell = cell * vocab + static_cast<size_t>(text[t]);
      seen[cell] += 1.0;
    }
  }
  const double n_texts = n_batches * static_cast<double>(batch_size);
  ChiSquare result;
  double rare_seen = 0.0, rare_expected = 0.0;
  int n_used = 0;
  const auto add = [&](double count, double want) {
    result.value += (count - want) * (count - want) / want;
    ++n_used;
  };
  for (size_t cell = 0; cell < n_cells; ++cell) {
    std::vector<int32_t> text = {0};
    double p = 1.0;
    for (size_t scale = n_cells / vocab; scale > 0; scale /= vocab) {
      const size_t token = cell / scale % vocab;
      p *= static_cast<double>(world.after(text).target[token]);
      text.push_back(static_cast<int32_t>(token));
    }
    if (p * n_texts >= 5.0) {
      add(seen[cell], p * n_texts);
    } else {
      rare_seen += seen[cell];
      rare_expected += p * n_texts;
    }
  }
  if (rare_expected >= 5.0) {
    add(rare_seen, rare_expected);
  } else if (rare_seen > 30.0) {
    result.value += 1e9;  // texts that the target hardly ever says
  }
  const double freedom = std::max(n_used - 1, 1);
  const double root = 1.0 - 2.0 / (9.0 * freedom) + 4.75 * std::sqrt(2.0 / (9.0 * freedom));
  result.bound = freedom * root * root * root;
  return result;
}

constexpr size_t kVocab = 4;

TEST(LosslessSampling, EveryRuleDrafterAndSchedule) {
  for (AcceptRule rule : {AcceptRule::kRejection, AcceptRule::kBlock, AcceptRule::kCoupled}) {
    for (DrafterKind kind : test::kDrafterKinds) {
      for (Schedule schedule : test::kSafeSchedules) {
        const auto seed = static_cast<uint32_t>(kind) * 10 + static_cast<uint32_t>(schedule);
        World world = World::random(seed + 1000, kVocab, kind, 2);
        const ChiSquare chi = chi_square(world, {.rule = rule, .schedule = schedule}, kVocab, 5000);
        EXPECT_LT(chi.value, chi.bound) << accept_rule_name(rule) << " drafter " << static_cast<int>(kind)
                                        << " schedule " << static_cast<int>(schedule);
      }
    }
  }
}

/// The same count finds a biased scheduler, but not under the coupled rule, to which no scheduler matters.
TEST(LosslessSampling, ASearchOverLiveConfidencesIsBiasedUnlessCoupled) {
  World world = test::appendix_a();
  const auto chi = [&](AcceptRule rule, Schedule schedule) {
    return chi_square(world, {rule, schedule, 2, test::kAppendixACosts}, 2, 20000, 1);
  };
  for (AcceptRule rule : {AcceptRule::kRejection, AcceptRule::kBlock}) {
    const ChiSquare biased = chi(rule, Schedule::kRetrospective);
    EXPECT_GT(biased.value, 10.0 * biased.bound) << accept_rule_name(rule);
    for (Schedule schedule : {Schedule::kCausal, Schedule::kHistory, Schedule::kAll, Schedule::kNone}) {
      const ChiSquare fair = chi(rule, schedule);
      EXPECT_LT(fair.value, fair.bound) << accept_rule_name(rule) << " " << static_cast<int>(schedule);
    }
  }
  const ChiSquare coupled = chi(AcceptRule::kCoupled, Schedule::kRetrospective);
  EXPECT_LT(coupled.value, coupled.bound);
}

/// First tokens of the counter-example: 0.85 / 0.15 instead of 0.7 / 0.3.
TEST(LosslessSampling, AppendixA) {
  World world = test::appendix_a();
  const auto share_of_first = [&](AcceptRule rule, Schedule schedule) {
    constexpr int kTexts = 40000;
    int n_first = 0;
    for (int i = 0; i < kTexts; ++i) {
      const Serving serving{rule, schedule, 2, test::kAppendixACosts};
      n_first += Batch(world, serving, {static_cast<uint64_t>(i) + 5}).run(1)[0][1] == 0 ? 1 : 0;
    }
    return n_first / static_cast<double>(kTexts);
  };
  constexpr double kFourSigma = 4 * 0.0023;
  EXPECT_NEAR(share_of_first(AcceptRule::kRejection, Schedule::kRetrospective), 0.85, kFourSigma);
  EXPECT_NEAR(share_of_first(AcceptRule::kRejection, Schedule::kCausal), 0.7, kFourSigma);
  EXPECT_NEAR(share_of_first(AcceptRule::kRejection, Schedule::kHistory), 0.7, kFourSigma);
  EXPECT_NEAR(share_of_first(AcceptRule::kCoupled, Schedule::kRetrospective), 0.7, kFourSigma);
  EXPECT_NEAR(share_of_first(AcceptRule::kCoupled, Schedule::kCausal), 0.7, kFourSigma);
}

/// Why uniform_at is keyed by the round: a coin or a draft's number that comes back in a later round has
/// already decided about this text.
TEST(LosslessSampling, NumbersThatComeBackBiasTheText) {
  World world = World::random(2002, kVocab, DrafterKind::kRandom, 2);
  Serving serving{.rule = AcceptRule::kBlock, .schedule = Schedule::kAll};
  const ChiSquare fair = chi_square(world, serving, kVocab, 30000);
  EXPECT_LT(fair.value, fair.bound);
  serving.key = NoiseKey::kPosition;
  const ChiSquare reused = chi_square(world, serving, kVocab, 30000);
  EXPECT_GT(reused.value, 2.0 * reused.bound);
}

/// Under the coupled rule a seed's text is the same whoever drafts and whatever is verified.
TEST(LosslessSampling, CoupledTextIgnoresDraftersAndSchedules) {
  constexpr size_t kLength = 12;
  for (DrafterKind kind : test::kDrafterKinds) {
    World world = World::random(3000 + static_cast<uint32_t>(kind), kVocab, kind, 2);
    const auto texts = [&](Schedule schedule, int32_t n_drafts) {
      std::vector<std::vector<int32_t>> all;
      for (uint64_t seed = 1; seed <= 60; ++seed) {
        const Serving serving{.rule = AcceptRule::kCoupled, .schedule = schedule, .n_drafts = n_drafts};
        for (const auto& text : Batch(world, serving, {seed, seed + 1000, seed + 2000}).run(kLength)) {
          all.push_back(text);
        }
      }
      return all;
    };
    const auto plain = texts(Schedule::kNone, 1);
    for (Schedule schedule : {Schedule::kAll, Schedule::kTwo, Schedule::kThreshold, Schedule::kCausal,
                              Schedule::kHistory, Schedule::kRetrospective}) {
      for (int32_t n_drafts : {1, 3, 7}) EXPECT_EQ(texts(schedule, n_drafts), plain);
    }
  }
}

}  // namespace
}  // namespace dspark
