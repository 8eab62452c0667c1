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

TEST(TaskSamples, Parse) {
  const auto samples = parse_task_samples("gsm8k=1,mt-bench=20,x=0");
  ASSERT_TRUE(samples.ok());
  EXPECT_EQ(*samples, (std::map<std::string, int32_t>{{"gsm8k", 1}, {"mt-bench", 20}, {"x", 0}}));
  EXPECT_TRUE(parse_task_samples("")->empty());
  for (const char* bad : {"a", "=1", "a=", "a=x", "a=-1", "a=1,", "a=99999999"}) {
    EXPECT_FALSE(parse_task_samples(bad).ok()) << bad;
  }
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
