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

/// A policy, as the user names it: "off" or "fixed:K".
struct VerifyPolicy {
  enum class Kind : uint8_t { kOff, kFixed };
  Kind kind = Kind::kOff;
  int32_t k = 0;  // kFixed: verify at most k drafts per sequence and step

  /// errors: invalid_argument (malformed, K outside 0..kMaxDraftTokens), unsupported (a name that is known
  /// but not implemented yet, or unknown).
  static Result<VerifyPolicy> parse(std::string_view text);
  static VerifyPolicy off() { return {}; }
  static VerifyPolicy fixed(int32_t k) { return {Kind::kFixed, k}; }

  /// The text parse() reads.
  std::string to_string() const;
  /// Drafts worth asking the drafter for; 0: do not draft at all.
  int32_t draft_tokens() const { return kind == Kind::kFixed ? k : 0; }
};

/// The verify length of one sequence that has `n_drafted` drafts. returns: 0..n_drafted.
int32_t verify_length(const VerifyPolicy& policy, int32_t n_drafted);

/// Caps verify lengths so that the step's rows, one anchor per sequence plus its drafts, fit `max_rows`:
/// the longest runs are shortened first, later sequences before earlier ones. Lossless for greedy and coupled
/// acceptance, which do not depend on verify lengths.
/// requires: max_rows >= lengths.size().
void cap_verify_rows(std::span<int32_t> lengths, int64_t max_rows);

}  // namespace dspark
