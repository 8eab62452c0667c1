// Losslessness by enumeration: every draft, every coin and every draw of a round, with exact probabilities.

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "speculate/golden_json.h"
#include "speculate/rule_probe.h"
#include "speculate/toy_schedule.h"
#include "speculate/toy_world.h"

namespace dspark {
namespace {

using test::Confidences;
using test::DrafterKind;
using test::Schedule;
using test::World;
using Text = std::vector<int32_t>;

/// How many of one sequence's drafts are verified, from the confidences of all of them.
using LengthRule = std::function<int32_t(const std::vector<double>& confidence)>;

/// The exact distribution of the first n_drafts + 1 tokens when one round of speculation is followed by plain
/// decoding.
class RoundEnumeration {
 public:
  RoundEnumeration(World& world, AcceptRule rule, size_t n_drafts, LengthRule length)
      : world_(world), rule_(rule), n_drafts_(n_drafts), length_(std::move(length)) {
    draft({}, {}, 1.0);
  }

  double mean_accepted() const { return mean_accepted_; }
  double probability(const Text& text) const {
    const auto at = texts_.find(text);
    return at == texts_.end() ? 0.0 : at->second;
  }
  /// The largest difference from the target's own distribution.
  double error() {
    double largest = 0.0;
    compare({}, 1.0, largest);
    return largest;
  }
  /// Probability that the text begins with `token`.
  double first(int32_t token) const {
    double sum = 0.0;
    for (const auto& [text, p] : texts_) sum += text[0] == token ? p : 0.0;
    return sum;
  }

 private:
  /// The node behind the anchor and these tokens.
  const test::Node& after(std::span<const int32_t> text) {
    with_anchor_.assign(1, 0);
    with_anchor_.insert(with_anchor_.end(), text.begin(), text.end());
    return world_.after(with_anchor_);
  }

  void draft(const Text& path, const std::vector<double>& confidence, double probability) {
    if (path.size() == n_drafts_) return verify(path, confidence, probability);
    const test::Node node = after(path);
    std::vector<double> longer = confidence;
    longer.push_back(node.confidence);
    const size_t n_columns = node.probs.empty() ? 1 : node.probs.size();
    for (size_t column = 0; column < n_columns; ++column) {
      const double q = node.probs.empty() ? 1.0 : static_cast<double>(node.probs[column]);
      if (!(q > 0.0)) continue;
      Text next = path;
      next.push_back(node.probs.empty() ? node.draft
                     : node.ids.empty() ? static_cast<int32_t>(column)
                                        : node.ids[column]);
      draft(next, longer, probability * q);
    }
  }

  void verify(const Text& path, const std::vector<double>& confidence, double probability) {
    const auto length = static_cast<size_t>(length_(confidence));
    const Text kept(path.begin(), path.begin() + static_cast<std::ptrdiff_t>(length));
    for (const test::Outcome& outcome : outcomes_of(kept)) {
      const double p = probability * outcome.probability;
      mean_accepted_ += p * outcome.accepted;
      for (size_t v = 0; v < outcome.next.size(); ++v) {
        Text text(kept.begin(), kept.begin() + outcome.accepted);
        text.push_back(static_cast<int32_t>(v));
        go_on(text, p * outcome.next[v]);
      }
    }
  }

  const std::vector<test::Outcome>& outcomes_of(const Text& drafts) {
    const auto known = outcomes_.find(drafts);
    if (known != outcomes_.end()) return known->second;
    std::vector<test::Node> nodes;
    for (size_t i = 0; i <= drafts.size(); ++i) nodes.push_back(after(std::span(drafts).first(i)));
    test::Round round;
    round.drafts = drafts;
    for (size_t i = 0; i <= drafts.size(); ++i) {
      round.target.push_back(nodes[i].target);
      if (i < drafts.size()) round.draft.push_back(nodes[i].distribution());
    }
    return outcomes_[drafts] = test::outcomes(rule_, round);
  }

