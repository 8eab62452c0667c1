// Every drafter of the reference set opens with the configuration its README states.

#include "draft/draft_checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "draft/draft_tensors.h"
#include "draft_fixture.h"
#include "support/case_count.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;

struct Known {
  const char* folder;  // below golden/draft
  DraftKind kind;
  DraftBackbone backbone;
  int32_t n_layers;
  int32_t n_drafts;
  std::vector<int32_t> taps;
  SequentialHead head;
  int32_t rank;
  bool confidence;
  bool with_markov;
  int32_t mask;
  size_t n_tensors;
};

constexpr auto kSpark = DraftKind::kDSpark;
constexpr auto kQwen = DraftBackbone::kQwen3;
constexpr auto kVanilla = SequentialHead::kVanilla;
constexpr auto kNone = SequentialHead::kNone;

const Known kReference[] = {
    {"drafts/qwen3_dspark_vanilla", kSpark, kQwen, 3, 7, {2, 4, 6}, kVanilla, 16, true, true, 319, 42},
    {"drafts/qwen3_dspark_gated",
     kSpark,
     kQwen,
     2,
     5,
     {0, 3, 5},
     SequentialHead::kGated,
     12,
     true,
     true,
     319,
     33},
    {"drafts/qwen3_dspark_rnn",
     kSpark,
     kQwen,
     2,
     6,
     {1, 3, 5, 6},
     SequentialHead::kRnn,
     8,
     true,
     false,
     319,
     33},
    {"drafts/qwen3_dspark_noconf", kSpark, kQwen, 2, 4, {2, 4, 6}, kVanilla, 16, false, false, 319, 29},
    {"drafts/qwen3_dflash", DraftKind::kDFlash, kQwen, 3, 7, {2, 4, 6}, kNone, 0, false, false, 319, 38},
    {"drafts/qwen3_eagle3", DraftKind::kEagle3, kQwen, 1, 5, {1, 2, 3, 5, 6}, kNone, 0, false, false, 0, 16},
    {"drafts/llama_dspark_vanilla", kSpark, kQwen, 2, 7, {2, 4, 6}, kVanilla, 16, true, true, 319, 31},
    {"drafts/gemma4_dspark_vanilla",
     kSpark,
     DraftBackbone::kGemma4,
     3,
     7,
     {2, 4, 6},
     kVanilla,
     16,
     true,
     true,
     4,
     48},
    {"drafts/gemma4_eagle3",
     DraftKind::kEagle3,
     DraftBackbone::kGemma4,
     1,
     5,
     {1, 2, 3, 5, 6},
     kNone,
     0,
     false,
     false,
     0,
     18},
};

void expect_known(const fs::path& path, const Known& known, int32_t vocab_size, int32_t target_layers) {
  SCOPED_TRACE(path);
  const auto draft = open_draft_checkpoint(path.string());
  ASSERT_TRUE(draft.ok()) << draft.status().message();
  const DraftConfig& c = draft->config;
  EXPECT_EQ(c.kind, known.kind);
  EXPECT_EQ(c.backbone, known.backbone);
  EXPECT_EQ(c.source, DraftSource::kDeepSpec);
  EXPECT_EQ(c.n_layers, known.n_layers);
  EXPECT_EQ(c.n_drafts(), known.n_drafts);
  EXPECT_EQ(c.taps, known.taps);
  EXPECT_EQ(c.head, known.head);
  EXPECT_EQ(c.markov_rank, known.rank);
  EXPECT_EQ(c.confidence, known.confidence);
  EXPECT_EQ(c.confidence_with_markov, known.with_markov);
  EXPECT_EQ(c.mask_token_id, known.mask);
  EXPECT_EQ(c.vocab_size, vocab_size);
  EXPECT_EQ(c.target_layers, target_layers);
  EXPECT_EQ(draft->tensors.size(), known.n_tensors);
}

/// A reference drafter ("drafts/NAME"): out of the full set where it is found, else the fixture, if there is
/// one.
fs::path reference_drafter(const std::string& folder) {
  std::vector<fs::path> roots = {test::data_dir() / "draft", test::data_dir() / "drafters"};
  if (!test::golden_dir().empty()) roots = {test::golden_dir() / "draft"};
  for (const fs::path& root : roots) {
    if (fs::exists(root / folder / "config.json")) return root / folder;
  }
  return {};
}

