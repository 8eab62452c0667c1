// A learned block and prompt lookup together: who proposes what, what is learned from it, and that the choice
// does not look at drafts it must not look at.

#include "draft/hybrid_drafter.h"

#include <gtest/gtest.h>

#include <numeric>

#include "base/philox.h"
#include "draft/factory.h"
#include "draft/test_drafters.h"

namespace dspark {
namespace {

using Tokens = std::vector<int32_t>;

/// What a ScriptedDrafter proposes next.
struct Script {
  Tokens drafts;
  std::vector<float> confidence;
};

class ScriptedDrafter final : public Drafter {
 public:
  ScriptedDrafter(Script* script, int32_t* n_passes) : script_(script), n_passes_(n_passes) {}
  std::string_view name() const override { return "scripted"; }
  int32_t max_block() const override { return 7; }
  Status propose(std::span<const DraftRequest> requests, DraftBlock& out) override {
    ++*n_passes_;
    out.has_confidence = !script_->confidence.empty();
    bool samples = false;
    for (const DraftRequest& request : requests) samples |= request.rule != AcceptRule::kCoupled;
    if (samples) out.keep_probs(100, {});
    for (size_t i = 0; i < requests.size(); ++i) {
      out.has_probs[i] = samples ? 1 : 0;
      out.n_tokens[i] = std::min(requests[i].max_tokens, static_cast<int32_t>(script_->drafts.size()));
      for (int32_t k = 0; k < out.n_tokens[i]; ++k) {
        const size_t at = out.at(i, k);
        out.tokens[at] = script_->drafts[static_cast<size_t>(k)];
        if (requests[i].wants_probability) out.probability[at] = 0.5f;
        if (out.has_confidence) out.confidence[at] = script_->confidence[static_cast<size_t>(k)];
        if (samples) std::ranges::fill(out.probs_row(i, k), 0.01f);
      }
    }
    return ok_status();
  }
  void commit(std::span<const CommitEvent>) override {}
  void release(int32_t) override {}

 private:
  Script* script_;
  int32_t* n_passes_;
};

/// A hybrid of a scripted model and lookup, and one sequence.
class Hybrid {
 public:
  explicit Hybrid(AcceptRule rule = AcceptRule::kCoupled)
      : rule_(rule), drafter_(std::make_unique<ScriptedDrafter>(&script, &n_passes), {}) {
    sampling_.temperature = rule == AcceptRule::kCoupled ? 0.0f : 1.0f;
  }

  void commit(const Tokens& tokens) {
    CommitEvent event;
    event.token_position = static_cast<int32_t>(text.size());
    event.tokens = tokens;
    drafter_.commit({&event, 1});
    text.insert(text.end(), tokens.begin(), tokens.end());
  }
  Tokens propose(int32_t max_tokens = 7, std::span<const int32_t> stop_ids = {}) {
    DraftRequest request;
    request.anchor = text.back();
    request.position = static_cast<int32_t>(text.size()) - 1;
    request.max_tokens = max_tokens;
    request.sampling = &sampling_;
    request.rule = rule_;
    request.stop_ids = stop_ids;
    request.wants_probability = true;
    block.reset(1, max_tokens);
    EXPECT_TRUE(drafter_.propose({&request, 1}, block).ok());
    return {block.drafts(0).begin(), block.drafts(0).end()};
  }
  std::string sources() const {
    std::string out;
    for (int32_t k = 0; k < block.n_tokens[0]; ++k) {
      out += block.sources[block.at(0, k)] == ProposalSource::kLookup ? 'l' : 'm';
    }
    return out;
  }

  Script script;
  int32_t n_passes = 0;
  Tokens text;
  DraftBlock block;

