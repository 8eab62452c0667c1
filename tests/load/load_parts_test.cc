// Quantiles, arrivals and workloads.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <map>
#include <numeric>

#include "load/arrivals.h"
#include "load/cost_curves.h"
#include "load/quantiles.h"
#include "load/workload.h"

namespace dspark {
namespace {

TEST(Quantiles, LinearBetweenNeighbours) {
  const std::vector<double> values = {1, 2, 4, 8, 16};
  EXPECT_DOUBLE_EQ(quantile_of_sorted(values, 0.0), 1.0);
  EXPECT_DOUBLE_EQ(quantile_of_sorted(values, 1.0), 16.0);
  EXPECT_DOUBLE_EQ(quantile_of_sorted(values, 0.5), 4.0);
  EXPECT_DOUBLE_EQ(quantile_of_sorted(values, 0.625), 6.0);  // position 2.5
  EXPECT_DOUBLE_EQ(quantile_of_sorted({}, 0.5), 0.0);
  EXPECT_DOUBLE_EQ(median_of({3, 1}), 2.0);
  EXPECT_DOUBLE_EQ(median_of({5, 1, 3}), 3.0);
}

TEST(Quantiles, Summary) {
  std::vector<double> values(101);
  std::iota(values.begin(), values.end(), 0.0);
  std::ranges::reverse(values);
  const QuantileSummary summary = summarize_quantiles(values);
  EXPECT_EQ(summary.n, 101);
  EXPECT_DOUBLE_EQ(summary.mean, 50.0);
  EXPECT_DOUBLE_EQ(summary.p50, 50.0);
  EXPECT_DOUBLE_EQ(summary.p95, 95.0);
  EXPECT_DOUBLE_EQ(summary.p99, 99.0);
  EXPECT_DOUBLE_EQ(summary.max, 100.0);
  EXPECT_EQ(summarize_quantiles({}).n, 0);
}

TEST(Arrivals, Parsing) {
  for (const char* text : {"closed", "poisson", "bursty:8", "bursty:2.5"}) {
    const auto process = ArrivalProcess::parse(text);
    ASSERT_TRUE(process.ok()) << text;
    EXPECT_EQ(process->to_string(), text);
  }
  EXPECT_EQ(ArrivalProcess::parse("bursty")->to_string(), "bursty:8");
  for (const char* text :
       {"", "open", "bursty:", "bursty:0.5", "bursty:x", "bursty:4x", "poisson:3", "bursty:nan"}) {
    EXPECT_FALSE(ArrivalProcess::parse(text).ok()) << text;
  }
}

TEST(Arrivals, RateAndSpread) {
  constexpr int64_t n = 40000;
  for (const char* text : {"poisson", "bursty:5"}) {
    const ArrivalProcess process = *ArrivalProcess::parse(text);
    const std::vector<double> times = arrival_times(process, 4.0, n, 7);
    ASSERT_EQ(times.size(), static_cast<size_t>(n));
    EXPECT_TRUE(std::ranges::is_sorted(times));
    EXPECT_EQ(times.front(), 0.0);
    EXPECT_NEAR(n / times.back(), 4.0, 0.2) << text;
    EXPECT_EQ(times, arrival_times(process, 4.0, n, 7));
    EXPECT_NE(times, arrival_times(process, 4.0, n, 8));
    // A shorter list is the beginning of the longer one.
    const std::vector<double> some = arrival_times(process, 4.0, 100, 7);
    EXPECT_TRUE(std::equal(some.begin(), some.end(), times.begin()));
  }
}

TEST(Arrivals, PoissonGapsAreExponentialAndBurstsAreGroups) {
  const std::vector<double> poisson = arrival_times(*ArrivalProcess::parse("poisson"), 1.0, 20000, 3);
  int64_t longer_than_one = 0;
  for (size_t i = 1; i < poisson.size(); ++i) {
    EXPECT_GT(poisson[i], poisson[i - 1]);
    longer_than_one += poisson[i] - poisson[i - 1] > 1.0 ? 1 : 0;
  }
  EXPECT_NEAR(static_cast<double>(longer_than_one) / 20000, 0.3679, 0.015);
  const std::vector<double> bursts = arrival_times(*ArrivalProcess::parse("bursty:5"), 1.0, 20000, 3);
  std::map<double, int> groups;
  for (double time : bursts) ++groups[time];
  EXPECT_NEAR(20000.0 / static_cast<double>(groups.size()), 5.0, 0.3);
  EXPECT_GT(std::ranges::max_element(groups, {}, [](const auto& g) { return g.second; })->second, 15);
}

PromptSource source(const char* name, double weight, int n_prompts) {
  PromptSource made{name, weight, {}};
  for (int p = 0; p < n_prompts; ++p) made.prompts.push_back({p + 1});
  return made;
}

TEST(Workload, DrawsByWeightInTurn) {
  const std::vector<PromptSource> sources = {source("a", 1, 3), source("b", 3, 5), source("c", 0, 1)};
  WorkloadOptions options{4000, 10, 20, 5};
  const auto requests = make_workload(sources, options);
  ASSERT_TRUE(requests.ok());
  std::map<int32_t, int> by_source;
  std::map<int32_t, int32_t> last;
  std::map<int32_t, int> lengths;
  for (const LoadRequest& request : *requests) {
    const int32_t s = request.source;
    ++by_source[s];
    ++lengths[request.max_tokens];
    const auto n = static_cast<int32_t>(sources[static_cast<size_t>(s)].prompts.size());
    EXPECT_EQ(request.prompt.front(), last[s] % n + 1);
    last[s] = request.prompt.front();
  }
  EXPECT_NEAR(by_source[0], 1000, 100);
  EXPECT_NEAR(by_source[1], 3000, 100);
  EXPECT_EQ(by_source.count(2), 0u);
  EXPECT_EQ(lengths.size(), 11u);
  EXPECT_EQ(lengths.begin()->first, 10);
  EXPECT_EQ(lengths.rbegin()->first, 20);
  options.n_requests = 50;
  const auto fewer = make_workload(sources, options);
  for (size_t i = 0; i < 50; ++i) {
    EXPECT_EQ((*fewer)[i].prompt, (*requests)[i].prompt);
    EXPECT_EQ((*fewer)[i].max_tokens, (*requests)[i].max_tokens);
    EXPECT_EQ((*fewer)[i].seed, options.seed + i);
  }
}

TEST(Workload, Errors) {
  const WorkloadOptions options{4, 1, 2, 0};
  EXPECT_FALSE(make_workload({}, options).ok());
  EXPECT_FALSE(make_workload({source("a", 0, 1)}, options).ok());
  EXPECT_FALSE(make_workload({source("a", -1, 1), source("b", 1, 1)}, options).ok());
  EXPECT_FALSE(make_workload({source("a", std::numeric_limits<double>::infinity(), 1)}, options).ok());
  const auto empty = make_workload({source("nothing", 1, 0)}, options);
  ASSERT_FALSE(empty.ok());
  EXPECT_NE(empty.status().message().find("nothing"), std::string::npos);
}

TEST(Workload, Synthetic) {
  const PromptSource made = synthetic_source(30, 4, 17, 9);
  ASSERT_EQ(made.prompts.size(), 4u);
  for (const std::vector<int32_t>& prompt : made.prompts) {
    ASSERT_EQ(prompt.size(), 30u);
    for (int32_t token : prompt) {
      EXPECT_GE(token, 0);
      EXPECT_LT(token, 17);
    }
  }
  EXPECT_NE(made.prompts[0], made.prompts[1]);
  EXPECT_EQ(made.prompts, synthetic_source(30, 4, 17, 9).prompts);
}

TEST(CostCurves, BuiltInAndSampled) {
  for (const char* name : {"flat", "linear", "gpu"}) {
    const auto table = built_in_costs(name, 600, 64);
    ASSERT_TRUE(table.ok());
    EXPECT_TRUE(table->validate().ok());
    EXPECT_EQ(table->verify.size(), 600u);
    EXPECT_EQ(table->draft.size(), 64u);
    EXPECT_LT(table->draft[0].seconds, table->verify[0].seconds);
    const CostTable sampled = sample_costs(*table, 64, 8);
    std::vector<int32_t> sizes;
    for (const CostPoint& point : sampled.verify) sizes.push_back(point.n);
    EXPECT_EQ(sizes, (std::vector<int32_t>{1, 2, 3, 4, 6, 8, 9, 12, 16, 17, 24, 25, 32, 33, 48, 64}));
    EXPECT_TRUE(sampled.validate().ok());
    EXPECT_EQ(sampled.draft.back().n, 8);
  }
  EXPECT_FALSE(built_in_costs("steep", 8, 8).ok());
  const CostTable gpu = *built_in_costs("gpu", 600, 1);
  EXPECT_LT(gpu.verify[63].seconds, gpu.verify[62].seconds);        // a dip at full tiles
  EXPECT_GT(gpu.verify[512].seconds, 1.9 * gpu.verify[0].seconds);  // behind the knee
  EXPECT_LT(gpu.verify[100].seconds, 1.1 * gpu.verify[0].seconds);  // before it
}

TEST(CostCurves, FilesSayHowPositionsCount) {
  const std::string path = testing::TempDir() + "dspark_load_parts_costs.json";
  const auto read = [&path](const std::string& curve) {
    std::ofstream(path) << R"({"verify": [[1, 0.01]], "context_curve": )" << curve << "}";
    return read_cost_table(path);
  };
  const auto table = read("[[512, 700.5], [2048, 900]]");
  ASSERT_TRUE(table.ok()) << table.status().to_string();
  EXPECT_DOUBLE_EQ(table->counted_positions(512), 700.5);
  EXPECT_DOUBLE_EQ(table->counted_positions(2048), 900.0);
  for (const char* broken : {"7", "[7]", "[[512]]", "[[-1, 2]]", "[[512, 9], [600, 8]]"}) {
    const auto refused = read(broken);
    ASSERT_FALSE(refused.ok()) << broken;
    EXPECT_NE(refused.status().message().find("context_curve"), std::string::npos) << broken;
  }
}

}  // namespace
}  // namespace dspark
