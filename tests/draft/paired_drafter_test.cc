// Eagle3 and MTP drafters with random weights: against a plain computation, however the rows arrive, alone
// and in a batch.

#include "draft/paired_drafter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "draft/draft_harness.h"
#include "draft/random_draft.h"
#include "draft/reference_paired.h"

namespace dspark {
namespace {

using test::RandomDraft;
using test::ReferencePaired;

enum class Shape { kEagle3Qwen3, kEagle3Gemma4, kMtp };

DraftConfig config_of(Shape shape) {
  DraftConfig c = test::small_draft_config();
  c.kind = shape == Shape::kMtp ? DraftKind::kMtp : DraftKind::kEagle3;
  c.n_layers = 1;
  c.head = SequentialHead::kNone;
  c.markov_rank = 0;
  c.confidence = c.confidence_with_markov = false;
  c.block_size = shape == Shape::kMtp ? 1 : 4;
  c.taps = shape == Shape::kMtp ? std::vector<int32_t>{6} : std::vector<int32_t>{1, 2, 3, 5};
  if (shape != Shape::kEagle3Gemma4) return c;
  c.backbone = DraftBackbone::kGemma4;
  c.k_eq_v = c.sandwich_norms = true;
  c.n_kv_heads = 1;
  c.activation = GateActivation::kGeluTanh;
  c.attention_scale = 1.0f;
  c.embedding_scale = 8.0f;
  c.final_softcap = 5.0f;
  std::fill(c.rope.inv_freq.begin() + 4, c.rope.inv_freq.end(), 0.0f);
  return c;
}

PairedDrafterOptions exact_options() {
  PairedDrafterOptions options;
  options.max_sequences = 4;
  options.context_length = 400;
  options.kv_dtype = KvDType::kF32;
  options.float_activations = true;
  return options;
}

SamplingParams greedy_params() {
  SamplingParams params;
  params.temperature = 0.0f;
  return params;
}

/// A sequence of known tokens and features: row i was computed by the target for token i.
struct Text {
  std::vector<int32_t> tokens;  // one more than rows
  std::vector<float> features;  // (taps, rows, dim)
  int32_t n_taps = 0;
  int32_t dim = 0;
  int32_t n_rows() const { return static_cast<int32_t>(tokens.size()) - 1; }
};

Text random_text(const DraftConfig& c, int32_t n_rows, uint32_t seed) {
  Text text;
  text.n_taps = static_cast<int32_t>(c.taps.size());
  text.dim = c.dim;
  text.features = test::random_features(c, n_rows, seed);
  std::mt19937 rng(seed + 1);
  for (int32_t i = 0; i <= n_rows; ++i) text.tokens.push_back(static_cast<int32_t>(rng() % 600));
  return text;
}

class PairedDrafterTest : public testing::TestWithParam<Shape> {
 protected:
  std::unique_ptr<PairedDrafter> make(const PairedDrafterOptions& options = exact_options()) {
    Result<std::unique_ptr<PairedDrafter>> drafter =
        PairedDrafter::create(random_.checkpoint(), target(options.float_activations), pool_, options);
    EXPECT_TRUE(drafter.ok()) << drafter.status().to_string();
    return drafter.ok() ? std::move(*drafter) : nullptr;
  }
  DraftTarget target(bool float_activations = true) {
    DraftTarget target = random_.target(pool_, float_activations);
    target.shared.final_norm = target_norm_;
    target.norm_eps = 1e-5f;
    return target;
  }

  /// Commits rows [first, last) of a text, with tokens known before the call up to `n_told`; afterwards up to
  /// n_known of them.
  static void commit(PairedDrafter& drafter, int32_t slot, const Text& text, int32_t first, int32_t last,
                     int32_t n_told, int32_t n_known) {
    const std::vector<float> rows =
        test::feature_rows(text.features, text.n_taps, text.dim, first, last - first);
    CommitEvent event = test::feature_event(slot, first, rows, text.n_taps, text.dim);
    event.token_position = n_told;
    event.tokens =
        std::span(text.tokens).subspan(static_cast<size_t>(n_told), static_cast<size_t>(n_known - n_told));
    drafter.commit({&event, 1});
  }
  static void commit_all(PairedDrafter& drafter, int32_t slot, const Text& text) {
    commit(drafter, slot, text, 0, text.n_rows(), 0, text.n_rows() + 1);
  }
  static DraftBlock propose(PairedDrafter& drafter, int32_t slot, const Text& text, int32_t max_tokens = 8) {
    return test::propose_one(drafter, slot, text.tokens.back(), text.n_rows(), max_tokens, greedy_params());
  }

