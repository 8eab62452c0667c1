// Learned drafters beside real models, each that lies in models/cache: text is that of plain decoding at
// every draft length from 0 to 16, in batches of up to eight and at 1, 2 and 4 threads, greedy and sampled.
// The drafter is the one in drafters/ where the model has one; for lengths beyond its block, for models
// without, and for all other kinds one of random weights takes its place: hardly a draft of it is right, and
// what is tested is that none of its work shows. Without any model a small fixture stands in.

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <iostream>
#include <ostream>
#include <string>
#include <vector>

#include "draft/draft_checkpoint.h"
#include "engine/loader.h"
#include "engine/model_workload.h"
#include "engine/random_drafter_folder.h"
#include "models/tiny_model.h"
#include "support/test_paths.h"
#include "text/tokenizer.h"

namespace dspark {
namespace {

constexpr int32_t kMostDrafts = 16;

struct RealModel {
  std::string name;
  std::string file;     // in models/cache; empty: the fixture
  std::string fetch;    // what scripts/fetch-models calls it
  std::string drafter;  // folder in drafters/
  int32_t chat_tokens;  // of an answer in the test of the default policy: as many as the model has time for
  double least_accept_len;
  bool all_lengths;  // at every number of threads; else the larger models take minutes
};
void PrintTo(const RealModel& model, std::ostream* out) {
  *out << model.name;
}

const RealModel kRealModels[] = {
    {"SmolLM2", "SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2", "smollm2-135m-instruct", 48, 1.3, true},
    {"Qwen2_5Coder", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "qwen2.5-coder",
     "qwen2.5-coder-0.5b-instruct", 12, 1.1, false},
    {"Gemma3", "gemma-3-270m-q4_k_m.gguf", "gemma3", "gemma-3-270m", 24, 1.1, false},
};

/// The real models, there or not, and the fixture when none is.
std::vector<RealModel> models() {
  std::vector<RealModel> all(std::begin(kRealModels), std::end(kRealModels));
  for (const RealModel& model : all) {
    if (!test::model_file(model.file).empty()) return all;
  }
  all.push_back({"TinyFixture", "", "", "", 0, 0.0, true});
  return all;
}

/// "" where the repository has none.
std::string shipped_drafter(const RealModel& model) {
  const auto path = std::filesystem::path(DSPARK_SOURCE_DIR) / "drafters" / model.drafter / "dspark.gguf";
  return !model.drafter.empty() && std::filesystem::exists(path) ? path.string() : "";
}

std::vector<RealModel> models_with_drafter() {
  std::vector<RealModel> all(std::begin(kRealModels), std::end(kRealModels));
  std::erase_if(all, [](const RealModel& model) { return shipped_drafter(model).empty(); });
  return all;
}

LoadedModel load(const std::string& path, int n_threads) {
  auto loaded = load_model(path, {.n_threads = n_threads, .float_activations = false, .on_stage = {}});
  EXPECT_TRUE(loaded.ok()) << loaded.status().to_string();
  return std::move(loaded).value();
}

std::string text_name(const testing::TestParamInfo<RealModel>& info) {
  return info.param.name;
}

class DraftedReal : public testing::TestWithParam<RealModel> {
 protected:
  void SetUp() override {
    const RealModel& model = GetParam();
    path_ = model.file.empty() ? test::data_dir() / "models" / "qwen2_bias_tied" / "model.gguf"
                               : test::model_file(model.file);
    if (path_.empty()) GTEST_SKIP() << "the model was not fetched: scripts/fetch-models " << model.fetch;
    shipped_ = shipped_drafter(model);
    if (model.file.empty()) say("no real model is in models/cache: a small fixture stands in");
  }

  static void say(const std::string& text) { std::cout << "[     NOTE ] " << text << std::endl; }

