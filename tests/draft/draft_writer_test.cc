// What is written opens again as the same drafter: folders in the DeepSpec layout and GGUF files.

#include "draft/draft_writer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "draft/draft_tensors.h"
#include "draft/draft_to_gguf.h"
#include "draft_fixture.h"
#include "formats/temp_folder.h"
#include "support/case_count.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;

/// Reference drafters when they are there, and those of the repository always.
std::vector<fs::path> drafter_folders() {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(test::data_dir() / "draft_formats")) {
    if (entry.is_directory()) folders.push_back(entry.path());
  }
  if (test::golden_dir().empty()) return folders;
  for (const char* group : {"drafts", "speculators"}) {
    for (const auto& entry : fs::directory_iterator(test::golden_dir() / "draft" / group)) {
      folders.push_back(entry.path());
    }
  }
  return folders;
}

DraftCheckpoint open_or_fail(const std::string& path) {
  auto draft = open_draft_checkpoint(path);
  EXPECT_TRUE(draft.ok()) << draft.status().message();
  return draft.ok() ? *std::move(draft) : DraftCheckpoint{};
}

/// The tensors of a drafter in memory, and where they are.
struct Floats {
  std::vector<std::vector<float>> storage;
  std::vector<NamedFloats> tensors;
};

Floats load_floats(const DraftCheckpoint& draft) {
  Floats loaded;
  for (const auto& [name, tensor] : draft.tensors) loaded.storage.push_back(test::floats(draft, name));
  size_t i = 0;
  for (const auto& [name, tensor] : draft.tensors)
    loaded.tensors.push_back({name, tensor.shape, loaded.storage[i++]});
  return loaded;
}

TEST(DraftWriter, FoldersReadBackTheSame) {
  test::TempFolder temp;
  int n_written = 0;
  for (const fs::path& folder : drafter_folders()) {
    SCOPED_TRACE(folder);
    DraftCheckpoint draft = open_or_fail(folder.string());
    if (draft.config.target_layers == 0) draft.config.target_layers = 7;  // speculators does not say
    const Floats loaded = load_floats(draft);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const std::string out = temp.file("drafter" + std::to_string(n_written++));
      const Status written = write_deepspec_draft(out, draft.config, loaded.tensors, dtype);
      ASSERT_TRUE(written.ok()) << written.message();
      const DraftCheckpoint again = open_or_fail(out);
      test::expect_same_drafter(draft.config, again.config);
      EXPECT_EQ(again.config.target_layers, draft.config.target_layers);
      EXPECT_EQ(again.config.target_name, draft.config.target_name);
      ASSERT_EQ(again.tensors.size(), draft.tensors.size());
      for (const NamedFloats& tensor : loaded.tensors) {  // the reference weights are BF16 numbers
        EXPECT_EQ(test::floats(again, tensor.name),
                  std::vector<float>(tensor.values.begin(), tensor.values.end()));
      }
    }
  }
  EXPECT_GE(n_written, 4);
}

/// A drafter that uses every extension of ours at once.
DraftConfig extended_config() {
  DraftConfig c;
  c.n_layers = 2;
  c.dim = 8;
  c.n_heads = 2;
  c.n_kv_heads = 1;
  c.head_dim = 6;
  c.ffn_dim = 16;
  c.norm_eps = 1e-5f;
  c.qk_norm = false;
  c.attention_bias = true;
  c.causal = true;
  c.window = 48;
  c.activation = GateActivation::kGeluTanh;
  c.attention_scale = 0.3f;
  c.embedding_scale = 2.5f;
  c.final_softcap = 30.0f;
  c.rope.inv_freq = {1.0f, 0.125f, 0.001f};
  c.rope.attention_factor = 1.1f;
  c.context_length = 512;
  c.vocab_size = 20;
  c.draft_vocab_size = 6;
  c.d2t = {0, 3, 4, 5, 11, 19};
  c.block_size = 4;
  c.short_block = 2;
  c.anchor_predicts = false;
  c.mask_token_id = 17;
  c.taps = {0, 2};
  c.target_layers = 3;
  c.target_name = "toy";
  c.head = SequentialHead::kVanilla;
  c.markov_rank = 4;
  return c;
}

