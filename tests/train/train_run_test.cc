// Whole runs on the smallest target: they learn, and one that was cut off goes on as if nothing had happened.

#include "train/trainer.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "draft/draft_harness.h"
#include "draft/paired_drafter.h"
#include "models/harness.h"
#include "run_fixture.h"
#include "train/head_product.h"
#include "train_cases.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;

using test::file_bytes;
using test::log_lines;

class TrainRun : public test::RunFixture {};

/// Cuts a run off between two checkpoints, continues it, and compares with one that was left alone.
void expect_exact_resume(const TrainOptions& whole, TrainOptions cut, int64_t cut_step) {
  ASSERT_TRUE(train_drafter(whole, {}).ok());
  cut.checkpoint_steps = 7;
  TrainCallbacks kill;
  kill.on_step = [&](const TrainRecord& record) -> bool {
    // Nothing is written after this, as if the process had been killed.
    if (record.step == cut_step) throw std::runtime_error("killed");
    return true;
  };
  EXPECT_FALSE(train_drafter(cut, kill).ok());
  EXPECT_EQ(log_lines(cut.out).size(), static_cast<size_t>(cut_step) + 1);
  cut.resume = true;
  const Status status = train_drafter(cut, {});
  ASSERT_TRUE(status.ok()) << status.to_string();

  EXPECT_EQ(log_lines(whole.out).size(), 25u);
  EXPECT_EQ(log_lines(whole.out), log_lines(cut.out));
  EXPECT_EQ(file_bytes(fs::path(whole.out) / "draft" / "model.safetensors"),
            file_bytes(fs::path(cut.out) / "draft" / "model.safetensors"));
}

TEST_F(TrainRun, KilledRunContinuesWithTheSameLosses) {
  expect_exact_resume(options("whole"), options("cut"), 17);
}

// How far weights move is measured once, at the beginning.
TEST_F(TrainRun, KilledRunContinuesWithItsStepScales) {
  for (const bool warm : {true, false}) {
    const auto scaled = [&](const std::string& name) {
      TrainOptions o = options(name + (warm ? "-warm" : "-random"));
      o.step_scale = true;
      o.warm_start = warm;
      return o;
    };
    expect_exact_resume(scaled("whole"), scaled("cut"), 17);
    TrainOptions alike = scaled("alike");
    alike.step_scale = false;
    ASSERT_TRUE(train_drafter(alike, {}).ok());
    EXPECT_NE(log_lines(alike.out), log_lines(scaled("whole").out));
  }
}

// In the first stage, in the curriculum, in the slide of the losses.
TEST_F(TrainRun, KilledRunContinuesWithItsStages) {
  for (const int64_t cut_step : {8, 13, 23}) {
    const auto staged = [&](const char* name) {
      TrainOptions o = options(name + std::to_string(cut_step));
      o.first_stage = 0.4;
      o.first_anchors = 9;
      o.short_blocks = 0.4;
      o.curriculum = true;
      o.loss_slide = true;
      return o;
    };
    expect_exact_resume(staged("whole"), staged("cut"), cut_step);
  }
}

TEST_F(TrainRun, LearnsAndExportsADrafterThatOpens) {
  TrainOptions o = options("learn");
  o.steps = 120;
  o.accumulate = 1;
  o.average = 0;
  std::vector<TrainRecord> records;
  TrainCallbacks callbacks;
  callbacks.on_step = [&](const TrainRecord& record) {
    records.push_back(record);
    return true;
  };
  ASSERT_TRUE(train_drafter(o, callbacks).ok());
  ASSERT_EQ(records.size(), 120u);
  EXPECT_LT(records.back().loss, 0.85 * records.front().loss);
  EXPECT_GT(records.back().tau, records.front().tau + 0.3);
  const auto draft = open_draft_checkpoint((fs::path(o.out) / "draft").string());
  ASSERT_TRUE(draft.ok()) << draft.status().to_string();
  EXPECT_EQ(draft->config.draft_vocab_size, 64);
  EXPECT_EQ(draft->config.block_size, 5);
  EXPECT_EQ(draft->find("lm_head.weight"), nullptr);
}

/// What a drafter proposes behind a text that the target has read.
std::vector<int32_t> proposal(TargetModel& target, Drafter& drafter, const std::vector<int32_t>& text) {
  const std::span<const int32_t> taps = drafter.tap_layers();
  target.set_capture_layers({taps.begin(), taps.end()});
  const auto n_rows = static_cast<int32_t>(text.size()) - 1;
  test::Session session(target, KvDType::kF32, 1, 256);
  const test::Outputs outputs = session.forward(0, {text.begin(), text.end() - 1});
  CommitEvent event =
      test::feature_event(0, 0, outputs.captured, static_cast<int32_t>(taps.size()), target.config().dim);
  event.tokens = text;
  drafter.commit({&event, 1});
  SamplingParams greedy;
  greedy.temperature = 0.0f;
  const DraftBlock block = test::propose_one(drafter, 0, text.back(), n_rows, drafter.max_block(), greedy);
  return {block.drafts(0).begin(), block.drafts(0).end()};
}

