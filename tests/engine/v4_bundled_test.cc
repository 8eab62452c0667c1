// A DeepSeek V4 that drafts for itself: the answers are those of plain decoding, whatever the policy, the
// batch and the threads; shared prefixes and rolled-back compressed entries included.

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>

#include "draft/factory.h"
#include "draft/v4_drafter.h"
#include "engine/model_workload.h"
#include "engine/v4_folder.h"

namespace dspark {
namespace {

constexpr int32_t kContext = 160;

class BundledDrafter : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) / "dspark_v4_bundled";
    std::filesystem::create_directories(folder_);
    test::write_v4_with_drafter(folder_);
  }
  void TearDown() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  std::unique_ptr<TargetModel> open(ThreadPool& pool) {
    auto model = TargetModel::open(folder_.string(), pool);
    EXPECT_TRUE(model.ok()) << model.status().to_string();
    return model.ok() ? *std::move(model) : nullptr;
  }

  std::unique_ptr<Drafter> drafter(TargetModel& model, ThreadPool& pool, int32_t max_sequences,
                                   const std::string& spec = "bundled") {
    DrafterContext context;
    context.target = &model;
    context.pool = &pool;
    context.max_sequences = max_sequences;
    context.context_length = kContext;
    auto made = make_drafter(spec, context);
    EXPECT_TRUE(made.ok()) << made.status().to_string();
    return made.ok() ? *std::move(made) : nullptr;
  }

  std::unique_ptr<Engine> engine(TargetModel& model, EngineOptions options, std::unique_ptr<Drafter> draft) {
    options.context_length = kContext;
    auto made = Engine::create(model, options, std::move(draft));
    EXPECT_TRUE(made.ok()) << made.status().to_string();
    return made.ok() ? *std::move(made) : nullptr;
  }

  std::filesystem::path folder_;
};

// High temperatures: the noise that target and drafter share decides, so that random weights agree often.
std::vector<GenerateRequest> workload() {
  std::mt19937 rng(5);
  std::vector<GenerateRequest> requests = test::model_requests(rng, 256, 7, 50, 40);
  for (size_t i = 0; i < requests.size(); ++i) {
    if (i % 3 != 0) requests[i].sampling.temperature = 4.0f;
    if (i > 3) requests[i].prompt = requests[1].prompt;  // a shared beginning
    if (i > 3) requests[i].prompt.push_back(static_cast<int32_t>(i));
  }
  return requests;
}

TEST_F(BundledDrafter, TextIsThatOfPlainDecoding) {
  const std::vector<GenerateRequest> requests = workload();
  std::vector<std::vector<int32_t>> expected;
  {
    ThreadPool pool(1);
    const auto model = open(pool);
    ASSERT_NE(model, nullptr);
    const auto plain = engine(*model, {}, nullptr);
    ASSERT_NE(plain, nullptr);
    expected = test::run_all(*plain, requests);
  }
  SpeculationStats total;
  int32_t way = 0;
  for (const VerifyPolicy& policy : {VerifyPolicy::adaptive(), VerifyPolicy::fixed(5), VerifyPolicy::fixed(1),
                                     VerifyPolicy::fixed(3), VerifyPolicy::from_threshold(0.4f)}) {
    for (const int32_t max_sequences : {1, 4}) {
      const int n_threads = 1 + way++ % 3;
      SCOPED_TRACE(policy.to_string() + " sequences=" + std::to_string(max_sequences) +
                   " threads=" + std::to_string(n_threads));
      ThreadPool pool(n_threads);
      const auto model = open(pool);
      ASSERT_NE(model, nullptr);
      EngineOptions options;
      options.policy = policy;
      options.max_sequences = max_sequences;
      options.prefill_rows = way % 2 == 0 ? 512 : 7;
      const auto drafted = engine(*model, options, drafter(*model, pool, max_sequences));
      ASSERT_NE(drafted, nullptr);
      ASSERT_EQ(test::run_all(*drafted, requests, &total), expected);
    }
  }
  EXPECT_GT(total.accepted, 50);
  EXPECT_GT(total.verified - total.accepted, 50);
}

