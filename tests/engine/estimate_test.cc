// Confidences where a drafter has none: the engine learns them from its rounds.

#include <gtest/gtest.h>

#include "draft/test_drafters.h"
#include "engine/watch.h"
#include "speculate/logits_processor.h"

namespace dspark {
namespace {

/// Continues as the fake model does when it is greedy, or always with another token.
test::ScriptedDrafter::ProposeRow continuation(bool is_right) {
  return [is_right](const std::vector<int32_t>& tokens, std::span<int32_t> out) {
    std::vector<int32_t> text = tokens;
    std::vector<float> logits;
    for (int32_t& draft : out) {
      logits.clear();
      test::FakeModel::append_logits_after(text, 40, logits);
      text.push_back(argmax(logits));
      draft = is_right ? text.back() : (text.back() + 1) % 40;
    }
    return static_cast<int32_t>(out.size());
  };
}

/// What was predicted of first drafts, in the mean over a greedy text of 200 tokens.
DriftPosition first_drafts(bool is_right) {
  test::FakeModel model;
  EngineOptions options;
  options.context_length = 400;
  options.kv_dtype = KvDType::kF32;
  options.policy = VerifyPolicy::fixed(2);
  const auto engine =
      test::make(model, options, std::make_unique<test::ScriptedDrafter>(continuation(is_right)));
  test::Watch watch(*engine);
  watch.submit(test::request_of(1, 8, 200));
  watch.finish();
  return engine->stats().scheduler.drift[0];
}

// What a step taught counts from the next one on; before anything was seen every second draft is believed.
TEST(Estimates, FollowWhatBecomesOfDrafts) {
  const DriftPosition right = first_drafts(true), wrong = first_drafts(false);
  EXPECT_EQ(right.observed, 1.0);
  EXPECT_GT(right.predicted, 0.85);
  EXPECT_EQ(wrong.observed, 0.0);
  EXPECT_LT(wrong.predicted, 0.1);
  EXPECT_GT(right.count, 60);
  EXPECT_GT(wrong.count, 190);
}

}  // namespace
}  // namespace dspark