  std::filesystem::path path_;
  std::string shipped_;  // path of the shipped drafter, or ""
};

/// Long enough for 16 drafts in one round, greedy and sampled, and a short one that leaves the batch early.
std::vector<GenerateRequest> short_requests(const LoadedModel& loaded) {
  struct Wanted {
    const char* prompt;
    int32_t max_tokens;
    float temperature;
  };
  constexpr Wanted kWanted[] = {{"1, 2, 3, 4, 5,", kMostDrafts + 2, 0.0f},
                                {"Monday, Tuesday,", kMostDrafts + 2, 0.8f},
                                {"def add(a, b):\n    return", 5, 0.8f}};
  std::mt19937 rng(8);
  std::vector<GenerateRequest> requests =
      test::model_requests(rng, loaded.model->config().vocab_size, std::size(kWanted), 12, 4);
  for (size_t i = 0; i < requests.size(); ++i) {
    if (loaded.tokenizer != nullptr) {
      requests[i].prompt = loaded.tokenizer->encode(kWanted[i].prompt, true, false);
    }
    requests[i].max_tokens = kWanted[i].max_tokens;
    requests[i].sampling.temperature = kWanted[i].temperature;
  }
  requests[1].sampling.top_p = 1.0f;  // noise over the whole row; the third keeps its filter
  return requests;
}

TEST_P(DraftedReal, TextIsThatOfPlainDecoding) {
  const test::TemporaryFolder folder;
  const std::string random = (folder.path() / "drafter").string();
  int32_t n_shipped = -1;  // lengths that the shipped drafter has
  if (!shipped_.empty()) {
    const auto draft = open_draft_checkpoint(shipped_);
    ASSERT_TRUE(draft.ok()) << draft.status().to_string();
    n_shipped = draft->config.n_drafts();
    say("the shipped drafter drafts 0 to " + std::to_string(n_shipped) + " tokens, a random one more");
  } else {
    say("a random drafter drafts 0 to " + std::to_string(kMostDrafts) + " tokens");
  }
  std::vector<GenerateRequest> requests;
  std::vector<std::vector<int32_t>> expected;
  SpeculationStats shipped_stats, total;
  for (const int n_threads : {2, 1, 4}) {
    LoadedModel loaded = load(path_.string(), n_threads);
    EngineOptions options;
    options.context_length = 256;
    if (expected.empty()) {
      test::write_random_drafter(random, loaded.model->config(), kMostDrafts, 5);
      requests = short_requests(loaded);
      const auto plain = make_engine(loaded, options);
      ASSERT_TRUE(plain.ok()) << plain.status().to_string();
      expected = test::run_all(**plain, requests);
    }
    for (int32_t k = 0; k <= kMostDrafts; ++k) {
      if (n_threads != 2 && !GetParam().all_lengths && k != 3 && k != kMostDrafts) continue;
      SCOPED_TRACE("threads " + std::to_string(n_threads) + " fixed:" + std::to_string(k));
      options.policy = VerifyPolicy::fixed(k);
      options.max_sequences = 3 - k % 3;
      options.prefill_rows = k % 2 == 0 ? 512 : 5;
      const bool is_shipped = k <= n_shipped;
      auto drafter =
          load_drafter(loaded, options, {.spec = is_shipped ? shipped_ : random, .calibration = {}});
      ASSERT_TRUE(drafter.ok()) << drafter.status().to_string();
      ASSERT_GE((*drafter)->max_block(), k);
      const auto engine = make_engine(loaded, options, std::move(drafter).value());
      ASSERT_TRUE(engine.ok()) << engine.status().to_string();
      ASSERT_EQ(test::run_all(**engine, requests, is_shipped ? &shipped_stats : &total), expected);
    }
  }
  if (n_shipped > 0) {
    EXPECT_GT(shipped_stats.accepted, 15);
    EXPECT_GT(shipped_stats.verified - shipped_stats.accepted, 15);
  }
  total.add(shipped_stats);
  EXPECT_GT(total.proposed_at[kMostDrafts - 1], 0) << "no round verified 16 drafts";
  EXPECT_GT(total.verified, 800);
}

/// Eight requests, greedy and sampled, that begin and end apart from each other.
std::vector<GenerateRequest> eight_requests(const LoadedModel& loaded) {
  std::mt19937 rng(17);
  std::vector<GenerateRequest> requests =
      test::model_requests(rng, loaded.model->config().vocab_size, 8, 12, 4);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].max_tokens = 6 + static_cast<int32_t>(i);
    if (loaded.tokenizer == nullptr) continue;
    const std::string prompt = "Item " + std::to_string(i) + ", item " + std::to_string(i + 1) + ", item";
    requests[i].prompt = loaded.tokenizer->encode(prompt, true, false);
  }
  return requests;
}

