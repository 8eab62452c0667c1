#pragma once
// What one round of a drafter gave for one request, compared bit by bit.

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "draft/draft_harness.h"

namespace dspark::test {

/// All that a round gave for one request.
struct RoundResult {
  std::vector<int32_t> tokens;
  std::vector<float> logits;
  std::vector<float> confidence;
};

inline void expect_same(const RoundResult& a, const RoundResult& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_TRUE(same_bits(a.logits, b.logits));
  EXPECT_TRUE(same_bits(a.confidence, b.confidence));
}

}  // namespace dspark::test
