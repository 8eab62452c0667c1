// Regeneration: the same corpus for every batch size, after every kill.

#include "train_data/regenerate.h"

#include <gtest/gtest.h>

#include "engine/fake_model.h"
#include "engine/reference_generation.h"
#include "formats/temp_folder.h"

namespace dspark::test {
namespace {

constexpr int32_t kMaxPrompt = 40;

PromptCodec fake_codec() {
  PromptCodec codec;
  codec.encode = [](const std::string& prompt) -> Result<std::vector<int32_t>> {
    std::vector<int32_t> ids = {35};
    for (const char c : prompt) ids.push_back(static_cast<uint8_t>(c) % 26);
    return ids;
  };
  codec.encode_words = [](const std::string& words) {
    std::vector<int32_t> ids;
    for (const char c : words) ids.push_back(static_cast<uint8_t>(c) % 26);
    return ids;
  };
  codec.self_header = {36, 37};
  codec.decode = [](std::span<const int32_t> ids) {
    std::string text;
    for (const int32_t id : ids) {
      if (id != kFakeEos) fake_token_bytes(id, text);
    }
    return text;
  };
  return codec;
}

std::vector<PromptRecord> fake_prompts() {
  std::vector<PromptRecord> prompts;
  for (int32_t i = 0; i < 12; ++i) {
    const std::string id = std::to_string(i);
    prompts.push_back({"t", "t/" + id, std::string(static_cast<size_t>(3 * i + 1), 'a') + id});
    prompts.push_back({"v", "v/" + id, "what is the " + id + " th letter\n#"});
    prompts.push_back({"v", "v/short" + id, "q r " + id + "\n#"});  // leaves less than max_user_tokens
  }
  prompts.push_back({"t", "t/long", std::string(60, 'z')});
  return prompts;
}

class Regenerate : public ::testing::Test {
 protected:
  Regenerate() {
    JobOptions options;
    options.samples = 3;
    options.n_self_prompts = 10;
    options.task_samples = {{"v", 0}};
    options.task_variations = {{"v", 2}};
    options.temperatures = TemperatureMix::parse("0,0.7,1").value();
    options.seed = 11;
    jobs_ = make_jobs(prompts_, options);
    run_.max_tokens = 30;
    run_.max_prompt = kMaxPrompt;
    run_.max_user_tokens = 35;
  }

  std::unique_ptr<Engine> engine_for(FakeModel& model, int32_t prefill_rows = 512) const {
    EngineOptions options;
    options.max_sequences = run_.batch;
    options.context_length = run_.context_length();
    options.prefill_rows = prefill_rows;
    options.eos_ids = {kFakeEos};
    auto engine = Engine::create(model, options);
    EXPECT_TRUE(engine.ok()) << engine.status().to_string();
    return std::move(engine).value();
  }

  /// Runs the jobs that `path` lacks and appends them.
  Result<RegenerateCounts> run_into(const std::string& path, const std::atomic<bool>* cancel = nullptr,
                                    const std::function<void(const RegenerateCounts&)>& on_step = {}) {
    std::map<std::string, ExistingRecord> existing;
    int64_t n_before = 0;
    auto file = CorpusFile::open(path, [&](CorpusRecord&& record) {
      existing[record.id] = {record.seed, record.temperature};
      n_before += static_cast<int64_t>(record.answer().size());
      return ok_status();
    });
    EXPECT_TRUE(file.ok()) << file.status().to_string();
    DSPARK_ASSIGN_OR_RETURN(const std::vector<Job> left, jobs_left(jobs_, existing));
    FakeModel model(kFakeVocab);
    const std::unique_ptr<Engine> engine = engine_for(model, prefill_rows_);
    const auto sink = [&](CorpusRecord&& record) { return file->append(record); };
    auto counts = regenerate(*engine, fake_codec(), left, run_, n_before, sink, on_step, cancel);
    EXPECT_FALSE(engine->has_work());
    EXPECT_TRUE(engine->check_integrity().ok());
    return counts;
  }

  std::string corpus(const std::string& name) {
    const std::string path = folder_.file(name);
    const auto counts = run_into(path);
    EXPECT_TRUE(counts.ok()) << counts.status().to_string();
    EXPECT_TRUE(counts->finished);
    return read_file(path);
  }

