#include "cli/nearest.h"

#include <gtest/gtest.h>

namespace dspark::cli {
namespace {

TEST(EditDistance, CountsEdits) {
  EXPECT_EQ(edit_distance("run", "run"), 0);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("bench", "bnch"), 1);
  EXPECT_EQ(edit_distance("bench", "bnech"), 1);  // neighbours swapped
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("--temp", "temp"), 0);  // dashes do not count
}

TEST(NearestWord, FindsTheClosest) {
  const std::vector<std::string> commands = {"run", "bench", "inspect", "tokenize"};
  EXPECT_EQ(nearest_word("rnu", commands), "run");
  EXPECT_EQ(nearest_word("inspct", commands), "inspect");
  EXPECT_EQ(nearest_word("tokenise", commands), "tokenize");
  EXPECT_EQ(nearest_word("--tmep", {"--top-k", "--temp"}), "--temp");
}

TEST(NearestWord, SaysNothingWhenNothingIsClose) {
  EXPECT_EQ(nearest_word("serve", {"run", "bench"}), "");
  EXPECT_EQ(nearest_word("xy", {"run"}), "");
  EXPECT_EQ(nearest_word(std::string(100000, 'a'), {"run"}), "");
}

}  // namespace
}  // namespace dspark::cli
