// A learned drafter beside a real model (SmolLM2-135M-Instruct), or beside a small fixture when it was not
// fetched: text is that of plain decoding at every draft length, in batches and at 1, 2 and 4 threads. With a
// drafter of random weights hardly a draft is right, and what is tested is that none of its work shows; with
// the one in drafters/ many are.

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>

#include "engine/loader.h"
#include "engine/model_workload.h"
#include "engine/random_drafter_folder.h"
#include "models/tiny_model.h"
#include "support/test_paths.h"
#include "text/tokenizer.h"

namespace dspark {
namespace {

constexpr int32_t kBlock = 16;

LoadedModel load(const std::string& path, int n_threads) {
  auto loaded = load_model(path, {.n_threads = n_threads, .float_activations = false, .on_stage = {}});
  EXPECT_TRUE(loaded.ok()) << loaded.status().to_string();
  return std::move(loaded).value();
}

TEST(DraftedReal, TextIsThatOfPlainDecoding) {
  auto path = test::model_file("SmolLM2-135M-Instruct.Q4_1.gguf");
  if (path.empty()) path = test::data_dir() / "models" / "qwen2_bias_tied" / "model.gguf";
  SCOPED_TRACE(path.string());
  const test::TemporaryFolder folder;
  const std::string drafter_path = (folder.path() / "drafter").string();
  std::vector<GenerateRequest> requests;
  std::vector<std::vector<int32_t>> expected;
  SpeculationStats total;
  for (const int n_threads : {2, 1, 4}) {
    LoadedModel loaded = load(path.string(), n_threads);
    EngineOptions options;
    options.context_length = 256;
    if (expected.empty()) {
      test::write_random_drafter(drafter_path, loaded.model->config(), kBlock, 5);
      std::mt19937 rng(8);
      requests = test::model_requests(rng, loaded.model->config().vocab_size, 5, 60, 20);
      const auto plain = make_engine(loaded, options);
      ASSERT_TRUE(plain.ok()) << plain.status().to_string();
      expected = test::run_all(**plain, requests);
    }
    for (int32_t k = 0; k <= kBlock; ++k) {
      if (n_threads != 2 && k % 8 != 3) continue;
      SCOPED_TRACE("threads " + std::to_string(n_threads) + " fixed:" + std::to_string(k));
      options.policy = VerifyPolicy::fixed(k);
      options.max_sequences = 1 + (k * 2 + 4) % 5;
      options.prefill_rows = k % 2 == 0 ? 512 : 21;
      auto drafter = load_drafter(loaded, options, {.spec = drafter_path, .calibration = {}});
      ASSERT_TRUE(drafter.ok()) << drafter.status().to_string();
      const auto engine = make_engine(loaded, options, std::move(drafter).value());
      ASSERT_TRUE(engine.ok()) << engine.status().to_string();
      ASSERT_EQ(test::run_all(**engine, requests, &total), expected);
    }
  }
  EXPECT_GT(total.verified, 1000);
}

/// Chat requests in the template of SmolLM2, greedy or sampled.
std::vector<GenerateRequest> chat_requests(const Tokenizer& tokenizer, float temperature) {
  std::vector<GenerateRequest> requests;
  for (const char* question :
       {"Write a Python function that returns the n-th Fibonacci number.",
        "Tom has 3 boxes with 12 apples each and gives 7 apples away. How many are left?",
        "List the days of the week, one per line.", "Explain what a hash table is."}) {
    GenerateRequest request;
    request.prompt = tokenizer.encode(
        "<|im_start|>user\n" + std::string(question) + "<|im_end|>\n<|im_start|>assistant\n", false, true);
    request.max_tokens = 48;
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
TEST(DraftedReal, TheShippedDrafterDraftsAndDoesNotShow) {
  const auto path = test::model_file("SmolLM2-135M-Instruct.Q4_1.gguf");
  if (path.empty()) GTEST_SKIP() << "the model was not fetched: scripts/fetch-models smollm2";
  const std::string drafter_path =
      std::string(DSPARK_SOURCE_DIR) + "/drafters/smollm2-135m-instruct/dspark.gguf";
  LoadedModel loaded = load(path.string(), 2);
  SpeculationStats total;
  for (const float temperature : {0.0f, 0.7f}) {
    const std::vector<GenerateRequest> requests = chat_requests(*loaded.tokenizer, temperature);
    EngineOptions options;
    options.context_length = 256;
    options.max_sequences = 2;
    const auto plain = make_engine(loaded, options);
    ASSERT_TRUE(plain.ok()) << plain.status().to_string();
    const auto expected = test::run_all(**plain, requests);
    for (const bool measured : {false, true}) {
      SCOPED_TRACE("temperature " + std::to_string(temperature) + (measured ? " measured" : " table"));
      auto drafter =
          load_drafter(loaded, options,
                       {.spec = drafter_path, .calibration = {}, .hybrid = true, .temperature = temperature});
      ASSERT_TRUE(drafter.ok()) << drafter.status().to_string();
      EngineOptions drafting = options;
      drafting.policy = default_policy(drafter->get());
      ASSERT_TRUE(drafting.policy.needs_costs());
      drafting.cost_probe_s = 0.1;
      if (!measured) {
        drafting.costs = CostTable{.verify = {{1, 2.0e-3}, {4, 2.6e-3}, {8, 4.0e-3}, {16, 8.0e-3}},
                                   .draft = {{1, 0.4e-3}, {2, 0.5e-3}},
                                   .draft_short = {}};
        drafting.clock = [] { return std::chrono::steady_clock::time_point(); };
      }
      const auto engine = make_engine(loaded, drafting, std::move(drafter).value());
      ASSERT_TRUE(engine.ok()) << engine.status().to_string();
      SpeculationStats measured_stats;
      ASSERT_EQ(test::run_all(**engine, requests, measured ? &measured_stats : &total), expected);
    }
  }
  EXPECT_GT(total.accept_len(), 1.3);
  EXPECT_GT(total.accepted, total.lookup_accepted) << "the model's own drafts, not only looked-up ones";
}

}  // namespace
}  // namespace dspark