TEST(DraftCheckpoint, OpensTheReferenceDrafters) {
  size_t n_opened = 0;
  for (const Known& known : kReference) {
    const fs::path path = reference_drafter(known.folder);
    if (path.empty()) continue;
    expect_known(path, known, 320, 7);
    ++n_opened;
  }
  test::report_cases("reference_drafters", n_opened);
  EXPECT_GE(n_opened, test::golden_dir().empty() ? std::size(kReference) - 1 : std::size(kReference));
}

TEST(DraftCheckpoint, OpensTheDraftersOfTheRepository) {
  const std::vector<int32_t> taps = {2, 4, 5};
  const std::vector<Known> drafters = {
      {"dspark_vanilla", kSpark, kQwen, 2, 5, taps, SequentialHead::kVanilla, 8, true, true, 95, 31},
      {"dspark_gated", kSpark, kQwen, 2, 5, taps, SequentialHead::kGated, 8, true, true, 95, 33},
      {"dspark_rnn", kSpark, kQwen, 2, 5, taps, SequentialHead::kRnn, 8, true, false, 95, 33},
      {"dflash", DraftKind::kDFlash, kQwen, 2, 5, taps, kNone, 0, false, false, 95, 27},
      {"eagle3", DraftKind::kEagle3, kQwen, 1, 4, {1, 2, 3, 4, 5}, kNone, 0, false, false, 0, 16},
      {"gemma4_dspark_vanilla", kSpark, DraftBackbone::kGemma4, 2, 5, taps, SequentialHead::kVanilla, 8, true,
       true, 4, 35},
  };
  for (const Known& known : drafters) {
    expect_known(test::data_dir() / "draft_formats" / known.folder, known, 96, 6);
  }
}

DraftCheckpoint open_or_fail(const fs::path& path) {
  auto draft = open_draft_checkpoint(path.string());
  EXPECT_TRUE(draft.ok()) << draft.status().message();
  return draft.ok() ? *std::move(draft) : DraftCheckpoint{};
}

/// The tensors of `a` but those in `left_out` are the tensors of `b`.
void expect_same_tensors(const DraftCheckpoint& a, const DraftCheckpoint& b,
                         const std::vector<std::string>& left_out) {
  EXPECT_EQ(a.tensors.size(), b.tensors.size() + left_out.size());
  for (const auto& [name, tensor] : a.tensors) {
    const bool gone = std::find(left_out.begin(), left_out.end(), name) != left_out.end();
    EXPECT_EQ(b.find(name) == nullptr, gone) << name;
    if (gone) continue;
    EXPECT_EQ(test::floats(a, name), test::floats(b, name)) << name;
  }
}

struct SameDrafter {
  fs::path gguf;
  fs::path folder;
  std::vector<std::string> left_out;
};

/// Files of llama.cpp's converter with what they were made from: a fixture, and those of the full set where
/// it is found.
std::vector<SameDrafter> same_drafters() {
  const fs::path formats = test::data_dir() / "draft_formats";
  std::vector<SameDrafter> all = {{formats / "dflash_v160.gguf", formats / "speculators_v160", {}}};
  if (test::golden_dir().empty()) return all;
  const fs::path golden = test::golden_dir() / "draft";
  const auto add = [&](const char* gguf, const char* folder, std::vector<std::string> left_out) {
    all.push_back(
        {golden / "gguf" / (std::string(gguf) + ".bf16.gguf"), golden / folder, std::move(left_out)});
  };
  add("qwen3_dspark_vanilla", "drafts/qwen3_dspark_vanilla", {"embed_tokens.weight", "lm_head.weight"});
  // No output.weight beside token_embd.weight: the head is the target's, not this embedding.
  add("qwen3_dspark_vanilla_embd_without_output", "drafts/qwen3_dspark_vanilla", {"lm_head.weight"});
  add("llama_dspark_vanilla", "drafts/llama_dspark_vanilla", {"lm_head.weight"});
  // The all-zero Markov head is gone.
  add("qwen3_dflash_zero_markov", "drafts/qwen3_dflash", {"embed_tokens.weight", "lm_head.weight"});
  add("qwen3_dspark_vanilla_v160", "speculators/qwen3_dspark_vanilla_v160", {});
  return all;
}

