// The C interface of the scheduler, through the shared library: the reference cases, what it refuses, and
// that the handle does what the pure functions and the engine's planner do.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "dspark/scheduler.h"
#include "speculate/golden_json.h"

namespace dspark {
namespace {

using nlohmann::json;
using Confidences = std::vector<std::vector<double>>;
using Lengths = std::vector<int32_t>;

// A batch of rows of one length, as the interface wants it.
struct Batch {
  explicit Batch(const Confidences& confidences) {
    stride = confidences.empty() ? 0 : static_cast<int32_t>(confidences[0].size());
    for (const auto& row : confidences) {
      n_drafts.push_back(static_cast<int32_t>(row.size()));
      double product = 1.0;
      for (const double c : row) survival.push_back(product *= c);
    }
  }
  dspark_sched_batch view() const {
    return {survival.data(), n_drafts.data(), static_cast<int32_t>(n_drafts.size()), stride};
  }
  std::vector<double> survival;
  std::vector<int32_t> n_drafts;
  int32_t stride;
};

TEST(SchedulerAbi, ReferenceCases) {
  for (const json& file : test::fixture_and_golden("scheduler.json", "draft/rules/scheduler.json", "rules")) {
    for (const json& c : file["cases"]) {
      SCOPED_TRACE(c["name"].get<std::string>());
      const auto seconds = c["cost_seconds"].get<std::vector<double>>();
      const dspark_sched_costs costs{seconds.data(), static_cast<int32_t>(seconds.size()),
                                     c["extra_tokens"].get<int32_t>()};
      const Batch live(c["confidence"].get<Confidences>()), recorded(c["history"].get<Confidences>());
      const dspark_sched_batch live_view = live.view(), recorded_view = recorded.view();
      Lengths lengths(live.n_drafts.size());
      dspark_sched_error error{};
      double theta = 0.0;
      ASSERT_EQ(dspark_sched_causal(&live_view, &costs, lengths.data(), &theta, &error), DSPARK_SCHED_OK)
          << error.message;
      EXPECT_EQ(lengths, c["algorithm1"]["lengths"].get<Lengths>());
      EXPECT_NEAR(theta, c["algorithm1"]["theta"].get<double>(), 1e-9 * theta);
      int32_t budget = -1;
      ASSERT_EQ(dspark_sched_budget(&recorded_view, &costs, &budget, &error), DSPARK_SCHED_OK);
      EXPECT_EQ(budget, c["budget"]["K"].get<int32_t>());
      ASSERT_EQ(dspark_sched_allot(&live_view, budget, lengths.data(), &error), DSPARK_SCHED_OK);
      EXPECT_EQ(lengths, c["budget"]["lengths"].get<Lengths>());
    }
  }
}

TEST(SchedulerAbi, StaticPoliciesAndSurvival) {
  const float confidence[] = {0.5f, 0.25f, 1.0f, 0.9f, 0.8f, 0.0f};
  const int32_t n_drafts[] = {3, 2};
  double survival[6];
  int32_t lengths[2];
  ASSERT_EQ(dspark_sched_survival(confidence, n_drafts, 2, 3, survival, nullptr), DSPARK_SCHED_OK);
  EXPECT_EQ(survival[0], 0.5);
  EXPECT_EQ(survival[2], 0.125);
  EXPECT_NEAR(survival[4], 0.72, 1e-7);
  EXPECT_EQ(survival[5], 0.0);
  const auto lengths_of = [&](const char* policy) {
    EXPECT_EQ(dspark_sched_static_lengths(policy, confidence, n_drafts, 2, 3, lengths, nullptr),
              DSPARK_SCHED_OK);
    return Lengths(lengths, lengths + 2);
  };
  EXPECT_EQ(lengths_of("off"), (Lengths{0, 0}));
  EXPECT_EQ(lengths_of("fixed:2"), (Lengths{2, 2}));
  EXPECT_EQ(lengths_of("fixed:7"), (Lengths{3, 2}));
  EXPECT_EQ(lengths_of("threshold:0.4"), (Lengths{1, 2}));
}

dspark_sched_config config_of(const char* policy, const std::vector<dspark_sched_point>& verify,
                              const std::vector<dspark_sched_point>& draft) {
  dspark_sched_config config{};
  config.struct_size = sizeof(config);
  config.policy = policy;
  config.max_sequences = 4;
  config.verify = verify.data();
  config.n_verify = static_cast<int32_t>(verify.size());
  config.draft = draft.data();
  config.n_draft = static_cast<int32_t>(draft.size());
  config.draft_length = 4;
  return config;
}

// A loop of steps over `ids` with the same confidences; returns the last lengths.
struct Loop {
  explicit Loop(const dspark_sched_config& config) {
    EXPECT_EQ(dspark_sched_create(&config, &handle, &error), DSPARK_SCHED_OK) << error.message;
  }
  ~Loop() { dspark_sched_destroy(handle); }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Drafts worth asking for.
  int32_t draft_length(int32_t n_sequences, int32_t n_unready, int32_t max_block, int32_t prompt_rows) {
    const dspark_sched_load load{sizeof(load), n_sequences, n_unready, max_block, prompt_rows};
    int32_t length = -1;
    EXPECT_EQ(dspark_sched_draft_length_for(handle, &load, &length, &error), DSPARK_SCHED_OK)
        << error.message;
    return length;
  }
  dspark_sched_status plan(const std::vector<uint64_t>& ids, const float* confidence) {
    n_drafts.assign(ids.size(), n_drafted);
    lengths.assign(ids.size(), -1);
    step.struct_size = step_size;
    step.n_sequences = static_cast<int32_t>(ids.size());
    step.stride = 4;
    step.sequence_ids = ids.data();
    step.n_drafts = n_drafts.data();
    step.confidence = confidence;
    step.evidence = evidence;
    step.evidence_kind = evidence == nullptr ? 0 : DSPARK_SCHED_EVIDENCE_PEAK_LOGIT;
    step.must_not_anticipate = careful.empty() ? nullptr : careful.data();
    step.draft_length = n_drafted;
    return dspark_sched_plan(handle, &step, lengths.data(), &error);
  }
  dspark_sched_status observe(const Lengths& accepted, double verify_s) {
    outcome.struct_size = outcome_size;
    outcome.n_sequences = static_cast<int32_t>(accepted.size());
    outcome.n_verified = lengths.data();
    outcome.n_accepted = accepted.data();
    outcome.verify_seconds = verify_s;
    outcome.draft_seconds = 0.001;
    return dspark_sched_observe(handle, &outcome, &error);
  }

