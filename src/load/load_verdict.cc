#include "load/load_verdict.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace dspark {
namespace {

std::vector<double> column(const LoadCell& cell, double LoadSummary::*value) {
  std::vector<double> values;
  for (const LoadSummary& round : cell.rounds) values.push_back(round.*value);
  return values;
}

/// A ratio with its spread.
struct Ratio {
  double value = 0.0;
  RatioSpread spread;
};

/// From the ratios of single rounds, and from turns where there are enough.
Ratio combine(std::vector<double> rounds, const TurnComparison& turns) {
  Ratio ratio;
  if (!rounds.empty()) {
    ratio.spread.least = std::ranges::min(rounds);
    ratio.spread.most = std::ranges::max(rounds);
  }
  ratio.value = ratio.spread.median = median_of(std::move(rounds));
  ratio.spread.n_pieces = turns.n_pieces;
  if (turns.error < 0.0) return ratio;
  ratio.value = turns.ratio;
  ratio.spread.error = turns.error;
  return ratio;
}

std::vector<TurnCurve> curves_of(const LoadCell& cell) {
  std::vector<TurnCurve> curves;
  for (const LoadSummary& round : cell.rounds) curves.push_back(round.turns);
  return curves;
}

/// a's value over b's. Turns tell only about total speeds: with open arrivals tokens come when they are
/// asked for.
Ratio compare_cells(const LoadCell& a, const LoadCell& b, double LoadSummary::*value, bool closed) {
  std::vector<double> ratios;
  for (size_t r = 0; r < std::min(a.rounds.size(), b.rounds.size()); ++r) {
    if (b.rounds[r].*value > 0.0) ratios.push_back(a.rounds[r].*value / b.rounds[r].*value);
  }
  // The speed of one over that of the other is the time of the other over that of the one.
  return combine(std::move(ratios), closed ? compare_turns(curves_of(b), curves_of(a)) : TurnComparison{});
}

/// Tokens/s of a over those of b in one phase.
Ratio compare_phases(const BurstCell& a, const BurstCell& b, size_t phase) {
  std::vector<double> ratios;
  std::vector<TurnCurve> tokens_a, tokens_b;
  for (size_t r = 0; r < std::min(a.rounds.size(), b.rounds.size()); ++r) {
    if (phase >= a.rounds[r].size() || phase >= b.rounds[r].size()) continue;
    const PhaseSummary& of_a = a.rounds[r][phase];
    const PhaseSummary& of_b = b.rounds[r][phase];
    if (of_b.tokens_per_s > 0.0) ratios.push_back(of_a.tokens_per_s / of_b.tokens_per_s);
    tokens_a.push_back(of_a.turns);
    tokens_b.push_back(of_b.turns);
  }
  return combine(std::move(ratios), compare_turns(tokens_a, tokens_b));
}

bool is_baseline(const std::string& policy) {
  return policy == "off" || policy.starts_with("fixed:");
}

const BurstCell* find_burst(const std::vector<BurstCell>& cells, const std::string& policy) {
  const auto found = std::ranges::find(cells, policy, &BurstCell::policy);
  return found == cells.end() || found->rounds.empty() ? nullptr : &*found;
}

PhaseVerdict judge_phase(const std::vector<BurstCell>& cells, const BurstCell& adaptive, const BurstCell& off,
                         size_t phase) {
  const BurstCell* best = &off;
  for (const BurstCell& cell : cells) {
    if (!is_baseline(cell.policy)) continue;
    if (cell.median(phase, &PhaseSummary::tokens_per_s) > best->median(phase, &PhaseSummary::tokens_per_s)) {
      best = &cell;
    }
  }
  const Ratio to_best = compare_phases(adaptive, *best, phase);
  const Ratio to_off = compare_phases(adaptive, off, phase);
  PhaseVerdict verdict;
  verdict.clients = adaptive.rounds.front()[phase].clients;
  verdict.best_fixed = best->policy;
  verdict.vs_best_fixed = to_best.value;
  verdict.vs_best_fixed_spread = to_best.spread;
  verdict.vs_off = to_off.value;
  verdict.vs_off_spread = to_off.spread;
  verdict.steps_to_follow = adaptive.steps_to_follow(phase);
  verdict.longest_wait_s = adaptive.longest_wait_s(phase);
  return verdict;
}

}  // namespace

double LoadCell::median(double LoadSummary::*value) const {
  return median_of(column(*this, value));
}

double LoadCell::least(double LoadSummary::*value) const {
  return rounds.empty() ? 0.0 : std::ranges::min(column(*this, value));
}

