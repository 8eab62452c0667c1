// The same drafter out of other containers: speculators folders and GGUF files must draft what the DeepSpec
// folder drafts. And drafters that do not belong to the target.

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "draft/draft_harness.h"
#include "draft/random_draft.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using test::ExpectedDraft;
using test::max_abs_diff;
using test::RandomDraft;

struct Source {
  std::string name;
  fs::path path;
  fs::path features;  // folder of the drafter whose rounds it repeats
  fs::path expected;  // folder with Z and confidences
  fs::path target;
};
void PrintTo(const Source& source, std::ostream* out) {
  *out << source.name;
}

/// Containers that llama.cpp's converter and the speculators library wrote of one drafter, with the first
/// rounds of the reference.
std::vector<Source> fixture_sources() {
  const fs::path formats = test::data_dir() / "draft_formats";
  const fs::path vanilla = test::data_dir() / "draft" / "sources" / "qwen3_dspark_vanilla";
  const fs::path reduced = test::data_dir() / "draft" / "sources" / "qwen3_dspark_vanilla_v160";
  const fs::path target = test::data_dir() / "draft" / "targets" / "qwen3";
  return {{"fixture_speculators_v160", formats / "speculators_v160", vanilla, reduced, target},
          {"fixture_gguf_v160", formats / "dflash_v160.gguf", vanilla, reduced, target},
          {"fixture_gguf_embd_without_output", formats / "dflash_embd_without_output.gguf", vanilla, vanilla,
           target}};
}

/// The fixtures, and everything of the full set where it is found.
std::vector<Source> sources() {
  std::vector<Source> all = fixture_sources();
  if (test::golden_dir().empty()) return all;
  const fs::path root = test::golden_dir() / "draft";
  const fs::path reduced = root / "speculators" / "qwen3_dspark_vanilla_v160";
  const auto add = [&](const char* name, const fs::path& path, const char* drafter, const char* target) {
    const fs::path rounds = root / "drafts" / drafter;
    const bool is_reduced = std::string(name).ends_with("v160");
    all.push_back({name, path, rounds, is_reduced ? reduced : rounds, root / "targets" / target});
  };
  const auto gguf = [&](const char* file) { return root / "gguf" / (std::string(file) + ".bf16.gguf"); };
  add("speculators_v160", reduced, "qwen3_dspark_vanilla", "qwen3");
  add("gguf_v160", gguf("qwen3_dspark_vanilla_v160"), "qwen3_dspark_vanilla", "qwen3");
  add("gguf_vanilla", gguf("qwen3_dspark_vanilla"), "qwen3_dspark_vanilla", "qwen3");
  add("gguf_embd_without_output", gguf("qwen3_dspark_vanilla_embd_without_output"), "qwen3_dspark_vanilla",
      "qwen3");
  add("gguf_llama", gguf("llama_dspark_vanilla"), "llama_dspark_vanilla", "llama");
  add("gguf_dflash_zero_markov", gguf("qwen3_dflash_zero_markov"), "qwen3_dflash", "qwen3");
  return all;
}

void expect_rounds(BlockDrafter& drafter, const ExpectedDraft& features, const ExpectedDraft& expected) {
  DraftTrace trace;
  drafter.set_trace(&trace);
  const auto n_taps = static_cast<int32_t>(drafter.config().taps.size());
  const int32_t dim = drafter.config().dim;
  SamplingParams greedy;
  greedy.temperature = 0.0f;
  for (size_t i = 0; i < expected.rounds().size(); ++i) {
    SCOPED_TRACE(testing::Message() << "round " << i);
    const test::ExpectedRound& round = expected.rounds()[i];
    const std::vector<float> rows = features.features(static_cast<int32_t>(i), n_taps, dim);
    CommitEvent event = test::feature_event(0, 0, rows, n_taps, dim);
    event.feature_position = round.n - event.n_features;
    drafter.commit({&event, 1});
    const DraftBlock block = test::propose_one(drafter, 0, round.anchor, round.n, 7, greedy);
    EXPECT_EQ(std::vector<int32_t>(block.drafts(0).begin(), block.drafts(0).end()), round.drafts);
    const std::string prefix = "r" + std::to_string(i) + ".";
    EXPECT_LE(max_abs_diff(trace.step_logits, expected.floats(prefix + "Z")), 2e-4f);
    if (!expected.has(prefix + "confidence_logits")) continue;
    EXPECT_LE(max_abs_diff(trace.confidence_logits, expected.floats(prefix + "confidence_logits")), 2e-4f);
  }
}

class BlockSources : public testing::TestWithParam<Source> {};

TEST_P(BlockSources, DraftsTheSame) {
  const Source& source = GetParam();
  ThreadPool pool(2);
  const test::TestTarget target(source.target, pool, true);
  const auto drafter =
      test::load_block_draft({source.name, source.path, source.target}, target, pool, test::exact_options());
  ASSERT_NE(drafter, nullptr);
  const ExpectedDraft expected(source.expected);
  ASSERT_GE(expected.rounds().size(), 3u);
  expect_rounds(*drafter, ExpectedDraft(source.features), expected);
}

INSTANTIATE_TEST_SUITE_P(Golden, BlockSources, testing::ValuesIn(sources()),
                         [](const auto& instance) { return instance.param.name; });

