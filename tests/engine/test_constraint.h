#pragma once
// A constraint that jumps with the newest tokens, and what a request must produce under it.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "engine/reference_generation.h"
#include "engine/text_distribution.h"
#include "speculate/token_constraint.h"

namespace dspark::test {

/// Allows two thirds of the tokens, which ones depends on the last two; the text is complete after `length`
/// tokens, and no token is allowed after `dead_end`.
class TestConstraint final : public TokenConstraint {
 public:
  TestConstraint(int32_t vocab_size, size_t length, size_t dead_end = 1000)
      : vocab_size_(vocab_size), length_(length), dead_end_(dead_end) {}

  bool allows(const std::vector<int32_t>& output, int32_t token) const {
    if (output.size() >= length_ || output.size() >= dead_end_) return false;
    const uint64_t last = output.empty() ? 0 : static_cast<uint64_t>(output.back());
    const uint64_t before = output.size() < 2 ? 0 : static_cast<uint64_t>(output[output.size() - 2]);
    return mixed(last * 50 + before * 7 + static_cast<uint64_t>(token) * 977) % 3 != 0;
  }
  bool complete(const std::vector<int32_t>& output) const { return output.size() >= length_; }

  int32_t vocab_size() const override { return vocab_size_; }
  std::unique_ptr<ConstraintState> start(std::span<const int32_t>) const override;

 private:
  int32_t vocab_size_;
  size_t length_, dead_end_;
};

class TestState final : public ConstraintState {
 public:
  explicit TestState(const TestConstraint& constraint)
      : constraint_(constraint), mask_(token_mask_words(constraint.vocab_size())) {}

  TokenMask allowed() override {
    std::fill(mask_.begin(), mask_.end(), 0u);
    for (int32_t t = 0; t < constraint_.vocab_size(); ++t) {
      if (constraint_.allows(output_, t)) mask_[static_cast<size_t>(t) / 32] |= 1u << (t % 32);
    }
    return mask_;
  }
  bool advance(int32_t token) override {
    if (!constraint_.allows(output_, token)) return false;
    output_.push_back(token);
    return true;
  }
  void rollback(int32_t n) override {
    ASSERT_LE(n, kMaxConstraintRollback);
    ASSERT_LE(static_cast<size_t>(n), output_.size());
    output_.resize(output_.size() - static_cast<size_t>(n));
  }
  bool finished() const override { return constraint_.complete(output_); }

 private:
  const TestConstraint& constraint_;
  std::vector<uint32_t> mask_;
  std::vector<int32_t> output_;
};

inline std::unique_ptr<ConstraintState> TestConstraint::start(std::span<const int32_t>) const {
  return std::make_unique<TestState>(*this);
}

/// By the definition: one token after the other, the row masked before everything else. requires: nothing but
/// max_tokens and the constraint ends the text.
inline Expected constrained_output(const GenerateRequest& request, const TestConstraint& constraint) {
  Expected expected;
  std::vector<int32_t> tokens = request.prompt;
  TokenCounts counts;
  counts.reset(tokens);
  SamplerScratch scratch;
  while (expected.reason == FinishReason::kNone) {
    std::vector<float> logits;
    FakeModel::append_logits_after(tokens, kFakeVocab, logits);
    bool any = false;
    for (int32_t t = 0; t < kFakeVocab; ++t) {
      if (constraint.allows(expected.tokens, t)) {
        any = true;
      } else {
        logits[static_cast<size_t>(t)] = -INFINITY;
      }
    }
    if (!any) {
      expected.reason = FinishReason::kConstraint;
      break;
    }
    const int32_t token =
        choose_token(logits, request.sampling, &counts, static_cast<int64_t>(tokens.size()), scratch);
    tokens.push_back(token);
    counts.push(token);
    expected.tokens.push_back(token);
    fake_token_bytes(token, expected.text);
    if (constraint.complete(expected.tokens)) {
      expected.reason = FinishReason::kStop;
    } else if (static_cast<int32_t>(expected.tokens.size()) == request.max_tokens) {
      expected.reason = FinishReason::kLength;
    }
  }
  return expected;
}

}  // namespace dspark::test
