#include "cli/spec_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace dspark::cli {
namespace {

std::string rate_row(const char* label, const SpeculationStats& stats,
                     double (SpeculationStats::*rate)(int) const) {
  std::string row = fmt::format("{:<12}", label);
  for (int j = 0; j < positions_seen(stats); ++j) {
    const double value = (stats.*rate)(j);
    row += value < 0 ? fmt::format("{:>6}", "-") : fmt::format("{:6.2f}", value);
  }
  return row + "\n";
}

}  // namespace

int positions_seen(const SpeculationStats& stats) {
  int n = 0;
  while (n < kMaxDraftTokens && stats.proposed_at[static_cast<size_t>(n)] > 0) ++n;
  return n;
}

std::string speculation_table(const SpeculationStats& stats) {
  std::string text = fmt::format(
      "{} rounds: {:.2f} tokens per round (tau, with the target's own token), verify rate {:.2f}\n"
      "{} drafted, {} trimmed, {} verified, {} accepted\n",
      stats.rounds, stats.accept_len(), stats.verify_rate(), stats.drafted, stats.trimmed, stats.verified,
      stats.accepted);
  if (stats.lookup_proposed > 0) {
    text += fmt::format("of these looked up: {} judged, {} accepted\n", stats.lookup_proposed,
                        stats.lookup_accepted);
  }
  const int n = positions_seen(stats);
  if (n == 0) return text;
  text += fmt::format("{:<12}", "position");
  for (int j = 0; j < n; ++j) text += fmt::format("{:6}", j + 1);
  text += "\n" + rate_row("survival", stats, &SpeculationStats::accept_rate_at);
  return text + rate_row("conditional", stats, &SpeculationStats::conditional_acceptance_at);
}

nlohmann::ordered_json speculation_numbers(const SpeculationStats& stats) {
  auto survival = nlohmann::ordered_json::array();
  auto conditional = nlohmann::ordered_json::array();
  for (int j = 0; j < positions_seen(stats); ++j) {
    survival.push_back(stats.accept_rate_at(j));
    const double rate = stats.conditional_acceptance_at(j);
    conditional.push_back(rate < 0 ? nlohmann::ordered_json() : nlohmann::ordered_json(rate));
  }
  return {{"rounds", stats.rounds},
          {"drafted", stats.drafted},
          {"verified", stats.verified},
          {"trimmed", stats.trimmed},
          {"accepted", stats.accepted},
          {"lookup_proposed", stats.lookup_proposed},
          {"lookup_accepted", stats.lookup_accepted},
          {"tokens_per_step", stats.accept_len()},
          {"proposed_per_step", stats.propose_mean()},
          {"verify_rate", stats.verify_rate()},
          {"accept_rate_by_position", survival},
          {"conditional_acceptance_by_position", conditional}};
}

}  // namespace dspark::cli