/// Tensors with numbers that BF16 holds exactly; without embedding and head.
Floats toy_tensors(const DraftConfig& config) {
  Floats made;
  std::vector<DraftTensor> wanted;
  for (DraftTensor& tensor : draft_tensors(config)) {
    if (tensor.required) wanted.push_back(std::move(tensor));
  }
  for (const DraftTensor& tensor : wanted) {
    int64_t n = 1;
    for (const int64_t d : tensor.shape) n *= d;
    std::vector<float> values(static_cast<size_t>(n));
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>((i * 7 + made.storage.size()) % 33) / 16;
    made.storage.push_back(std::move(values));
  }
  for (size_t i = 0; i < wanted.size(); ++i)
    made.tensors.push_back({wanted[i].name, wanted[i].shape, made.storage[i]});
  return made;
}

TEST(DraftWriter, ExtensionsSurviveFolderAndGguf) {
  test::TempFolder temp;
  ThreadPool pool(2);
  std::vector<DraftConfig> configs(4, extended_config());
  configs[1].head = SequentialHead::kGated;
  configs[1].confidence = configs[1].confidence_with_markov = true;
  configs[2].head = SequentialHead::kRnn;
  configs[2].confidence = true;
  configs[3].kind = DraftKind::kMtp;
  configs[3].n_layers = 1;
  configs[3].head = SequentialHead::kNone;
  configs[3].markov_rank = configs[3].mask_token_id = configs[3].window = 0;
  configs[3].block_size = 1;
  configs[3].short_block = 0;
  configs[3].causal = false;
  configs[3].anchor_predicts = true;
  configs[3].taps = {3};
  for (size_t i = 0; i < configs.size(); ++i) {
    SCOPED_TRACE(i);
    const DraftConfig& config = configs[i];
    const Floats made = toy_tensors(config);
    const std::string folder = temp.file("folder" + std::to_string(i));
    const Status written = write_deepspec_draft(folder, config, made.tensors, DType::kF32);
    ASSERT_TRUE(written.ok()) << written.message();
    const DraftCheckpoint from_folder = open_or_fail(folder);
    test::expect_same_drafter(config, from_folder.config);

    DraftGgufOptions options;
    options.types.type = DType::kF32;
    const std::string gguf = temp.file("drafter" + std::to_string(i) + ".gguf");
    const auto report = draft_to_gguf(from_folder, gguf, options, pool, {});
    ASSERT_TRUE(report.ok()) << report.status().message();
    const DraftCheckpoint from_gguf = open_or_fail(gguf);
    test::expect_same_drafter(config, from_gguf.config);
    EXPECT_EQ(from_gguf.config.target_layers, 3);
    EXPECT_EQ(from_gguf.config.target_name, "toy");
    ASSERT_EQ(from_gguf.tensors.size(), made.tensors.size());
    for (const NamedFloats& tensor : made.tensors) {
      EXPECT_EQ(test::floats(from_gguf, tensor.name),
                std::vector<float>(tensor.values.begin(), tensor.values.end()));
    }
  }
}

TEST(DraftWriter, RefusesWrongTensors) {
  test::TempFolder temp;
  const DraftConfig config = extended_config();
  const auto error = [&](const std::vector<NamedFloats>& tensors) {
    return write_deepspec_draft(temp.file("out"), config, tensors, DType::kF32).message();
  };
  const Floats made = toy_tensors(config);
  std::vector<NamedFloats> tensors = made.tensors;
  tensors.erase(tensors.begin());
  EXPECT_NE(error(tensors).find("'fc.weight' is missing"), std::string::npos) << error(tensors);
  tensors = made.tensors;
  tensors[1].name = "other.weight";
  EXPECT_NE(error(tensors).find("'other.weight' is unknown"), std::string::npos) << error(tensors);
  tensors = made.tensors;
  tensors[0].shape = {8, 8};
  EXPECT_NE(error(tensors).find("'fc.weight' has shape [8, 8]"), std::string::npos) << error(tensors);
  EXPECT_EQ(temp.n_files(), 0u);
}