/// Q8_0 weights and activations move the numbers, not what is drafted where the choice is clear.
TEST(BlockSources, QuantisedDraftersDraftMostlyTheSame) {
  ThreadPool pool(2);
  DraftConfig config = test::small_draft_config();
  RandomDraft exact(config, DType::kF32, 3), quantised(config, DType::kQ8_0, 3);  // the same random numbers
  const auto n_taps = static_cast<int32_t>(config.taps.size());
  BlockDrafterOptions options = test::exact_options();
  options.context_length = 2000;
  auto plain = std::move(*BlockDrafter::create(exact.checkpoint(), exact.target(pool, true), pool, options));
  options.float_activations = false;
  options.kv_dtype = KvDType::kQ8_0;
  auto served =
      std::move(*BlockDrafter::create(quantised.checkpoint(), quantised.target(pool, false), pool, options));
  SamplingParams greedy;
  greedy.temperature = 0.0f;
  int n_equal = 0, n_all = 0;
  for (int32_t n = 0; n < 400; n += 10) {
    const std::vector<float> features = test::random_features(config, 10, static_cast<uint32_t>(n));
    const CommitEvent event = test::feature_event(0, n, features, n_taps, config.dim);
    plain->commit({&event, 1});
    served->commit({&event, 1});
    const DraftBlock a = test::propose_one(*plain, 0, n % 500, n + 10, 5, greedy);
    const DraftBlock b = test::propose_one(*served, 0, n % 500, n + 10, 5, greedy);
    // Behind a first difference the previous tokens differ: count the first draft only.
    n_equal += a.drafts(0)[0] == b.drafts(0)[0] ? 1 : 0;
    EXPECT_NEAR(a.confidence_logits[0], b.confidence_logits[0], 0.2f);
    ++n_all;
  }
  EXPECT_GE(n_equal, n_all * 8 / 10) << "of " << n_all;
}

TEST(BlockSources, EqualCopiesAreAliasedAndOthersRefused) {
  ThreadPool pool(1);
  const fs::path root = test::data_dir() / "drafters";
  const test::TestTarget target(root / "targets" / "qwen3", pool, true);
  const std::string path = (root / "drafts" / "qwen3_dspark_rnn").string();
  Result<DraftCheckpoint> draft = open_draft_checkpoint(path);
  ASSERT_TRUE(draft.ok());
  ASSERT_NE(draft->find("lm_head.weight"), nullptr);
  auto drafter = BlockDrafter::create(*draft, target.view(), pool, test::exact_options());
  ASSERT_TRUE(drafter.ok());
  EXPECT_EQ((*drafter)->weights().vocabulary.shared_head, target.view().shared.head);
  EXPECT_FALSE((*drafter)->weights().vocabulary.owns_embedding);

  // One number changed is another model's table.
  for (const char* name : {"lm_head.weight", "embed_tokens.weight"}) {
    DraftCheckpoint changed = *draft;
    TensorView& view = changed.tensors.at(name);
    std::vector<uint8_t> bytes(view.data, view.data + view.n_bytes);
    bytes[1001] ^= 0x10;
    view.data = bytes.data();
    const auto refused = BlockDrafter::create(changed, target.view(), pool, test::exact_options());
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.status().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(refused.status().message().find(name), std::string::npos) << refused.status().message();
    changed.config.source = DraftSource::kLlamaCppGguf;  // may bring its own
    EXPECT_TRUE(BlockDrafter::create(changed, target.view(), pool, test::exact_options()).ok());
  }
}

TEST(BlockSources, SameNumbersInAnotherTypeAreTheSameTable) {
  ThreadPool pool(1);
  std::vector<float> values(64 * 64), other(values.size());
  std::mt19937 rng(3);
  std::normal_distribution<float> normal;
  for (float& v : values) v = normal(rng);
  for (float& v : other) v = normal(rng);
  const auto table = [](const std::vector<float>& from, DType dtype, std::vector<uint8_t>& bytes) {
    TensorView view{"t", dtype, {64, 64}, nullptr, 0};
    bytes.resize(view.row_bytes() * 64);
    for (size_t r = 0; r < 64; ++r)
      encode_row(dtype, from.data() + r * 64, bytes.data() + r * view.row_bytes(), 64);
    view.data = bytes.data();
    view.n_bytes = bytes.size();
    return view;
  };
  std::vector<uint8_t> a, b, c, d;
  const TensorView full = table(values, DType::kF32, a);
  EXPECT_EQ(table_distance(pool, full, full), 0.0);
  EXPECT_LT(table_distance(pool, full, table(values, DType::kBF16, b)), 0.01);
  EXPECT_LT(table_distance(pool, full, table(values, DType::kQ4_0, c)), 0.2);
  EXPECT_GT(table_distance(pool, full, table(other, DType::kF32, d)), 1.0);
}

TEST(BlockSources, RefusesAnotherTarget) {
  ThreadPool pool(1);
  RandomDraft random(test::small_draft_config(), DType::kF32, 3);
  const auto refused = [&](auto change, const char* said) {
    DraftTarget target = random.target(pool, true);
    change(target);
    const auto drafter = BlockDrafter::create(random.checkpoint(), target, pool, test::exact_options());
    ASSERT_FALSE(drafter.ok()) << said;
    EXPECT_NE(drafter.status().message().find(said), std::string::npos) << drafter.status().message();
  };
  refused([](DraftTarget& t) { t.dim = 128; }, "128");
  refused([](DraftTarget& t) { t.vocab_size = 500; }, "500");
  refused([](DraftTarget& t) { t.n_layers = 7; }, "7");
  refused([](DraftTarget& t) { t.shared = {}; }, "lends");
  DraftCheckpoint missing = random.checkpoint();
  missing.tensors.erase("layers.1.mlp.up_proj.weight");
  const auto drafter = BlockDrafter::create(missing, random.target(pool, true), pool, test::exact_options());
  ASSERT_FALSE(drafter.ok());
  EXPECT_NE(drafter.status().message().find("layers.1.mlp.up_proj.weight"), std::string::npos);
}

}  // namespace
}  // namespace dspark