TEST_P(DraftedReal, BatchOfEightIsEightSingleRuns) {
  const test::TemporaryFolder folder;
  const std::string random = (folder.path() / "drafter").string();
  std::vector<GenerateRequest> requests;
  std::vector<std::vector<int32_t>> expected;
  SpeculationStats total;
  for (const int n_threads : {2, 1}) {
    LoadedModel loaded = load(path_.string(), n_threads);
    EngineOptions options;
    options.context_length = 128;
    if (expected.empty()) {
      test::write_random_drafter(random, loaded.model->config(), kMostDrafts, 5);
      requests = eight_requests(loaded);
      const auto plain = make_engine(loaded, options);  // one sequence at a time
      ASSERT_TRUE(plain.ok()) << plain.status().to_string();
      expected = test::run_all(**plain, requests);
    }
    options.max_sequences = 8;
    for (const std::string& drafter : {shipped_, random}) {
      if (drafter.empty()) continue;
      SCOPED_TRACE(drafter + " threads " + std::to_string(n_threads));
      options.policy = VerifyPolicy::fixed(drafter == random ? 11 : 4);
      auto made = load_drafter(loaded, options, {.spec = drafter, .calibration = {}, .hybrid = true});
      ASSERT_TRUE(made.ok()) << made.status().to_string();
      const auto engine = make_engine(loaded, options, std::move(made).value());
      ASSERT_TRUE(engine.ok()) << engine.status().to_string();
      ASSERT_EQ(test::run_all(**engine, requests, &total), expected);
    }
  }
  EXPECT_GT(total.verified, 100);
}

