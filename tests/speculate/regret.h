#pragma once
// How far policies stay behind the best schedule of small batches: an oracle that tries every choice of
// prefixes under the true survivals. Shared by a test, which bounds it, and a program, which prints it.

#include <algorithm>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "speculate/batch_scheduler.h"
#include "speculate/confidence.h"
#include "speculate/scheduler.h"

namespace dspark::test {

/// A batch of up to 4 sequences with up to 3 drafts, what it costs, and what was known two steps before.
struct RegretCase {
  std::vector<double> live, recorded;  // (n, 3) survivals
  std::vector<float> confidence;       // (n, 3)
  std::vector<int32_t> n_drafts;
  std::vector<double> seconds;  // by rows
  PassCosts costs() const { return {seconds, 0}; }
  SurvivalRows live_rows() const { return {live, n_drafts, 3}; }
  SurvivalRows recorded_rows() const { return {recorded, n_drafts, 3}; }
};

/// staircase: rows come in tiles of four; else the cost rises smoothly.
inline RegretCase random_case(std::mt19937& rng, bool staircase) {
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  RegretCase c;
  const size_t n = rng() % 4 + 1;
  const double slope = 0.02 + 0.4 * uniform(rng);
  for (size_t b = 0; b <= 4 * n; ++b) {
    const double rows = staircase ? static_cast<double>((b + 3) / 4 * 4) : static_cast<double>(b);
    c.seconds.push_back(1.0 + slope * rows);
  }
  c.live.resize(3 * n);
  c.recorded.resize(3 * n);
  for (size_t r = 0; r < n; ++r) {
    c.n_drafts.push_back(3);
    const double ease = uniform(rng);  // texts differ more than steps do
    std::vector<float> before;
    for (int j = 0; j < 3; ++j) {
      c.confidence.push_back(static_cast<float>(std::clamp(ease + 0.3 * (uniform(rng) - 0.5), 0.02, 0.99)));
      before.push_back(static_cast<float>(std::clamp(ease + 0.3 * (uniform(rng) - 0.5), 0.02, 0.99)));
    }
    survival(std::span<const float>(c.confidence).subspan(3 * r, 3), std::span(c.live).subspan(3 * r, 3));
    survival(std::span<const float>(before), std::span(c.recorded).subspan(3 * r, 3));
  }
  return c;
}

/// Expected tokens per second when `lengths` are verified.
inline double throughput(const RegretCase& c, std::span<const int32_t> lengths) {
  double tokens = 0.0;
  size_t rows = 0;
  for (size_t r = 0; r < lengths.size(); ++r) {
    tokens += 1.0;
    rows += 1 + static_cast<size_t>(lengths[r]);
    for (size_t j = 0; j < static_cast<size_t>(lengths[r]); ++j) tokens += c.live[3 * r + j];
  }
  return tokens / c.seconds[rows];
}

/// The best of all choices of prefixes.
inline double oracle(const RegretCase& c) {
  std::vector<int32_t> lengths(c.n_drafts.size(), 0);
  double best = 0.0;
  for (;;) {
    best = std::max(best, throughput(c, lengths));
    size_t r = 0;
    while (r < lengths.size() && lengths[r] == 3) lengths[r++] = 0;
    if (r == lengths.size()) return best;
    ++lengths[r];
  }
}

inline const std::vector<std::string>& regret_policies() {
  static const std::vector<std::string> names = {
      "off", "fixed:1", "fixed:3", "threshold:0.5", "causal", "adaptive live", "adaptive history"};
  return names;
}

/// Verify lengths of the policy with that place in regret_policies().
inline std::vector<int32_t> lengths_of(const RegretCase& c, size_t policy) {
  const size_t n = c.n_drafts.size();
  std::vector<int32_t> lengths(n, 0);
  ScheduleScratch scratch;
  if (policy == 1 || policy == 2) std::fill(lengths.begin(), lengths.end(), policy == 1 ? 1 : 3);
  if (policy == 3) {
    for (size_t r = 0; r < n; ++r)
      lengths[r] = threshold_length(std::span<const float>(c.confidence).subspan(3 * r, 3), 0.5f);
  }
  if (policy == 4) schedule_causal(c.live_rows(), c.costs(), scratch, lengths);
  if (policy >= 5) {
    const SurvivalRows basis = policy == 5 ? c.live_rows() : c.recorded_rows();
    allot_budget(c.live_rows(), history_budget(basis, c.costs(), scratch), scratch, lengths);
  }
  return lengths;
}

/// Share of the oracle's throughput that a policy loses.
struct Regret {
  double mean = 0.0;
  double worst = 0.0;
};

inline std::vector<Regret> regrets(bool staircase, int n_cases, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<Regret> found(regret_policies().size());
  for (int i = 0; i < n_cases; ++i) {
    const RegretCase c = random_case(rng, staircase);
    const double best = oracle(c);
    for (size_t p = 0; p < found.size(); ++p) {
      const double lost = 1.0 - throughput(c, lengths_of(c, p)) / best;
      found[p].mean += lost / n_cases;
      found[p].worst = std::max(found[p].worst, lost);
    }
  }
  return found;
}

}  // namespace dspark::test
