// An MTP drafter (one more token per step) changes no text: with greedy and coupled acceptance the answers
// are, bit for bit, those of plain decoding, whatever the draft length, the batch, the threads and the
// policy, alone and joined with prompt lookup, behind shared prefixes too. The target is small and looks
// mostly at the newest token, so that a drafter made by hand is often right. Under rejection and block
// verification: learned_distribution_test.cc.

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "draft/draft_writer.h"
#include "draft/random_draft.h"
#include "engine/loader.h"
#include "engine/model_workload.h"
#include "engine/small_target.h"
#include "models/tiny_model.h"

namespace dspark {
namespace {

constexpr int32_t kVocabulary = 64;
constexpr int32_t kContext = 192;

DraftConfig mtp_config() {
  DraftConfig c = test::small_draft_config();
  c.kind = DraftKind::kMtp;
  c.n_layers = 1;
  c.vocab_size = c.draft_vocab_size = kVocabulary;
  c.target_layers = test::kSmallLayers;
  c.taps = {test::kSmallLayers};
  c.block_size = 1;
  c.context_length = 512;
  c.head = SequentialHead::kNone;
  c.markov_rank = c.mask_token_id = 0;
  c.confidence = c.confidence_with_markov = false;
  return c;
}

/// What the layer adds is small, and its input is nearly the newest token's embedding, as the target's is.
void bend(const std::string& name, std::vector<float>& values) {
  constexpr auto kDim = static_cast<size_t>(test::kSmallDim);
  const bool branch = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
  const bool pair = name == "eh_proj.weight";  // [dim, embedding | hidden state]
  for (float& v : values) v *= branch ? 0.1f : pair ? 0.05f : 1.0f;
  for (size_t i = 0; pair && i < kDim; ++i) values[i * 2 * kDim + i] += 1.0f;
}

void write_mtp(const std::string& folder) {
  const test::RandomDraft random(mtp_config(), DType::kF32, 5);
  const DraftCheckpoint draft = random.checkpoint();
  std::vector<std::vector<float>> values;
  values.reserve(draft.tensors.size());  // the tensors below point into it
  std::vector<NamedFloats> tensors;
  for (const auto& [name, view] : draft.tensors) {
    const auto* from = reinterpret_cast<const float*>(view.data);
    values.emplace_back(from, from + view.n_elements());
    bend(name, values.back());
    tensors.push_back({name, view.shape, values.back()});
  }
  const Status written = write_deepspec_draft(folder, draft.config, tensors, DType::kF32);
  ASSERT_TRUE(written.ok()) << written.to_string();
}

struct Way {
  int n_threads = 1;
  VerifyPolicy policy;
  int32_t max_sequences = 1;
  int32_t prefill_rows = 512;
  bool hybrid = false;
};

std::string way_name(const Way& way) {
  return way.policy.to_string() + " threads=" + std::to_string(way.n_threads) +
         " sequences=" + std::to_string(way.max_sequences) + " prefill=" + std::to_string(way.prefill_rows) +
         (way.hybrid ? " hybrid" : "");
}

std::vector<Way> ways() {
  std::vector<Way> all;
  for (const int32_t k : {0, 1, 2, 16}) all.push_back({1, VerifyPolicy::fixed(k), 1 + k % 6, 512});
  for (const int n_threads : {1, 2, 4}) {
    all.push_back({n_threads, VerifyPolicy::fixed(1), 3, 5});
    all.push_back({n_threads, VerifyPolicy::fixed(7), 6, 33, true});
  }
  all.push_back({2, VerifyPolicy::from_threshold(0.4f), 4, 7});
  all.push_back({2, VerifyPolicy::adaptive(), 4, 512});
  return all;
}

/// Greedy and sampled, some behind the same beginning of several pages.
std::vector<GenerateRequest> workload() {
  std::mt19937 rng(31);
  std::vector<GenerateRequest> requests = test::model_requests(rng, kVocabulary, 8, 60, 40);
  std::vector<int32_t> beginning(static_cast<size_t>(2 * kKvPageSize + 5));
  for (int32_t& token : beginning) token = static_cast<int32_t>(rng() % kVocabulary);
  for (size_t i = 4; i < requests.size(); ++i) {
    requests[i].prompt = beginning;
    requests[i].prompt.push_back(static_cast<int32_t>(i));
  }
  for (GenerateRequest& request : requests) {
    // A greedy request may ignore its rule.
    if (request.sampling.greedy()) request.accept_rule = AcceptRule::kBlock;
  }
  return requests;
}

LoadedModel load(const std::string& path, int n_threads) {
  auto loaded = load_model(path, {.n_threads = n_threads, .float_activations = false, .on_stage = {}});
  EXPECT_TRUE(loaded.ok()) << loaded.status().to_string();
  return std::move(loaded).value();
}

TEST(DraftedMtp, TextIsThatOfPlainDecoding) {
  const test::TemporaryFolder target, drafter_folder;
  test::write_small_target(target.path(), {kVocabulary, 3.0f, 0.15f});
  const std::string drafter_path = (drafter_folder.path() / "mtp").string();
  write_mtp(drafter_path);
  const std::vector<GenerateRequest> requests = workload();
  EngineOptions options;
  options.context_length = kContext;
  LoadedModel alone = load(target.path().string(), 1);
  const auto plain = make_engine(alone, options);
  ASSERT_TRUE(plain.ok()) << plain.status().to_string();
  const auto expected = test::run_all(**plain, requests);
  SpeculationStats total;
  for (const Way& way : ways()) {
    SCOPED_TRACE(way_name(way));
    LoadedModel loaded = load(target.path().string(), way.n_threads);
    options.policy = way.policy;
    options.max_sequences = way.max_sequences;
    options.prefill_rows = way.prefill_rows;
    if (way.policy.needs_costs()) {  // drafts are nearly free, and no clock tells otherwise
      options.costs = CostTable{.verify = {{1, 1e-3}, {200, 1.01e-3}},
                                .draft = {{1, 1e-9}},
                                .draft_short = {},
                                .context_curve = {}};
      options.clock = [] { return std::chrono::steady_clock::time_point(); };
    }
    auto drafter =
        load_drafter(loaded, options, {.spec = drafter_path, .calibration = {}, .hybrid = way.hybrid});
    ASSERT_TRUE(drafter.ok()) << drafter.status().to_string();
    if (!way.hybrid) {
      EXPECT_EQ((*drafter)->name(), "mtp");
    }
    const auto engine = make_engine(loaded, options, std::move(drafter).value());
    ASSERT_TRUE(engine.ok()) << engine.status().to_string();
    ASSERT_EQ(test::run_all(**engine, requests, &total), expected);
    if (way.max_sequences > 1) {
      EXPECT_GT((*engine)->stats().cached_tokens, 0) << "no prefix was shared";
    }
  }
  EXPECT_GT(total.accepted, 300);
  EXPECT_GT(total.accepted, total.lookup_accepted);
  EXPECT_GT(total.verified - total.accepted, 50);
}

}  // namespace
}  // namespace dspark
