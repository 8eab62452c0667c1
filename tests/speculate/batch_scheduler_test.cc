// Algorithm 1 and the history budget: reference cases, enumeration, and what keeps them from anticipating.

#include "speculate/batch_scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "speculate/batch_rows.h"
#include "speculate/golden_json.h"

namespace dspark {
namespace {

using nlohmann::json;
using test::BatchRows;
using Confidences = std::vector<std::vector<double>>;
using Lengths = std::vector<int32_t>;

std::vector<double> random_costs(std::mt19937& rng, size_t n_rows) {
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<double> costs;
  double cost = 1.0;
  const bool stairs = rng() % 2 == 0;
  for (size_t b = 0; b <= n_rows; ++b) {
    if (!stairs || rng() % 3 == 0) cost += 0.3 * uniform(rng);
    costs.push_back(cost * (rng() % 5 == 0 ? 0.9 : 1.0));  // not monotone
  }
  return costs;
}

Confidences random_confidences(std::mt19937& rng, size_t n_sequences, size_t n_drafts) {
  // Few distinct values, so that survivals tie often.
  constexpr double kValues[] = {0.0, 0.25, 0.5, 0.5, 0.75, 1.0, 1.0};
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  const bool coarse = rng() % 2 == 0;
  Confidences c(n_sequences, std::vector<double>(n_drafts));
  for (auto& row : c) {
    for (double& x : row) x = coarse ? kValues[rng() % 7] : uniform(rng);
  }
  return c;
}

TEST(BatchScheduler, ReferenceCases) {
  for (const json& file : test::fixture_and_golden("scheduler.json", "draft/rules/scheduler.json", "rules")) {
    ASSERT_GE(file["cases"].size(), 44u);
    ScheduleScratch scratch;
    for (const json& c : file["cases"]) {
      SCOPED_TRACE(c["name"].get<std::string>());
      const auto costs = c["cost_seconds"].get<std::vector<double>>();
      const PassCosts pass{costs, c["extra_tokens"].get<int32_t>()};
      const BatchRows live(c["confidence"].get<Confidences>()), recorded(c["history"].get<Confidences>());
      Lengths lengths(live.size());
      const double theta = schedule_causal(live.rows(), pass, scratch, lengths);
      EXPECT_EQ(lengths, c["algorithm1"]["lengths"].get<Lengths>());
      EXPECT_NEAR(theta, c["algorithm1"]["theta"].get<double>(), 1e-9 * theta);
      const int32_t rows = std::accumulate(lengths.begin(), lengths.end(), static_cast<int32_t>(live.size()));
      EXPECT_EQ(rows + pass.extra_rows, c["algorithm1"]["tokens"].get<int32_t>());
      const int32_t budget = history_budget(recorded.rows(), pass, scratch);
      EXPECT_EQ(budget, c["budget"]["K"].get<int32_t>());
      allot_budget(live.rows(), budget, scratch, lengths);
      EXPECT_EQ(lengths, c["budget"]["lengths"].get<Lengths>());
      if (!c.contains("lengths_at_budget")) continue;
      for (size_t k = 0; k < c["lengths_at_budget"].size(); ++k) {
        allot_budget(live.rows(), static_cast<int32_t>(k) + 1, scratch, lengths);
        EXPECT_EQ(lengths, c["lengths_at_budget"][k].get<Lengths>()) << k + 1;
      }
      Lengths before(live.size(), 0);  // each budget adds exactly the next of the admission order
      for (size_t k = 0; k < c["admission_order"].size(); ++k) {
        allot_budget(live.rows(), static_cast<int32_t>(k) + 1, scratch, lengths);
        const auto sequence = c["admission_order"][k][0].get<size_t>();
        EXPECT_EQ(lengths[sequence], c["admission_order"][k][1].get<int32_t>());
        ++before[sequence];
        EXPECT_EQ(lengths, before);
      }
    }
  }
}

/// Every choice of prefixes, for batches small enough.
struct Enumeration {
  std::vector<double> best_tokens;  // by budget; -1: impossible
  double best_throughput = 0.0;
};

Enumeration enumerate(const BatchRows& rows, const PassCosts& costs) {
  const size_t n = rows.size(), n_drafts = static_cast<size_t>(rows.rows().stride);
  Enumeration found{std::vector<double>(n * n_drafts + 1, -1.0), 0.0};
  Lengths lengths(n, 0);
  for (;;) {
    const auto budget = static_cast<size_t>(std::accumulate(lengths.begin(), lengths.end(), 0));
    const double tokens = static_cast<double>(n) + rows.expected(lengths);
    found.best_tokens[budget] = std::max(found.best_tokens[budget], tokens);
    const size_t b = n + budget + static_cast<size_t>(costs.extra_rows);
    found.best_throughput = std::max(found.best_throughput, tokens / costs.seconds[b]);
    size_t r = 0;
    while (r < n && lengths[r] == static_cast<int32_t>(n_drafts)) lengths[r++] = 0;
    if (r == n) return found;
    ++lengths[r];
  }
}

TEST(BatchScheduler, EqualsEnumerationOfSmallBatches) {
  std::mt19937 rng(31);
  ScheduleScratch scratch;
  for (int trial = 0; trial < 400; ++trial) {
    const size_t n = rng() % 4 + 1, n_drafts = rng() % 3 + 1;
    const auto extra = static_cast<int32_t>(rng() % 3);
    const std::vector<double> costs = random_costs(rng, n * (n_drafts + 1) + static_cast<size_t>(extra));
    const PassCosts pass{costs, extra};
    Confidences c = random_confidences(rng, n, n_drafts);
    for (auto& row : c) {
      // Drafts that cannot survive are never admitted, even where more rows would cost less.
      for (double& x : row) x = std::max(x, 0.05);
    }
    const BatchRows rows(c);
    const Enumeration all = enumerate(rows, pass);
    Lengths lengths(n);
    // For every budget the allotment has the most expected tokens.
    for (size_t k = 0; k < all.best_tokens.size(); ++k) {
      allot_budget(rows.rows(), static_cast<int32_t>(k), scratch, lengths);
      EXPECT_NEAR(static_cast<double>(n) + rows.expected(lengths), all.best_tokens[k], 1e-12);
    }
    // The budget is the global optimum.
    const int32_t budget = history_budget(rows.rows(), pass, scratch);
    allot_budget(rows.rows(), budget, scratch, lengths);
    ASSERT_EQ(std::accumulate(lengths.begin(), lengths.end(), 0), budget);
    const auto throughput = [&](size_t k) {
      return all.best_tokens[k] / costs[n + k + static_cast<size_t>(extra)];
    };
    EXPECT_NEAR(throughput(static_cast<size_t>(budget)), all.best_throughput, 1e-9);
    // Algorithm 1 walks the budgets up to the first that is no better.
    const double best = schedule_causal(rows.rows(), pass, scratch, lengths);
    const auto k = static_cast<size_t>(std::accumulate(lengths.begin(), lengths.end(), 0));
    EXPECT_NEAR(throughput(k), best, 1e-9);
    for (size_t i = 1; i <= k; ++i) EXPECT_GT(throughput(i), throughput(i - 1) * (1.0 - 1e-12));
    if (k + 1 < all.best_tokens.size()) {
      EXPECT_LE(throughput(k + 1), throughput(k) * (1.0 + 1e-12));
    }
  }
}

TEST(BatchScheduler, StaircaseStopsAlgorithmOneAndNotTheBudget) {
  // Rows come in tiles of four: the third draft costs a whole tile, the fourth to seventh nothing.
  const std::vector<double> costs = {1, 1, 1, 1, 1.5, 1.5, 1.5, 1.5, 1.5};
  const BatchRows rows(Confidences{{1, 1, 1, 1, 1, 1, 1}});
  ScheduleScratch scratch;
  Lengths lengths(1);
  const double theta = schedule_causal(rows.rows(), {costs, 0}, scratch, lengths);
  EXPECT_EQ(lengths[0], 2);
  EXPECT_DOUBLE_EQ(theta, 3.0);
  EXPECT_EQ(history_budget(rows.rows(), {costs, 0}, scratch), 7);
}

TEST(BatchScheduler, EdgesOfCostsAndBatch) {
  ScheduleScratch scratch;
  const std::vector<double> costs = {1, 1, 1, 1};
  Lengths lengths(1, 9);
  const BatchRows rows(Confidences{{1, 1, 1, 1, 1}});
  EXPECT_DOUBLE_EQ(schedule_causal(rows.rows(), {costs, 0}, scratch, lengths), 3.0);
  EXPECT_EQ(lengths[0], 2) << "sizes behind the costs are not chosen";
  EXPECT_EQ(history_budget(rows.rows(), {costs, 0}, scratch), 2);
  EXPECT_EQ(history_budget(rows.rows(), {costs, 7}, scratch), 0);
  EXPECT_EQ(schedule_causal(rows.rows(), {{}, 0}, scratch, lengths), 0.0);
  EXPECT_EQ(lengths[0], 0);
  const BatchRows none(Confidences{});
  EXPECT_EQ(history_budget(none.rows(), {costs, 0}, scratch), 0);
  allot_budget(none.rows(), 3, scratch, {});
  // Drafts that cannot survive and sequences without drafts get nothing, however cheap rows are.
  const BatchRows zeros(Confidences{{0.5, 0.0, 0.0}, {}, {0.0, 0.0, 0.0}});
  const std::vector<double> flat(20, 1.0);
  Lengths three(3);
  schedule_causal(zeros.rows(), {flat, 0}, scratch, three);
  EXPECT_EQ(three, (Lengths{1, 0, 0}));
  allot_budget(zeros.rows(), 9, scratch, three);
  EXPECT_EQ(three, (Lengths{1, 0, 0}));
}

TEST(BatchScheduler, RaisingAConfidenceNeverShortensItsOwnPrefix) {
  std::mt19937 rng(32);
  ScheduleScratch scratch;
  for (int trial = 0; trial < 2000; ++trial) {
    const size_t n = rng() % 5 + 1, n_drafts = rng() % 6 + 1;
    Confidences c = random_confidences(rng, n, n_drafts);
    const auto budget = static_cast<int32_t>(rng() % (n * n_drafts + 1));
    Lengths before(n), after(n);
    allot_budget(BatchRows(c).rows(), budget, scratch, before);
    const size_t r = rng() % n;
    double& raised = c[r][rng() % n_drafts];
    raised += (1.0 - raised) * static_cast<double>(rng() % 3 + 1) / 3.0;
    allot_budget(BatchRows(c).rows(), budget, scratch, after);
    EXPECT_GE(after[r], before[r]);
    for (size_t s = 0; s < n; ++s) EXPECT_TRUE(s == r || after[s] <= before[s]);
  }
}

/// Algorithm 1 without its early stop: the best of all lengths on live confidences. Not for use; it looks
/// ahead.
void schedule_retrospective(const BatchRows& live, const PassCosts& costs, ScheduleScratch& scratch,
                            Lengths& lengths) {
  allot_budget(live.rows(), history_budget(live.rows(), costs, scratch), scratch, lengths);
}

/// How often draft k of sequence r changes between verified and not when the confidences behind k change,
/// which is all that draft k itself can change.
template <typename Schedule>
int anticipations(Schedule&& schedule) {
  std::mt19937 rng(33);
  int found = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    const size_t n = rng() % 4 + 1, n_drafts = rng() % 5 + 2;
    Confidences c = random_confidences(rng, n, n_drafts);
    const std::vector<double> costs = random_costs(rng, n * (n_drafts + 1));
    const auto number = static_cast<int32_t>(rng() % (n * n_drafts + 1));
    const Lengths before = schedule(c, costs, number);
    const size_t r = rng() % n, k = rng() % (n_drafts - 1);
    const Confidences other = random_confidences(rng, n, n_drafts);
    std::copy(other[r].begin() + static_cast<std::ptrdiff_t>(k) + 1, other[r].end(),
              c[r].begin() + static_cast<std::ptrdiff_t>(k) + 1);
    const Lengths after = schedule(c, costs, number);
    found += (before[r] > static_cast<int32_t>(k)) != (after[r] > static_cast<int32_t>(k)) ? 1 : 0;
  }
  return found;
}

TEST(BatchScheduler, NoDraftIsJudgedByItsSuccessors) {
  ScheduleScratch scratch;
  EXPECT_EQ(anticipations([&](const Confidences& c, const std::vector<double>& costs, int32_t) {
              Lengths lengths(c.size());
              schedule_causal(BatchRows(c).rows(), {costs, 0}, scratch, lengths);
              return lengths;
            }),
            0);
  EXPECT_EQ(anticipations([&](const Confidences& c, const std::vector<double>&, int32_t budget) {
              Lengths lengths(c.size());
              allot_budget(BatchRows(c).rows(), budget, scratch, lengths);
              return lengths;
            }),
            0);
  const auto threshold_lengths = [](const Confidences& c) {
    Lengths lengths;
    for (const auto& row : c) {
      const std::vector<float> confidence(row.begin(), row.end());
      lengths.push_back(verify_length(VerifyPolicy::from_threshold(0.5f),
                                      static_cast<int32_t>(confidence.size()), confidence));
    }
    return lengths;
  };
  EXPECT_EQ(anticipations([&](const Confidences& c, const std::vector<double>&, int32_t) {
              return threshold_lengths(c);
            }),
            0);
  EXPECT_EQ(anticipations([&](const Confidences& c, const std::vector<double>&, int32_t max_drafts) {
              Lengths lengths = threshold_lengths(c);
              cap_verify_rows(lengths, static_cast<int64_t>(c.size()) + max_drafts);
              return lengths;
            }),
            0);
  // The measure can tell: a search over all lengths on live confidences does anticipate.
  EXPECT_GT(anticipations([&](const Confidences& c, const std::vector<double>& costs, int32_t) {
              Lengths lengths(c.size());
              schedule_retrospective(BatchRows(c), {costs, 0}, scratch, lengths);
              return lengths;
            }),
            20);
}

}  // namespace
}  // namespace dspark
