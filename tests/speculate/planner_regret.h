#pragma once
// How far the planner, as engines use it, stays behind the best schedule of whole runs: draft lengths that
// cost something, the account of drafting, learning, unequal numbers of drafts, neighbours and prompts. The
// oracle knows the true survivals before anything is drafted, and may choose not to draft. Shared by a test,
// which bounds it, and a program, which prints it.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "speculate/adaptive_planner.h"
#include "speculate/confidence.h"
#include "speculate/cost_model.h"
#include "speculate/regret.h"

namespace dspark::test {

/// What stays as it is during a run.
struct PlannerWorld {
  CostTable table;
  int32_t n_sequences = 1;
  int32_t max_block = 1;
  int32_t n_neighbours = 0;  // decode beside them and draft nothing
  bool has_prompts = false;  // every fourth step reads some
};

/// One step of a run.
struct WorldStep {
  std::vector<float> confidence;  // (n_sequences, max_block) acceptances given those before: what is true
  std::vector<double> survival;   // (n_sequences, max_block)
  std::vector<int32_t> n_most;    // (n_sequences) drafts that the drafter finds at most
  int32_t prompt_rows = 0;
};

/// staircase: rows come in tiles of eight; else the cost rises smoothly.
inline PlannerWorld random_world(std::mt19937& rng, bool staircase) {
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  constexpr double kPlain = 0.010;
  PlannerWorld world;
  world.n_sequences = static_cast<int32_t>(rng() % 4) + 1;
  world.max_block = static_cast<int32_t>(rng() % 7) + 1;
  world.n_neighbours = rng() % 3 == 0 ? static_cast<int32_t>(rng() % 3) + 1 : 0;
  world.has_prompts = rng() % 3 == 0;
  const double slope = 0.005 + 0.15 * uniform(rng);
  for (int32_t n = 1; n <= 80; ++n) {
    const int32_t rows = staircase ? (n + 7) / 8 * 8 : n;
    world.table.verify.push_back({n, kPlain * (1.0 + slope * rows)});
  }
  const double draft_s = kPlain * (0.02 + 0.25 * uniform(rng)),
               short_s = draft_s * (0.3 + 0.7 * uniform(rng));
  const double growth = uniform(rng);  // from one sequence to four
  world.table.draft = {{1, draft_s}, {4, draft_s * (1.0 + growth)}};
  world.table.draft_short = {{1, short_s}, {4, short_s * (1.0 + growth)}};
  world.table.draft_length = world.max_block;
  return world;
}

/// Texts differ in how easy they are, and change now and then.
inline std::vector<WorldStep> random_steps(const PlannerWorld& world, std::mt19937& rng, int n_steps) {
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  const auto n = static_cast<size_t>(world.n_sequences), width = static_cast<size_t>(world.max_block);
  std::vector<double> ease(n);
  for (double& e : ease) e = uniform(rng);
  std::vector<WorldStep> steps(static_cast<size_t>(n_steps));
  for (size_t i = 0; i < steps.size(); ++i) {
    WorldStep& step = steps[i];
    step.survival.resize(n * width);
    for (size_t r = 0; r < n; ++r) {
      if (rng() % 40 == 0) ease[r] = uniform(rng);
      for (size_t j = 0; j < width; ++j) {
        const double c = std::clamp(ease[r] + 0.3 * (uniform(rng) - 0.5), 0.02, 0.98);
        step.confidence.push_back(static_cast<float>(c));
      }
      survival(std::span<const float>(step.confidence).subspan(r * width, width),
               std::span(step.survival).subspan(r * width, width));
      const bool is_cut = rng() % 5 == 0;
      step.n_most.push_back(is_cut ? static_cast<int32_t>(rng() % (width + 1)) : world.max_block);
    }
    if (world.has_prompts && i % 4 == 0) step.prompt_rows = 24;
  }
  return steps;
}

/// A step that asks for `length` drafts each and verifies n_verified in all.
inline StepShape shape_of(const PlannerWorld& world, const WorldStep& step, int32_t length,
                          int32_t n_verified) {
  StepShape shape;
  shape.rows = world.n_sequences + world.n_neighbours + step.prompt_rows + n_verified;
  shape.prompt_rows = step.prompt_rows;
  shape.draft_sequences = length > 0 ? world.n_sequences : 0;
  shape.draft_length = length;
  return shape;
}

/// Expected tokens and seconds of a run so far.
struct RunSum {
  double tokens = 0.0;
  double seconds = 0.0;
  double rate() const { return tokens / seconds; }
};

/// What a step could be: (tokens, seconds) for every draft length and number of verified drafts. The best
/// choice of so many prefixes is that of the likeliest drafts, because survivals fall.
inline std::vector<RunSum> choices_of(const PlannerWorld& world, const CostModel& costs,
                                      const WorldStep& step) {
  const auto width = static_cast<size_t>(world.max_block);
  const double plain = world.n_sequences + world.n_neighbours;
  std::vector<RunSum> choices = {{plain, costs.step_seconds(shape_of(world, step, 0, 0))}};
  for (int32_t length = 1; length <= world.max_block; ++length) {
    std::vector<double> drafts;
    for (size_t r = 0; r < step.n_most.size(); ++r) {
      const auto first = step.survival.begin() + static_cast<std::ptrdiff_t>(r * width);
      drafts.insert(drafts.end(), first, first + std::min(length, step.n_most[r]));
    }
    std::sort(drafts.begin(), drafts.end(), std::greater<>());
    double tokens = plain;
    for (size_t b = 0; b < drafts.size(); ++b) {
      tokens += drafts[b];
      const StepShape shape = shape_of(world, step, length, static_cast<int32_t>(b) + 1);
      choices.push_back({tokens, costs.step_seconds(shape)});
    }
  }
  return choices;
}

/// The most tokens per second of a whole run. With that rate in hand the best choice of a step is the one
/// with the largest tokens - rate * seconds, so the rate is raised until it is its own answer.
inline double best_rate(const PlannerWorld& world, std::span<const WorldStep> steps) {
  const CostModel costs(world.table);
  std::vector<std::vector<RunSum>> choices;
  for (const WorldStep& step : steps) choices.push_back(choices_of(world, costs, step));
  double rate = 0.0;
  for (;;) {
    RunSum sum;
    for (const std::vector<RunSum>& of_step : choices) {
      const auto worse = [rate](const RunSum& a, const RunSum& b) {
        return a.tokens - rate * a.seconds < b.tokens - rate * b.seconds;
      };
      const RunSum& best = *std::max_element(of_step.begin(), of_step.end(), worse);
      sum.tokens += best.tokens;
      sum.seconds += best.seconds;
    }
    if (sum.rate() <= rate * (1.0 + 1e-12)) return sum.rate();
    rate = sum.rate();
  }
}

/// Adds a step with these verify lengths.
inline void add_step(const PlannerWorld& world, const CostModel& costs, const WorldStep& step, int32_t asked,
                     std::span<const int32_t> lengths, RunSum& sum) {
  int32_t n_verified = 0;
  sum.tokens += world.n_sequences + world.n_neighbours;
  for (size_t r = 0; r < lengths.size(); ++r) {
    n_verified += lengths[r];
    for (size_t j = 0; j < static_cast<size_t>(lengths[r]); ++j) {
      sum.tokens += step.survival[r * static_cast<size_t>(world.max_block) + j];
    }
  }
  sum.seconds += costs.step_seconds(shape_of(world, step, asked, n_verified));
}

/// Always so many drafts, or none.
inline double fixed_rate(const PlannerWorld& world, std::span<const WorldStep> steps, int32_t length) {
  const CostModel costs(world.table);
  RunSum sum;
  std::vector<int32_t> lengths(static_cast<size_t>(world.n_sequences));
  for (const WorldStep& step : steps) {
    for (size_t r = 0; r < lengths.size(); ++r) lengths[r] = std::min(length, step.n_most[r]);
    add_step(world, costs, step, length, lengths, sum);
  }
  return sum.rate();
}

/// The verify lengths of one step.
inline void plan_step(AdaptivePlanner& planner, const PlannerWorld& world, const WorldStep& step,
                      int32_t asked, bool any_schedule, std::span<SurvivalRecord> records,
                      const PlanNeighbours& neighbours, std::span<int32_t> lengths) {
  const auto width = static_cast<size_t>(world.max_block);
  std::vector<PlanSequence> sequences;
  for (size_t r = 0; r < records.size(); ++r) {
    const int32_t n_drafts = std::min(asked, step.n_most[r]);
    const std::span<const float> confidence =
        std::span<const float>(step.confidence).subspan(r * width, static_cast<size_t>(n_drafts));
    sequences.push_back({n_drafts, asked, confidence, any_schedule, &records[r]});
  }
  StepShape shape = shape_of(world, step, 0, 0);
  shape.draft_sequences = asked > 0 ? world.n_sequences : 0;
  planner.verify_lengths(shape, sequences, lengths, neighbours);
}

/// A planner that knows the costs and nothing else at the start. any_schedule: its rules bear budgets from
/// live confidences; else they come from records. Outcomes, by which it learns, are drawn; what counts is
/// what its choices bring in the mean.
inline double planner_rate(const PlannerWorld& world, std::span<const WorldStep> steps, bool any_schedule,
                           uint32_t seed) {
  const CostModel costs(world.table);
  AdaptivePlanner planner(world.table);
  std::mt19937 rng(seed);
  std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
  const auto n = static_cast<size_t>(world.n_sequences), width = static_cast<size_t>(world.max_block);
  std::vector<SurvivalRecord> records(n);
  PlanNeighbours neighbours;
  for (int32_t i = 0; i < world.n_neighbours; ++i) neighbours.add(0, 0, 0, 1.0);
  RunSum sum;
  for (const WorldStep& step : steps) {
    const int32_t asked = planner.draft_length({world.n_sequences, world.n_sequences, neighbours},
                                               world.max_block, step.prompt_rows);
    std::vector<int32_t> lengths(n, 0);
    plan_step(planner, world, step, asked, any_schedule, records, neighbours, lengths);
    int32_t n_verified = 0, n_tokens = 0;
    for (size_t r = 0; r < n; ++r) {
      int32_t n_accepted = 0;
      while (n_accepted < lengths[r] &&
             uniform(rng) < step.confidence[r * width + static_cast<size_t>(n_accepted)]) {
        ++n_accepted;
      }
      planner.observe_round(lengths[r], n_accepted);
      n_verified += lengths[r];
      n_tokens += 1 + n_accepted;
    }
    const StepShape shape = shape_of(world, step, asked, n_verified);
    planner.observe_gain(shape, world.n_sequences, n_tokens, neighbours);
    planner.observe_step(shape, costs.verify_seconds(shape),
                         costs.draft_seconds(shape.draft_sequences, shape.draft_length));
    add_step(world, costs, step, asked, lengths, sum);
  }
  return sum.rate();
}

inline const std::vector<std::string>& planner_policies() {
  static const std::vector<std::string> names = {"off", "fixed:1", "fixed:7", "planner live",
                                                 "planner history"};
  return names;
}

/// Tokens per second of every policy in planner_policies().
inline std::vector<double> rates_of(const PlannerWorld& world, std::span<const WorldStep> steps,
                                    uint32_t seed) {
  return {fixed_rate(world, steps, 0), fixed_rate(world, steps, 1), fixed_rate(world, steps, world.max_block),
          planner_rate(world, steps, true, seed), planner_rate(world, steps, false, seed)};
}

/// Random runs of n_steps each. least_of_off: if given, the least that a planner got as a share of `off`.
inline std::vector<Regret> planner_regrets(bool staircase, int n_runs, int n_steps, uint32_t seed,
                                           double* least_of_off = nullptr) {
  std::mt19937 rng(seed);
  std::vector<Regret> found(planner_policies().size());
  for (int i = 0; i < n_runs; ++i) {
    const PlannerWorld world = random_world(rng, staircase);
    const std::vector<WorldStep> steps = random_steps(world, rng, n_steps);
    const double best = best_rate(world, steps);
    const std::vector<double> rates = rates_of(world, steps, seed + static_cast<uint32_t>(i));
    for (size_t p = 0; p < found.size(); ++p) {
      const double lost = 1.0 - rates[p] / best;
      found[p].mean += lost / n_runs;
      found[p].worst = std::max(found[p].worst, lost);
    }
    if (least_of_off == nullptr) continue;
    *least_of_off = std::min({*least_of_off, rates[3] / rates[0], rates[4] / rates[0]});
  }
  return found;
}

}  // namespace dspark::test
