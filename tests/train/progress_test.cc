// The progress line: what it says, and that it smooths.

#include "cli/train/progress.h"

#include <gtest/gtest.h>

namespace dspark::cli {
namespace {

TrainRecord record(int64_t step) {
  TrainRecord r;
  r.step = step;
  r.elapsed_s = static_cast<double>(step) * 2;
  r.anchors = step * 96;
  r.epoch = 0.25;
  r.learning_rate = 3e-3;
  r.loss = 2.5;
  r.ce = 4.5;
  r.soft_ce = 3.25;
  r.l1 = 1.125;
  r.confidence = 0.3125;
  r.tau = 1.75;
  r.accept_rate = {0.5, 0.25, 0.125};
  r.gradient_norm = 0.75;
  return r;
}

void expect_part(const std::string& line, const std::string& part) {
  EXPECT_NE(line.find(part), std::string::npos) << "no '" << part << "' in: " << line;
}

TEST(TrainProgress, TellsLossesAndTheAcceptanceOfEverySlot) {
  TrainOptions options;
  options.steps = 1801;
  TrainProgress progress(options);
  progress.add(record(1));
  progress.add(record(2));
  const std::string line = progress.line();
  for (const char* part : {"step 2 ", "48 anchors/s", "loss 2.500 (ce 4.50 soft-ce 3.25 l1 1.125 conf 0.312)",
                           "tau 1.750", "accept 0.50 0.25 0.12", "norm 0.75", "left 0:59 h"}) {
    expect_part(line, part);
  }
}

TEST(TrainProgress, SmoothsOverSteps) {
  TrainOptions options;
  options.minutes = 90;
  TrainProgress progress(options);
  TrainRecord r = record(1);
  progress.add(r);
  expect_part(progress.line(), "left 1:29 h");
  r.loss = 4.5;
  r.accept_rate = {1.0, 1.0, 1.0};
  progress.add(r);
  expect_part(progress.line(), "loss 2.600");
  expect_part(progress.line(), "accept 0.53 0.29 0.17");
}

}  // namespace
}  // namespace dspark::cli
