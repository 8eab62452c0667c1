// Learned drafters under rejection sampling and block verification keep the target's distribution: texts of a
// model with six tokens are counted and compared with what the model alone gives (chi-square). The drafters
// can say only some of the tokens, by a reduced vocabulary or by a shortlist; what they sampled from must be
// what they say they sampled from, a distribution over these tokens alone. Softmax values of the whole row,
// not made to sum to one over the tokens that can be drafted, would let too many drafts through: the last
// test shows that this is found.

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <memory>
#include <vector>

#include "draft/block_drafter.h"
#include "draft/hybrid_drafter.h"
#include "draft/paired_drafter.h"
#include "draft/random_draft.h"
#include "engine/engine.h"
#include "engine/small_target.h"
#include "engine/text_distribution.h"
#include "models/harness.h"
#include "models/tiny_model.h"

namespace dspark {
namespace {

using test::kPrompt;
using test::Text;

constexpr int32_t kVocabulary = 6;
constexpr int32_t kManyTexts = 12000;
constexpr size_t kTextTokens = test::kTokens;

enum class Kind { kReduced, kHeadless, kShortlist, kMtp };

const char* kind_name(Kind kind) {
  switch (kind) {
    case Kind::kReduced:
      return "reduced vocabulary";
    case Kind::kHeadless:
      return "reduced vocabulary, no confidence head";
    case Kind::kShortlist:
      return "shortlist";
    case Kind::kMtp:
      break;
  }
  return "MTP";
}

DraftConfig config_of(Kind kind) {
  DraftConfig c = test::small_draft_config();
  c.n_layers = 1;
  c.vocab_size = c.draft_vocab_size = kVocabulary;
  c.target_layers = test::kSmallLayers;
  c.block_size = 3;
  c.mask_token_id = kVocabulary - 1;
  c.taps = {0, 1};
  if (kind == Kind::kReduced || kind == Kind::kHeadless) test::reduce_vocabulary(c, 4);
  if (kind == Kind::kHeadless) c.confidence = c.confidence_with_markov = false;
  if (kind != Kind::kMtp) return c;
  c.kind = DraftKind::kMtp;
  c.block_size = 1;
  c.taps = {test::kSmallLayers};
  c.head = SequentialHead::kNone;
  c.markov_rank = c.mask_token_id = 0;
  c.confidence = c.confidence_with_markov = false;
  return c;
}

SamplingParams sampling_of(uint64_t seed) {
  SamplingParams sampling;
  sampling.temperature = 1.0f;
  sampling.seed = seed;
  return sampling;
}

/// Probabilities of all texts behind the prompt by the target alone, one pass per beginning.
class ExactTexts {
 public:
  explicit ExactTexts(TargetModel& model) : session_(model, KvDType::kF32, 1, 64) {}

  std::map<Text, double> all() {
    add(kPrompt, 1.0);
    return texts_;
  }

 private:
  void add(const Text& tokens, double probability) {
    if (tokens.size() == kPrompt.size() + kTextTokens) {
      texts_[Text(tokens.begin() + static_cast<ptrdiff_t>(kPrompt.size()), tokens.end())] = probability;
      return;
    }
    session_.truncate(0, 0);
    const test::Outputs outputs = session_.forward(0, tokens);
    std::vector<float> probs(kVocabulary);
    target_probabilities(std::span(outputs.logits).last(kVocabulary), sampling_of(0), nullptr, scratch_,
                         probs);
    for (int32_t v = 0; v < kVocabulary; ++v) {
      Text longer = tokens;
      longer.push_back(v);
      add(longer, probability * static_cast<double>(probs[static_cast<size_t>(v)]));
    }
  }

  test::Session session_;
  SamplerScratch scratch_;
  std::map<Text, double> texts_;
};

/// A drafter whose distributions are as if they had been cut out of wider ones: they sum to `mass`.
class CutOutDrafter final : public Drafter {
 public:
  CutOutDrafter(std::unique_ptr<Drafter> inner, float mass) : inner_(std::move(inner)), mass_(mass) {}
  std::string_view name() const override { return "cut out"; }
  int32_t max_block() const override { return inner_->max_block(); }
  std::span<const int32_t> tap_layers() const override { return inner_->tap_layers(); }
  Status propose(std::span<const DraftRequest> requests, DraftBlock& out) override {
    DSPARK_RETURN_IF_ERROR(inner_->propose(requests, out));
    for (size_t i = 0; i < requests.size(); ++i) {
      for (int32_t k = 0; out.has_probs[i] != 0 && k < out.n_tokens[i]; ++k) {
        for (float& p : out.probs_row(i, k)) p *= mass_;
      }
    }
    return ok_status();
  }
  void commit(std::span<const CommitEvent> events) override { inner_->commit(events); }
  void catch_up() override { inner_->catch_up(); }
  void release(int32_t slot) override { inner_->release(slot); }