  dspark_sched* handle = nullptr;
  dspark_sched_error error{};
  Lengths n_drafts, lengths;
  int32_t n_drafted = 4;
  const float* evidence = nullptr;
  std::vector<uint8_t> careful;
  // Filled by the calls, but for what is not told with every step.
  dspark_sched_step step{};
  dspark_sched_outcome outcome{};
  uint32_t step_size = sizeof(dspark_sched_step), outcome_size = sizeof(dspark_sched_outcome);
};

const std::vector<dspark_sched_point> kVerify = {{1, 0.010}, {4, 0.010}, {5, 0.050}, {64, 1.0}};
const std::vector<dspark_sched_point> kDraft = {{1, 0.001}};

TEST(SchedulerAbi, HandlePlansAndRemembers) {
  Loop loop(config_of("adaptive", kVerify, kDraft));
  const float sure[] = {0.9f, 0.9f, 0.9f, 0.9f, 0.2f, 0.2f, 0.2f, 0.2f};
  ASSERT_EQ(loop.plan({7, 9}, sure), DSPARK_SCHED_OK) << loop.error.message;
  EXPECT_EQ(loop.lengths, (Lengths{2, 0}));  // four rows cost as one
  ASSERT_EQ(loop.observe({1, 0}, 0.010), DSPARK_SCHED_OK) << loop.error.message;
  EXPECT_EQ(loop.observe({1, 0}, 0.010), DSPARK_SCHED_INVALID_ARGUMENT);  // told already
  dspark_sched_stats stats{};
  stats.struct_size = sizeof(stats);
  ASSERT_EQ(dspark_sched_get_stats(loop.handle, &stats, nullptr), DSPARK_SCHED_OK);
  EXPECT_EQ(stats.last_budget, 2);
  EXPECT_EQ(stats.n_positions, 2);
  EXPECT_EQ(stats.drift[0].count, 1);
  EXPECT_EQ(stats.drift[0].observed, 1.0);
  EXPECT_EQ(stats.drift[1].observed, 0.0);
  EXPECT_GT(stats.last_predicted_s, 0.0);
}

// With a rule that must not anticipate, what the drafts of this step say does not change how many are
// verified.
TEST(SchedulerAbi, CarefulBudgetsIgnoreTheLiveStep) {
  const std::vector<dspark_sched_point> ramp = {{1, 0.010}, {64, 0.262}};
  const auto budget_with = [&](float now) {
    Loop loop(config_of("adaptive", ramp, kDraft));
    loop.careful = {1};
    const float before[] = {0.95f, 0.95f, 0.95f, 0.95f}, live[] = {now, now, now, now};
    EXPECT_EQ(loop.plan({1}, before), DSPARK_SCHED_OK);
    EXPECT_EQ(loop.plan({1}, live), DSPARK_SCHED_OK);
    return loop.lengths[0];
  };
  EXPECT_EQ(budget_with(0.05f), budget_with(0.95f));
  EXPECT_GT(budget_with(0.05f), 0);
}

TEST(SchedulerAbi, EstimatesWhereThereIsNoConfidence) {
  const std::vector<dspark_sched_point> ramp = {{1, 0.010}, {64, 0.262}};
  Loop loop(config_of("adaptive", ramp, kDraft));
  const float good[] = {4.0f, 4.0f, 4.0f, 4.0f}, bad[] = {-4.0f, -4.0f, -4.0f, -4.0f};
  for (int i = 0; i < 300; ++i) {  // what the drafter is sure of is right, the rest is wrong
    loop.evidence = i % 2 == 0 ? good : bad;
    ASSERT_EQ(loop.plan({1}, nullptr), DSPARK_SCHED_OK) << loop.error.message;
    ASSERT_EQ(loop.observe({i % 2 == 0 ? loop.lengths[0] : 0}, 0.010 + 0.004 * loop.lengths[0]),
              DSPARK_SCHED_OK);
  }
  loop.evidence = good;
  ASSERT_EQ(loop.plan({1}, nullptr), DSPARK_SCHED_OK);
  EXPECT_EQ(loop.lengths[0], 4);
  loop.evidence = bad;
  ASSERT_EQ(loop.plan({1}, nullptr), DSPARK_SCHED_OK);
  EXPECT_LE(loop.lengths[0], 1);
}

// A caller that was compiled before fields were added brings structs without them; what lies behind is not
// looked at.
TEST(SchedulerAbi, TakesStructsFromBeforeTheyGrew) {
  static_assert(offsetof(dspark_sched_step, prompt_context) == 88);
  static_assert(offsetof(dspark_sched_outcome, commit_seconds) == 40);
  const float sure[] = {0.9f, 0.9f, 0.9f, 0.9f};
  Loop loop(config_of("adaptive", kVerify, kDraft));
  loop.step.prompt_context = loop.step.prompt_row_context = -1;
  loop.outcome.commit_seconds = std::nan("");
  loop.step_size = 88;
  loop.outcome_size = 40;
  ASSERT_EQ(loop.plan({1}, sure), DSPARK_SCHED_OK) << loop.error.message;
  EXPECT_EQ(loop.observe({1}, 0.010), DSPARK_SCHED_OK) << loop.error.message;
  const auto refused = [&loop](dspark_sched_status status, const char* field) {
    EXPECT_EQ(status, DSPARK_SCHED_INVALID_ARGUMENT);
    EXPECT_NE(std::string(loop.error.message).find(field), std::string::npos) << loop.error.message;
  };
  loop.step_size = 87;
  refused(loop.plan({1}, sure), "step.struct_size");
  loop.step_size = sizeof(dspark_sched_step);
  refused(loop.plan({1}, sure), "prompt_context");
  loop.step.prompt_context = 0;
  refused(loop.plan({1}, sure), "prompt_row_context");
  loop.step.prompt_row_context = 0;
  ASSERT_EQ(loop.plan({1}, sure), DSPARK_SCHED_OK) << loop.error.message;
  loop.outcome_size = 39;
  refused(loop.observe({1}, 0.010), "outcome.struct_size");
  loop.outcome_size = sizeof(dspark_sched_outcome);
  refused(loop.observe({1}, 0.010), "commit_seconds");
  loop.outcome.commit_seconds = 0.001;
  EXPECT_EQ(loop.observe({1}, 0.010), DSPARK_SCHED_OK) << loop.error.message;
}

TEST(SchedulerAbi, PromptsAreNoneOfTheDrafts) {
  const std::vector<dspark_sched_point> flat = {{1, 0.010}, {16, 0.010}, {64, 0.058}};
  dspark_sched_config config = config_of("adaptive", flat, kDraft);
  config.row_context_s = 1e-6;
  const float sure[] = {0.8f, 0.8f, 0.8f, 0.8f};
  const auto length_of = [&](int64_t context, int64_t prompt_context) {
    Loop loop(config);
    loop.step.prompt_rows = 8;
    loop.step.context = context;
    loop.step.prompt_context = prompt_context;
    EXPECT_EQ(loop.plan({1}, sure), DSPARK_SCHED_OK) << loop.error.message;
    return loop.lengths[0];
  };
  EXPECT_EQ(length_of(100, 300000), 4);
  EXPECT_EQ(length_of(300100, 0), 0);  // 0.3 s a draft, were they its own

  // What scoring a prompt takes is told apart from what rows take: nothing is left for corrections.
  Loop loop(config);
  loop.step.prompt_rows = 8;
  loop.step.prompt_context = 1000;
  loop.step.prompt_row_context = 8000;
  ASSERT_EQ(loop.plan({1}, sure), DSPARK_SCHED_OK);
  ASSERT_EQ(loop.observe({0}, 0.010 + 8000e-6), DSPARK_SCHED_OK);
  dspark_sched_stats stats{};
  stats.struct_size = sizeof(stats);
  ASSERT_EQ(dspark_sched_get_stats(loop.handle, &stats, nullptr), DSPARK_SCHED_OK);
  EXPECT_NEAR(stats.last_predicted_s, 0.010 + 8000e-6 + 0.001, 1e-9);
  EXPECT_NEAR(stats.last_measured_s, stats.last_predicted_s, 1e-9);
}

TEST(SchedulerAbi, DraftLengthLooksAtPromptsAndAtWhoIsReady) {
  const std::vector<dspark_sched_point> verify = {
      {1, 0.010}, {8, 0.011}, {16, 0.013}, {128, 0.130}, {256, 0.260}};
  const std::vector<dspark_sched_point> draft = {{1, 0.0005}, {8, 0.001}};
  const dspark_sched_config config = config_of("adaptive", verify, draft);
  const auto length_of = [&](int32_t n_unready, int32_t prompt_rows) {
    return Loop(config).draft_length(8, n_unready, 4, prompt_rows);
  };
  int32_t plain = -1;
  Loop loop(config);
  ASSERT_EQ(dspark_sched_draft_length(loop.handle, 8, 4, &plain, nullptr), DSPARK_SCHED_OK);
  EXPECT_GT(plain, 0);
  EXPECT_EQ(length_of(0, 0), plain);
  EXPECT_EQ(length_of(4, 0), plain);
  EXPECT_EQ(length_of(5, 0), 0) << "what three win says little";
  EXPECT_EQ(length_of(0, 128), 0) << "a row takes 1 ms there";
  EXPECT_EQ(Loop(config_of("fixed:3", {}, {})).draft_length(8, 8, 4, 128), 3) << "no planner";
  for (const auto& [load, field] : std::vector<std::pair<dspark_sched_load, std::string>>{
           {{sizeof(dspark_sched_load), -1, 0, 4, 0}, "n_sequences"},
           {{sizeof(dspark_sched_load), 8, 9, 4, 0}, "n_unready"},
           {{sizeof(dspark_sched_load), 8, -1, 4, 0}, "n_unready"},
           {{sizeof(dspark_sched_load), 8, 0, 65, 0}, "max_block"},
           {{sizeof(dspark_sched_load), 8, 0, 4, -1}, "prompt_rows"},
           {{4, 8, 0, 4, 0}, "load.struct_size"}}) {
    int32_t length = -1;
    EXPECT_EQ(dspark_sched_draft_length_for(loop.handle, &load, &length, &loop.error),
              DSPARK_SCHED_INVALID_ARGUMENT);
    EXPECT_NE(std::string(loop.error.message).find(field), std::string::npos) << loop.error.message;
    EXPECT_EQ(length, -1);
  }
}

// Drafting steps of 400: every step in which something is drafted wins a token.
int64_t drafting_steps(double commit_s) {
  const std::vector<dspark_sched_point> flat = {{1, 0.010}, {64, 0.0101}};
  Loop loop(config_of("adaptive", flat, kDraft));
  const float sure[] = {0.9f, 0.9f, 0.9f, 0.9f};
  loop.outcome.commit_seconds = commit_s;
  for (int i = 0; i < 400; ++i) {
    loop.n_drafted = loop.draft_length(1, 0, 4, 0);
    EXPECT_EQ(loop.plan({1}, sure), DSPARK_SCHED_OK) << loop.error.message;
    EXPECT_EQ(loop.observe({std::min(1, loop.lengths[0])}, 0.010), DSPARK_SCHED_OK) << loop.error.message;
  }
  dspark_sched_stats stats{};
  stats.struct_size = sizeof(stats);
  EXPECT_EQ(dspark_sched_get_stats(loop.handle, &stats, nullptr), DSPARK_SCHED_OK);
  return stats.drafting_steps;
}

TEST(SchedulerAbi, WhatTheDrafterDoesForCommitsCounts) {
  EXPECT_GT(drafting_steps(0.0), 300);
  EXPECT_LT(drafting_steps(0.020), 200);
}

// Whether drafting pays is judged by steps that a length was asked for.
TEST(SchedulerAbi, StepsWithoutALengthAreNoVerdict) {
  const std::vector<dspark_sched_point> ramp = {{1, 0.010}, {64, 0.262}};
  Loop loop(config_of("adaptive", ramp, kDraft));
  const float sure[] = {0.95f, 0.95f, 0.95f, 0.95f};
  loop.n_drafted = loop.draft_length(1, 0, 4, 0);
  ASSERT_GT(loop.n_drafted, 0);
  ASSERT_EQ(loop.plan({1}, sure), DSPARK_SCHED_OK);
  ASSERT_GT(loop.lengths[0], 0);
  ASSERT_EQ(loop.observe({loop.lengths[0]}, 0.010 + 0.004 * loop.lengths[0]), DSPARK_SCHED_OK);
  for (int i = 0; i < 100; ++i) {  // every one of them is a loss
    ASSERT_EQ(loop.plan({1}, sure), DSPARK_SCHED_OK);
    ASSERT_EQ(loop.observe({0}, 0.010 + 0.004 * loop.lengths[0]), DSPARK_SCHED_OK);
  }
  EXPECT_GT(loop.draft_length(1, 0, 4, 0), 0);
}

TEST(SchedulerAbi, RefusesWithTheFieldsName) {
  dspark_sched_error error{};
  dspark_sched* handle = nullptr;
  const auto refused = [&](dspark_sched_config config, const char* field) {
    EXPECT_EQ(dspark_sched_create(&config, &handle, &error), DSPARK_SCHED_INVALID_ARGUMENT) << field;
    EXPECT_EQ(handle, nullptr);
    EXPECT_EQ(error.status, DSPARK_SCHED_INVALID_ARGUMENT);
    EXPECT_NE(std::string(error.message).find(field), std::string::npos) << error.message;
  };
  const dspark_sched_config good = config_of("adaptive", kVerify, kDraft);
  dspark_sched_config bad = good;
  refused((bad.policy = "fixed:99", bad), "fixed:99");
  refused((bad = good, bad.policy = nullptr, bad), "policy");
  refused((bad = good, bad.struct_size = 8, bad), "struct_size");
  refused((bad = good, bad.max_sequences = 0, bad), "max_sequences");
  refused((bad = good, bad.n_verify = 0, bad), "verify");
  refused((bad = good, bad.verify = nullptr, bad), "verify");
  refused((bad = good, bad.context_s = std::nan(""), bad), "context_s");
  EXPECT_EQ(dspark_sched_create(nullptr, &handle, &error), DSPARK_SCHED_INVALID_ARGUMENT);
  const double rising[] = {0.5, 0.6};
  const int32_t two = 2;
  const dspark_sched_batch batch{rising, &two, 1, 2};
  int32_t lengths[1];
  EXPECT_EQ(dspark_sched_allot(&batch, 1, lengths, &error), DSPARK_SCHED_INVALID_ARGUMENT);
  EXPECT_NE(std::string(error.message).find("survival[0][1]"), std::string::npos) << error.message;
  const double seconds[] = {1, 1, 0};
  const dspark_sched_costs costs{seconds, 3, 0};
  const double falling[] = {0.6, 0.5};
  const dspark_sched_batch sound{falling, &two, 1, 2};
  EXPECT_EQ(dspark_sched_causal(&sound, &costs, lengths, nullptr, &error), DSPARK_SCHED_INVALID_ARGUMENT);
  EXPECT_NE(std::string(error.message).find("seconds[2]"), std::string::npos) << error.message;
}

// Engines forget a sequence when it ends, which may be before they tell what became of the step.
TEST(SchedulerAbi, SequencesMayEndBeforeTheOutcomeIsTold) {
  Loop loop(config_of("adaptive", kVerify, kDraft));  // for four sequences
  const std::vector<float> sure(16, 0.9f);
  ASSERT_EQ(loop.plan({7, 9}, sure.data()), DSPARK_SCHED_OK) << loop.error.message;
  ASSERT_EQ(loop.lengths, (Lengths{1, 1}));
  for (const uint64_t id : {7u, 7u, 1234u}) dspark_sched_forget(loop.handle, id);
  EXPECT_EQ(loop.observe({2, 0}, 0.010), DSPARK_SCHED_INVALID_ARGUMENT) << "more than were verified";
  ASSERT_EQ(loop.observe({1, 0}, 0.010), DSPARK_SCHED_OK) << loop.error.message;
  EXPECT_EQ(loop.observe({1, 0}, 0.010), DSPARK_SCHED_INVALID_ARGUMENT);  // told already
  dspark_sched_stats stats{};
  stats.struct_size = sizeof(stats);
  ASSERT_EQ(dspark_sched_get_stats(loop.handle, &stats, nullptr), DSPARK_SCHED_OK);
  EXPECT_EQ(stats.drift[0].count, 2);
  EXPECT_EQ(stats.drift[0].observed, 0.5);
  // Its place is free again, and so are those of plans whose outcome nobody tells.
  ASSERT_EQ(loop.plan({1, 2, 3, 9}, sure.data()), DSPARK_SCHED_OK) << loop.error.message;
  for (const uint64_t id : {1u, 2u, 3u}) dspark_sched_forget(loop.handle, id);
  EXPECT_EQ(loop.plan({4, 5, 5, 9}, sure.data()), DSPARK_SCHED_INVALID_ARGUMENT);
  for (const uint64_t id : {4u, 5u}) dspark_sched_forget(loop.handle, id);
  EXPECT_EQ(loop.plan({4, 5, 6, 9}, sure.data()), DSPARK_SCHED_OK) << loop.error.message;
  for (const uint64_t id : {4u, 5u, 6u, 9u}) dspark_sched_forget(loop.handle, id);
  EXPECT_EQ(loop.observe({0, 0, 0, 0}, 0.010), DSPARK_SCHED_OK) << loop.error.message;
  EXPECT_EQ(loop.plan({11, 12, 13, 14}, sure.data()), DSPARK_SCHED_OK) << loop.error.message;
}

TEST(SchedulerAbi, RefusesStepsByName) {
  Loop loop(config_of("adaptive", kVerify, kDraft));
  std::vector<float> confidence(20, 0.5f);
  EXPECT_EQ(loop.plan({1, 1}, confidence.data()), DSPARK_SCHED_INVALID_ARGUMENT);
  EXPECT_NE(std::string(loop.error.message).find("sequence_ids"), std::string::npos);
  confidence[5] = 1.5f;
  EXPECT_EQ(loop.plan({1, 2}, confidence.data()), DSPARK_SCHED_INVALID_ARGUMENT);
  EXPECT_NE(std::string(loop.error.message).find("confidence[1][1]"), std::string::npos);
  confidence[5] = 0.5f;
  EXPECT_EQ(loop.plan({1, 2, 3, 4, 5}, confidence.data()), DSPARK_SCHED_RESOURCE_EXHAUSTED);
  for (uint64_t id = 1; id <= 5; ++id) dspark_sched_forget(loop.handle, id);
  for (uint64_t id = 100; id < 400; ++id) {  // ids come and go; places are found again
    ASSERT_EQ(loop.plan({id, id + 1, id * 77777, 5}, confidence.data()), DSPARK_SCHED_OK);
    dspark_sched_forget(loop.handle, id);
    dspark_sched_forget(loop.handle, id + 1);
    dspark_sched_forget(loop.handle, id * 77777);
  }
  dspark_sched_forget(loop.handle, 123456);
  dspark_sched_forget(nullptr, 1);
}

}  // namespace
}  // namespace dspark