TEST(DraftWriter, RefusesShortBlocksThatAreLonger) {
  test::TempFolder temp;
  DraftConfig config = extended_config();
  config.short_block = 5;
  const Floats made = toy_tensors(config);
  const Status written = write_deepspec_draft(temp.file("out"), config, made.tensors, DType::kF32);
  EXPECT_NE(written.message().find("short blocks: found 5 slots"), std::string::npos) << written.message();
  EXPECT_EQ(temp.n_files(), 0u);
}

TEST(DraftToGguf, ReferenceDraftersKeepTheirNumbers) {
  test::TempFolder temp;
  ThreadPool pool(2);
  int i = 0;
  for (const fs::path& folder : drafter_folders()) {
    SCOPED_TRACE(folder);
    const DraftCheckpoint draft = open_or_fail(folder.string());
    DraftGgufOptions options;
    options.types.type = DType::kBF16;
    const std::string path = temp.file(std::to_string(i++) + ".gguf");
    const auto report = draft_to_gguf(draft, path, options, pool, {});
    ASSERT_TRUE(report.ok()) << report.status().message();
    const DraftCheckpoint again = open_or_fail(path);
    test::expect_same_drafter(draft.config, again.config);
    EXPECT_EQ(again.config.target_layers, draft.config.target_layers);
    EXPECT_EQ(again.tensors.size(), draft.tensors.size());
    for (const auto& [name, tensor] : draft.tensors)
      EXPECT_EQ(test::floats(again, name), test::floats(draft, name));
    // DFlash files carry a zero head for other engines.
    EXPECT_EQ(again.file->find("markov_w1.weight") != nullptr,
              draft.config.kind == DraftKind::kDSpark || draft.config.kind == DraftKind::kDFlash);
  }
}

/// Drafters beside their targets: the fixtures, and the full set where it is found.
struct DraftSet {
  std::string name;
  fs::path with_copies;  // brings the target's embedding and head
  fs::path trap;         // a file with an embedding and no head
  fs::path tied;         // for `tied_target`, which has one matrix for both
  fs::path reduced;      // speculators, 160 of 320 ids
  fs::path target;
  fs::path tied_target;
  bool has_tokenizer = false;  // the targets' files
};

std::vector<DraftSet> draft_sets() {
  const fs::path data = test::data_dir();
  std::vector<DraftSet> sets = {{"fixtures", data / "draft" / "drafts" / "qwen3_dspark_noconf",
                                 data / "draft_formats" / "dflash_embd_without_output.gguf",
                                 data / "draft" / "drafts" / "llama_dspark_vanilla",
                                 data / "draft_formats" / "speculators_v160",
                                 data / "draft" / "targets" / "qwen3", data / "draft" / "targets" / "llama"}};
  if (!test::golden_dir().empty()) {
    const fs::path golden = test::golden_dir() / "draft", gguf = golden / "gguf";
    sets.push_back({"reference set", golden / "drafts" / "qwen3_dspark_vanilla",
                    gguf / "qwen3_dspark_vanilla_embd_without_output.bf16.gguf",
                    golden / "drafts" / "llama_dspark_vanilla",
                    golden / "speculators" / "qwen3_dspark_vanilla_v160", gguf / "target_qwen3.bf16.gguf",
                    gguf / "target_llama.bf16.gguf", true});
  }
  test::report_cases("drafters_and_targets", sets.size());
  return sets;
}

Checkpoint open_target(const fs::path& path) {
  auto opened = Checkpoint::open(path.string());
  EXPECT_TRUE(opened.ok()) << opened.status().message();
  return opened.ok() ? *std::move(opened) : Checkpoint{};
}

