// The public face, through its public header alone.

#include <gtest/gtest.h>

#include "dspark/dspark.hpp"
#include "support/test_paths.h"

namespace {

const std::string kFixture =
    (dspark::test::data_dir() / "models" / "qwen2_bias_tied" / "model.gguf").string();

TEST(Generator, OpenTellsWhatIsWrong) {
  const auto expect_error = [](const std::string& path, const dspark::GeneratorOptions& options,
                               const std::string& part) {
    std::string error;
    EXPECT_EQ(dspark::Generator::open(path, options, &error), nullptr);
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos);
  };
  expect_error("no/such/file.gguf", {}, "no/such/file.gguf");
  expect_error(kFixture, {.policy = "sometimes"}, "'sometimes'");
  expect_error(kFixture, {.accept_rule = "never"}, "'never'");
  expect_error(kFixture, {.threads = -1}, "threads");
  expect_error(kFixture, {}, "has no tokenizer");
  EXPECT_EQ(dspark::Generator::open("no/such/file.gguf"), nullptr);  // the error is optional
}

/// A whole text when SmolLM2 was fetched; the errors above do not need it.
TEST(Generator, SpeculationIsInvisible) {
  const auto path = dspark::test::model_file("SmolLM2-135M-Instruct.Q4_1.gguf");
  std::string error;
  if (path.empty()) {
    EXPECT_EQ(dspark::Generator::open(kFixture, {}, &error), nullptr);
    return;
  }
  const std::string prompt = "one two three four five one two three four five one two";
  std::string texts[2];
  for (const bool speculates : {false, true}) {
    dspark::GeneratorOptions options;
    options.context_length = 256;
    if (speculates) {
      options.drafter = "ngram";
      options.policy = "fixed:6";
    }
    const auto generator = dspark::Generator::open(path.string(), options, &error);
    ASSERT_NE(generator, nullptr) << error;
    dspark::GenerationOptions generation;
    generation.max_tokens = 24;
    generation.temperature = 0.5f;
    generation.seed = 3;
    dspark::GenerationSummary summary;
    std::string streamed;
    const auto on_text = [&streamed](std::string_view piece) {
      streamed += piece;
      return true;
    };
    ASSERT_TRUE(generator->generate(prompt, generation, on_text, &summary, &error)) << error;
    EXPECT_EQ(summary.text, streamed);
    EXPECT_EQ(summary.accepted > 0, speculates);
    texts[speculates ? 1 : 0] = summary.text;
    generation.max_tokens = 200;
    ASSERT_TRUE(generator->generate(
        prompt, generation, [](std::string_view) { return false; }, &summary, &error));
    EXPECT_EQ(summary.finish_reason, "cancelled");
    generation.top_p = 3.0f;
    EXPECT_FALSE(generator->generate(prompt, generation, {}, &summary, &error));
    EXPECT_EQ(error.rfind("top_p:", 0), 0u) << error;
  }
  EXPECT_FALSE(texts[0].empty());
  EXPECT_EQ(texts[0], texts[1]);
}

}  // namespace
