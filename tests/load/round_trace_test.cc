// Recorded rounds as files.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "load/round_trace.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

RoundTrace small_trace() {
  RoundTrace trace;
  trace.model = "m";
  trace.drafter = "d";
  trace.max_block = 3;
  trace.has_confidence = true;
  trace.confidence = {0.9f, 0.5f, 0.125f, 1.0f};
  TraceAnswer answer;
  answer.prompt_tokens = 5;
  answer.output_tokens = 4;
  answer.anchors = {{0, 3, 2}, {}, {3, 1, 0}, {}};
  trace.answers = {answer, answer};
  return trace;
}

std::string temp_path(const char* name) {
  return testing::TempDir() + "round_trace_" + name + ".jsonl";
}

TEST(RoundTrace, RoundTrip) {
  const RoundTrace trace = small_trace();
  const std::string path = temp_path("round_trip");
  ASSERT_TRUE(write_round_trace(path, trace).ok());
  const auto read = read_round_trace(path);
  ASSERT_TRUE(read.ok()) << read.status().to_string();
  EXPECT_EQ(read->model, "m");
  EXPECT_EQ(read->max_block, 3);
  ASSERT_EQ(read->answers.size(), 2u);
  for (size_t a = 0; a < 2; ++a) {
    const TraceAnswer &want = trace.answers[a], &got = read->answers[a];
    EXPECT_EQ(got.prompt_tokens, want.prompt_tokens);
    EXPECT_EQ(got.output_tokens, want.output_tokens);
    for (size_t i = 0; i < want.anchors.size(); ++i) {
      EXPECT_EQ(got.anchors[i].n_drafts, want.anchors[i].n_drafts);
      EXPECT_EQ(got.anchors[i].accepted, want.anchors[i].accepted);
      const auto c = read->confidence_of(got.anchors[i]), w = trace.confidence_of(want.anchors[i]);
      ASSERT_EQ(c.size(), w.size());
      for (size_t k = 0; k < c.size(); ++k) EXPECT_NEAR(c[k], w[k], 5.1e-4);
    }
  }
  EXPECT_EQ(read->n_tokens(), 8);
  std::remove(path.c_str());
}

TEST(RoundTrace, BadFilesAreNamed) {
  const std::string head =
      R"({"dspark_trace":1,"model":"m","drafter":"d","max_block":3,"has_confidence":true})";
  const struct {
    std::string text;
    const char* part;
  } cases[] = {
      {"", "empty"},
      {"[1]", ":1"},
      {"{", ":1"},
      {R"({"dspark_trace":2})", "dspark_trace"},
      {R"({"dspark_trace":1,"max_block":65})", "max_block"},
      {R"({"dspark_trace":1,"max_block":3})", "has_confidence"},
      {R"({"dspark_trace":1,"max_block":3,"has_confidence":true,"model":1})", "model"},
      {head, "no answers"},
      {head + "\n{\"prompt\":0,\"output\":2,\"rounds\":[]}", "prompt"},
      {head + "\n{\"prompt\":1,\"output\":2}", "rounds"},
      {head + "\n{\"prompt\":1,\"output\":1000000000,\"rounds\":[]}", "output"},
      {head + "\n{\"prompt\":1,\"output\":4,\"rounds\":[[0,0]]}", "rounds[0]"},
      {head + "\n{\"prompt\":1,\"output\":4,\"rounds\":[[4,0,0]]}", "index"},
      {head + "\n{\"prompt\":1,\"output\":4,\"rounds\":[[0,0,0],[0,0,0]]}", "rounds[1]"},
      {head + "\n{\"prompt\":1,\"output\":4,\"rounds\":[[2,0,3,1,1,1]]}", "drafts"},
      {head + "\n{\"prompt\":1,\"output\":9,\"rounds\":[[0,0,4,1,1,1,1]]}", "drafts"},
      {head + "\n{\"prompt\":1,\"output\":9,\"rounds\":[[0,3,2,1,1]]}", "accepted"},
      {head + "\n{\"prompt\":1,\"output\":9,\"rounds\":[[0,1,2,1]]}", "confidences"},
      {head + "\n{\"prompt\":1,\"output\":9,\"rounds\":[[0,1,2,1,1001]]}", "confidence"},
      {head + "\n{\"prompt\":1,\"output\":9,\"rounds\":[[0,1.5,2,1,1]]}", "accepted"},
      {head + "\n{\"prompt\":1,\"output\":9,\"rounds\":[[0,18446744073709551615,2,1,1]]}", "accepted"},
  };
  const std::string path = temp_path("bad");
  for (const auto& c : cases) {
    std::ofstream(path) << c.text;
    const auto read = read_round_trace(path);
    ASSERT_FALSE(read.ok()) << c.text;
    EXPECT_NE(read.status().message().find(c.part), std::string::npos)
        << c.text << ": " << read.status().message();
    EXPECT_NE(read.status().message().find("round_trace_bad"), std::string::npos);
  }
  std::remove(path.c_str());
  EXPECT_EQ(read_round_trace(path).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace dspark
