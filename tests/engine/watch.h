#pragma once
// Requests of an engine over the fake model, and what was seen of each.

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/fake_model.h"

namespace dspark::test {

/// A greedy request with a prompt of the fake model's tokens that goes on to its last token.
inline GenerateRequest request_of(int32_t first, int32_t n_prompt, int32_t max_tokens) {
  GenerateRequest request;
  request.prompt.resize(static_cast<size_t>(n_prompt));
  for (int32_t i = 0; i < n_prompt; ++i) request.prompt[static_cast<size_t>(i)] = (first + i * 7) % 40;
  request.sampling.temperature = 0.0f;
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  return request;
}

inline std::unique_ptr<Engine> make(FakeModel& model, EngineOptions options,
                                    std::unique_ptr<Drafter> drafter = nullptr) {
  auto engine = Engine::create(model, std::move(options), std::move(drafter));
  EXPECT_TRUE(engine.ok()) << engine.status().to_string();
  return std::move(engine).value();
}

/// What one request answered.
struct Watched {
  std::vector<int32_t> tokens;
  std::vector<int32_t> prompt_done;
  FinishReason reason = FinishReason::kNone;
  GenerateStats stats;
  int64_t first_step = -1, last_step = -1;
};

/// Requests of one engine with the steps at which they answered.
struct Watch {
  /// Far more than any test needs: who waits longer waits for what never comes.
  static constexpr int64_t kMostSteps = 100'000;

  explicit Watch(Engine& e) : engine(e) {}
  RequestId submit(GenerateRequest request) {
    auto& one = all.emplace_back(std::make_unique<Watched>());
    const auto id = engine.submit(std::move(request), [this, &out = *one](const StreamUpdate& update) {
      for (const TokenEvent& event : update.tokens) {
        EXPECT_EQ(event.position, update.prompt_tokens + static_cast<int32_t>(out.tokens.size()));
        out.tokens.push_back(event.token);
      }
      if (!update.tokens.empty() && out.first_step < 0) out.first_step = n_steps;
      out.prompt_done.push_back(update.prompt_done);
      out.reason = update.finish_reason;
      out.stats = *update.stats;
      out.last_step = n_steps;
    });
    EXPECT_TRUE(id.ok()) << id.status().to_string();
    return id.ok() ? *id : 0;
  }
  void step() {
    engine.step();
    ++n_steps;
    const Status intact = engine.check_integrity();
    EXPECT_TRUE(intact.ok()) << intact.to_string();
  }
  /// Steps until `is_done()`. returns: false when that did not come in kMostSteps steps; an engine that does
  /// not go on then fails its test instead of never ending it.
  template <typename Predicate>
  [[nodiscard]] bool step_until(const Predicate& is_done) {
    for (int64_t n = 0; n < kMostSteps; ++n) {
      if (is_done()) return true;
      step();
    }
    return is_done();
  }
  /// step_until() request `i` is over.
  [[nodiscard]] bool step_to_end_of(size_t i) {
    return step_until([&] { return all[i]->reason != FinishReason::kNone; });
  }
  void finish() {
    EXPECT_TRUE(step_until([&] { return !engine.has_work(); })) << "there is work that is never done";
  }
  const Watched& operator[](size_t i) const { return *all[i]; }

  Engine& engine;
  int64_t n_steps = 0;
  std::vector<std::unique_ptr<Watched>> all;
};

}  // namespace dspark::test
