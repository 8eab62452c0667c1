// Choice and coverage of draft vocabularies.

#include "train_data/draft_vocab.h"

#include <gtest/gtest.h>

#include "formats/temp_folder.h"

namespace dspark::test {
namespace {

using Ids = std::vector<int32_t>;

TEST(DraftVocab, MostFrequentTiesByIdFilledFromBelow) {
  const std::vector<int64_t> counts = {0, 5, 0, 9, 5, 0, 5, 1};
  EXPECT_EQ(most_frequent_ids(counts, 1), (Ids{3}));
  EXPECT_EQ(most_frequent_ids(counts, 3), (Ids{1, 3, 4}));  // 6 ties with 1 and 4 and is higher
  EXPECT_EQ(most_frequent_ids(counts, 5), (Ids{1, 3, 4, 6, 7}));
  EXPECT_EQ(most_frequent_ids(counts, 6), (Ids{0, 1, 3, 4, 6, 7}));
  EXPECT_EQ(most_frequent_ids(counts, 8), (Ids{0, 1, 2, 3, 4, 5, 6, 7}));
}

CorpusRecord record_of(const std::string& id, Ids tokens, int32_t n_prompt) {
  CorpusRecord record;
  record.id = id;
  record.task = id.substr(0, id.find('/'));
  record.tokens = std::move(tokens);
  record.prompt_tokens = n_prompt;
  return record;
}

TEST(DraftVocab, CoverageIsMeasuredOnOtherPrompts) {
  VocabCounter counter(20);
  int64_t n_held_out = 0;
  // Every prompt has two answers; ids 1 and 2 everywhere, the prompt's own id 3 in each answer.
  for (int32_t i = 0; i < 400; ++i) {
    const std::string prompt = "t/" + std::to_string(i);
    ASSERT_TRUE(counter.add(record_of(prompt + "#0", {3, 1, 2, 3, 4}, 1)).ok());
    ASSERT_TRUE(counter.add(record_of(prompt + "#1", {3, 1, 1, 2, 5}, 1)).ok());
  }
  const auto coverage = counter.held_out_coverage(2);
  ASSERT_EQ(coverage.size(), 1u);
  const Coverage& found = coverage.at("t");
  n_held_out = found.n_tokens / 8;
  EXPECT_GT(n_held_out, 5);  // 20 expected
  EXPECT_LT(n_held_out, 45);
  EXPECT_EQ(found.n_tokens % 8, 0) << "samples of one prompt were parted";
  EXPECT_EQ(counter.choose(2), (Ids{1, 3}));  // three times each per prompt
  EXPECT_EQ(found.n_in, n_held_out * 4);      // of the answers: 1, 3 and 1, 1
  EXPECT_EQ(found.n_in_or_prompt, n_held_out * 4);
  EXPECT_EQ(counter.held_out_coverage(1).at("t").n_in, n_held_out * 3);            // id 1 alone
  EXPECT_EQ(counter.held_out_coverage(1).at("t").n_in_or_prompt, n_held_out * 4);  // and the prompt's 3
  EXPECT_EQ(counter.n_tokens(), 4000);
}

TEST(DraftVocab, HeldOutAnswersDoNotChooseTheirVocabulary) {
  VocabCounter counter(1000);
  for (int32_t i = 0; i < 400; ++i) {  // every prompt has an id of its own, and the answer repeats it
    ASSERT_TRUE(counter.add(record_of("t/" + std::to_string(i) + "#0", {500 + i, 500 + i, 500 + i}, 1)).ok());
  }
  const int64_t n_held_out = counter.held_out_coverage(1).at("t").n_tokens / 2;
  ASSERT_GT(n_held_out, 0);
  const Coverage coverage = counter.held_out_coverage(400 - static_cast<int32_t>(n_held_out)).at("t");
  EXPECT_EQ(coverage.n_in, 0);
  EXPECT_EQ(coverage.n_in_or_prompt, coverage.n_tokens);
}

TEST(DraftVocab, IdsOutsideAreErrors) {
  VocabCounter counter(4);
  const Status status = counter.add(record_of("t/0#0", {1, 4}, 1));
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.message().find("t/0#0"), std::string::npos);
}

TEST(DraftVocab, FileIsReadBack) {
  TempFolder folder;
  const Ids ids = {0, 3, 9};
  const std::string path = folder.write("v.json", draft_vocab_json(ids, 10, "model"));
  const auto vocab = read_draft_vocab(path);
  ASSERT_TRUE(vocab.ok()) << vocab.status().to_string();
  EXPECT_EQ(vocab->ids, ids);
  EXPECT_EQ(vocab->vocab_size, 10);
  EXPECT_EQ(vocab->target_model, "model");
  for (const char* bad : {"[]", "{}", R"({"vocab_size":10,"ids":[]})", R"({"vocab_size":10,"ids":[3,1]})",
                          R"({"vocab_size":10,"ids":[1,10]})", R"({"vocab_size":10,"ids":[-1]})",
                          R"({"vocab_size":10,"ids":[1,1]})", R"({"vocab_size":-1,"ids":[1]})"}) {
    EXPECT_FALSE(read_draft_vocab(folder.write("bad.json", bad)).ok()) << bad;
  }
}

}  // namespace
}  // namespace dspark::test