 private:
  std::unique_ptr<Drafter> inner_;
  float mass_;
};

struct Outcome {
  std::map<Text, int64_t> counts;
  SpeculationStats stats;
};

class LearnedDistribution : public testing::Test {
 protected:
  void SetUp() override {
    test::write_small_target(folder_.path(), {kVocabulary, 0.8f, 1.0f});
    model_ = test::open_model(folder_.path(), pool_, false);
    ASSERT_NE(model_, nullptr);
    expected_ = ExactTexts(*model_).all();
    ASSERT_EQ(expected_.size(), 1296u);
  }

  std::unique_ptr<Drafter> drafter_of(Kind kind) {
    random_ = std::make_unique<test::RandomDraft>(config_of(kind), DType::kF32, 3);
    return kind == Kind::kMtp ? make<PairedDrafter>(PairedDrafterOptions{capacity()})
                              : make<BlockDrafter>(BlockDrafterOptions{
                                    capacity(), kind == Kind::kShortlist ? kShortlist : 0});
  }

  Outcome count_texts(AcceptRule rule, const VerifyPolicy& policy, std::unique_ptr<Drafter> drafter,
                      int32_t n_texts) {
    EngineOptions options;
    options.max_sequences = kSequences;
    options.context_length = 32;
    options.kv_dtype = KvDType::kF32;
    options.policy = policy;
    options.accept_rule = rule;
    if (policy.needs_costs()) {
      // Every second draft of full steps is worth its row. The clock stands still: nothing corrects that.
      options.costs = CostTable{.verify = {{1, 1.0e-3}, {8, 1.2e-3}, {16, 1.3e-3}, {32, 2.6e-3}},
                                .draft = {{1, 1e-6}},
                                .draft_short = {},
                                .context_curve = {}};
      options.clock = [] { return std::chrono::steady_clock::time_point(); };
    }
    auto engine = Engine::create(*model_, options, std::move(drafter));
    EXPECT_TRUE(engine.ok()) << engine.status().to_string();
    if (!engine.ok()) return {};
    std::vector<Text> texts(static_cast<size_t>(n_texts));
    for (size_t i = 0; i < texts.size(); ++i) {
      GenerateRequest request;
      request.prompt = kPrompt;
      request.sampling = sampling_of(7000 + i);
      request.max_tokens = test::kTokens;
      request.ignore_eos = true;
      Text& text = texts[i];
      const auto keep = [&text](const StreamUpdate& update) {
        for (const TokenEvent& event : update.tokens) text.push_back(event.token);
      };
      EXPECT_TRUE((*engine)->submit(request, keep).ok());
      // A few at a time: the queue would otherwise be searched through again and again.
      while ((*engine)->has_work() && (i % 64 == 63 || i + 1 == texts.size())) (*engine)->step();
    }
    Outcome outcome;
    for (const Text& text : texts) ++outcome.counts[text];
    outcome.stats = (*engine)->stats().speculation;
    return outcome;
  }

  double deviation(const Outcome& outcome) const { return test::deviation(outcome.counts, expected_); }

 private:
  static constexpr int32_t kSequences = 8;
  static constexpr int32_t kShortlist = 3;

  static DraftCapacity capacity() {
    DraftCapacity capacity;
    capacity.max_sequences = kSequences;
    capacity.context_length = 32;
    capacity.kv_dtype = KvDType::kF32;
    return capacity;
  }

  template <typename DrafterType, typename Options>
  std::unique_ptr<Drafter> make(const Options& options) {
    auto made = DrafterType::create(random_->checkpoint(), DraftTarget::of(*model_), pool_, options);
    EXPECT_TRUE(made.ok()) << made.status().to_string();
    return made.ok() ? *std::move(made) : nullptr;
  }

