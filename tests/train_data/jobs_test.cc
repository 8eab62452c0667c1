// Seeds, temperatures and order of jobs.

#include "train_data/jobs.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace dspark::test {
namespace {

std::vector<PromptRecord> some_prompts(int32_t n) {
  std::vector<PromptRecord> prompts;
  for (int32_t i = 0; i < n; ++i) {
    const std::string task = i % 2 == 0 ? "even" : "odd";
    prompts.push_back({task, task + "/" + std::to_string(i), "prompt"});
  }
  return prompts;
}

JobOptions some_options() {
  JobOptions options;
  options.temperatures = TemperatureMix::parse("0:0.1,0.8:0.9").value();
  options.seed = 7;
  return options;
}

TEST(TemperatureMix, Parses) {
  const auto mix = TemperatureMix::parse("0:1,0.7:2,0.8:1");
  ASSERT_TRUE(mix.ok());
  EXPECT_EQ(mix->at(0.0), 0.0);
  EXPECT_EQ(mix->at(0.24), 0.0);
  EXPECT_EQ(mix->at(0.26), 0.7);
  EXPECT_EQ(mix->at(0.74), 0.7);
  EXPECT_EQ(mix->at(0.76), 0.8);
  EXPECT_EQ(mix->at(0.999999), 0.8);
  EXPECT_EQ(TemperatureMix::parse("0.8")->at(0.5), 0.8);
  for (const char* bad : {"", "x", "0.8,", "-1", "0.8:0", "0.8:1:2", "nan", "1e9", "0.8:inf"}) {
    EXPECT_FALSE(TemperatureMix::parse(bad).ok()) << bad;
  }
}

TEST(TaskCounts, Parse) {
  const auto samples = parse_task_counts("gsm8k=1,mt-bench=20,x=0", "variations");
  ASSERT_TRUE(samples.ok());
  EXPECT_EQ(*samples, (std::map<std::string, int32_t>{{"gsm8k", 1}, {"mt-bench", 20}, {"x", 0}}));
  EXPECT_TRUE(parse_task_counts("", "variations")->empty());
  for (const char* bad : {"a", "=1", "a=", "a=x", "a=-1", "a=1,", "a=99999999"}) {
    const auto counts = parse_task_counts(bad, "variations");
    ASSERT_FALSE(counts.ok()) << bad;
    EXPECT_TRUE(counts.status().message().starts_with("variations: ")) << counts.status().message();
  }
}

TEST(Beginning, EndsBehindAWordInTheMiddle) {
  const std::string prompt = "one two  three\nfour five six seven eight nine ten";
  std::set<std::string> seen;
  for (int32_t i = 0; i < 1000; ++i) {
    const std::string beginning = beginning_of(prompt, {}, i * 1e-3);
    ASSERT_FALSE(beginning.empty());
    EXPECT_TRUE(prompt.starts_with(beginning));
    EXPECT_GE(beginning.size(), prompt.size() / 5);
    EXPECT_LT(beginning.size(), prompt.size() * 7 / 10);
    EXPECT_TRUE(prompt[beginning.size()] == ' ' || prompt[beginning.size()] == '\n') << beginning;
    EXPECT_NE(beginning.back(), ' ');
    seen.insert(beginning);
  }
  EXPECT_EQ(seen.size(), 4u);  // behind "three" to "six": bytes 9 to 33 of 49
  for (const char* none : {"", " ", "word", "              ", "averylongword and"}) {
    EXPECT_EQ(beginning_of(none, {}, 0.5), "") << none;
  }
}

TEST(Beginning, IsCutInsideTheFrame) {
  const PromptFrame frame = {"Solve:\n", "\nin two words."};
  const std::string prompt = frame.head + "what is it" + frame.tail;
  EXPECT_EQ(beginning_of(prompt, frame, 0.1), "Solve:\nwhat");
  EXPECT_EQ(beginning_of("Solve:\n\nin two words.", frame, 0.1), "");
  EXPECT_EQ(beginning_of(frame.head + frame.tail, frame, 0.1), "");
  EXPECT_EQ(beginning_of("short", frame, 0.1), "");
}

TEST(PromptFrame, HoldsTheCommonLines) {
  const auto frame = [](std::vector<std::string_view> prompts) {
    const PromptFrame found = frame_of(prompts);
    return found.head + "[]" + found.tail;
  };
  EXPECT_EQ(frame({"Do this:\none\nnow.", "Do this:\ntwo three\nnow."}), "Do this:\n[]\nnow.");
  EXPECT_EQ(frame({"A one.", "A two."}), "[]");  // no whole line
  EXPECT_EQ(frame({"A\none.", "A\ntwo.", "B\nthree."}), "[]");
  EXPECT_EQ(frame({"x\ny", "x\ny"}), "[]");  // not two different prompts
  EXPECT_EQ(frame({"", "x\ny"}), "[]");
  EXPECT_EQ(frame({}), "[]");
}

TEST(Jobs, VariationsAreJobsOfTheirOwn) {
  std::vector<PromptRecord> prompts = some_prompts(20);
  for (PromptRecord& prompt : prompts)
    prompt.prompt = "tell me which of these numbers is greater " + prompt.id + "\nSay why.";
  prompts[2].prompt = "short\nSay why.";  // has no beginning
  JobOptions options = some_options();
  std::set<std::string> before;
  for (const Job& job : make_jobs(prompts, options)) before.insert(job.id);
  options.task_variations["even"] = 3;
  std::set<std::string> ids, beginnings;
  for (const Job& job : make_jobs(prompts, options)) {
    ids.insert(job.id);
    if (job.beginning.empty()) {
      EXPECT_TRUE(before.contains(job.id)) << job.id;
      continue;
    }
    EXPECT_EQ(job.task, "even");
    EXPECT_NE(job.id.find('~'), std::string::npos) << job.id;
    EXPECT_TRUE(job.prompt->prompt.starts_with(job.beginning));
    EXPECT_EQ(job.ending, "\nSay why.");
    EXPECT_NE(job.user_seed, job.seed);
    beginnings.insert(job.beginning);
  }
  EXPECT_EQ(ids.size(), 20u + 9u * 3u);
  EXPECT_TRUE(ids.contains("even/0~2#0"));
  EXPECT_GT(beginnings.size(), 2u);
}

TEST(Jobs, DependOnIdAndSeedOnly) {
  const std::vector<PromptRecord> prompts = some_prompts(20);
  JobOptions options = some_options();
  options.samples = 2;
  std::map<std::string, Job> few, many;
  for (const Job& job : make_jobs(prompts, options)) few[job.id] = job;
  options.samples = 5;
  options.n_self_prompts = 3;
  std::vector<PromptRecord> reversed(prompts.rbegin(), prompts.rend());
  for (const Job& job : make_jobs(reversed, options)) many[job.id] = job;
  EXPECT_EQ(few.size(), 40u);
  EXPECT_EQ(many.size(), 103u);
  for (const auto& [id, job] : few) {
    ASSERT_TRUE(many.contains(id)) << id;
    EXPECT_EQ(many[id].seed, job.seed);
    EXPECT_EQ(many[id].temperature, job.temperature);
  }
  options.seed = 8;
  for (const Job& job : make_jobs(prompts, options)) {
    if (!few.contains(job.id)) continue;
    EXPECT_NE(job.seed, few.at(job.id).seed);
  }
}

TEST(Jobs, SeedsDiffer) {
  const std::vector<PromptRecord> prompts = some_prompts(300);
  JobOptions options = some_options();
  options.samples = 10;
  std::set<uint64_t> seeds;
  int32_t n_greedy = 0;
  for (const Job& job : make_jobs(prompts, options)) {
    EXPECT_TRUE(seeds.insert(job.seed).second);
    EXPECT_LT(job.seed, uint64_t{1} << 53);
    n_greedy += job.temperature == 0.0 ? 1 : 0;
  }
  EXPECT_GT(n_greedy, 220);  // 300 expected, standard deviation 16
  EXPECT_LT(n_greedy, 380);
}

TEST(Jobs, OrderMixesTasks) {
  const std::vector<PromptRecord> prompts = some_prompts(400);
  JobOptions options = some_options();
  options.task_samples["odd"] = 3;
  const std::vector<Job> jobs = make_jobs(prompts, options);
  ASSERT_EQ(jobs.size(), 200u + 600u);
  int32_t n_odd = 0;
  for (size_t i = 0; i < 200; ++i) n_odd += jobs[i].task == "odd" ? 1 : 0;
  EXPECT_GT(n_odd, 125);  // 150 expected, standard deviation 5
  EXPECT_LT(n_odd, 175);
}

}  // namespace
}  // namespace dspark::test
