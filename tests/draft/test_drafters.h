#pragma once
// Drafters for tests of the engine: from always right to hostile.

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "draft/drafter.h"

namespace dspark::test {

/// Remembers what it was told and checks the order of the calls; what it proposes is up to `propose_row`,
/// which gets the sequence's tokens so far and room for its drafts, and returns how many it wrote.
class ScriptedDrafter final : public Drafter {
 public:
  using ProposeRow = std::function<int32_t(const std::vector<int32_t>& tokens, std::span<int32_t> out)>;

  explicit ScriptedDrafter(ProposeRow propose_row, int32_t max_block = 64, std::vector<int32_t> taps = {})
      : propose_row_(std::move(propose_row)), max_block_(max_block), taps_(std::move(taps)) {}

  std::string_view name() const override { return "scripted"; }
  int32_t max_block() const override { return max_block_; }
  std::span<const int32_t> tap_layers() const override { return taps_; }

  Status propose(std::span<const DraftRequest> requests, DraftBlock& out) override {
    EXPECT_FALSE(requests.empty());
    for (size_t i = 0; i < requests.size(); ++i) {
      const std::vector<int32_t>& tokens = told_[requests[i].slot];
      EXPECT_EQ(static_cast<int32_t>(tokens.size()), requests[i].position + 1) << "drafter was not told all";
      if (!tokens.empty()) {
        EXPECT_EQ(tokens.back(), requests[i].anchor);
      }
      EXPECT_GE(requests[i].max_tokens, 1);
      EXPECT_LE(requests[i].max_tokens, out.stride);
      out.n_tokens[i] = propose_row_(tokens, out.row(i));
    }
    if (confident_) {
      out.has_confidence = true;
      for (float& confidence : out.confidence) confidence = static_cast<float>(rng_() % 101) / 100.0f;
    }
    return fails_ ? internal_error("scripted failure") : ok_status();
  }

  void commit(std::span<const CommitEvent> events) override {
    std::vector<int32_t> slots;
    for (const CommitEvent& event : events) {
      EXPECT_EQ(std::count(slots.begin(), slots.end(), event.slot), 0) << "slot twice in one commit";
      slots.push_back(event.slot);
      std::vector<int32_t>& tokens = told_[event.slot];
      EXPECT_EQ(static_cast<int32_t>(tokens.size()), event.token_position);
      tokens.insert(tokens.end(), event.tokens.begin(), event.tokens.end());
      EXPECT_EQ(features_seen_[event.slot], event.feature_position) << "feature rows skipped or repeated";
      features_seen_[event.slot] += event.n_features;
      EXPECT_LE(features_seen_[event.slot], static_cast<int32_t>(tokens.size()));
      if (!taps_.empty()) check_features(event, tokens);
    }
  }

  void release(int32_t slot) override {
    told_.erase(slot);
    features_seen_.erase(slot);
  }

  void fail_from_now_on() { fails_ = true; }
  /// From now on proposals come with random confidences.
  void be_confident(uint32_t seed) {
    confident_ = true;
    rng_.seed(seed);
  }
  size_t n_live_slots() const { return told_.size(); }

 private:
  /// The fake model's residual stream of tap t at token x is x + 1000 * t, in every element.
  void check_features(const CommitEvent& event, const std::vector<int32_t>& tokens) const {
    ASSERT_NE(event.features, nullptr);
    for (size_t tap = 0; tap < taps_.size(); ++tap) {
      for (int32_t r = 0; r < event.n_features; ++r) {
        const float* row =
            event.features + static_cast<int64_t>(tap) * event.tap_stride + int64_t{r} * event.dim;
        const int32_t token = tokens[static_cast<size_t>(event.feature_position + r)];
        ASSERT_EQ(row[event.dim - 1], static_cast<float>(token + 1000 * taps_[tap]));
      }
    }
  }

  ProposeRow propose_row_;
  int32_t max_block_;
  std::vector<int32_t> taps_;
  std::map<int32_t, std::vector<int32_t>> told_;
  std::map<int32_t, int32_t> features_seen_;
  bool fails_ = false;
  bool confident_ = false;
  std::mt19937 rng_;
};

/// Random ids, some outside any vocabulary, random lengths, sometimes claiming more than there is room for.
inline std::unique_ptr<ScriptedDrafter> garbage_drafter(uint32_t seed, int32_t vocab_size,
                                                        std::vector<int32_t> taps = {}) {
  auto rng = std::make_shared<std::mt19937>(seed);
  return std::make_unique<ScriptedDrafter>(
      [rng, vocab_size](const std::vector<int32_t>&, std::span<int32_t> out) {
        for (int32_t& token : out) {
          token = static_cast<int32_t>((*rng)() % static_cast<uint32_t>(vocab_size));
          if ((*rng)() % 40 == 0) token = (*rng)() % 2 == 0 ? -1 - token : token + vocab_size;
        }
        return static_cast<int32_t>((*rng)() % (out.size() + 4)) - 1;
      },
      64, std::move(taps));
}

/// Knows whole texts. `offset` 0: always right; 1: always wrong; `noise` > 0: wrong once in `noise` tokens.
inline std::unique_ptr<ScriptedDrafter> oracle_drafter(std::vector<std::vector<int32_t>> texts,
                                                       int32_t vocab_size, int32_t offset, uint32_t noise = 0,
                                                       std::vector<int32_t> taps = {}) {
  auto rng = std::make_shared<std::mt19937>(noise);
  return std::make_unique<ScriptedDrafter>(
      [=](const std::vector<int32_t>& tokens, std::span<int32_t> out) {
        for (const auto& text : texts) {
          if (text.size() <= tokens.size() || !std::equal(tokens.begin(), tokens.end(), text.begin()))
            continue;
          const size_t n = std::min(out.size(), text.size() - tokens.size());
          for (size_t i = 0; i < n; ++i) {
            const int32_t wrong = noise > 0 && (*rng)() % noise == 0 ? 1 : offset;
            out[i] = (text[tokens.size() + i] + wrong) % vocab_size;
          }
          return static_cast<int32_t>(n);
        }
        return 0;
      },
      64, std::move(taps));
}

}  // namespace dspark::test
