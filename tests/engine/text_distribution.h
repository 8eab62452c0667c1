#pragma once
// Distributions of whole short texts: a drafter that samples, the target's exact probabilities, and how far
// counts are from them.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "base/philox.h"
#include "draft/drafter.h"
#include "engine/fake_model.h"
#include "speculate/draw.h"
#include "speculate/logits_processor.h"

namespace dspark::test {

inline constexpr int32_t kVocab = 5;
inline constexpr int32_t kTokens = 4;  // of a text: one from the prompt, two that drafts may give, one more
inline constexpr int32_t kTexts = 30000;
using Text = std::vector<int32_t>;

inline uint64_t mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

inline uint64_t hash_of(const Text& tokens, uint64_t salt) {
  uint64_t hash = mixed(salt + 1);
  for (int32_t token : tokens) hash = mixed(hash * 31 + static_cast<uint64_t>(token) + 7);
  return hash;
}

/// How a SamplingDrafter is sure of its drafts.
enum class Confidence {
  kNone,
  kCausal,        // of draft k: depends on the tokens before it
  kAnticipating,  // of draft k: depends on draft k itself, which a scheduler must not use
  kPeakLogit,     // none, but the peak of what draft k is sampled from is told (DraftEvidence::kPeakLogit)
};

/// Samples drafts from a distribution that has little to do with the target's, or (sure) claims single
/// tokens.
class SamplingDrafter final : public Drafter {
 public:
  /// least, most: the two confidences it has.
  SamplingDrafter(bool sure, Confidence confidence, float least = 0.2f, float most = 0.8f)
      : sure_(sure), confidence_(confidence), least_(least), most_(most) {}
  std::string_view name() const override { return "sampling"; }
  int32_t max_block() const override { return 3; }

  Status propose(std::span<const DraftRequest> requests, DraftBlock& out) override {
    if (!sure_) out.keep_probs(kVocab, {});
    out.has_confidence = confidence_ == Confidence::kCausal || confidence_ == Confidence::kAnticipating;
    if (confidence_ == Confidence::kPeakLogit) out.evidence_kind = DraftEvidence::kPeakLogit;
    for (size_t i = 0; i < requests.size(); ++i) {
      const DraftRequest& request = requests[i];
      Text tokens = told_[request.slot];
      out.n_tokens[i] = request.max_tokens;
      out.has_probs[i] = sure_ ? 0 : 1;
      for (int32_t k = 0; k < request.max_tokens; ++k) {
        const int32_t draft = sure_ ? static_cast<int32_t>(hash_of(tokens, 3) % kVocab)
                                    : sample(request, tokens, k, out.probs_row(i, k));
        const float before = hash_of(tokens, 9) % 3 == 0 ? least_ : most_;
        tokens.push_back(draft);
        const float after = hash_of(tokens, 11) % 2 == 0 ? least_ : most_;
        const auto at = i * static_cast<size_t>(out.stride) + static_cast<size_t>(k);
        out.tokens[at] = draft;
        if (out.has_confidence) out.confidence[at] = confidence_ == Confidence::kCausal ? before : after;
        if (confidence_ == Confidence::kPeakLogit && !sure_) out.evidence[at] = peak(out.probs_row(i, k));
      }
    }
    return ok_status();
  }
  void commit(std::span<const CommitEvent> events) override {
    for (const CommitEvent& event : events) {
      Text& tokens = told_[event.slot];
      tokens.insert(tokens.end(), event.tokens.begin(), event.tokens.end());
    }
  }
  void release(int32_t slot) override { told_.erase(slot); }

 private:
  int32_t sample(const DraftRequest& request, const Text& tokens, int32_t k, std::span<float> probs) {
    float sum = 0.0f;
    for (size_t v = 0; v < probs.size(); ++v) {
      const auto noise = static_cast<float>(hash_of(tokens, 100 + v) % 1000) / 1000.0f;
      sum += probs[v] = v == 2 ? 0.0f : 0.02f + noise * noise;  // one token is never drafted
    }
    for (float& p : probs) p /= sum;
    const double u = uniform_at(request.sampling->seed, static_cast<uint64_t>(request.position),
                                static_cast<uint32_t>(k) + 1, NoisePurpose::kDraft);
    return draw_index(probs, u, scratch_);
  }

  static float peak(std::span<const float> probs) {
    const float p = *std::max_element(probs.begin(), probs.end());
    return std::log(p / (1.0f - p));
  }

  bool sure_;
  Confidence confidence_;
  float least_, most_;
  std::map<int32_t, Text> told_;
  DrawScratch scratch_;
};

inline SamplingParams sampling_params() {
  SamplingParams sampling;
  sampling.temperature = 3.0f;  // flat enough for every text to occur
  sampling.frequency_penalty = 0.7f;
  return sampling;
}

inline const Text kPrompt = {1, 3, 0};

/// Probability of every text of n_tokens tokens under plain decoding.
inline void add_texts(const Text& tokens, double probability, std::map<Text, double>& out,
                      size_t n_tokens = kTokens) {
  const auto n_new = tokens.size() - kPrompt.size();
  if (n_new == n_tokens) {
    out[Text(tokens.begin() + static_cast<ptrdiff_t>(kPrompt.size()), tokens.end())] = probability;
    return;
  }
  TokenCounts counts;
  counts.reset(kPrompt);
  for (size_t i = kPrompt.size(); i < tokens.size(); ++i) counts.push(tokens[i]);
  std::vector<float> logits, probs(kVocab);
  FakeModel::append_logits_after(tokens, kVocab, logits);
  SamplerScratch scratch;
  target_probabilities(logits, sampling_params(), &counts, scratch, probs);
  for (int32_t v = 0; v < kVocab; ++v) {
    Text longer = tokens;
    longer.push_back(v);
    add_texts(longer, probability * static_cast<double>(probs[static_cast<size_t>(v)]), out, n_tokens);
  }
}

/// Chi-square of counted texts as a standard normal number (Wilson and Hilferty); texts expected less than 8
/// times share one cell. expected: the probability of every text.
inline double deviation(const std::map<Text, int64_t>& counts, const std::map<Text, double>& expected) {
  int64_t n_texts = 0;
  for (const auto& [text, count] : counts) n_texts += count;
  double chi2 = 0.0, rest_expected = 0.0, rest_counted = 0.0;
  int n_cells = 0;
  for (const auto& [text, probability] : expected) {
    const auto found = counts.find(text);
    const double counted = found == counts.end() ? 0.0 : static_cast<double>(found->second);
    const double want = probability * static_cast<double>(n_texts);
    if (want < 8.0) {
      rest_expected += want;
      rest_counted += counted;
      continue;
    }
    chi2 += (counted - want) * (counted - want) / want;
    ++n_cells;
  }
  if (rest_expected > 0.0) {
    chi2 += (rest_counted - rest_expected) * (rest_counted - rest_expected) / rest_expected;
    ++n_cells;
  }
  const double dof = n_cells - 1;
  EXPECT_GT(dof, 100.0);
  return (std::cbrt(chi2 / dof) - (1.0 - 2.0 / (9.0 * dof))) / std::sqrt(2.0 / (9.0 * dof));
}

/// The same against what FakeModel's plain decoding gives.
inline double deviation(const std::map<Text, int64_t>& counts) {
  std::map<Text, double> expected;
  add_texts(kPrompt, 1.0, expected);
  return deviation(counts, expected);
}

}  // namespace dspark::test
