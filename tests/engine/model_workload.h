#pragma once
// Runs of real kernels through the engine that must give the same text however they are executed.

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "draft/ngram.h"
#include "draft/test_drafters.h"
#include "engine/engine.h"
#include "engine/request.h"

namespace dspark::test {

/// Prompts of random length, half of them repetitive so that prompt lookup finds something; greedy and
/// sampled, with and without filters and penalties.
inline std::vector<GenerateRequest> model_requests(std::mt19937& rng, int32_t vocab_size, size_t n,
                                                   int32_t max_prompt, int32_t max_tokens) {
  std::vector<GenerateRequest> requests(n);
  for (size_t i = 0; i < n; ++i) {
    GenerateRequest& request = requests[i];
    request.prompt.resize(rng() % static_cast<uint32_t>(max_prompt) + 1);
    const uint32_t period = i % 2 == 0 ? static_cast<uint32_t>(request.prompt.size()) : rng() % 7 + 1;
    for (size_t p = 0; p < request.prompt.size(); ++p) {
      request.prompt[p] = p < period ? static_cast<int32_t>(rng() % static_cast<uint32_t>(vocab_size))
                                     : request.prompt[p - period];
    }
    request.max_tokens = static_cast<int32_t>(rng() % static_cast<uint32_t>(max_tokens)) + 2;
    request.ignore_eos = true;
    request.sampling.seed = rng();
    request.sampling.temperature = i % 3 == 0 ? 0.0f : 0.8f;
    if (i % 4 == 1) request.sampling.top_p = 0.9f;
    if (i % 4 == 2) request.sampling.top_k = 20;
    if (i % 4 == 3) request.sampling.repetition_penalty = 1.2f;
  }
  return requests;
}

/// All requests through one engine; returns their output tokens.
inline std::vector<std::vector<int32_t>> run_all(Engine& engine, const std::vector<GenerateRequest>& requests,
                                                 SpeculationStats* total = nullptr) {
  std::vector<std::vector<int32_t>> outputs(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto id = engine.submit(requests[i], [&outputs, i](const StreamUpdate& update) {
      for (const TokenEvent& event : update.tokens) outputs[i].push_back(event.token);
    });
    EXPECT_TRUE(id.ok()) << id.status().to_string();
  }
  while (engine.has_work()) {
    engine.step();
    const Status intact = engine.check_integrity();
    EXPECT_TRUE(intact.ok()) << intact.to_string();
  }
  if (total != nullptr) total->add(engine.stats().speculation);
  return outputs;
}

/// One way to run requests.
struct Variant {
  std::string drafter;  // none, ngram, garbage, oracle, wrong, noisy
  int32_t k = 4;
  int32_t max_sequences = 1;
  int32_t prefill_rows = 512;
};

inline std::string variant_name(const Variant& v) {
  return v.drafter + " K=" + std::to_string(v.k) + " sequences=" + std::to_string(v.max_sequences) +
         " prefill=" + std::to_string(v.prefill_rows);
}

/// An engine for `variant`. texts: prompts with their right continuations, for the drafters that cheat.
inline std::unique_ptr<Engine> variant_engine(TargetModel& model, const Variant& variant, KvDType kv_dtype,
                                              int32_t context_length,
                                              const std::vector<std::vector<int32_t>>& texts) {
  const int32_t vocab_size = model.config().vocab_size;
  std::unique_ptr<Drafter> drafter;
  if (variant.drafter == "ngram") drafter = std::make_unique<NgramDrafter>(NgramOptions{});
  if (variant.drafter == "garbage") drafter = garbage_drafter(5, vocab_size);
  if (variant.drafter == "oracle") drafter = oracle_drafter(texts, vocab_size, 0);
  if (variant.drafter == "wrong") drafter = oracle_drafter(texts, vocab_size, 1);
  if (variant.drafter == "noisy") drafter = oracle_drafter(texts, vocab_size, 0, 3);
  EngineOptions options;
  options.max_sequences = variant.max_sequences;
  options.context_length = context_length;
  options.kv_dtype = kv_dtype;
  options.prefill_rows = variant.prefill_rows;
  options.policy = VerifyPolicy::fixed(variant.k);
  auto engine = Engine::create(model, options, std::move(drafter));
  EXPECT_TRUE(engine.ok()) << engine.status().to_string();
  return std::move(engine).value();
}

inline std::vector<std::vector<int32_t>> joined(const std::vector<GenerateRequest>& requests,
                                                const std::vector<std::vector<int32_t>>& outputs) {
  std::vector<std::vector<int32_t>> texts;
  for (size_t i = 0; i < requests.size(); ++i) {
    texts.push_back(requests[i].prompt);
    texts.back().insert(texts.back().end(), outputs[i].begin(), outputs[i].end());
  }
  return texts;
}

}  // namespace dspark::test