// Five pages; who starts is sure of one page beyond its prompt only. The first two start together with
// prompts of two pages and both come to need four (97 to 128 positions): whoever gets there first, the pages
// of both are more than five before. So some lose theirs, compressed entries included, and are computed
// again.
TEST_F(BundledDrafter, PreemptionChangesNoText) {
  constexpr size_t kTokens = 70;
  std::vector<GenerateRequest> requests = workload();
  requests[0].prompt.resize(requests[1].prompt.size(), 7);
  for (GenerateRequest& request : requests) {
    request.max_tokens = int32_t{kTokens};
    ASSERT_LT(request.prompt.size() + kTokens, size_t{kContext});
  }
  ASSERT_GT(requests[1].prompt.size() + kTokens, 3 * size_t{kKvPageSize} + 1);
  ASSERT_EQ(PageAllocator::pages_for(std::ssize(requests[1].prompt)), 2);
  std::vector<std::vector<int32_t>> expected;
  {
    ThreadPool pool(1);
    const auto model = open(pool);
    ASSERT_NE(model, nullptr);
    const auto plain = engine(*model, {}, nullptr);
    ASSERT_NE(plain, nullptr);
    expected = test::run_all(*plain, requests);
  }
  for (const VerifyPolicy& policy : {VerifyPolicy::fixed(5), VerifyPolicy::adaptive()}) {
    SCOPED_TRACE(policy.to_string());
    ThreadPool pool(2);
    const auto model = open(pool);
    ASSERT_NE(model, nullptr);
    EngineOptions options;
    options.policy = policy;
    options.max_sequences = 4;
    options.kv_tokens = 2 * kKvPageSize;  // and a page for every sequence but one, which may be partly empty
    options.prefill_rows = 24;
    // Drafts are free, and nothing that is decided depends on this machine.
    options.costs = CostTable{
        .verify = {{1, 1e-3}, {200, 1.001e-3}}, .draft = {{1, 1e-9}}, .draft_short = {}, .context_curve = {}};
    options.clock = [] { return std::chrono::steady_clock::time_point(); };
    const auto crowded = engine(*model, options, drafter(*model, pool, 4));
    ASSERT_NE(crowded, nullptr);
    EXPECT_EQ(crowded->load().n_pages, 5);
    ASSERT_EQ(test::run_all(*crowded, requests), expected);
    EXPECT_GT(crowded->stats().preemptions, 0);
    EXPECT_GT(crowded->stats().recomputed_tokens, 0);
    EXPECT_GT(crowded->stats().speculation.verified, 0);
  }
}

TEST_F(BundledDrafter, IsNamedByTheTargetsPathToo) {
  ThreadPool pool(1);
  const auto model = open(pool);
  ASSERT_NE(model, nullptr);
  const auto made = drafter(*model, pool, 1, folder_.string());
  ASSERT_NE(made, nullptr);
  EXPECT_EQ(made->max_block(), 5);
  EXPECT_EQ(std::vector<int32_t>(made->tap_layers().begin(), made->tap_layers().end()),
            (std::vector<int32_t>{2, 4, 5}));
}

TEST_F(BundledDrafter, MissingSettingsAndTensorsAreNamed) {
  ThreadPool pool(1);
  const auto model = open(pool);
  ASSERT_NE(model, nullptr);
  EXPECT_TRUE(has_bundled_drafter(*model));
  const auto refused = [&](const std::string& what) {
    const auto changed = open(pool);
    ASSERT_NE(changed, nullptr);
    const auto made = V4Drafter::create(*changed, pool, {});
    ASSERT_FALSE(made.ok());
    EXPECT_NE(made.status().message().find(what), std::string::npos) << made.status().to_string();
  };
  std::ifstream in(folder_ / "config.json");
  const nlohmann::json config = nlohmann::json::parse(in);
  for (const char* key :
       {"dspark_block_size", "dspark_markov_rank", "dspark_noise_token_id", "dspark_target_layer_ids"}) {
    nlohmann::json changed = config;
    changed.erase(key);
    std::ofstream(folder_ / "config.json") << changed.dump();
    refused(key);
  }
  nlohmann::json changed = config;
  changed["dspark_target_layer_ids"] = {1, 3};
  std::ofstream(folder_ / "config.json") << changed.dump();
  refused("mtp.0.main_proj.weight is [64, 192], expected [64, 128]");
}

}  // namespace
}  // namespace dspark
