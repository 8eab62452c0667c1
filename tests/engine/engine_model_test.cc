// The promise of the engine with real weights and kernels: the same bits of text at any thread count, with
// any drafter, alone or in a batch, however the prompt is cut.

#include <gtest/gtest.h>

#include "engine/generation.h"
#include "engine/loader.h"
#include "engine/model_workload.h"
#include "kernels/kv_cache.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

std::vector<std::string> fixture_models() {
  const auto dir = test::data_dir() / "models";
  return {(dir / "gemma3_text_legacy_cfg" / "model.gguf").string(),
          (dir / "qwen2_bias_tied" / "model.gguf").string(), (dir / "qwen3_qknorm").string()};
}

LoadedModel load(const std::string& path, int n_threads, bool float_activations = false) {
  auto loaded =
      load_model(path, {.n_threads = n_threads, .float_activations = float_activations, .on_stage = {}});
  EXPECT_TRUE(loaded.ok()) << loaded.status().to_string();
  return std::move(loaded).value();
}

/// False for a q8_0 cache of heads that are no multiple of 32: it has one scale for 32 elements.
bool can_cache(const TargetModel& model, KvDType kv_dtype) {
  return KvPool::create(kv_dtype, model.kv_shapes(), 1).ok();
}

TEST(EngineModel, TextDoesNotDependOnHowItWasComputed) {
  const std::vector<test::Variant> variants = {
      {"none", 0, 4, 512},  {"none", 0, 3, 5},    {"ngram", 4, 1, 512}, {"garbage", 7, 4, 16},
      {"oracle", 16, 2, 9}, {"wrong", 3, 6, 512}, {"noisy", 8, 3, 32},  {"noisy", 1, 1, 1},
  };
  SpeculationStats total;
  uint32_t seed = 1;
  int n_q8_0 = 0;
  for (const std::string& path : fixture_models()) {
    for (const KvDType kv_dtype : {KvDType::kBF16, KvDType::kF32, KvDType::kQ8_0}) {
      SCOPED_TRACE(path);
      LoadedModel plain = load(path, 1);
      if (!can_cache(*plain.model, kv_dtype)) continue;
      n_q8_0 += kv_dtype == KvDType::kQ8_0;
      std::mt19937 rng(seed++);
      const auto requests = test::model_requests(rng, plain.model->config().vocab_size, 7, 60, 40);
      const auto expected = test::run_all(
          *test::variant_engine(*plain.model, {"none", 0, 1, 512}, kv_dtype, 128, {}), requests);
      const auto texts = test::joined(requests, expected);
      for (const int n_threads : {1, 2, 4}) {
        LoadedModel loaded = load(path, n_threads);
        for (const test::Variant& variant : variants) {
          const auto engine = test::variant_engine(*loaded.model, variant, kv_dtype, 128, texts);
          ASSERT_EQ(test::run_all(*engine, requests, &total), expected)
              << test::variant_name(variant) << " threads=" << n_threads;
        }
      }
    }
  }
  EXPECT_EQ(n_q8_0, 1);  // qwen3_qknorm: heads of 32
  EXPECT_GT(total.accepted, 1000);
  EXPECT_GT(total.verified - total.accepted, 1000);
}

/// Greedy text of the reference implementation, up to its first near tie.
TEST(EngineModel, GreedyTextIsTheReferences) {
  int n_compared = 0;
  for (const std::string& path : fixture_models()) {
    SCOPED_TRACE(path);
    LoadedModel loaded = load(path, 2, true);
    const std::filesystem::path at(path);
    const auto folder = std::filesystem::is_directory(at) ? at : at.parent_path();
    const auto expected = Checkpoint::open((folder / "expected.safetensors").string());
    ASSERT_TRUE(expected.ok()) << expected.status().to_string();
    const auto engine = test::variant_engine(*loaded.model, {"ngram", 6, 2, 11}, KvDType::kF32, 256, {});
    for (int i = 0; expected->find("seq" + std::to_string(i) + ".greedy_ids") != nullptr; ++i) {
      const std::string seq = "seq" + std::to_string(i);
      const TensorView& input = *expected->find(seq + ".input_ids");
      const TensorView& greedy = *expected->find(seq + ".greedy_ids");
      const auto* ids = reinterpret_cast<const int32_t*>(greedy.data);
      const auto* margins = reinterpret_cast<const float*>(expected->find(seq + ".greedy_margin")->data);
      GenerateRequest request;
      const auto* prompt = reinterpret_cast<const int32_t*>(input.data);
      request.prompt.assign(prompt, prompt + input.n_elements());
      request.sampling.temperature = 0.0f;
      request.max_tokens = static_cast<int32_t>(greedy.n_elements());
      request.ignore_eos = true;
      const auto result = generate(*engine, request);
      ASSERT_TRUE(result.ok()) << result.status().to_string();
      for (int64_t step = 0; step < greedy.n_elements() && margins[step] >= 1e-3f; ++step, ++n_compared) {
        ASSERT_EQ(result->tokens[static_cast<size_t>(step)], ids[step]) << seq << " step " << step;
      }
    }
  }
  EXPECT_GT(n_compared, 100);
}

}  // namespace
}  // namespace dspark