  /// The prompt of a variation is its beginning with what the target writes on behind it.
  void expect_own_prompt(const CorpusRecord& record, const Job& job) const {
    const PromptCodec codec = fake_codec();
    GenerateRequest turn;
    turn.prompt = codec.self_header;
    std::vector<int32_t> words = codec.encode_words(job.beginning);
    turn.prompt.insert(turn.prompt.end(), words.begin(), words.end());
    turn.sampling.temperature = static_cast<float>(run_.user_temperature);
    turn.sampling.top_p = run_.user_top_p;
    turn.sampling.seed = job.user_seed;
    const size_t n_most = 2 * codec.encode_words(job.prompt->prompt).size() - words.size();
    turn.max_tokens = std::min(run_.max_user_tokens, static_cast<int32_t>(n_most));
    const std::vector<int32_t> output = expected_output(turn, run_.context_length()).tokens;
    words.insert(words.end(), output.begin(), output.end());
    EXPECT_EQ(job.ending, "\n#");
    const std::string prompt = codec.decode(words) + job.ending;
    EXPECT_EQ(std::vector(record.tokens.begin(), record.tokens.begin() + record.prompt_tokens),
              *codec.encode(prompt));
    // A corpus has U+FFFD for bytes that are no character.
    const std::string& content = record.conversations.at(0).content;
    if (content.find("\xEF\xBF\xBD") == std::string::npos) {
      EXPECT_EQ(content, prompt);
    }
  }

