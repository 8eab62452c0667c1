// Prints what policies lose against the best schedule of small batches.
#include <cstdio>

#include "speculate/regret.h"

int main() {
  using namespace dspark::test;
  const auto smooth = regrets(false, 4000, 1), stairs = regrets(true, 4000, 1);
  std::printf("| policy | smooth costs: mean, worst | tiles of four rows: mean, worst |\n|---|---|---|\n");
  for (size_t p = 0; p < smooth.size(); ++p) {
    std::printf("| %s | %.1f %%, %.1f %% | %.1f %%, %.1f %% |\n", regret_policies()[p].c_str(),
                100 * smooth[p].mean, 100 * smooth[p].worst, 100 * stairs[p].mean, 100 * stairs[p].worst);
  }
  return 0;
}