/// The drafter written beside its target and opened again.
DraftCheckpoint convert(const fs::path& drafter, const fs::path& target, DType type) {
  test::TempFolder temp;
  ThreadPool pool(2);
  const DraftCheckpoint draft = open_or_fail(drafter.string());
  const Checkpoint opened = open_target(target);
  DraftGgufOptions options;
  options.types.type = type;
  options.target = &opened;
  const auto report = draft_to_gguf(draft, temp.file("out.gguf"), options, pool, {});
  EXPECT_TRUE(report.ok()) << report.status().message();
  return open_or_fail(temp.file("out.gguf"));  // stays open when the folder goes
}

TEST(DraftToGguf, TheTargetDecidesWhatIsLeftOut) {
  for (const DraftSet& set : draft_sets()) {
    SCOPED_TRACE(set.name);
    // Copies of the target's matrices go; the tokenizer comes.
    const DraftCheckpoint shared = convert(set.with_copies, set.target, DType::kBF16);
    EXPECT_EQ(shared.find("embed_tokens.weight"), nullptr);
    EXPECT_EQ(shared.find("lm_head.weight"), nullptr);
    EXPECT_EQ(shared.file->meta("tokenizer.ggml.tokens") != nullptr, set.has_tokenizer);
    // The file with the trap: an embedding and no head becomes neither.
    const DraftCheckpoint trap = convert(set.trap, set.target, DType::kBF16);
    EXPECT_EQ(trap.find("embed_tokens.weight"), nullptr);
    // A quantised drafter: whole blocks where they fit, the rest as it was.
    const DraftCheckpoint small = convert(set.tied, set.tied_target, DType::kQ8_0);
    EXPECT_EQ(small.find("fc.weight")->dtype, DType::kQ8_0);
    EXPECT_EQ(small.find("markov_head.markov_w1.weight")->dtype, DType::kBF16);  // rank 16 is half a block
    EXPECT_EQ(small.find("confidence_head.proj.weight")->dtype, DType::kF32);
    EXPECT_EQ(small.find("norm.weight")->dtype, DType::kF32);
  }
}

TEST(DraftToGguf, StandaloneTakesRowsOfTheTargetsHead) {
  for (const DraftSet& set : draft_sets()) {
    SCOPED_TRACE(set.name);
    test::TempFolder temp;
    ThreadPool pool(2);
    DraftCheckpoint draft = open_or_fail(set.reduced.string());
    const std::vector<float> own_head = test::floats(draft, "lm_head.weight");
    ASSERT_FALSE(own_head.empty());
    draft.tensors.erase("lm_head.weight");
    const Checkpoint target = open_target(set.target);
    DraftGgufOptions options;
    options.types.type = DType::kBF16;
    options.target = &target;
    options.standalone = true;
    ASSERT_TRUE(draft_to_gguf(draft, temp.file("out.gguf"), options, pool, {}).ok());
    EXPECT_EQ(test::floats(open_or_fail(temp.file("out.gguf")), "lm_head.weight"), own_head);
    options.target = nullptr;
    EXPECT_FALSE(draft_to_gguf(draft, temp.file("out.gguf"), options, pool, {}).ok());
  }
}

TEST(DraftToGguf, RefusesAForeignTarget) {
  for (const DraftSet& set : draft_sets()) {
    SCOPED_TRACE(set.name);
    DraftCheckpoint draft = open_or_fail(set.with_copies.string());
    draft.config.vocab_size = 321;
    draft.config.dim = 63;
    draft.config.target_layers = 6;
    const Checkpoint target = open_target(set.target);
    DraftGgufOptions options;
    options.target = &target;
    ThreadPool pool(1);
    test::TempFolder temp;
    const std::string error = draft_to_gguf(draft, temp.file("x.gguf"), options, pool, {}).status().message();
    EXPECT_NE(error.find("wants 63 columns (width), the target has 64"), std::string::npos) << error;
    EXPECT_NE(error.find("wants 321 tokens (vocabulary), the target has 320"), std::string::npos) << error;
    EXPECT_NE(error.find("wants 6 layers, the target has 7"), std::string::npos) << error;
  }
}

}  // namespace
}  // namespace dspark