  std::vector<PromptRecord> prompts_ = fake_prompts();
  std::vector<Job> jobs_;
  RegenerateOptions run_;
  int32_t prefill_rows_ = 512;
  TempFolder folder_;
};

TEST_F(Regenerate, AnswersAreTheTargetsOwn) {
  const std::string path = folder_.file("c");
  run_.batch = 4;
  const auto counts = run_into(path);
  ASSERT_TRUE(counts.ok()) << counts.status().to_string();
  int64_t n_answers = 0, n_answer_tokens = 0, n_self = 0, n_variations = 0;
  std::map<std::string, const Job*> by_id;
  for (const Job& job : jobs_) by_id[job.id] = &job;
  const Status status = for_each_record(path, [&](CorpusRecord&& record) {
    const Job& job = *by_id.at(record.id);
    GenerateRequest request;
    request.prompt.assign(record.tokens.begin(), record.tokens.begin() + record.prompt_tokens);
    request.sampling.temperature = static_cast<float>(job.temperature);
    request.sampling.seed = job.seed;
    request.max_tokens = run_.max_tokens;
    const Expected expected = expected_output(request, run_.context_length());
    EXPECT_EQ(std::vector<int32_t>(record.answer().begin(), record.answer().end()), expected.tokens);
    EXPECT_EQ(record.finish_reason, finish_reason_name(expected.reason));
    if (!job.beginning.empty()) {
      expect_own_prompt(record, job);
    } else if (job.prompt != nullptr) {
      EXPECT_EQ(request.prompt, *fake_codec().encode(record.conversations.at(0).content));
    }
    ++n_answers;
    n_answer_tokens += static_cast<int64_t>(expected.tokens.size());
    n_self += record.task == kSelfTask ? 1 : 0;
    n_variations += job.beginning.empty() ? 0 : 1;
    return ok_status();
  });
  ASSERT_TRUE(status.ok()) << status.to_string();
  EXPECT_EQ(counts->answers, n_answers);
  EXPECT_EQ(counts->answer_tokens, n_answer_tokens);
  EXPECT_EQ(counts->jobs_done, static_cast<int64_t>(jobs_.size()));
  EXPECT_GE(counts->left_out.at("prompt too long"), 3);  // t/long, and long variations
  int64_t n_left_out = 0;
  for (const auto& [reason, n] : counts->left_out) n_left_out += n;
  EXPECT_EQ(n_left_out + n_answers, counts->jobs_done);
  EXPECT_GT(n_self, 0);
  EXPECT_GT(n_variations, 0);
}

TEST_F(Regenerate, TheSameFileForEveryBatchSize) {
  run_.batch = 1;
  const std::string expected = corpus("one");
  for (const int32_t batch : {2, 5, 16, 100}) {
    run_.batch = batch;
    prefill_rows_ = batch == 5 ? 7 : 512;
    EXPECT_TRUE(corpus(std::to_string(batch)) == expected) << batch;
  }
}

TEST_F(Regenerate, ContinuesAfterAKillAtAnyByte) {
  run_.batch = 6;
  const std::string expected = corpus("whole");
  for (size_t n = 0; n < expected.size(); n += 997) {
    folder_.write("cut", expected.substr(0, n));
    EXPECT_TRUE(corpus("cut") == expected) << "cut at " << n;
  }
}

TEST_F(Regenerate, CancelLeavesABeginning) {
  run_.batch = 6;
  const std::string expected = corpus("whole");
  std::atomic<bool> cancel = false;
  int n_steps = 0;
  const auto counts = run_into(folder_.file("part"), &cancel, [&](const RegenerateCounts&) {
    if (++n_steps == 60) cancel = true;
  });
  ASSERT_TRUE(counts.ok());
  EXPECT_FALSE(counts->finished);
  const std::string part = read_file(folder_.file("part"));
  EXPECT_GT(part.size(), 0u);
  EXPECT_LT(part.size(), expected.size());
  EXPECT_TRUE(expected.starts_with(part));
  EXPECT_TRUE(corpus("part") == expected);
}

TEST_F(Regenerate, EndsAtTheTokenTarget) {
  run_.batch = 1;
  const std::string all = corpus("all");
  run_.max_answer_tokens = 150;
  const std::string expected = corpus("one");
  EXPECT_TRUE(all.starts_with(expected));
  EXPECT_LT(expected.size(), all.size());
  run_.batch = 9;
  EXPECT_TRUE(corpus("nine") == expected);
  EXPECT_TRUE(corpus("nine") == expected) << "a corpus that is large enough grew";
  folder_.write("cut", expected.substr(0, expected.size() / 2));
  EXPECT_TRUE(corpus("cut") == expected) << "tokens of the earlier run were not counted";
}

TEST_F(Regenerate, RefusesACorpusOfOtherSettings) {
  const std::string path = folder_.file("c");
  corpus("c");
  for (Job& job : jobs_) job.seed ^= 1;
  const auto counts = run_into(path);
  ASSERT_FALSE(counts.ok());
  EXPECT_NE(counts.status().message().find("was made with seed"), std::string::npos);
}

TEST_F(Regenerate, BaseModelsWriteTextsFromNothing) {
  FakeModel model(kFakeVocab);
  const std::unique_ptr<Engine> engine = engine_for(model);
  PromptCodec codec = fake_codec();
  codec.self_writes_prompt = false;
  codec.self_header = {36};
  std::erase_if(jobs_, [](const Job& job) { return job.prompt != nullptr; });
  int32_t n = 0;
  const auto sink = [&](CorpusRecord&& record) {
    ++n;
    EXPECT_EQ(record.prompt_tokens, 1);
    EXPECT_EQ(record.tokens.front(), 36);
    EXPECT_EQ(record.conversations.size(), 1u);
    return ok_status();
  };
  const auto counts = regenerate(*engine, codec, jobs_, run_, 0, sink);
  ASSERT_TRUE(counts.ok());
  EXPECT_EQ(n, 10);
  codec.self_header.clear();
  EXPECT_EQ(regenerate(*engine, codec, jobs_, run_, 0, sink).status().code(), StatusCode::kUnsupported);
}

TEST_F(Regenerate, BaseModelsWriteOnFromTheBeginningOfAVariation) {
  FakeModel model(kFakeVocab);
  const std::unique_ptr<Engine> engine = engine_for(model);
  PromptCodec codec = fake_codec();
  codec.self_writes_prompt = false;
  std::erase_if(jobs_, [](const Job& job) { return job.beginning.empty(); });
  std::map<std::string, std::string> beginnings;
  for (const Job& job : jobs_) beginnings[job.id] = job.beginning;
  int32_t n = 0;
  const auto sink = [&](CorpusRecord&& record) {
    ++n;
    EXPECT_EQ(record.conversations.at(0).content, beginnings.at(record.id));
    return ok_status();
  };
  ASSERT_TRUE(regenerate(*engine, codec, jobs_, run_, 0, sink).ok());
  EXPECT_EQ(n, 48);
}

TEST_F(Regenerate, FailuresComeBack) {
  FakeModel model(kFakeVocab);
  const std::unique_ptr<Engine> engine = engine_for(model);
  const auto refuse = [](CorpusRecord&&) { return resource_exhausted("disk full"); };
  EXPECT_EQ(regenerate(*engine, fake_codec(), jobs_, run_, 0, refuse).status().message(), "disk full");
  EXPECT_FALSE(engine->has_work());
  PromptCodec codec = fake_codec();
  codec.encode = [](const std::string&) -> Result<std::vector<int32_t>> { return invalid_argument("no"); };
  const auto keep = [](CorpusRecord&&) { return ok_status(); };
  EXPECT_EQ(regenerate(*engine, codec, jobs_, run_, 0, keep).status().message(), "no");
  model.fail_from_forward = model.n_forwards + 5;
  EXPECT_EQ(regenerate(*engine, fake_codec(), jobs_, run_, 0, keep).status().code(),
            StatusCode::kOutOfMemory);
  EXPECT_FALSE(engine->has_work());
}

}  // namespace
}  // namespace dspark::test
