// Learned drafters change no text: with greedy and coupled acceptance the answers are, bit for bit, those of
// plain decoding, whatever the draft length, the batch, the threads and the policy. On the reference's tiny
// targets, whose drafters are often right.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "engine/cost_file.h"
#include "engine/draft_golden.h"
#include "engine/model_workload.h"
#include "formats/temp_folder.h"

namespace dspark {
namespace {

using test::DraftGolden;

constexpr int32_t kContext = 192;

struct Way {
  int n_threads = 1;
  VerifyPolicy policy;
  int32_t max_sequences = 1;
  int32_t prefill_rows = 512;
};

std::string way_name(const Way& way) {
  return way.policy.to_string() + " threads=" + std::to_string(way.n_threads) +
         " sequences=" + std::to_string(way.max_sequences) + " prefill=" + std::to_string(way.prefill_rows);
}

std::vector<Way> ways() {
  std::vector<Way> all;
  for (int32_t k = 0; k <= 16; ++k)
    all.push_back({1, VerifyPolicy::fixed(k), 1 + k % 6, k % 2 == 0 ? 512 : 7});
  for (const int n_threads : {2, 4}) {
    for (const int32_t k : {1, 4, 7, 16}) all.push_back({n_threads, VerifyPolicy::fixed(k), 3, 5});
    all.push_back({n_threads, VerifyPolicy::from_threshold(0.4f), 6, 33});
  }
  all.push_back({1, VerifyPolicy::from_threshold(0.7f), 2, 512});
  all.push_back({1, VerifyPolicy::off(), 4, 512});
  return all;
}

/// A third of the requests samples with the rule that a greedy request may ignore.
std::vector<GenerateRequest> workload(int32_t vocab_size) {
  std::mt19937 rng(77);
  std::vector<GenerateRequest> requests = test::model_requests(rng, vocab_size, 7, 60, 50);
  for (GenerateRequest& request : requests) {
    if (request.sampling.greedy()) {
      request.accept_rule = rng() % 2 == 0 ? AcceptRule::kBlock : AcceptRule::kRejection;
    }
  }
  return requests;
}

class DraftedText : public testing::TestWithParam<DraftGolden> {};

TEST_P(DraftedText, IsThatOfPlainDecoding) {
  const DraftGolden& golden = GetParam();
  EngineOptions options;
  options.context_length = kContext;
  LoadedModel plain = test::load_golden_target(golden, 1, false);
  const auto requests = workload(plain.model->config().vocab_size);
  const auto plain_engine = make_engine(plain, options);
  ASSERT_TRUE(plain_engine.ok()) << plain_engine.status().to_string();
  const auto expected = test::run_all(**plain_engine, requests);
  SpeculationStats total;
  for (const Way& way : ways()) {
    SCOPED_TRACE(way_name(way));
    LoadedModel loaded = test::load_golden_target(golden, way.n_threads, false);
    options.policy = way.policy;
    options.max_sequences = way.max_sequences;
    options.prefill_rows = way.prefill_rows;
    const auto engine = test::golden_engine(loaded, golden, options);
    ASSERT_NE(engine, nullptr);
    ASSERT_EQ(test::run_all(*engine, requests, &total), expected);
  }
  EXPECT_GT(total.accepted, 300);
  EXPECT_GT(total.verified - total.accepted, 300);
}

INSTANTIATE_TEST_SUITE_P(Golden, DraftedText, testing::ValuesIn(test::draft_goldens()),
                         [](const auto& one) { return one.param.name; });

/// Fixtures whose drafter works in blocks.
std::vector<DraftGolden> block_goldens() {
  std::vector<DraftGolden> all = test::draft_goldens();
  std::erase_if(all, [](const DraftGolden& golden) {
    return !golden.name.starts_with("fixture_") || golden.name.find("eagle3") != std::string::npos;
  });
  return all;
}

/// The golden with a copy of its drafter, in `folder`, that has short blocks of 3 slots.
DraftGolden with_short_blocks(const DraftGolden& golden, const std::filesystem::path& folder) {
  std::ifstream file(golden.draft / "config.json");
  nlohmann::json config = nlohmann::json::parse(file);
  config["short_block_size"] = 3;
  std::ofstream(folder / "config.json") << config.dump();
  std::filesystem::copy_file(golden.draft / "model.safetensors", folder / "model.safetensors");
  return {golden.name, folder, golden.target};
}

class ShortDraftedText : public testing::TestWithParam<DraftGolden> {};

/// Requests near the end of their text ask for fewer drafts than their neighbours, so blocks of both sizes
/// are in one pass.
TEST_P(ShortDraftedText, IsThatOfPlainDecoding) {
  const test::TempFolder folder;
  const DraftGolden golden = with_short_blocks(GetParam(), folder.path());
  LoadedModel loaded = test::load_golden_target(golden, 2, false);
  EngineOptions options;
  options.context_length = kContext;
  const auto requests = workload(loaded.model->config().vocab_size);
  const auto plain_engine = make_engine(loaded, options);
  ASSERT_TRUE(plain_engine.ok()) << plain_engine.status().to_string();
  const auto expected = test::run_all(**plain_engine, requests);
  SpeculationStats total;
  for (const VerifyPolicy& policy : {VerifyPolicy::fixed(1), VerifyPolicy::fixed(2), VerifyPolicy::fixed(3),
                                     VerifyPolicy::fixed(4), VerifyPolicy::from_threshold(0.4f)}) {
    for (const int32_t max_sequences : {1, 5}) {
      SCOPED_TRACE(policy.to_string() + " sequences=" + std::to_string(max_sequences));
      options.policy = policy;
      options.max_sequences = max_sequences;
      const auto engine = test::golden_engine(loaded, golden, options);
      ASSERT_NE(engine, nullptr);
      EXPECT_EQ(engine->drafter()->short_block(), 3);
      ASSERT_EQ(test::run_all(*engine, requests, &total), expected);
    }
  }
  EXPECT_GT(total.accepted, 20);
  EXPECT_GT(total.verified - total.accepted, 50);
}

/// A file that got short blocks has the name and the size that it had.
TEST_P(ShortDraftedText, CostsAreKeptApart) {
  const test::TempFolder folder;
  const DraftGolden golden = with_short_blocks(GetParam(), folder.path());
  LoadedModel loaded = test::load_golden_target(golden, 1, false);
  const auto key_of = [&](const std::string& spec) {
    const auto drafter = load_drafter(loaded, {}, {.spec = spec, .calibration = {}});
    EXPECT_TRUE(drafter.ok()) << drafter.status().to_string();
    return cost_key(loaded, drafter->get(), "drafter.gguf", {}).drafter;
  };
  const std::string whole = key_of(GetParam().draft.string());
  EXPECT_EQ(key_of(golden.draft.string()), whole + ", short block 3");
  EXPECT_EQ(key_of(golden.draft.string() + "+ngram"),
            key_of(GetParam().draft.string() + "+ngram") + ", short block 3");
}

INSTANTIATE_TEST_SUITE_P(Golden, ShortDraftedText, testing::ValuesIn(block_goldens()),
                         [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace dspark