  test::TemporaryFolder folder_;
  ThreadPool pool_{1};
  std::unique_ptr<TargetModel> model_;
  std::unique_ptr<test::RandomDraft> random_;  // weights of the drafter in use
  std::map<Text, double> expected_;
};

TEST_F(LearnedDistribution, RulesKeepTheTargets) {
  for (const Kind kind : {Kind::kReduced, Kind::kShortlist, Kind::kMtp}) {
    for (const AcceptRule rule : {AcceptRule::kRejection, AcceptRule::kBlock}) {
      SCOPED_TRACE(std::string(kind_name(kind)) + " " + std::string(accept_rule_name(rule)));
      const Outcome outcome = count_texts(rule, VerifyPolicy::fixed(3), drafter_of(kind), kManyTexts);
      EXPECT_LT(deviation(outcome), 4.0);
      EXPECT_GT(outcome.stats.accepted, kManyTexts / 10);
      EXPECT_GT(outcome.stats.verified - outcome.stats.accepted, kManyTexts / 10);
    }
  }
}

/// Verify lengths by the drafter's own confidences, each of which it knows before it draws the draft.
TEST_F(LearnedDistribution, ConfidencesMayCutDraftsOff) {
  const Outcome outcome = count_texts(AcceptRule::kRejection, VerifyPolicy::from_threshold(0.5f),
                                      drafter_of(Kind::kReduced), kManyTexts);
  EXPECT_LT(deviation(outcome), 4.0);
  EXPECT_GT(outcome.stats.accepted, kManyTexts / 100);
  EXPECT_GT(outcome.stats.trimmed, kManyTexts / 100);
}

/// The default way of serving: a learned drafter joined with prompt lookup, lengths planned by costs. With a
/// confidence head, and by estimates without one.
TEST_F(LearnedDistribution, AdaptiveHybridsKeepTheTargets) {
  for (const Kind kind : {Kind::kReduced, Kind::kHeadless}) {
    for (const AcceptRule rule : {AcceptRule::kRejection, AcceptRule::kBlock}) {
      for (const bool is_hybrid : {true, false}) {
        if (!is_hybrid && kind == Kind::kReduced) continue;  // time
        SCOPED_TRACE(std::string(kind_name(kind)) + " " + std::string(accept_rule_name(rule)) +
                     (is_hybrid ? " hybrid" : ""));
        auto drafter = drafter_of(kind);
        if (is_hybrid) drafter = std::make_unique<HybridDrafter>(std::move(drafter), HybridOptions{});
        const Outcome outcome = count_texts(rule, VerifyPolicy::adaptive(), std::move(drafter), kManyTexts);
        EXPECT_LT(deviation(outcome), 4.0);
        EXPECT_GT(outcome.stats.accepted, kManyTexts / 100);
        EXPECT_GT(outcome.stats.trimmed, kManyTexts / 100);
        if (is_hybrid) {
          EXPECT_GT(outcome.stats.lookup_proposed, 0);  // rare in texts this short
        }
      }
    }
  }
}

/// Coupled picks under the same drafters, for comparison: their distribution is the target's too.
TEST_F(LearnedDistribution, CoupledPicksAreTheTargets) {
  const Outcome outcome =
      count_texts(AcceptRule::kCoupled, VerifyPolicy::fixed(3), drafter_of(Kind::kShortlist), kManyTexts);
  EXPECT_LT(deviation(outcome), 4.0);
  EXPECT_GT(outcome.stats.accepted, kManyTexts / 10);
}

TEST_F(LearnedDistribution, DistributionsThatDoNotSumToOneAreNoticed) {
  constexpr int32_t kFewTexts = 6000;
  for (const Kind kind : {Kind::kReduced, Kind::kShortlist}) {
    for (const AcceptRule rule : {AcceptRule::kRejection, AcceptRule::kBlock}) {
      SCOPED_TRACE(std::string(kind_name(kind)) + " " + std::string(accept_rule_name(rule)));
      auto cut_out = std::make_unique<CutOutDrafter>(drafter_of(kind), 0.6f);
      EXPECT_GT(deviation(count_texts(rule, VerifyPolicy::fixed(3), std::move(cut_out), kFewTexts)), 10.0);
    }
  }
}

}  // namespace
}  // namespace dspark
