// Prints what policies lose against the best schedule: of small batches, and the planner in whole runs.
#include <cstdio>
#include <string>
#include <vector>

#include "speculate/planner_regret.h"
#include "speculate/regret.h"

namespace {

void print(const std::vector<std::string>& policies, const std::vector<dspark::test::Regret>& smooth,
           const std::vector<dspark::test::Regret>& stairs, int tile) {
  std::printf("| policy | smooth costs: mean, worst | tiles of %d rows: mean, worst |\n|---|---|---|\n",
              tile);
  for (size_t p = 0; p < policies.size(); ++p) {
    std::printf("| %s | %.1f %%, %.1f %% | %.1f %%, %.1f %% |\n", policies[p].c_str(), 100 * smooth[p].mean,
                100 * smooth[p].worst, 100 * stairs[p].mean, 100 * stairs[p].worst);
  }
}

}  // namespace

int main() {
  using namespace dspark::test;
  print(regret_policies(), regrets(false, 4000, 1), regrets(true, 4000, 1), 4);
  constexpr int kRuns = 200, kSteps = 1000;
  std::printf("\n");
  print(planner_policies(), planner_regrets(false, kRuns, kSteps, 1), planner_regrets(true, kRuns, kSteps, 1),
        8);
  return 0;
}
