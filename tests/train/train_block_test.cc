// The training form of a drafter computes what its inference rounds compute: seven rounds at once, each with
// the prefix that it had.

#include <gtest/gtest.h>

#include <algorithm>

#include "train/backbone.h"
#include "train/heads.h"
#include "train_cases.h"

namespace dspark {
namespace {

using nlohmann::json;

constexpr double kTolerance = 2e-4;

std::filesystem::path drafts_dir(const std::string& name) {
  const std::filesystem::path golden = test::golden_dir();
  if (!golden.empty()) return golden / "draft" / "drafts" / name;
  return test::data_dir() / "drafters" / "drafts" / name;
}

/// Python writes NaN, which JSON does not have; the fields concerned are not used here.
json read_json_with_nan(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  for (size_t at = text.find("NaN"); at != std::string::npos; at = text.find("NaN", at))
    text.replace(at, 3, "0.0");
  return json::parse(text);
}

/// A drafter with its expected rounds.
struct Rounds {
  json expected;
  TensorMap tensors;
  DraftModel model;
  FrozenTarget target;
};

Rounds open_rounds(const std::string& name) {
  Rounds out;
  const std::filesystem::path folder = drafts_dir(name);
  out.expected = read_json_with_nan(folder / "expected.json");
  out.tensors = test::read_tensors(folder / "expected.safetensors");
  const auto checkpoint = open_draft_checkpoint(folder.string());
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  if (!checkpoint.ok()) return out;
  auto model = draft_model_from(*checkpoint);
  EXPECT_TRUE(model.ok()) << model.status().to_string();
  out.model = std::move(*model);
  const auto embedding = decode_tensor(*checkpoint->find("embed_tokens.weight"));
  const auto head = decode_tensor(*checkpoint->find("lm_head.weight"));
  out.target = frozen_target(out.model.config, *embedding, *head, Precision::kFloat32, at::kCPU);
  return out;
}

/// A step over `tokens` with blocks at `anchors`, its features replaced by exact fp32 ones.
StepBatch batch_of(const Rounds& rounds, std::vector<int32_t> tokens, std::vector<int32_t> anchors,
                   const at::Tensor& features) {
  const DraftConfig& config = rounds.model.config;
  AnchorSet set;
  tokens.resize(static_cast<size_t>(anchors.back() + config.block_size + 1), 0);
  set.sample.input_ids = std::move(tokens);
  const size_t n = set.sample.input_ids.size();
  const auto dim = static_cast<size_t>(config.dim);
  set.sample.loss_mask.assign(n, 1);
  set.sample.target_hidden_states.assign(n * config.taps.size() * dim, 0);
  set.sample.target_last_hidden.assign(n * dim, 0);
  set.anchors = std::move(anchors);
  StepBatch batch = build_step_batch({set}, config, 0, at::kCPU);
  EXPECT_EQ(batch.features.size(0), set.anchors.back());
  batch.features = features.slice(0, 0, set.anchors.back());
  return batch;
}

void expect_rows(const std::string& what, const at::Tensor& found, const at::Tensor& expected) {
  ASSERT_EQ(found.sizes(), expected.sizes()) << what;
  EXPECT_LE((found - expected).abs().max().item<float>(), kTolerance) << what;
}

VocabInput vocab_input(const Rounds& rounds, const HeadRows& rows, bool with_bias) {
  VocabInput input;
  input.hidden = rows.hidden.detach();
  input.weights = at::ones({rows.hidden.size(0)});
  if (!with_bias || !rows.latent.defined()) return input;
  input.latent = rows.latent.detach();
  input.bias_weight = rounds.model.trainable.at("markov_head.markov_w2.weight").detach();
  return input;
}

class TrainBlocks : public testing::TestWithParam<std::string> {};

TEST_P(TrainBlocks, EqualInferenceRounds) {
  const Rounds rounds = open_rounds(GetParam());
  ASSERT_FALSE(rounds.tensors.empty());
  std::vector<at::Tensor> features;
  std::vector<int32_t> anchors;
  std::vector<int32_t> tokens;
  for (const json& round : rounds.expected["forced_rounds"]) {
    features.push_back(rounds.tensors.at("r" + std::to_string(anchors.size()) + ".features_in"));
    anchors.push_back(round["n"].get<int32_t>());
    tokens.resize(static_cast<size_t>(anchors.back()) + 1, 0);  // the blocks read the anchors' tokens only
    tokens.back() = round["x0"].get<int32_t>();
  }
  const StepBatch batch = batch_of(rounds, tokens, anchors, at::cat(features, 0));
  const at::Tensor hidden = backbone_forward(rounds.model.config, rounds.model.all(), rounds.target.embedding,
                                             batch, Precision::kFloat32);
  const HeadRows rows = heads_forward(rounds.model.config, rounds.model.all(), hidden, batch);
  const at::Tensor logits =
      draft_logits(rounds.target.head, vocab_input(rounds, rows, false), Precision::kFloat32);
  for (size_t i = 0; i < anchors.size(); ++i) {
    const std::string prefix = "r" + std::to_string(i);
    const int64_t block = rounds.model.config.block_size;
    const auto first = static_cast<int64_t>(i) * block;
    expect_rows(prefix + ".hidden", hidden[static_cast<int64_t>(i)].detach(),
                rounds.tensors.at(prefix + ".hidden"));
    expect_rows(prefix + ".U", logits.slice(0, first, first + block), rounds.tensors.at(prefix + ".U"));
  }
}

TEST_P(TrainBlocks, HeadsFollowForcedTokens) {
  const Rounds rounds = open_rounds(GetParam());
  ASSERT_FALSE(rounds.tensors.empty());
  const json& first = rounds.expected["forced_rounds"][0];
  for (const std::string tag : {"tf_target", "tf_other"}) {
    const auto anchor = first["n"].get<int32_t>();
    std::vector<int32_t> tokens(static_cast<size_t>(anchor), 0);
    tokens.push_back(first["x0"].get<int32_t>());
    for (const json& token : rounds.expected[tag + ".tokens"]) tokens.push_back(token.get<int32_t>());
    const StepBatch batch = batch_of(rounds, tokens, {anchor}, rounds.tensors.at("r0.features_in"));
    const at::Tensor hidden = backbone_forward(rounds.model.config, rounds.model.all(),
                                               rounds.target.embedding, batch, Precision::kFloat32);
    const HeadRows rows = heads_forward(rounds.model.config, rounds.model.all(), hidden, batch);
    expect_rows(tag + ".Z",
                draft_logits(rounds.target.head, vocab_input(rounds, rows, true), Precision::kFloat32),
                rounds.tensors.at(tag + ".Z"));
    if (!rounds.model.config.confidence) continue;
    expect_rows(tag + " confidence", rows.confidence.detach(), rounds.tensors.at(tag + ".confidence_logits"));
  }
}

std::vector<std::string> names() {
  std::vector<std::string> found;
  for (const char* name :
       {"qwen3_dspark_vanilla", "qwen3_dspark_gated", "qwen3_dspark_rnn", "qwen3_dspark_noconf",
        "qwen3_dflash", "llama_dspark_vanilla", "gemma4_dspark_vanilla"}) {
    if (std::filesystem::exists(drafts_dir(name) / "expected.json")) found.push_back(name);
  }
  return found;
}

INSTANTIATE_TEST_SUITE_P(Drafts, TrainBlocks, testing::ValuesIn(names()));

}  // namespace
}  // namespace dspark
