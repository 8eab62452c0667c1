// Eagle3 and MTP drafters as the factory loads them, beside a real target.

#include <gtest/gtest.h>

#include <algorithm>

#include "draft/draft_harness.h"
#include "draft/draft_writer.h"
#include "draft/factory.h"
#include "draft/paired_drafter.h"
#include "draft/random_draft.h"
#include "models/harness.h"
#include "models/tiny_model.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

const char* const kTarget = "draft/targets/gemma4";  // width 64, 320 tokens, 7 layers

DrafterContext context_of(TargetModel& target, ThreadPool& pool) {
  DrafterContext context;
  context.target = &target;
  context.pool = &pool;
  context.max_sequences = 2;
  context.context_length = 200;
  context.kv_dtype = KvDType::kF32;
  context.float_activations = true;
  return context;
}

DraftConfig mtp_config() {
  DraftConfig c = test::small_draft_config();
  c.kind = DraftKind::kMtp;
  c.n_layers = 1;
  c.vocab_size = c.draft_vocab_size = 320;
  c.head = SequentialHead::kNone;
  c.markov_rank = c.mask_token_id = 0;
  c.confidence = c.confidence_with_markov = false;
  c.block_size = 1;
  c.context_length = 512;
  c.target_layers = 7;
  c.taps = {7};
  return c;
}

/// A folder with random MTP weights.
void write_mtp(const std::filesystem::path& folder) {
  const test::RandomDraft random(mtp_config(), DType::kF32, 5);
  const DraftCheckpoint draft = random.checkpoint();
  std::vector<NamedFloats> tensors;
  for (const auto& [name, view] : draft.tensors) {
    const auto* values = reinterpret_cast<const float*>(view.data);
    tensors.push_back({name, view.shape, {values, static_cast<size_t>(view.n_elements())}});
  }
  const Status written = write_deepspec_draft(folder.string(), draft.config, tensors, DType::kF32);
  ASSERT_TRUE(written.ok()) << written.to_string();
}

TEST(PairedLoading, Eagle3ByPath) {
  ThreadPool pool(1);
  const auto target = test::open_model(test::data_dir() / kTarget, pool, true);
  ASSERT_NE(target, nullptr);
  const std::string path = (test::data_dir() / "draft" / "drafts" / "gemma4_eagle3").string();
  Result<std::unique_ptr<Drafter>> drafter = make_drafter(path, context_of(*target, pool));
  ASSERT_TRUE(drafter.ok()) << drafter.status().to_string();
  EXPECT_EQ((*drafter)->name(), "eagle3");
  EXPECT_EQ((*drafter)->max_block(), 5);
  const std::span<const int32_t> taps = (*drafter)->tap_layers();
  EXPECT_EQ(std::vector(taps.begin(), taps.end()), (std::vector<int32_t>{1, 2, 3, 5, 6}));
  EXPECT_GT((*drafter)->weight_bytes(), 0u);
  const double temperatures[] = {1.5};  // without a confidence head there is nothing to calibrate
  EXPECT_EQ((*drafter)->set_calibration(temperatures).code(), StatusCode::kUnsupported);
}

TEST(PairedLoading, AnotherTargetIsRefused) {
  ThreadPool pool(1);
  const auto target = test::open_model(test::data_dir() / "models" / "qwen3_qknorm", pool, true);
  ASSERT_NE(target, nullptr);
  const std::string path = (test::data_dir() / "draft" / "drafts" / "gemma4_eagle3").string();
  const Status status = make_drafter(path, context_of(*target, pool)).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("gemma4_eagle3"), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("was not made for this target"), std::string::npos) << status.message();
}

// The hidden state that MTP reads is the input of the target's head, and the drafter follows the text.
TEST(PairedLoading, MtpBesideATarget) {
  ThreadPool pool(2);
  const auto target = test::open_model(test::data_dir() / kTarget, pool, true);
  ASSERT_NE(target, nullptr);
  test::TemporaryFolder folder;
  write_mtp(folder.path());
  Result<std::unique_ptr<Drafter>> drafter = make_drafter(folder.path().string(), context_of(*target, pool));
  ASSERT_TRUE(drafter.ok()) << drafter.status().to_string();
  EXPECT_EQ((*drafter)->name(), "mtp");
  EXPECT_EQ((*drafter)->max_block(), 1);
  target->set_capture_layers({7});
  test::Session session(*target, KvDType::kF32, 1, 128);
  DraftTrace trace;
  (*drafter)->set_trace(&trace);

  std::vector<int32_t> tokens = {1, 133, 263, 61, 263, 306, 114};
  int32_t n_cached = 0;
  for (int round = 0; round < 5; ++round) {
    const std::vector<int32_t> rows(tokens.begin() + n_cached, tokens.end());
    const test::Outputs out = session.forward(0, rows);
    const size_t n_told = round == 0 ? 0 : tokens.size();
    tokens.push_back(test::argmax(out.logits.data() + out.logits.size() - 320, 320));
    CommitEvent event = test::feature_event(0, n_cached, out.captured, 1, 64);
    event.token_position = static_cast<int32_t>(n_told);
    event.tokens = std::span(tokens).subspan(n_told);
    (*drafter)->commit({&event, 1});
    EXPECT_LE(test::max_abs_diff(trace.context_rows, out.final_norm), 1e-5f) << "round " << round;
    n_cached += static_cast<int32_t>(rows.size());
    SamplingParams greedy;
    greedy.temperature = 0.0f;
    const DraftBlock block = test::propose_one(**drafter, 0, tokens.back(), n_cached, 4, greedy);
    EXPECT_EQ(block.n_tokens[0], 1) << "round " << round;
  }
}

}  // namespace
}  // namespace dspark