  void go_on(const Text& text, double probability) {
    if (!(probability > 0.0)) return;
    if (text.size() == n_drafts_ + 1) {
      texts_[text] += probability;
      return;
    }
    const std::vector<float> row = after(text).target;
    for (size_t v = 0; v < row.size(); ++v) {
      Text next = text;
      next.push_back(static_cast<int32_t>(v));
      go_on(next, probability * static_cast<double>(row[v]));
    }
  }

  void compare(const Text& text, double probability, double& largest) {
    if (text.size() == n_drafts_ + 1) {
      largest = std::max(largest, std::abs(this->probability(text) - probability));
      return;
    }
    const std::vector<float> row = after(text).target;
    for (size_t v = 0; v < row.size(); ++v) {
      Text next = text;
      next.push_back(static_cast<int32_t>(v));
      compare(next, probability * static_cast<double>(row[v]), largest);
    }
  }

  World& world_;
  AcceptRule rule_;
  size_t n_drafts_;
  LengthRule length_;
  Text with_anchor_;
  double mean_accepted_ = 0.0;
  std::map<Text, double> texts_;
  std::map<Text, std::vector<test::Outcome>> outcomes_;
};

/// Verify lengths in a batch with a second sequence whose confidences are fixed.
LengthRule in_batch(Schedule schedule, uint32_t seed, size_t n_drafts) {
  std::mt19937 rng(seed);
  std::uniform_real_distribution<double> uniform(0.2, 1.0);
  std::vector<double> other(n_drafts), recorded(n_drafts), mine(n_drafts);
  for (auto* row : {&other, &recorded, &mine}) {
    for (double& c : *row) c = uniform(rng);
  }
  return [=](const std::vector<double>& confidence) {
    return test::verify_lengths(schedule, {confidence, other}, {mine, recorded}, test::kJaggedCosts)[0];
  };
}

TEST(LosslessExact, EveryRuleDrafterAndSchedule) {
  uint32_t seed = 0;
  double gain = 0.0;
  for (DrafterKind kind : test::kDrafterKinds) {
    for (Schedule schedule : test::kSafeSchedules) {
      for (const auto& [vocab, n_drafts] : {std::pair<size_t, size_t>{2, 3}, {3, 2}, {3, 1}}) {
        SCOPED_TRACE(testing::Message() << "drafter " << static_cast<int>(kind) << " schedule "
                                        << static_cast<int>(schedule) << " vocabulary " << vocab);
        World world = World::random(++seed, vocab, kind, 8);
        const LengthRule length = in_batch(schedule, seed, n_drafts);
        RoundEnumeration token(world, AcceptRule::kRejection, n_drafts, length);
        RoundEnumeration block(world, AcceptRule::kBlock, n_drafts, length);
        EXPECT_LT(token.error(), 1e-12);
        EXPECT_LT(block.error(), 1e-12);
        EXPECT_GE(block.mean_accepted(), token.mean_accepted() - 1e-12);
        gain += block.mean_accepted() - token.mean_accepted();
      }
    }
  }
  EXPECT_GT(gain, 0.1) << "block verification gained nothing anywhere";
}

TEST(LosslessExact, LongerTrees) {
  for (uint32_t seed = 100; seed < 104; ++seed) {
    World world = World::random(seed, 3, DrafterKind::kRandom, 8);
    for (Schedule schedule : {Schedule::kAll, Schedule::kCausal}) {
      const LengthRule length = in_batch(schedule, seed, 3);
      RoundEnumeration token(world, AcceptRule::kRejection, 3, length);
      RoundEnumeration block(world, AcceptRule::kBlock, 3, length);
      EXPECT_LT(token.error(), 1e-12);
      EXPECT_LT(block.error(), 1e-12);
      EXPECT_GE(block.mean_accepted(), token.mean_accepted() - 1e-12);
    }
  }
}

/// Arbitrary causal cuts: behind some prefixes nothing more is verified.
TEST(LosslessExact, RandomCausalCuts) {
  for (uint32_t seed = 200; seed < 230; ++seed) {
    World world = World::random(seed, 2, DrafterKind::kRandom, 8);
    const LengthRule cut = [](const std::vector<double>& confidence) {
      int32_t length = 0;  // confidence k tells prefixes of length k apart
      for (double c : confidence) {
        if (c == 0.1 || c == 0.9) break;
        ++length;
      }
      return length;
    };
    RoundEnumeration token(world, AcceptRule::kRejection, 3, cut);
    RoundEnumeration block(world, AcceptRule::kBlock, 3, cut);
    EXPECT_LT(token.error(), 1e-12);
    EXPECT_LT(block.error(), 1e-12);
    EXPECT_GE(block.mean_accepted(), token.mean_accepted() - 1e-12);
  }
}

TEST(LosslessExact, ASearchOverLiveConfidencesIsBiased) {
  for (AcceptRule rule : {AcceptRule::kRejection, AcceptRule::kBlock}) {
    double largest = 0.0;
    for (uint32_t seed = 300; seed < 320; ++seed) {
      World world = World::random(seed, 3, DrafterKind::kRandom, 8);
      RoundEnumeration round(world, rule, 2, [](const std::vector<double>& confidence) {
        return test::verify_lengths(Schedule::kRetrospective, {confidence}, {}, test::kAppendixACosts)[0];
      });
      largest = std::max(largest, round.error());
    }
    EXPECT_GT(largest, 0.01);
  }
}

/// The paper's counter-example: (0.85, 0.15) where the target says (0.7, 0.3).
TEST(LosslessExact, AppendixA) {
  const auto first_tokens = [](AcceptRule rule, Schedule schedule, const Confidences& recorded) {
    World world = test::appendix_a();
    RoundEnumeration round(world, rule, 2, [&](const std::vector<double>& confidence) {
      return test::verify_lengths(schedule, {confidence}, recorded, test::kAppendixACosts)[0];
    });
    return std::vector<double>{round.first(0), round.first(1)};
  };
  for (const auto& file : test::fixture_and_golden("scheduler.json", "draft/rules/scheduler.json", "rules")) {
    const auto& want = file["appendix_a"];
    const auto expect = [&](const char* key, const std::vector<double>& got) {
      for (size_t v = 0; v < 2; ++v) EXPECT_NEAR(got[v], want[key][v].get<double>(), 1e-6) << key;
    };
    for (const auto& c : want["cases"]) {
      const Confidences live = {{want["c1"].get<double>(), c["c2"].get<double>()}};
      const auto length = [&](Schedule s) {
        return test::verify_lengths(s, live, live, test::kAppendixACosts)[0];
      };
      EXPECT_EQ(length(Schedule::kCausal), c["algorithm1_length"].get<int32_t>());
      EXPECT_EQ(length(Schedule::kRetrospective), c["live_global_search_length"].get<int32_t>());
    }
    for (AcceptRule rule : {AcceptRule::kRejection, AcceptRule::kBlock}) {
      expect("output_algorithm1", first_tokens(rule, Schedule::kCausal, {}));
      expect("output_always", first_tokens(rule, Schedule::kAll, {}));
      for (const Confidences& recorded : {Confidences{{0.8, 0.9}}, {{0.8, 0.0}}, {{1.0, 1.0}}}) {
        const auto history = first_tokens(rule, Schedule::kHistory, recorded);
        EXPECT_NEAR(history[0], 0.7, 1e-6);
        EXPECT_NEAR(history[1], 0.3, 1e-6);
      }
    }
    expect("output_live_global_search", first_tokens(AcceptRule::kRejection, Schedule::kRetrospective, {}));
    EXPECT_GT(first_tokens(AcceptRule::kBlock, Schedule::kRetrospective, {})[0], 0.75);
  }
}

}  // namespace
}  // namespace dspark
