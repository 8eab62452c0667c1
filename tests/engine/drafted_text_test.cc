// Learned drafters change no text: with greedy and coupled acceptance the answers are, bit for bit, those of
// plain decoding, whatever the draft length, the batch, the threads and the policy. On the reference's tiny
// targets, whose drafters are often right.

#include <gtest/gtest.h>

#include "engine/draft_golden.h"
#include "engine/model_workload.h"

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

}  // namespace
}  // namespace dspark
