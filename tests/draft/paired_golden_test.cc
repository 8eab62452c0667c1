// Every round of the reference Eagle3 drafters, in fp32, with features of the real target.

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "draft/draft_harness.h"
#include "draft/paired_drafter.h"
#include "models/harness.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::max_abs_diff;

constexpr float kTolerance = 2e-4f;  // of the reference set, for fp32

std::vector<test::GoldenDraft> eagle3_drafts() {
  std::vector<test::GoldenDraft> found;
  std::vector<fs::path> roots = {test::data_dir() / "draft"};
  if (!test::golden_dir().empty()) roots.push_back(test::golden_dir() / "draft");
  for (const fs::path& root : roots) {
    for (const fs::directory_entry& entry : fs::directory_iterator(root / "drafts")) {
      const std::string name = entry.path().filename().string();
      const fs::path target = root / "targets" / name.substr(0, name.find('_'));
      if (name.find("eagle3") == std::string::npos || !fs::exists(target)) continue;
      found.push_back({(root == roots[0] ? "fixture_" : "") + name, entry.path(), target});
    }
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return found;
}

/// expected.json; its statistics may hold NaN, which is no JSON.
json read_expected(const fs::path& folder) {
  std::ifstream file(folder / "expected.json");
  std::string text(std::istreambuf_iterator<char>(file), {});
  for (size_t at = text.find("NaN"); at != std::string::npos; at = text.find("NaN", at)) {
    text.replace(at, 3, "null");
  }
  return json::parse(text);
}

class Eagle3Golden : public testing::TestWithParam<test::GoldenDraft> {
 protected:
  void SetUp() override {
    json_ = read_expected(GetParam().folder);
    Result<Checkpoint> values = Checkpoint::open((GetParam().folder / "expected.safetensors").string());
    ASSERT_TRUE(values.ok());
    values_ = std::move(*values);
    target_ = test::open_model(GetParam().target, pool_, true);
    ASSERT_NE(target_, nullptr);
    load({});
    const std::span<const int32_t> taps = drafter_->tap_layers();
    target_->set_capture_layers({taps.begin(), taps.end()});
    session_ = std::make_unique<test::Session>(*target_, KvDType::kF32, 1, 256);
  }

  void load(const std::vector<int32_t>& stop_tokens) {
    Result<DraftCheckpoint> draft = open_draft_checkpoint(GetParam().folder.string());
    ASSERT_TRUE(draft.ok()) << draft.status().to_string();
    PairedDrafterOptions options;
    options.context_length = 200;
    options.kv_dtype = KvDType::kF32;
    options.float_activations = true;
    options.stop_tokens = stop_tokens;
    Result<std::unique_ptr<PairedDrafter>> drafter =
        PairedDrafter::create(std::move(*draft), DraftTarget::of(*target_), pool_, options);
    ASSERT_TRUE(drafter.ok()) << drafter.status().to_string();
    drafter_ = std::move(*drafter);
  }

  std::vector<float> floats(const std::string& name) {
    const TensorView* tensor = values_.find(name);
    EXPECT_NE(tensor, nullptr) << name;
    if (tensor == nullptr) return {};
    const auto* data = reinterpret_cast<const float*>(tensor->data);
    return {data, data + tensor->n_bytes / sizeof(float)};
  }

  test::Outputs run_target(std::span<const int32_t> tokens) {
    return session_->forward(0, {tokens.begin(), tokens.end()});
  }
  void commit(const test::Outputs& outputs, int32_t position, int32_t n_rows, int32_t n_kept,
              int32_t token_position, std::span<const int32_t> tokens) {
    CommitEvent event;
    event.feature_position = position;
    event.n_features = n_kept;
    event.features = outputs.captured.data();
    event.dim = drafter_->config().dim;
    event.tap_stride = int64_t{n_rows} * event.dim;
    event.token_position = token_position;
    event.tokens = tokens;
    drafter_->commit({&event, 1});
  }
  DraftBlock propose(int32_t anchor, int32_t n, int32_t max_tokens) {
    SamplingParams greedy;
    greedy.temperature = 0.0f;
    return test::propose_one(*drafter_, 0, anchor, n, max_tokens, greedy);
  }

  ThreadPool pool_{2};
  json json_;
  Checkpoint values_;
  std::unique_ptr<TargetModel> target_;
  std::unique_ptr<PairedDrafter> drafter_;
  std::unique_ptr<test::Session> session_;
};

TEST_P(Eagle3Golden, ForcedRounds) {
  DraftTrace trace;
  drafter_->set_trace(&trace);
  const auto tokens = json_.at("forced_tokens").get<std::vector<int32_t>>();
  const json& rounds = json_.at("forced_rounds");
  int32_t n_told = 0, n_cached = 0;
  for (size_t i = 0; i < rounds.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "round " << i);
    const std::string prefix = "r" + std::to_string(i) + ".";
    const int32_t n = rounds[i].at("n");
    // What was committed before the round: tokens 0 .. n, of which the target computed all but the anchor.
    const test::Outputs outputs = run_target(
        std::span(tokens).subspan(static_cast<size_t>(n_cached), static_cast<size_t>(n - n_cached)));
    commit(outputs, n_cached, n - n_cached, n - n_cached, n_told,
           std::span(tokens).subspan(static_cast<size_t>(n_told), static_cast<size_t>(n + 1 - n_told)));
    n_told = n + 1;
    n_cached = n;
    if (i == 0) {
      EXPECT_LE(max_abs_diff(trace.context_rows, floats("prefill.g")), kTolerance);
      EXPECT_LE(max_abs_diff(trace.paired_rows, floats("prefill.output_hidden")), kTolerance);
      EXPECT_LE(max_abs_diff(test::cached_rows(*drafter_, 0, 0, false), floats("prefill.k0")), kTolerance);
      EXPECT_LE(max_abs_diff(test::cached_rows(*drafter_, 0, 0, true), floats("prefill.v0")), kTolerance);
    }
    const DraftBlock block = propose(tokens[static_cast<size_t>(n)], n, drafter_->max_block());
    const std::span<const int32_t> drafts = block.drafts(0);
    EXPECT_EQ(std::vector(drafts.begin(), drafts.end()), rounds[i].at("drafts").get<std::vector<int32_t>>());
    EXPECT_LE(max_abs_diff(trace.step_logits, floats(prefix + "step_logits")), kTolerance);
    EXPECT_LE(max_abs_diff(trace.layer_out, floats(prefix + "step_hidden")), kTolerance);
  }
}