/// Every kind of drafter that there is, each with as many drafts as it can make.
TEST_P(DraftedReal, RandomDraftersOfAllKindsDoNotShow) {
  LoadedModel loaded = load(path_.string(), 2);
  const ModelConfig& target = loaded.model->config();
  const std::vector<GenerateRequest> requests = short_requests(loaded);
  EngineOptions options;
  options.context_length = 128;
  options.max_sequences = 3;
  const auto plain = make_engine(loaded, options);
  ASSERT_TRUE(plain.ok()) << plain.status().to_string();
  const auto expected = test::run_all(**plain, requests);
  for (const test::RandomDrafterKind kind : test::kRandomDrafterKinds) {
    if (kind == test::RandomDrafterKind::kVanilla) continue;                        // in the test above
    if (kind == test::RandomDrafterKind::kEagle3 && target.n_layers < 6) continue;  // too few to tap
    SCOPED_TRACE(test::random_drafter_name(kind));
    const test::TemporaryFolder folder;
    const std::string path = (folder.path() / "drafter").string();
    test::write_random_drafter(path, target, 6, 5, kind);
    options.policy = VerifyPolicy::fixed(6);
    auto drafter = load_drafter(loaded, options, {.spec = path, .calibration = {}});
    ASSERT_TRUE(drafter.ok()) << drafter.status().to_string();
    EXPECT_EQ((*drafter)->max_block(), kind == test::RandomDrafterKind::kMtp ? 1 : 6);
    const auto engine = make_engine(loaded, options, std::move(drafter).value());
    ASSERT_TRUE(engine.ok()) << engine.status().to_string();
    SpeculationStats stats;
    ASSERT_EQ(test::run_all(**engine, requests, &stats), expected);
    EXPECT_GT(stats.verified, 15);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, DraftedReal, testing::ValuesIn(models()), text_name);

/// Chat requests in the ChatML template, greedy or sampled.
std::vector<GenerateRequest> chat_requests(const Tokenizer& tokenizer, float temperature,
                                           int32_t max_tokens) {
  std::vector<GenerateRequest> requests;
  for (const char* question :
       {"Write a Python function that returns the n-th Fibonacci number.",
        "Tom has 3 boxes with 12 apples each and gives 7 apples away. How many are left?",
        "List the days of the week, one per line.", "Explain what a hash table is."}) {
    GenerateRequest request;
    request.prompt = tokenizer.encode(
        "<|im_start|>user\n" + std::string(question) + "<|im_end|>\n<|im_start|>assistant\n", false, true);
    request.max_tokens = max_tokens;
    request.sampling.temperature = temperature;
    request.sampling.seed = 40 + requests.size();
    requests.push_back(std::move(request));
  }
  return requests;
}

/// The drafter that lies in the repository, joined with prompt lookup and under the default policy, as
/// `dspark run -d` uses it: the text is that of plain decoding, greedy and sampled, and the drafts are of
/// use. The costs are a table and the clock stands still, so which drafts are verified does not depend on how
/// busy this machine is; once they are measured, as users have it, and then only the text counts.
class ShippedDrafter : public DraftedReal {};

TEST_P(ShippedDrafter, DraftsAndDoesNotShow) {
  LoadedModel loaded = load(path_.string(), 2);
  SpeculationStats total;
  for (const float temperature : {0.0f, 0.7f}) {
    const std::vector<GenerateRequest> requests =
        chat_requests(*loaded.tokenizer, temperature, GetParam().chat_tokens);
    EngineOptions options;
    options.context_length = 256;
    options.max_sequences = 2;
    const auto plain = make_engine(loaded, options);
    ASSERT_TRUE(plain.ok()) << plain.status().to_string();
    const auto expected = test::run_all(**plain, requests);
    for (const bool measured : {false, true}) {
      SCOPED_TRACE("temperature " + std::to_string(temperature) + (measured ? " measured" : " table"));
      auto drafter = load_drafter(
          loaded, options, {.spec = shipped_, .calibration = {}, .hybrid = true, .temperature = temperature});
      ASSERT_TRUE(drafter.ok()) << drafter.status().to_string();
      EngineOptions drafting = options;
      drafting.policy = default_policy(drafter->get());
      ASSERT_TRUE(drafting.policy.needs_costs());
      drafting.cost_probe_s = 0.1;
      if (!measured) {
        drafting.costs = CostTable{.verify = {{1, 2.0e-3}, {4, 2.6e-3}, {8, 4.0e-3}, {16, 8.0e-3}},
                                   .draft = {{1, 0.4e-3}, {2, 0.5e-3}},
                                   .draft_short = {},
                                   .context_curve = {}};
        drafting.clock = [] { return std::chrono::steady_clock::time_point(); };
      }
      const auto engine = make_engine(loaded, drafting, std::move(drafter).value());
      ASSERT_TRUE(engine.ok()) << engine.status().to_string();
      SpeculationStats measured_stats;
      ASSERT_EQ(test::run_all(**engine, requests, measured ? &measured_stats : &total), expected);
    }
  }
  EXPECT_GT(total.accept_len(), GetParam().least_accept_len);
  EXPECT_GT(total.accepted, total.lookup_accepted) << "the model's own drafts, not only looked-up ones";
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ShippedDrafter);  // in a tree without drafters
INSTANTIATE_TEST_SUITE_P(Models, ShippedDrafter, testing::ValuesIn(models_with_drafter()), text_name);

}  // namespace
}  // namespace dspark
