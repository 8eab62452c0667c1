// Records of a corpus on disk, torn lines, prompt files.

#include "train_data/corpus.h"

#include <gtest/gtest.h>

#include "formats/temp_folder.h"

namespace dspark::test {
namespace {

CorpusRecord record_of(int32_t i) {
  CorpusRecord record;
  record.id = "task/" + std::to_string(i) + "#2";
  record.task = "task";
  record.conversations = {{"user", "a \"b\"\n\xC3\xA9"}, {"assistant", std::string("x\0y", 3)}};
  record.tokens = {i, 2, 3, 4};
  record.prompt_tokens = 3;
  record.temperature = 0.7;
  record.seed = (uint64_t{1} << 53) - 1;
  record.finish_reason = "stop";
  return record;
}

void expect_equal(const CorpusRecord& a, const CorpusRecord& b) {
  EXPECT_EQ(corpus_line(a), corpus_line(b));
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.seed, b.seed);
  EXPECT_EQ(a.temperature, b.temperature);
}

TEST(Corpus, RecordsSurviveTheirLine) {
  const CorpusRecord record = record_of(1);
  const auto parsed = parse_corpus_line(corpus_line(record), "here");
  ASSERT_TRUE(parsed.ok()) << parsed.status().to_string();
  expect_equal(*parsed, record);
  EXPECT_EQ(parsed->conversations[1].content, record.conversations[1].content);
  EXPECT_EQ(parsed->prompt_id(), "task/1");
  EXPECT_EQ(parsed->answer().size(), 1u);
  EXPECT_EQ(corpus_line(record).find('\n'), std::string::npos);
}

TEST(Corpus, BrokenUtf8IsReplaced) {
  CorpusRecord record = record_of(1);
  record.conversations[1].content = "caf\xC3";
  const auto parsed = parse_corpus_line(corpus_line(record), "here");
  ASSERT_TRUE(parsed.ok()) << parsed.status().to_string();
  EXPECT_EQ(parsed->answer_text(), "caf\xEF\xBF\xBD");
}

TEST(Corpus, BadLinesAreNamed) {
  const std::string good = corpus_line(record_of(1));
  const auto error = [&](const std::string& from, const std::string& to) {
    std::string line = good;
    const size_t at = line.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    line.replace(at, from.size(), to);
    const auto parsed = parse_corpus_line(line, "f: line 3");
    EXPECT_FALSE(parsed.ok()) << line;
    EXPECT_EQ(parsed.status().message().find("f: line 3"), 0u) << parsed.status().message();
    return parsed.status().message();
  };
  EXPECT_NE(error("\"prompt_tokens\":3", "\"prompt_tokens\":5").find("prompt_tokens"), std::string::npos);
  EXPECT_NE(error("[1,2,3,4]", "[1,-2,3,4]").find("tokens"), std::string::npos);
  EXPECT_NE(error("[1,2,3,4]", "[1,2.5,3,4]").find("tokens"), std::string::npos);
  EXPECT_NE(error("\"seed\":", "\"sead\":").find("seed"), std::string::npos);
  EXPECT_NE(error("\"role\"", "\"rule\"").find("role"), std::string::npos);
  EXPECT_NE(error("\"temperature\":0.7", "\"temperature\":null").find("temperature"), std::string::npos);
  EXPECT_FALSE(parse_corpus_line("[]", "w").ok());
  EXPECT_FALSE(parse_corpus_line("{\"id\":", "w").ok());
}

TEST(Corpus, ATornLastLineIsCutOff) {
  TempFolder folder;
  const std::string path = folder.file("corpus.jsonl");
  std::string whole;
  for (int32_t i = 0; i < 3; ++i) whole += corpus_line(record_of(i)) + "\n";
  for (size_t n = 0; n <= whole.size(); n += 7) {
    folder.write("corpus.jsonl", whole.substr(0, n));
    int32_t n_read = 0;
    {
      auto file = CorpusFile::open(path, [&](CorpusRecord&& record) {
        expect_equal(record, record_of(n_read++));
        return ok_status();
      });
      ASSERT_TRUE(file.ok()) << file.status().to_string();
      for (int32_t i = n_read; i < 3; ++i) ASSERT_TRUE(file->append(record_of(i)).ok());
    }
    EXPECT_EQ(read_file(path), whole) << "cut at " << n;
  }
}

TEST(Corpus, ABadLineInTheMiddleIsAnError) {
  TempFolder folder;
  const std::string path = folder.write("c.jsonl", corpus_line(record_of(0)) + "\nnonsense\n");
  const auto file = CorpusFile::open(path, [](CorpusRecord&&) { return ok_status(); });
  ASSERT_FALSE(file.ok());
  EXPECT_NE(file.status().message().find("line 2"), std::string::npos);
}

TEST(Prompts, AreReadInOrder) {
  TempFolder folder;
  const std::vector<std::string> paths = {
      folder.write(
          "a.jsonl",
          "{\"task\":\"t\",\"id\":3,\"prompt\":\"p\"}\n\n{\"task\":\"t\",\"id\":\"x\",\"prompt\":\"\"}"),
      folder.write("b.jsonl", "{\"task\":\"u\",\"id\":3,\"prompt\":\"q\"}\n")};
  const auto prompts = read_prompts(paths);
  ASSERT_TRUE(prompts.ok()) << prompts.status().to_string();
  ASSERT_EQ(prompts->size(), 3u);
  EXPECT_EQ((*prompts)[0].id, "t/3");
  EXPECT_EQ((*prompts)[1].id, "t/x");
  EXPECT_EQ((*prompts)[2].prompt, "q");
}

TEST(Prompts, DuplicatesAndBadLinesAreNamed) {
  TempFolder folder;
  const std::string line = "{\"task\":\"t\",\"id\":3,\"prompt\":\"p\"}\n";
  const std::vector<std::string> twice = {folder.write("a.jsonl", line + line)};
  EXPECT_NE(read_prompts(twice).status().message().find("'t/3'"), std::string::npos);
  const std::vector<std::string> no_id = {folder.write("b.jsonl", "{\"task\":\"t\",\"prompt\":\"p\"}\n")};
  EXPECT_NE(read_prompts(no_id).status().message().find("line 1: id"), std::string::npos);
  const std::vector<std::string> missing = {folder.file("c.jsonl")};
  EXPECT_EQ(read_prompts(missing).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace dspark::test
