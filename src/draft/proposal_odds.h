#pragma once
// How likely drafts are to be accepted, by who proposed them and what is known about them, learned from the
// texts that came out. Everything is counted from committed tokens, so what was not proposed is judged too.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "draft/ngram.h"
#include "speculate/acceptance_estimator.h"
#include "speculate/scheduler.h"

namespace dspark {

/// Relative frequency that forgets and starts from an assumption worth a few observations.
struct Odds {
  double hits = 0.0;
  double tries = 0.0;

  void add(bool hit, double forget);
  double rate(double assumed, double weight) const { return (hits + weight * assumed) / (tries + weight); }
};

/// Two proposals for the same place that differ: at most one of them is right.
struct ContestOdds {
  double model = 0.0;
  double lookup = 0.0;
};

/// Acceptance of drafts under one kind of sampling. thread: one.
class ProposalOdds {
 public:
  ProposalOdds();

  /// The token that followed a match of so many tokens.
  double lookup(int32_t match_length) const { return lookup_rates_[length_class(match_length)]; }
  /// Expected number of accepted tokens among the next `n_tokens` of a match.
  double lookup_value(int32_t match_length, int32_t n_tokens) const;
  /// Draft `draft_idx` of a model without a confidence head.
  double model(DraftEvidence kind, int32_t draft_idx, float evidence) const {
    return model_.confidence(kind, draft_idx, evidence);
  }
  /// The model's draft has this confidence, the match's token is the same.
  double agreement(double confidence, int32_t match_length) const;
  /// The same with another token.
  ContestOdds contest(double confidence, int32_t match_length) const;
  /// Expected number of accepted drafts of the model's block behind draft `draft_idx`.
  double model_tail(int32_t draft_idx) const;

  // What happened.
  void observe_lookup(int32_t match_length, bool hit);
  void observe_model(DraftEvidence kind, int32_t draft_idx, float evidence, bool hit) {
    model_.observe(kind, draft_idx, evidence, hit);
  }
  /// What observe_model() saw in a step counts from here on. Once per step.
  void end_step() { model_.end_step(); }
  void observe_agreement(double confidence, int32_t match_length, bool hit);
  void observe_contest(double confidence, int32_t match_length, bool model_hit, bool lookup_hit);
  /// Confidences of a whole block.
  void observe_block(std::span<const float> confidence);

 private:
  static constexpr size_t kLengths = 9;      // classes of match lengths
  static constexpr size_t kConfidences = 6;  // equal classes of confidences
  struct Contest {
    double model = 0.0, lookup = 0.0, tries = 0.0;
  };

  static size_t length_class(int32_t match_length);
  static size_t confidence_class(double confidence);

  std::array<Odds, kLengths> lookup_{};
  std::array<double, kLengths> lookup_rates_{};
  std::array<std::array<Odds, kConfidences>, kLengths> agreement_{};
  std::array<std::array<Contest, kConfidences>, kLengths> contest_{};
  AcceptanceEstimator model_;
  std::array<double, kMaxDraftTokens> tails_{};
};

}  // namespace dspark