double LoadCell::most(double LoadSummary::*value) const {
  return rounds.empty() ? 0.0 : std::ranges::max(column(*this, value));
}

void BurstCell::add(const LoadResult& result, std::span<const int32_t> phases, double phase_s) {
  rounds.push_back(summarize_phases(result, phases, phase_s));
  steps = result.steps;
  for (const RequestRecord& request : result.requests) {
    if (request.first_token_s >= 0.0) {
      first_waits_s.push_back(request.first_token_s - request.submitted_s);
      continue;
    }
    unanswered += std::ranges::any_of(result.requests, [&](const RequestRecord& other) {
      return other.whole && other.submitted_s > request.submitted_s;
    });
  }
}

double BurstCell::median(size_t phase, double PhaseSummary::*value) const {
  std::vector<double> values;
  for (const std::vector<PhaseSummary>& round : rounds) {
    if (phase < round.size()) values.push_back(round[phase].*value);
  }
  return median_of(std::move(values));
}

double BurstCell::steps_to_follow(size_t phase) const {
  constexpr double kNever = std::numeric_limits<double>::max();
  std::vector<double> steps_of_rounds;
  for (const std::vector<PhaseSummary>& round : rounds) {
    if (phase >= round.size()) continue;
    const int32_t n = round[phase].steps_to_follow;
    steps_of_rounds.push_back(n < 0 ? kNever : n);
  }
  if (steps_of_rounds.empty()) return -1.0;
  std::ranges::sort(steps_of_rounds);
  const size_t middle = steps_of_rounds.size() / 2;
  if (steps_of_rounds[middle] == kNever) return -1.0;
  return median_of(std::move(steps_of_rounds));
}

double BurstCell::longest_wait_s(size_t phase) const {
  double longest_s = 0.0;
  for (const std::vector<PhaseSummary>& round : rounds) {
    if (phase < round.size()) longest_s = std::max(longest_s, round[phase].longest_wait_s);
  }
  return longest_s;
}

double BurstCell::longest_wait_s() const {
  double longest_s = 0.0;
  for (const std::vector<PhaseSummary>& round : rounds) {
    for (const PhaseSummary& phase : round) longest_s = std::max(longest_s, phase.longest_wait_s);
  }
  return longest_s;
}

std::vector<LoadVerdict> judge_cells(const std::vector<LoadCell>& cells, bool closed, double margin) {
  double LoadSummary::*const value = closed ? &LoadSummary::tokens_per_s : &LoadSummary::user_tokens_per_s;
  std::vector<LoadVerdict> verdicts;
  for (const LoadCell& adaptive : cells) {
    if (adaptive.policy != "adaptive" || adaptive.rounds.empty()) continue;
    const LoadCell* off = nullptr;
    const LoadCell* best = nullptr;
    for (const LoadCell& cell : cells) {
      if (cell.load != adaptive.load || cell.rounds.empty() || !is_baseline(cell.policy)) continue;
      if (cell.policy == "off") off = &cell;
      if (best == nullptr || cell.median(value) > best->median(value)) best = &cell;
    }
    if (off == nullptr) continue;
    LoadVerdict verdict;
    verdict.load = adaptive.load;
    for (const LoadCell& cell : cells) {
      verdict.some_fixed_wins |= cell.load == adaptive.load && cell.policy.starts_with("fixed:") &&
                                 cell.policy != "fixed:0" &&
                                 compare_cells(cell, *off, value, closed).value > 1.0;
    }
    const Ratio to_best = compare_cells(adaptive, *best, value, closed);
    const Ratio to_off = compare_cells(adaptive, *off, value, closed);
    verdict.best_fixed = best->policy;
    verdict.vs_best_fixed = to_best.value;
    verdict.vs_best_fixed_spread = to_best.spread;
    verdict.vs_off = to_off.value;
    verdict.vs_off_spread = to_off.spread;
    verdict.pass = verdict.vs_best_fixed >= margin && verdict.vs_off >= margin &&
                   (!verdict.some_fixed_wins || margin < 0.98 || verdict.vs_off > 1.0);
    verdicts.push_back(verdict);
  }
  return verdicts;
}

std::vector<PhaseVerdict> judge_phases(const std::vector<BurstCell>& cells) {
  const BurstCell* adaptive = find_burst(cells, "adaptive");
  const BurstCell* off = find_burst(cells, "off");
  std::vector<PhaseVerdict> verdicts;
  if (adaptive == nullptr || off == nullptr) return verdicts;
  for (size_t phase = 0; phase < adaptive->rounds.front().size(); ++phase) {
    verdicts.push_back(judge_phase(cells, *adaptive, *off, phase));
  }
  return verdicts;
}

}  // namespace dspark
