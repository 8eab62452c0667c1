// A learned drafter beside a real model (SmolLM2-135M-Instruct), or beside a small fixture when it was not
// fetched: text is that of plain decoding at every draft length, in batches and at 1, 2 and 4 threads. The
// drafter's weights are random, so hardly a draft is right; what is tested is that none of its work shows.

#include <gtest/gtest.h>

#include <filesystem>

#include "engine/loader.h"
#include "engine/model_workload.h"
#include "engine/random_drafter_folder.h"
#include "models/tiny_model.h"
#include "support/test_paths.h"

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

}  // namespace
}  // namespace dspark