 private:
  AcceptRule rule_;
  SamplingParams sampling_;
  HybridDrafter drafter_;
};

Tokens counting(int32_t first, int32_t n) {
  Tokens tokens(static_cast<size_t>(n));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

const std::vector<float> kSure(7, 0.95f), kUnsure(7, 0.1f);

TEST(NgramMatch, CountsTheWholeAgreementAndFollowsLoops) {
  NgramIndex index(1, 4);
  index.append(Tokens{9, 1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5});
  const NgramIndex::Match match = index.match();
  EXPECT_EQ(match.length, 5);  // longer than the longest that is indexed
  EXPECT_EQ(match.next, 6);
  Tokens next(4);
  index.follow(match, {}, next);
  EXPECT_EQ(next, (Tokens{6, 7, 1, 2}));

  const Tokens ahead = {6, 7};
  const NgramIndex::Match behind = index.match(ahead);
  EXPECT_EQ(behind.length, 7);
  EXPECT_EQ(behind.next, 8);
  index.follow(behind, ahead, next);
  EXPECT_EQ(next, (Tokens{1, 2, 3, 4}));

  const Tokens unknown = {77};
  EXPECT_EQ(index.match(unknown).length, 0);

  NgramIndex loop(1, 4);
  loop.append(Tokens{5, 8, 8});
  Tokens longer(6);
  loop.follow(loop.match(), {}, longer);
  EXPECT_EQ(longer, (Tokens{8, 8, 8, 8, 8, 8}));
  NgramIndex pair(1, 4);
  pair.append(Tokens{1, 2, 1, 2});
  const Tokens drafted = {1};
  pair.follow(pair.match(drafted), drafted, longer);
  EXPECT_EQ(longer, (Tokens{2, 1, 2, 1, 2, 1}));
}

TEST(NgramMatch, HasTheTokensOfALookup) {
  NgramIndex index(1, 4);
  for (uint64_t i = 0; i < 400; ++i) {
    index.append(Tokens{static_cast<int32_t>(noise_word(1, i, 0) % 4)});
    const std::span<const int32_t> found = index.lookup(5);
    const NgramIndex::Match match = index.match();
    ASSERT_EQ(found.empty(), match.length == 0);
    Tokens followed(found.size());
    index.follow(match, {}, followed);
    EXPECT_EQ(followed, Tokens(found.begin(), found.end()));
    for (int32_t back = 1; back <= match.length; ++back) {
      const size_t end = index.tokens().size();
      EXPECT_EQ(index.tokens()[end - static_cast<size_t>(back)],
                index.tokens()[static_cast<size_t>(match.next - back)]);
    }
  }
}

// What is looked up behind the model's block costs nothing; the cost table has to know where that begins.
TEST(HybridDrafter, ItsModelEndsWhereTheModelsBlockDoes) {
  Script script;
  int32_t n_passes = 0;
  const HybridDrafter drafter(std::make_unique<ScriptedDrafter>(&script, &n_passes), {});
  EXPECT_EQ(drafter.max_block(), 16);
  EXPECT_EQ(drafter.model_block(), 7);
}

TEST(HybridDrafter, TheBlockWhereNothingMatches) {
  Hybrid hybrid;
  hybrid.script = {counting(50, 7), kUnsure};
  hybrid.commit(counting(0, 20));
  EXPECT_EQ(hybrid.propose(), counting(50, 7));
  EXPECT_EQ(hybrid.sources(), "mmmmmmm");
  EXPECT_TRUE(hybrid.block.has_confidence);
  EXPECT_FLOAT_EQ(hybrid.block.confidence[0], 0.1f);
}

TEST(HybridDrafter, LookupWhereTheModelIsUnsure) {
  Hybrid hybrid;
  hybrid.script = {counting(50, 7), kUnsure};
  Tokens text = counting(0, 20);
  const Tokens again = counting(0, 8);
  text.insert(text.end(), again.begin(), again.end());
  hybrid.commit(text);
  EXPECT_EQ(hybrid.propose(), counting(8, 7));
  EXPECT_EQ(hybrid.sources(), "lllllll");
  for (int k = 0; k < 7; ++k) EXPECT_GT(hybrid.block.confidence[static_cast<size_t>(k)], 0.5f) << k;
}

TEST(HybridDrafter, TheBlockWhereItIsSure) {
  Hybrid hybrid;
  hybrid.script = {counting(50, 7), kSure};
  Tokens text = counting(0, 20);
  text.push_back(3);  // a match of one token says little
  hybrid.commit(text);
  EXPECT_EQ(hybrid.propose(), counting(50, 7));
  EXPECT_EQ(hybrid.sources(), "mmmmmmm");
}

// The model knows how to leave the loop that lookup knows how to go on with from there.
TEST(HybridDrafter, GoesOnByLookupBehindTheBlock) {
  Hybrid hybrid;
  Tokens text = counting(0, 30);
  text.push_back(70);
  hybrid.commit(text);
  hybrid.script = {{10, 11, 12, 90, 91, 92, 93}, {0.95f, 0.9f, 0.9f, 0.05f, 0.05f, 0.05f, 0.05f}};
  EXPECT_EQ(hybrid.propose(), counting(10, 7));
  EXPECT_EQ(hybrid.sources(), "mmmllll");
}

TEST(HybridDrafter, LongerThanTheBlock) {
  Hybrid hybrid;
  Tokens text = counting(0, 30);
  text.push_back(70);
  hybrid.commit(text);
  hybrid.script = {counting(10, 7), kSure};
  EXPECT_EQ(hybrid.propose(12), counting(10, 12));
  EXPECT_EQ(hybrid.sources(), "mmmmmmmlllll");
}

TEST(HybridDrafter, EndsBehindAStopToken) {
  Hybrid hybrid;
  hybrid.script = {counting(50, 7), kUnsure};
  Tokens text = counting(0, 20);
  const Tokens again = counting(0, 8), stops = {99, 10};
  text.insert(text.end(), again.begin(), again.end());
  hybrid.commit(text);
  EXPECT_EQ(hybrid.propose(7, stops), counting(8, 3));
}

// Texts in which lookup is wrong again and again, and the model knows: lookup loses its say.
TEST(HybridDrafter, LearnsWhomToBelieve) {
  Hybrid hybrid;
  hybrid.commit({1, 2, 3, 4});
  std::string first;
  for (int32_t fresh = 1000; fresh < 1060; ++fresh) {
    hybrid.script = {{fresh, 1, 2, 3, 4, 5, 6}, std::vector<float>(7, 0.5f)};
    hybrid.propose();
    first += hybrid.sources()[0];
    hybrid.commit({fresh, 1, 2, 3, 4});  // {1, 2, 3, 4} was there before, what follows is always new
  }
  EXPECT_EQ(first[1], 'l');
  EXPECT_EQ(first.substr(50), "mmmmmmmmmm");
}

// A model without a confidence head that is right all the time; nothing can be looked up.
TEST(HybridDrafter, LearnsWhatAModelWithoutConfidencesIsWorth) {
  Hybrid hybrid;
  hybrid.commit({1});
  std::vector<float> first;
  for (int32_t fresh = 100; fresh < 100 + 40 * 7; fresh += 7) {
    hybrid.script = {counting(fresh, 7), {}};
    hybrid.propose();
    first.push_back(hybrid.block.confidence[0]);
    hybrid.commit(counting(fresh, 7));
  }
  EXPECT_FLOAT_EQ(first.front(), 0.5f);
  EXPECT_GT(first[1], 0.55f);
  EXPECT_GT(first.back(), 0.9f);
}

// A loop: after some steps the model is asked every now and then only, and what it costs is told.
TEST(HybridDrafter, DoesWithoutTheModelWhereItAddsNothing) {
  Hybrid hybrid;
  hybrid.script = {counting(50, 7), kUnsure};
  hybrid.commit(counting(0, 10));
  hybrid.commit(counting(0, 10));
  int32_t n_steps = 0;
  for (int round = 0; round < 200; ++round) {
    const int32_t before = hybrid.n_passes;
    const Tokens drafts = hybrid.propose();
    EXPECT_EQ(hybrid.block.model_sequences, hybrid.n_passes - before);
    ASSERT_EQ(drafts.size(), 7u);
    Tokens next = drafts;
    next.push_back((drafts.back() + 1) % 10);
    hybrid.commit(next);
    ++n_steps;
  }
  EXPECT_LT(hybrid.n_passes, n_steps / 4);
  EXPECT_GT(hybrid.n_passes, n_steps / 20);
}

// Rejection and block verification: who proposes draft k, and whether there is one, is a function of the
// past, of the drafts before k and of the confidences up to its own.
TEST(HybridDrafter, SampledChoicesDoNotLookAhead) {
  int n_mixed = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const auto number = [&](uint64_t at) { return noise_word(seed, at, 0); };
    Tokens text;
    for (uint64_t i = 0; i < 60; ++i) text.push_back(static_cast<int32_t>(number(i) % 4));
    Script base;
    for (uint64_t k = 0; k < 7; ++k) {
      base.drafts.push_back(static_cast<int32_t>(number(100 + k) % 4));
      base.confidence.push_back(static_cast<float>(number(200 + k) % 100) / 100.0f);
    }
    const auto run = [&](const Script& script) {
      auto hybrid = std::make_unique<Hybrid>(AcceptRule::kRejection);
      hybrid->script = script;
      hybrid->commit(text);
      hybrid->propose();
      return hybrid;
    };
    const auto whole = run(base);
    const std::string sources = whole->sources();
    n_mixed += sources.find('m') != std::string::npos && sources.find('l') != std::string::npos ? 1 : 0;
    for (size_t k = 0; k < 7; ++k) {
      Script other = base;  // draft k and everything behind it come out otherwise
      for (size_t j = k; j < 7; ++j) other.drafts[j] = (base.drafts[j] + 1) % 4;
      for (size_t j = k + 1; j < 7; ++j) other.confidence[j] = 1.0f - base.confidence[j];
      const std::string changed = run(other)->sources();
      ASSERT_EQ(changed.size() > k, sources.size() > k);
      EXPECT_EQ(changed.substr(0, k + 1), sources.substr(0, k + 1)) << "seed " << seed << " draft " << k;
    }
    for (int32_t k = 0; k < whole->block.n_tokens[0]; ++k) {
      const bool looked_up = sources[static_cast<size_t>(k)] == 'l';
      EXPECT_EQ(whole->block.distribution(0, k).probs.empty(), looked_up);
      EXPECT_EQ(whole->block.probability[whole->block.at(0, k)], looked_up ? -1.0f : 0.5f);
    }
  }
  EXPECT_GT(n_mixed, 30);
}

TEST(HybridDrafter, Specs) {
  EXPECT_EQ(split_drafter_spec("a/b.gguf").lookup, "");
  EXPECT_EQ(split_drafter_spec("a+b/c.gguf").drafter, "a+b/c.gguf");
  EXPECT_EQ(split_drafter_spec("a+b/c.gguf+ngram:2-5").drafter, "a+b/c.gguf");
  EXPECT_EQ(split_drafter_spec("a+b/c.gguf+ngram:2-5").lookup, "ngram:2-5");
  for (const char* spec : {"ngram+ngram", "none+ngram", "+ngram", "nothing.gguf+ngram", "ngram+ngram:0"}) {
    EXPECT_EQ(make_drafter(spec).status().code(), StatusCode::kInvalidArgument) << spec;
  }
}

}  // namespace
}  // namespace dspark
