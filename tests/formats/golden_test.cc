// Headers of the reference models and of real ones. The set is optional data: without it the same code runs
// on the files written by the other tests of this room.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/gguf_writer.h"
#include "support/test_paths.h"
#include "temp_folder.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> roots() {
  std::vector<fs::path> all = {test::data_dir() / "formats"};
  if (!test::golden_dir().empty()) all.push_back(test::golden_dir());
  return all;
}

class Models : public ::testing::TestWithParam<fs::path> {};
std::string root_name(const ::testing::TestParamInfo<fs::path>& param) {
  return param.index == 0 ? "fixtures" : "golden";
}
INSTANTIATE_TEST_SUITE_P(Roots, Models, ::testing::ValuesIn(roots()), root_name);

TEST_P(Models, EveryFolderOpens) {
  int n_folders = 0;
  for (const auto& entry : fs::directory_iterator(GetParam() / "models")) {
    if (!entry.is_directory()) continue;
    ++n_folders;
    const auto checkpoint = Checkpoint::open(entry.path().string());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
    EXPECT_TRUE(checkpoint->config().contains("model_type")) << entry.path();
    EXPECT_FALSE(checkpoint->tensors().empty());
    const auto expected = Checkpoint::open((entry.path() / "expected.safetensors").string());
    ASSERT_TRUE(expected.ok()) << expected.status().message();
    ASSERT_NE(expected->find("seq0.logits"), nullptr);
    EXPECT_EQ(expected->find("seq0.logits")->shape.size(), 2u);
  }
  EXPECT_GE(n_folders, 1);
}

TEST_P(Models, AShardedFolderHoldsWhatItsShardsHold) {
  int n_sharded = 0;
  for (const auto& entry : fs::directory_iterator(GetParam() / "models")) {
    if (!fs::exists(entry.path() / "model.safetensors.index.json")) continue;
    ++n_sharded;
    const auto whole = Checkpoint::open(entry.path().string());
    const auto one = Checkpoint::open((entry.path() / "model-00001-of-00002.safetensors").string());
    const auto two = Checkpoint::open((entry.path() / "model-00002-of-00002.safetensors").string());
    ASSERT_TRUE(whole.ok() && one.ok() && two.ok()) << whole.status().message();
    EXPECT_EQ(whole->tensors().size(), one->tensors().size() + two->tensors().size());
    for (const Checkpoint* shard : {&*one, &*two}) {
      for (const TensorView& tensor : shard->tensors()) {
        const TensorView* found = whole->find(tensor.name);
        ASSERT_NE(found, nullptr) << tensor.name;
        EXPECT_EQ(found->shape, tensor.shape);
        EXPECT_EQ(std::memcmp(found->data, tensor.data, tensor.n_bytes), 0) << tensor.name;
      }
    }
  }
  EXPECT_EQ(n_sharded, 1);
}

TEST_P(Models, GgufShapesAreThoseOfTheSource) {
  int n_files = 0;
  for (const auto& entry : fs::directory_iterator(GetParam() / "gguf" / "models")) {
    if (entry.path().extension() != ".gguf") continue;
    ++n_files;
    const auto gguf = Checkpoint::open(entry.path().string());
    ASSERT_TRUE(gguf.ok()) << gguf.status().message();
    const auto source = Checkpoint::open((GetParam() / "models" / entry.path().stem()).string());
    ASSERT_TRUE(source.ok()) << source.status().message();
    EXPECT_TRUE(gguf->meta_string("general.architecture").has_value());
    const TensorView* embedding = gguf->find("token_embd.weight");
    ASSERT_NE(embedding, nullptr) << entry.path();
    const auto same = [&](const TensorView& t) {
      return t.shape == embedding->shape && t.name.find("embed") != std::string::npos;
    };
    EXPECT_TRUE(std::any_of(source->tensors().begin(), source->tensors().end(), same)) << entry.path();
  }
  EXPECT_GE(n_files, 1);
}

TEST(Fixture, ReadsWhatAnotherProgramWrote) {
  const fs::path root = test::data_dir() / "formats";
  const auto gguf = Checkpoint::open((root / "gguf/models/tiny_sharded.gguf").string());
  const auto source = Checkpoint::open((root / "models/tiny_sharded").string());
  ASSERT_TRUE(gguf.ok() && source.ok()) << gguf.status().message() << source.status().message();
  EXPECT_EQ(source->config()["hidden_size"], 8);
  EXPECT_EQ(source->generation_config()["eos_token_id"][1], 2);
  EXPECT_EQ(gguf->meta_int("qwen2.block_count"), 1);
  EXPECT_EQ(gguf->meta_bool("tokenizer.ggml.add_bos_token"), false);
  EXPECT_EQ(std::get<std::vector<std::string>>(*gguf->meta("tokenizer.ggml.tokens"))[19], "t19");
  EXPECT_EQ(std::get<std::vector<double>>(*gguf->meta("tokenizer.ggml.scores"))[3], 1.5);
  EXPECT_EQ(std::get<std::vector<int64_t>>(*gguf->meta("tokenizer.ggml.token_type")).size(), 20u);
  const TensorView* query = gguf->find("blk.0.attn_q.weight");
  const TensorView* original = source->find("model.layers.0.self_attn.q_proj.weight");
  ASSERT_TRUE(query != nullptr && original != nullptr);
  EXPECT_EQ(query->shape, (std::vector<int64_t>{12, 8}));
  EXPECT_EQ(query->shape, original->shape);
  EXPECT_EQ(std::memcmp(query->data, original->data, query->n_bytes), 0);
}

/// Rewrites a whole GGUF file through GgufWriter.
std::string rewritten(const Checkpoint& source, const test::TempFolder& folder) {
  auto writer = GgufWriter::create(folder.file("copy.gguf"));
  if (!writer.ok()) return writer.status().message();
  writer->copy_all(source);
  for (const TensorView& t : source.tensors()) {
    if (Status s = writer->declare(t.name, t.dtype, t.shape); !s.ok()) return s.message();
  }
  if (Status s = writer->write_header(); !s.ok()) return s.message();
  for (const TensorView& t : source.tensors()) {
    if (Status s = writer->append(t.name, {t.data, t.n_bytes}); !s.ok()) return s.message();
  }
  if (Status s = writer->finish(); !s.ok()) return s.message();
  return test::read_file(folder.file("copy.gguf"));
}

TEST_P(Models, ARewriteOfAGgufModelIsTheSameFile) {
  const test::TempFolder folder;
  for (const auto& entry : fs::directory_iterator(GetParam() / "gguf" / "models")) {
    if (entry.path().extension() != ".gguf") continue;
    const auto source = Checkpoint::open(entry.path().string());
    ASSERT_TRUE(source.ok());
    EXPECT_TRUE(rewritten(*source, folder) == test::read_file(entry.path())) << entry.path();
  }
}

}  // namespace
}  // namespace dspark
