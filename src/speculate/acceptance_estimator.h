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
/// With kPeakLogit by logistic regression on the logit and the position, refitted by a few Newton steps at
/// the end of a step that has kRefit new observations behind it, over a window in which older ones count
/// less; with kMatchLength by counts of classes of lengths and positions; with kNone by counts of positions.
/// Same observations and ends of steps, same answers, bit for bit.
///
/// A step of many sequences judges thousands of drafts. observe() only keeps them, and what has to be
/// computed from them is computed once, by end_step().
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
  static constexpr int32_t kRefit = 32;    // observations between fits, at least

  AcceptanceEstimator();

  /// In (0, 1). draft_idx from 0; evidence: ignored with kNone.
  double confidence(DraftEvidence kind, int32_t draft_idx, float evidence) const;
  /// A draft whose predecessors were accepted was judged. Counts from the next end_step() on at the latest.
  void observe(DraftEvidence kind, int32_t draft_idx, float evidence, bool accepted);
  /// All of a step was observed. Call it once per step; without new observations it does nothing.
  void end_step();

  /// (bias, per logit, per position / 8) of the regression; for tests and reports.
  std::span<const double, 3> weights() const { return weights_; }
  /// Fits of the regression so far; likewise.
  int64_t n_fits() const { return n_fits_; }

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

  void rate_positions();
  static size_t length_class(float length);
  static size_t position_class(int32_t draft_idx);
  void refit();
  double newton_step();

  std::array<Count, kMaxDraftTokens> positions_{};
  std::array<double, kMaxDraftTokens> rates_{};  // of positions_, as they were when the last step ended
  std::array<std::array<Count, kPositionClasses>, kLengthClasses> lengths_{};
  std::vector<Sample> window_;  // (kWindow), a ring
  size_t n_seen_ = 0, n_fitted_ = 0;
  bool has_new_ = false;
  int64_t n_fits_ = 0;
  std::array<double, 3> weights_;
};

}  // namespace dspark