// The reference's whole loop: draft (ending behind a stop token), verify greedily, commit.
TEST_P(Eagle3Golden, GreedyGenerations) {
  for (const json& expected : json_.at("generations")) {
    SCOPED_TRACE(expected.at("case").get<std::string>());
    const auto stops = expected.at("stop_token_ids").get<std::vector<int32_t>>();
    load(stops);
    session_->truncate(0, 0);
    auto tokens = expected.at("prompt").get<std::vector<int32_t>>();
    const auto vocab = static_cast<size_t>(target_->config().vocab_size);
    test::Outputs outputs = run_target(tokens);
    auto n = static_cast<int32_t>(tokens.size());
    tokens.push_back(test::argmax(outputs.logits.data() + outputs.logits.size() - vocab, vocab));
    commit(outputs, 0, n, n, 0, tokens);
    for (const json& round : expected.at("rounds")) {
      ASSERT_EQ(n, round.at("n").get<int32_t>());
      const DraftBlock block = propose(tokens.back(), n, drafter_->max_block());
      const std::span<const int32_t> drafts = block.drafts(0);
      ASSERT_EQ(std::vector(drafts.begin(), drafts.end()), round.at("drafts").get<std::vector<int32_t>>());
      std::vector<int32_t> rows = {tokens.back()};
      rows.insert(rows.end(), drafts.begin(), drafts.end());
      outputs = run_target(rows);
      int32_t accepted = 0;
      const auto choice = [&](int32_t row) {
        return test::argmax(outputs.logits.data() + static_cast<size_t>(row) * vocab, vocab);
      };
      while (accepted < block.n_tokens[0] && choice(accepted) == drafts[static_cast<size_t>(accepted)])
        ++accepted;
      ASSERT_EQ(accepted, round.at("accepted").get<int32_t>());
      if (round.at("next_token").is_null()) break;
      const int32_t next = choice(accepted);
      ASSERT_EQ(next, round.at("next_token").get<int32_t>());
      const size_t n_told = tokens.size();
      tokens.insert(tokens.end(), drafts.begin(), drafts.begin() + accepted);
      tokens.push_back(next);
      commit(outputs, n, static_cast<int32_t>(rows.size()), accepted + 1, n + 1,
             std::span(tokens).subspan(n_told));
      n += accepted + 1;
      session_->truncate(0, n);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Drafts, Eagle3Golden, testing::ValuesIn(eagle3_drafts()),
                         [](const auto& param) { return param.param.name; });

}  // namespace
}  // namespace dspark
