// The same promise on a real model (SmolLM2-135M-Instruct), or on a small fixture when it was not fetched.

#include <gtest/gtest.h>

#include "engine/loader.h"
#include "engine/model_workload.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

TEST(EngineReal, TextDoesNotDependOnHowItWasComputed) {
  auto path = test::model_file("SmolLM2-135M-Instruct.Q4_1.gguf");
  if (path.empty()) path = test::data_dir() / "models" / "qwen2_bias_tied" / "model.gguf";
  SCOPED_TRACE(path.string());
  std::vector<std::vector<int32_t>> expected;
  std::vector<GenerateRequest> requests;
  SpeculationStats total;
  for (const int n_threads : {1, 2, 4}) {
    auto loaded =
        load_model(path.string(), {.n_threads = n_threads, .float_activations = false, .on_stage = {}});
    ASSERT_TRUE(loaded.ok()) << loaded.status().to_string();
    if (expected.empty()) {
      std::mt19937 rng(8);
      requests = test::model_requests(rng, loaded->model->config().vocab_size, 5, 150, 24);
      expected = test::run_all(
          *test::variant_engine(*loaded->model, {"none", 0, 1, 512}, KvDType::kBF16, 512, {}), requests);
    }
    const auto texts = test::joined(requests, expected);
    for (const test::Variant& variant : std::vector<test::Variant>{
             {"none", 0, 4, 512}, {"ngram", 8, 2, 512}, {"garbage", 5, 6, 64}, {"noisy", 7, 3, 33}}) {
      const auto engine = test::variant_engine(*loaded->model, variant, KvDType::kBF16, 512, texts);
      ASSERT_EQ(test::run_all(*engine, requests, &total), expected)
          << test::variant_name(variant) << " threads=" << n_threads;
    }
  }
  EXPECT_GT(total.accepted, 50);
}

}  // namespace
}  // namespace dspark