  ThreadPool pool_{2};
  RandomDraft random_{config_of(GetParam()), DType::kBF16, 11};
  std::vector<float> target_norm_ = std::vector<float>(64, 1.25f);
};

TEST_P(PairedDrafterTest, MatchesThePlainComputation) {
  const auto drafter = make();
  ASSERT_NE(drafter, nullptr);
  DraftTrace trace;
  drafter->set_trace(&trace);
  const Text text = random_text(random_.config(), 40, 3);
  const ReferencePaired reference(random_.checkpoint(), target());
  ReferencePaired::Sequence sequence;
  commit_all(*drafter, 0, text);
  ASSERT_EQ(trace.paired_rows.size(), 40u * 64u);
  for (int32_t i = 0; i < text.n_rows(); ++i) {
    const std::vector<float> streams =
        test::feature_rows(text.features, text.n_taps, text.dim, i, 1);  // taps side by side: one row
    const ReferencePaired::Row g = reference.carry({streams.begin(), streams.end()});
    reference.append(sequence, g, text.tokens[static_cast<size_t>(i) + 1]);
    for (size_t d = 0; d < 64; ++d) {
      ASSERT_NEAR(trace.context_rows[static_cast<size_t>(i) * 64 + d], g[d], 1e-4) << "row " << i;
      ASSERT_NEAR(trace.paired_rows[static_cast<size_t>(i) * 64 + d], sequence.last[d], 2e-4) << "row " << i;
    }
  }
  const DraftBlock block = propose(*drafter, 0, text);
  ASSERT_EQ(block.n_tokens[0], drafter->max_block());
  EXPECT_FALSE(block.has_confidence);
  for (int32_t k = 0; k < block.n_tokens[0]; ++k) {
    const ReferencePaired::Row logits = reference.logits(sequence.last);
    const float* got = trace.step_logits.data() + k * 600;
    for (size_t v = 0; v < 600; ++v) ASSERT_NEAR(got[v], logits[v], 5e-4) << "step " << k;
    const int32_t token = block.drafts(0)[static_cast<size_t>(k)];
    EXPECT_EQ(token, std::max_element(got, got + 600) - got);
    reference.append(sequence, sequence.last, token);
  }
}

TEST_P(PairedDrafterTest, PiecesGiveTheBitsOfTheWhole) {
  const Text text = random_text(random_.config(), 300, 5);
  const auto whole = make(), pieces = make();
  ASSERT_TRUE(whole != nullptr && pieces != nullptr);
  DraftTrace whole_trace, pieces_trace;
  commit_all(*whole, 0, text);
  // Inner chunks of a prompt tell no token beyond their rows, decoding steps one.
  const int32_t cuts[] = {0, 1, 2, 34, 35, 99, 260, 261, 265, 266, 300};
  for (size_t i = 1; i < std::size(cuts); ++i) {
    const bool prompt = cuts[i] < 260;
    const int32_t n_told = cuts[i - 1] == 0 ? 0 : cuts[i - 1] + (cuts[i - 1] < 260 ? 0 : 1);
    commit(*pieces, 0, text, cuts[i - 1], cuts[i], n_told, cuts[i] + (prompt ? 0 : 1));
    EXPECT_EQ(pieces->context_rows(0), prompt ? cuts[i] - 1 : cuts[i]);
    if (cuts[i] < 300) {  // a proposal in between must leave nothing behind
      const DraftBlock between = test::propose_one(*pieces, 0, 7, cuts[i], 8, greedy_params());
      EXPECT_EQ(between.n_tokens[0], prompt ? 0 : pieces->max_block());
    }
  }
  for (const bool values : {false, true}) {
    EXPECT_TRUE(
        test::same_bits(test::cached_rows(*whole, 0, 0, values), test::cached_rows(*pieces, 0, 0, values)));
  }
  whole->set_trace(&whole_trace);
  pieces->set_trace(&pieces_trace);
  const DraftBlock a = propose(*whole, 0, text), b = propose(*pieces, 0, text);
  EXPECT_EQ(a.n_tokens[0], whole->max_block());
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_TRUE(test::same_bits(whole_trace.step_logits, pieces_trace.step_logits));
}

TEST_P(PairedDrafterTest, BatchGivesTheBitsOfEachAlone) {
  PairedDrafterOptions options = exact_options();
  options.kv_dtype = KvDType::kBF16;
  options.float_activations = false;
  const Text texts[] = {random_text(random_.config(), 33, 7), random_text(random_.config(), 270, 8),
                        random_text(random_.config(), 1, 9), random_text(random_.config(), 64, 10)};
  SamplingParams params[4] = {greedy_params(), greedy_params(), {}, {}};
  params[2].seed = 77;
  params[3].seed = 78;
  const int32_t lengths[] = {2, 4, 1, 3};
  const auto together = make(options);
  ASSERT_NE(together, nullptr);
  std::vector<CommitEvent> events;
  for (int32_t s = 0; s < 4; ++s) {
    const Text& text = texts[s];
    events.push_back(test::feature_event(s, 0, text.features, text.n_taps, text.dim));
    events.back().tokens = text.tokens;
  }
  together->commit(events);
  std::vector<DraftRequest> requests;
  for (int32_t s = 0; s < 4; ++s) {
    requests.push_back({s, texts[s].tokens.back(), texts[s].n_rows(), lengths[s], &params[s],
                        s == 3 ? AcceptRule::kRejection : AcceptRule::kCoupled});
  }
  DraftTrace all, one;
  together->set_trace(&all);
  DraftBlock block;
  block.reset(4, 4);
  ASSERT_TRUE(together->propose(requests, block).ok());
  size_t at = 0;
  for (size_t s = 0; s < 4; ++s) {
    const auto alone = make(options);
    commit_all(*alone, 0, texts[s]);
    alone->set_trace(&one);
    const DraftBlock own = test::propose_one(*alone, 0, texts[s].tokens.back(), texts[s].n_rows(), lengths[s],
                                             params[s], requests[s].rule);
    const std::span<const int32_t> mine = own.drafts(0), theirs = block.drafts(s);
    EXPECT_EQ(std::vector(mine.begin(), mine.end()), std::vector(theirs.begin(), theirs.end())) << s;
    EXPECT_EQ(own.n_tokens[0], std::min(lengths[s], alone->max_block()));
    const auto begin = all.step_logits.begin() + static_cast<std::ptrdiff_t>(at);
    const auto n = static_cast<std::ptrdiff_t>(one.step_logits.size());
    EXPECT_TRUE(test::same_bits(one.step_logits, {begin, begin + n})) << s;
    at += one.step_logits.size();
  }
  // Only the sampled one under a rule that needs it has distributions.
  EXPECT_EQ(block.has_probs, (std::vector<uint8_t>{0, 0, 0, 1}));
  for (int32_t k = 0; k < block.n_tokens[3]; ++k) {
    const std::span<const float> probs = block.distribution(3, k).probs;
    EXPECT_NEAR(std::accumulate(probs.begin(), probs.end(), 0.0), 1.0, 1e-5);
    EXPECT_GT(probs[static_cast<size_t>(block.drafts(3)[static_cast<size_t>(k)])], 0.0f);
  }
}

TEST_P(PairedDrafterTest, PagesComeBack) {
  const auto drafter = make();
  ASSERT_NE(drafter, nullptr);
  const int32_t n_free = drafter->allocator().n_free();
  const Text text = random_text(random_.config(), 32, 4);
  commit_all(*drafter, 1, text);
  EXPECT_EQ(drafter->allocator().n_free(), n_free - 1);
  EXPECT_EQ(propose(*drafter, 1, text).n_tokens[0], drafter->max_block());
  EXPECT_EQ(drafter->allocator().n_free(),
            n_free - 1);  // the rows of the proposal went to a page of their own
  drafter->release(1);
  EXPECT_EQ(drafter->allocator().n_free(), n_free);
  EXPECT_EQ(propose(*drafter, 1, text).n_tokens[0], 0);
  commit_all(*drafter, 1, text);  // the slot as a new sequence
  EXPECT_EQ(propose(*drafter, 1, text).n_tokens[0], drafter->max_block());
}

TEST_P(PairedDrafterTest, NoDraftsWithoutAllRows) {
  const auto drafter = make();
  ASSERT_NE(drafter, nullptr);
  const Text text = random_text(random_.config(), 20, 4);
  EXPECT_EQ(propose(*drafter, 0, text).n_tokens[0], 0);  // nothing committed
  commit(*drafter, 0, text, 0, 10, 0, 11);
  EXPECT_EQ(propose(*drafter, 0, text).n_tokens[0], 0);  // half of it
  commit(*drafter, 0, text, 12, 20, 13, 21);             // rows 10 and 11 never came
  EXPECT_EQ(propose(*drafter, 0, text).n_tokens[0], 0);
  commit(*drafter, 0, text, 10, 20, 11, 21);  // too late
  EXPECT_EQ(propose(*drafter, 0, text).n_tokens[0], 0);
  drafter->release(0);
  commit(*drafter, 0, text, 0, 10, 0, 9);  // a row in the middle without its token
  commit(*drafter, 0, text, 10, 20, 11, 21);
  EXPECT_EQ(propose(*drafter, 0, text).n_tokens[0], 0);

  Text odd = text;
  odd.tokens[7] = 600;  // not in the vocabulary
  commit_all(*drafter, 1, odd);
  EXPECT_EQ(propose(*drafter, 1, odd).n_tokens[0], 0);
  CommitEvent bare;
  bare.slot = 2;
  bare.tokens = text.tokens;
  bare.n_features = 20;
  bare.dim = text.dim;
  drafter->commit({&bare, 1});
  EXPECT_EQ(propose(*drafter, 2, text).n_tokens[0], 0);
  const Text long_text = random_text(random_.config(), 401, 6);  // more than the cache was made for
  commit_all(*drafter, 3, long_text);
  EXPECT_EQ(propose(*drafter, 3, long_text).n_tokens[0], 0);
  CommitEvent nobody = bare;
  nobody.slot = 4;
  drafter->commit({&nobody, 1});
  drafter->release(4);
  EXPECT_EQ(propose(*drafter, 4, text).n_tokens[0], 0);
}

TEST_P(PairedDrafterTest, ATokenAloneEndsTheWait) {
  const auto drafter = make(), whole = make();
  ASSERT_TRUE(drafter != nullptr && whole != nullptr);
  const Text text = random_text(random_.config(), 20, 4);
  commit(*drafter, 0, text, 0, 20, 0, 20);
  EXPECT_EQ(propose(*drafter, 0, text).n_tokens[0], 0);
  CommitEvent token;
  token.token_position = 20;
  token.tokens = std::span(text.tokens).last(1);
  drafter->commit({&token, 1});
  commit_all(*whole, 0, text);
  EXPECT_EQ(propose(*drafter, 0, text).tokens, propose(*whole, 0, text).tokens);
  EXPECT_EQ(drafter->context_rows(0), 20);
}

TEST_P(PairedDrafterTest, StopTokensEndAProposal) {
  const Text text = random_text(random_.config(), 20, 4);
  const auto plain = make();
  ASSERT_NE(plain, nullptr);
  commit_all(*plain, 0, text);
  const DraftBlock all = propose(*plain, 0, text);
  PairedDrafterOptions options = exact_options();
  const size_t stop_at = all.drafts(0).size() / 2;
  options.stop_tokens = {599, all.drafts(0)[stop_at]};
  const auto stopping = make(options);
  ASSERT_NE(stopping, nullptr);
  commit_all(*stopping, 0, text);
  const DraftBlock cut = propose(*stopping, 0, text);
  const auto first = std::find(all.drafts(0).begin(), all.drafts(0).end(), all.drafts(0)[stop_at]);
  EXPECT_EQ(cut.n_tokens[0], first - all.drafts(0).begin() + 1);
  EXPECT_TRUE(std::equal(cut.drafts(0).begin(), cut.drafts(0).end(), all.drafts(0).begin()));
}

TEST_P(PairedDrafterTest, RefusesWhatItCannotRun) {
  const auto status = [&](const DraftTarget& target, const PairedDrafterOptions& options) {
    return PairedDrafter::create(random_.checkpoint(), target, pool_, options).status();
  };
  DraftTarget other = target();
  other.n_layers = 4;
  const std::string message = status(other, exact_options()).message();
  EXPECT_NE(message.find("was not made for this target"), std::string::npos) << message;
  EXPECT_NE(message.find("6 layers"), std::string::npos) << message;
  other = target();
  other.shared.final_norm = {};
  EXPECT_EQ(status(other, exact_options()).ok(), GetParam() != Shape::kMtp);  // only MTP borrows the norm
  PairedDrafterOptions options = exact_options();
  options.max_sequences = 0;
  EXPECT_EQ(status(target(), options).code(), StatusCode::kInvalidArgument);
  DraftCheckpoint block = random_.checkpoint();
  block.config.kind = DraftKind::kDSpark;
  EXPECT_NE(PairedDrafter::create(block, target(), pool_, exact_options()).status().message().find("dspark"),
            std::string::npos);
  DraftCheckpoint broken = random_.checkpoint();
  broken.tensors.erase("layers.0.mlp.up_proj.weight");
  EXPECT_NE(PairedDrafter::create(broken, target(), pool_, exact_options())
                .status()
                .message()
                .find("layers.0.mlp.up_proj.weight"),
            std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Shapes, PairedDrafterTest,
                         testing::Values(Shape::kEagle3Qwen3, Shape::kEagle3Gemma4, Shape::kMtp),
                         [](const testing::TestParamInfo<Shape>& param) {
                           switch (param.param) {
                             case Shape::kEagle3Qwen3:
                               return "Eagle3Qwen3";
                             case Shape::kEagle3Gemma4:
                               return "Eagle3Gemma4";
                             case Shape::kMtp:
                               break;
                           }
                           return "Mtp";
                         });

}  // namespace
}  // namespace dspark
