#pragma once
// Verify policies: how many drafted tokens of each sequence the target checks in this step.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace dspark {

/// Most drafted tokens of one sequence in one step, whatever drafter or policy.
inline constexpr int32_t kMaxDraftTokens = 64;

/// A policy, as the user names it: "off", "fixed:K", "threshold:T", "causal" or "adaptive". The last two
/// weigh confidences against what a step costs (speculate/batch_scheduler.h) and need a measured cost table.
struct VerifyPolicy {
  enum class Kind : uint8_t { kOff, kFixed, kThreshold, kCausal, kAdaptive };
  Kind kind = Kind::kOff;
  int32_t k = 0;           // kFixed: verify at most k drafts per sequence and step
  float threshold = 0.0f;  // kThreshold: verify up to the first confidence below it, in [0, 1]

  /// errors: invalid_argument (unknown, malformed, out of range).
  static Result<VerifyPolicy> parse(std::string_view text);
  static VerifyPolicy off() { return {}; }
  static VerifyPolicy fixed(int32_t k) { return {Kind::kFixed, k}; }
  static VerifyPolicy adaptive() { return {Kind::kAdaptive}; }
  static VerifyPolicy causal() { return {Kind::kCausal}; }
  static VerifyPolicy from_threshold(float t) { return {Kind::kThreshold, 0, t}; }

  /// For policies that were not parsed. errors: invalid_argument naming the field, its range and the value.
  Status validate() const;

  /// The text parse() reads.
  std::string to_string() const;
  /// Drafts worth asking the drafter for, at most; 0: do not draft at all.
  int32_t draft_tokens() const {
    if (kind == Kind::kFixed) return k;
    return kind == Kind::kOff ? 0 : kMaxDraftTokens;
  }
  /// Lengths come from a plan for the whole batch.
  bool needs_costs() const { return kind == Kind::kCausal || kind == Kind::kAdaptive; }
};

/// Drafts before the first with confidence < threshold (DSpark evaluation's static threshold). All of them
/// when no confidence is below it, so always when threshold <= 0.
int32_t threshold_length(std::span<const float> confidence, float threshold);

/// The verify length of one sequence that has `n_drafted` drafts. `confidence`: of those drafts, draft k's
/// made without looking at draft k; empty when the drafter has no confidence head, and then a threshold keeps
/// every draft. All drafts for policies that plan for the whole batch. Every policy here is safe for every
/// accept rule. returns: 0..n_drafted.
int32_t verify_length(const VerifyPolicy& policy, int32_t n_drafted, std::span<const float> confidence = {});

/// Caps verify lengths so that the step's rows, one anchor per sequence plus its drafts, fit `max_rows`:
/// the longest runs are shortened first, later sequences before earlier ones. Safe for every accept rule:
/// whether draft k of a sequence stays depends on the other lengths and on whether its own reaches k, not on
/// how far it goes beyond k.
/// requires: max_rows >= lengths.size().
void cap_verify_rows(std::span<int32_t> lengths, int64_t max_rows);

}  // namespace dspark