TEST_F(TrainRun, PairedKindsLearnAndDraft) {
  for (const std::string kind : {"eagle3", "mtp"}) {
    SCOPED_TRACE(kind);
    TrainOptions o = options(kind);
    o.kind = kind;
    if (kind == "eagle3") o.caches = {(test::train_cases_dir() / "cache_eagle3").string()};
    o.block_size = 3;
    o.steps = 60;
    o.accumulate = 1;
    o.average = 0;
    std::vector<TrainRecord> records;
    TrainCallbacks callbacks;
    callbacks.on_step = [&](const TrainRecord& record) {
      records.push_back(record);
      return true;
    };
    const Status status = train_drafter(o, callbacks);
    ASSERT_TRUE(status.ok()) << status.to_string();
    EXPECT_LT(records.back().loss, 0.8 * records.front().loss);
    EXPECT_GT(records.back().tau, records.front().tau + 0.2);

    ThreadPool pool(1);
    const auto target = test::open_model(o.target, pool, true);
    auto draft = open_draft_checkpoint((fs::path(o.out) / "draft").string());
    ASSERT_TRUE(draft.ok()) << draft.status().to_string();
    EXPECT_EQ(draft->config.draft_vocab_size, 64);
    PairedDrafterOptions exact;
    exact.context_length = 200;
    exact.float_activations = true;
    auto drafter = PairedDrafter::create(std::move(*draft), DraftTarget::of(*target), pool, exact);
    ASSERT_TRUE(drafter.ok()) << drafter.status().to_string();
    EXPECT_EQ((*drafter)->name(), kind);
    EXPECT_EQ(proposal(*target, **drafter, {1, 5, 9, 20, 33}).size(), kind == "mtp" ? 1u : 3u);
  }
}

TEST_F(TrainRun, RoundedProductsLearnTheSame) {
  // bf16 products against fp32 ones.
  TrainOptions o = options("bf16");
  o.bf16 = true;
  TrainOptions exact = options("fp32");
  exact.float32 = true;
  double losses[2] = {0, 0};
  TrainCallbacks callbacks;
  int run = 0;
  callbacks.on_step = [&](const TrainRecord& record) {
    losses[run] = record.loss;
    return true;
  };
  ASSERT_TRUE(train_drafter(o, callbacks).ok());
  run = 1;
  ASSERT_TRUE(train_drafter(exact, callbacks).ok());
  EXPECT_NEAR(losses[0], losses[1], 0.02 * losses[1]);
}

TEST_F(TrainRun, SaysThatTheCpuHasNoBf16) {
  const auto notes_of = [&](const char* name, bool bf16) {
    TrainOptions o = options(name);
    o.steps = 1;
    o.bf16 = bf16;
    std::string notes;
    TrainCallbacks callbacks;
    callbacks.on_note = [&](const std::string& text) { notes += text + "\n"; };
    const Status status = train_drafter(o, callbacks);
    EXPECT_TRUE(status.ok()) << status.to_string();
    return notes;
  };
  const std::string text = "no bf16 dot products";
  EXPECT_EQ(notes_of("plain", false).find(text) == std::string::npos, cpu_has_bf16_dot());
  EXPECT_EQ(notes_of("forced", true).find(text), std::string::npos);
}

TEST_F(TrainRun, WrongInputIsNamed) {
  const auto message = [&](auto change) {
    TrainOptions o = options("wrong");
    change(o);
    return train_drafter(o, {}).message();
  };
  const auto expect_part = [](const std::string& text, const char* part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  expect_part(message([](TrainOptions& o) { o.minutes = 1; }), "either --steps or --minutes");
  expect_part(message([](TrainOptions& o) { o.caches.clear(); }), "--data");
  expect_part(message([](TrainOptions& o) { o.head = "wide"; }), "--head");
  expect_part(message([](TrainOptions& o) { o.kind = "medusa"; }), "--kind");
  expect_part(message([](TrainOptions& o) { o.float32 = o.bf16 = true; }), "either --float32 or --bf16");
  expect_part(message([](TrainOptions& o) { o.draft_vocab = 98; }), "the target has 96 ids");
  expect_part(message([](TrainOptions& o) { o.resume = true; }), "no state.safetensors");
  expect_part(message([](TrainOptions& o) { o.sequences = 5; }), "4 samples can be trained on");
  expect_part(message([](TrainOptions& o) { o.caches.push_back(o.target); }), "manifest.json");
  ASSERT_TRUE(train_drafter(options("done"), {}).ok());
  expect_part(train_drafter(options("done"), {}).message(), "--resume");
}

}  // namespace
}  // namespace dspark
