#pragma once
// Counters of speculation, with the definitions of the DSpark evaluation (accept_len and relatives) and the
// separate counters a scheduler needs. A round is one verification of one sequence; the token that ends a
// prompt's prefill belongs to no round.

#include <array>
#include <cstdint>

#include "speculate/scheduler.h"

namespace dspark {

/// One finished round.
struct RoundRecord {
  int32_t drafted = 0;   // tokens the drafter proposed
  int32_t verified = 0;  // of these, rows the target computed (the rest was trimmed)
  /// Effective proposal length: verified, or the accepted run up to and including a stop token.
  int32_t proposal_length = 0;
  int32_t accepted = 0;  // drafts that became text
  /// Tokens the round added: accepted + 1, or accepted when a stop inside the run ended the text.
  int32_t acceptance_length = 0;
  // Of proposal_length and accepted: drafts that were looked up, not made by a model.
  int32_t lookup_proposed = 0;
  int32_t lookup_accepted = 0;
};

/// The record of a round whose accept rule took `accepted` of `verified` drafts. stop_draft: the first
/// accepted draft (from 0) with which the text ended, negative when none did; then the round ends there, the
/// drafts behind it count neither as proposed nor as rejected, and no bonus or correction counts.
RoundRecord make_round_record(int32_t drafted, int32_t verified, int32_t accepted, int32_t stop_draft = -1);

/// Sums over rounds. drafted >= verified >= accepted; trimmed = drafted - verified is not a rejection.
struct SpeculationStats {
  int64_t rounds = 0;
  int64_t verified_rounds = 0;  // of these, rounds that verified at least one draft
  int64_t drafted = 0;
  int64_t verified = 0;
  int64_t trimmed = 0;
  int64_t accepted = 0;
  int64_t proposal_tokens = 0;   // sum of proposal_length
  int64_t committed_tokens = 0;  // sum of acceptance_length
  int64_t lookup_proposed = 0;   // of proposal_tokens: looked up (ProposalSource::kLookup)
  int64_t lookup_accepted = 0;   // of accepted: looked up
  // Per draft position j (0-based): rounds with proposal_length > j; with accepted > j; and rounds that
  // observed position j, that is proposal_length > j and accepted >= j.
  std::array<int64_t, kMaxDraftTokens> proposed_at{};
  std::array<int64_t, kMaxDraftTokens> accepted_at{};
  std::array<int64_t, kMaxDraftTokens> observed_at{};

  void add(const RoundRecord& round);
  void add(const SpeculationStats& other);

  /// Accepted length tau: tokens per round, bonus or correction included. 0 without rounds.
  double accept_len() const;
  /// Mean effective proposal length.
  double propose_mean() const;
  /// Committed tokens per verified row, the anchor's row counted.
  double verify_rate() const;
  /// Prefix survival at j; negative when no proposal reached j.
  double accept_rate_at(int j) const;
  /// Acceptance at j given that all before were accepted; negative when never observed.
  double conditional_acceptance_at(int j) const;
};

}  // namespace dspark
