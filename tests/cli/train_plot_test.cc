// Pictures at the end of a training run.

#include "cli/train_plot.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "formats/temp_folder.h"

namespace dspark::cli {
namespace {

void write_file(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path) << text;
}
std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(TrainPlot, DrawsStepsAndHeldOutSamples) {
  const test::TempFolder folder;
  std::string log = "step,anchors,loss,tau_prob\n";
  for (int step = 1; step <= 1000; ++step) {
    log += std::to_string(step) + "," + std::to_string(step * 112) + ",3.5,1." + std::to_string(step % 10) +
           "\n";
  }
  write_file(folder.path() / "log.csv", log);
  ASSERT_TRUE(write_train_plots(folder.path().string()).ok());
  const std::string alone = read_file(folder.path() / "tau.svg");
  EXPECT_NE(alone.find("training"), std::string::npos);
  EXPECT_EQ(alone.find("held out"), std::string::npos);
  EXPECT_LT(alone.size(), 20000u);  // a thousand steps are averaged

  write_file(folder.path() / "eval.csv",
             "tau_prob,anchors,step,loss\n1.4,56000,500,3.6\n1.6,112000,1000,3.4\n");
  ASSERT_TRUE(write_train_plots(folder.path().string()).ok());
  EXPECT_NE(read_file(folder.path() / "tau.svg").find("held out"), std::string::npos);
  EXPECT_NE(read_file(folder.path() / "loss.svg").find("held out"), std::string::npos);
}

TEST(TrainPlot, NamesWhatIsWrong) {
  const test::TempFolder folder;
  const auto message = [&] { return write_train_plots(folder.path().string()).message(); };
  EXPECT_NE(message().find("log.csv: cannot be read"), std::string::npos);
  write_file(folder.path() / "log.csv", "step,anchors,loss\n1,2,3\n");
  EXPECT_NE(message().find("has no column tau_prob"), std::string::npos);
  write_file(folder.path() / "log.csv", "anchors,loss,tau_prob\n1,2,3\n1,x,3\n");
  EXPECT_NE(message().find("line 3: want a number for loss, found 'x'"), std::string::npos);
  write_file(folder.path() / "log.csv", "anchors,loss,tau_prob\n1,2\n");
  EXPECT_NE(message().find("line 2: want a number for tau_prob, found ''"), std::string::npos);
}

}  // namespace
}  // namespace dspark::cli
