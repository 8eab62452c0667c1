// What predictions miss of plain steps, on step times made up for the purpose.
#include "speculate/step_bias.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace dspark {
namespace {

TEST(StepBias, FindsWhatPlainStepsTakeLessOfANoisyMachine) {
  StepBias bias;
  EXPECT_EQ(bias.plain_over_drafting(), 1.0);
  std::mt19937 rng(1);
  std::normal_distribution<double> noise(1.0, 0.05);
  for (int step = 0; step < 400; ++step) bias.add(step % 5 != 0, (step % 5 == 0 ? 0.8 : 1.0) * noise(rng));
  EXPECT_NEAR(bias.plain_over_drafting(), 0.8, 0.03);
}

// Plain steps happen to come while the machine is slow, drafting ones while it is fast: that is no word about
// plain steps. Only steps that lie together are compared.
TEST(StepBias, TakesASlowMachineForNoBias) {
  StepBias bias;
  for (int stretch = 0; stretch < 20; ++stretch) {
    for (int i = 0; i < 30; ++i) bias.add(false, i < 20 ? 1.5 : 1.0);
    for (int i = 0; i < 30; ++i) bias.add(true, 1.0);
    for (int i = 0; i < 20; ++i) bias.skip();
  }
  EXPECT_NEAR(bias.plain_over_drafting(), 1.0, 0.02);
}

TEST(StepBias, CountsSlowStepsInTheMean) {
  StepBias bias;
  for (int step = 0; step < 600; ++step) bias.add(step % 7 != 0, step % 7 % 3 == 1 ? 1.9 : 1.0);
  EXPECT_NEAR(bias.plain_over_drafting(), 1.0 / 1.3, 0.05);  // two of six
}

TEST(StepBias, OneOutlierSaysLittle) {
  StepBias bias;
  for (int step = 0; step < 200; ++step) bias.add(step % 5 != 0, 1.0);
  bias.add(false, 50.0);
  EXPECT_LT(bias.plain_over_drafting(), 1.1);
}

}  // namespace
}  // namespace dspark
