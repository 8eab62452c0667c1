#include "speculate/stats.h"

#include <algorithm>

namespace dspark {
namespace {

double ratio(int64_t part, int64_t whole, double otherwise) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : otherwise;
}

}  // namespace

RoundRecord make_round_record(int32_t drafted, int32_t verified, int32_t accepted, int32_t stop_draft) {
  if (stop_draft >= 0 && stop_draft < accepted) {
    const int32_t n = stop_draft + 1;
    return {drafted, verified, n, n, n};
  }
  return {drafted, verified, verified, accepted, accepted + 1};
}

void SpeculationStats::add(const RoundRecord& round) {
  ++rounds;
  if (round.verified > 0) ++verified_rounds;
  drafted += round.drafted;
  verified += round.verified;
  trimmed += round.drafted - round.verified;
  accepted += round.accepted;
  proposal_tokens += round.proposal_length;
  committed_tokens += round.acceptance_length;
  lookup_proposed += round.lookup_proposed;
  lookup_accepted += round.lookup_accepted;
  const int32_t n = std::min(round.proposal_length, kMaxDraftTokens);
  for (int32_t j = 0; j < n; ++j) {
    const auto at = static_cast<size_t>(j);
    ++proposed_at[at];
    if (round.accepted >= j) ++observed_at[at];
    if (round.accepted > j) ++accepted_at[at];
  }
}

void SpeculationStats::add(const SpeculationStats& other) {
  rounds += other.rounds;
  verified_rounds += other.verified_rounds;
  drafted += other.drafted;
  verified += other.verified;
  trimmed += other.trimmed;
  accepted += other.accepted;
  proposal_tokens += other.proposal_tokens;
  committed_tokens += other.committed_tokens;
  lookup_proposed += other.lookup_proposed;
  lookup_accepted += other.lookup_accepted;
  for (size_t j = 0; j < proposed_at.size(); ++j) {
    proposed_at[j] += other.proposed_at[j];
    accepted_at[j] += other.accepted_at[j];
    observed_at[j] += other.observed_at[j];
  }
}

double SpeculationStats::accept_len() const {
  return ratio(committed_tokens, rounds, 0.0);
}

double SpeculationStats::propose_mean() const {
  return ratio(proposal_tokens, rounds, 0.0);
}

double SpeculationStats::verify_rate() const {
  return ratio(committed_tokens, proposal_tokens + rounds, 0.0);
}

double SpeculationStats::accept_rate_at(int j) const {
  if (j < 0 || j >= kMaxDraftTokens) return -1.0;
  return ratio(accepted_at[static_cast<size_t>(j)], proposed_at[static_cast<size_t>(j)], -1.0);
}

double SpeculationStats::conditional_acceptance_at(int j) const {
  if (j < 0 || j >= kMaxDraftTokens) return -1.0;
  return ratio(accepted_at[static_cast<size_t>(j)], observed_at[static_cast<size_t>(j)], -1.0);
}

}  // namespace dspark
