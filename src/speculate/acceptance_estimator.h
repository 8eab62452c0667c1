#pragma once
// How likely drafts are to be accepted when the drafter has no confidence head: learned while serving from
// what the drafter can say about a draft and from what became of it.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "speculate/scheduler.h"

namespace dspark {

/// What a drafter says about a draft.
enum class DraftEvidence : uint8_t {
  kNone,         // nothing: its position must do
  kPeakLogit,    // log(p / (1 - p)), p: the largest probability of the distribution the draft came from
  kMatchLength,  // tokens that agreed before the place the draft was looked up at
};

/// The probability that a draft is accepted given that its predecessors were.
///
/// With kPeakLogit by logistic regression on the logit and the position, refitted by a few Newton steps every
/// kRefit observations over a window in which older ones count less; with kMatchLength by counts of classes
/// of lengths and positions; with kNone by counts of positions. Same observations, same answers, bit for bit.
///
/// *Non-anticipation.* A confidence must not look at the draft it is for where the accept rule forbids that
/// (docs/speculation.md). The peak of a distribution is known before anything is drawn from it, and a
/// looked-up draft is a function of the committed text, as its match is; the probability of the token that
/// was drawn would not do. Everything that is learned comes from rounds that are over.
///
/// thread: one. No allocation after the constructor.
class AcceptanceEstimator {
 public:
  static constexpr int32_t kWindow = 512;  // observations a fit sees
  static constexpr int32_t kRefit = 32;    // observations between fits

  AcceptanceEstimator();

  /// In (0, 1). draft_idx from 0; evidence: ignored with kNone.
  double confidence(DraftEvidence kind, int32_t draft_idx, float evidence) const;
  /// A draft whose predecessors were accepted was judged.
  void observe(DraftEvidence kind, int32_t draft_idx, float evidence, bool accepted);

  /// (bias, per logit, per position / 8) of the regression; for tests and reports.
  std::span<const double, 3> weights() const { return weights_; }

 private:
  static constexpr size_t kLengthClasses = 9, kPositionClasses = 4;
  struct Count {
    double tries = 0.0;
    double hits = 0.0;
    void add(bool hit);
  };
  struct Sample {
    float logit = 0.0f;
    uint8_t draft_idx = 0;
    bool accepted = false;
  };

  double position_rate(int32_t draft_idx) const;
  static size_t length_class(float length);
  static size_t position_class(int32_t draft_idx);
  void refit();

  std::array<Count, kMaxDraftTokens> positions_{};
  std::array<std::array<Count, kPositionClasses>, kLengthClasses> lengths_{};
  std::vector<Sample> window_;  // (kWindow), a ring
  size_t n_seen_ = 0;
  std::array<double, 3> weights_;
};

}  // namespace dspark