TEST(DraftCheckpoint, GgufFilesHoldTheSameDrafters) {
  const std::vector<SameDrafter> pairs = same_drafters();
  for (const SameDrafter& pair : pairs) {
    SCOPED_TRACE(pair.gguf);
    const DraftCheckpoint gguf = open_or_fail(pair.gguf);
    const DraftCheckpoint folder = open_or_fail(pair.folder);
    EXPECT_EQ(gguf.config.source, DraftSource::kLlamaCppGguf);
    test::expect_same_drafter(folder.config, gguf.config);
    expect_same_tensors(folder, gguf, pair.left_out);
  }
  test::report_cases("converted_drafters", pairs.size());
}

TEST(DraftCheckpoint, ReadsSpeculatorsAndTheSameAsGguf) {
  const fs::path data = test::data_dir() / "draft_formats";
  const DraftCheckpoint draft = open_or_fail(data / "speculators_v160");
  const DraftCheckpoint gguf = open_or_fail(data / "dflash_v160.gguf");
  test::expect_same_drafter(draft.config, gguf.config);
  expect_same_tensors(draft, gguf, {});
  EXPECT_EQ(draft.config.source, DraftSource::kSpeculators);
  EXPECT_EQ(draft.config.taps, (std::vector<int32_t>{2, 4, 6}));
  EXPECT_EQ(draft.config.target_name, "tiny-qwen3");
  EXPECT_TRUE(draft.config.reduced_vocab());
  EXPECT_EQ(draft.config.d2t.size(), 160u);
  EXPECT_EQ(draft.config.n_drafts(), 7);
  EXPECT_EQ(draft.tensors.size(), 41u);
}

int64_t count_parameters(const DraftConfig& config, bool with_shared) {
  int64_t total = 0;
  for (const DraftTensor& tensor : draft_tensors(config)) {
    if (!with_shared && !tensor.required) continue;
    int64_t n = 1;
    for (const int64_t d : tensor.shape) n *= d;
    total += n;
  }
  return total;
}

/// Released drafters: five layers, five taps, vanilla head of rank 256.
DraftConfig released(int32_t dim, int32_t ffn_dim, int32_t n_heads, int32_t n_kv_heads, int32_t head_dim,
                     int32_t vocab_size) {
  DraftConfig c;
  c.n_layers = 5;
  c.dim = dim;
  c.ffn_dim = ffn_dim;
  c.n_heads = n_heads;
  c.n_kv_heads = n_kv_heads;
  c.head_dim = head_dim;
  c.vocab_size = c.draft_vocab_size = vocab_size;
  c.taps = {2, 10, 18, 26, 34};
  c.head = SequentialHead::kVanilla;
  c.markov_rank = 256;
  c.confidence = c.confidence_with_markov = true;
  return c;
}

TEST(DraftTensors, ParameterCountsOfTheReleasedDrafters) {
  const DraftConfig qwen3_4b = released(2560, 9728, 32, 8, 128, 151936);
  EXPECT_EQ(draft_tensors(qwen3_4b).size(), 64u);
  EXPECT_EQ(count_parameters(qwen3_4b, true), 1393133569);
  EXPECT_EQ(count_parameters(qwen3_4b, false), 615221249);
  EXPECT_EQ(count_parameters(released(4096, 12288, 32, 8, 128, 151936), true), 2371081729);
  EXPECT_EQ(count_parameters(released(5120, 17408, 40, 8, 128, 151936), true), 3416263169);
  DraftConfig gemma = released(3840, 15360, 16, 1, 512, 262144);
  gemma.backbone = DraftBackbone::kGemma4;
  gemma.sandwich_norms = gemma.k_eq_v = true;
  EXPECT_EQ(draft_tensors(gemma).size(), 74u);
  EXPECT_EQ(count_parameters(gemma, true), 3430444550);
}

}  // namespace
}  // namespace dspark
