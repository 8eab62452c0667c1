// What single options of a run do, and which of them a run can be continued with.

#include <gtest/gtest.h>

#include <algorithm>

#include "run_fixture.h"
#include "train/data_source.h"
#include "train/draft_init.h"
#include "train/run_options.h"
#include "train/step_plan.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::open_trained;
using test::train_all;

class TrainOption : public test::RunFixture {
 protected:
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(root_ / name, std::ios::binary) << text;
  }
  std::string path(const char* name) const { return (root_ / name).string(); }
};

void expect_part(const Status& status, const std::string& part) {
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
}

TEST_F(TrainOption, InitStartsFromATrainedDrafter) {
  TrainOptions first = options("first");
  first.steps = 60;
  first.average = 0;
  const std::vector<TrainRecord> before = train_all(first);
  TrainOptions second = options("second");
  second.init = first.out + "/draft";
  second.steps = 1;
  second.block_size = 3;  // the drafter's own counts
  const std::vector<TrainRecord> after = train_all(second);
  ASSERT_EQ(after.size(), 1u);
  ASSERT_EQ(after[0].accept_rate.size(), 5u);
  EXPECT_LT(after[0].loss, 0.9 * before[0].loss);
  EXPECT_EQ(open_trained(second).config.d2t, open_trained(first).config.d2t);
}

TEST_F(TrainOption, HeldOutSamplesAreMeasuredAndNotTrainedOn) {
  TrainOptions o = options("held");
  o.holdout = 0.5;
  const auto open = [&] {
    SampleSources sources;
    sources.push_back(std::move(open_cache_source(o.caches[0]).value()));
    return std::move(DataSource::create(o, std::move(sources)).value());
  };
  DataSource data = open();
  ASSERT_EQ(data.n_train(), 2);
  ASSERT_EQ(data.n_held_out(), 2);
  std::vector<std::vector<int32_t>> held;
  const std::vector<AnchorSet> held_sets = data.held_out(0, 9).value();
  for (const AnchorSet& set : held_sets) held.push_back(set.sample.input_ids);
  ASSERT_EQ(held.size(), 2u);
  for (int64_t step = 0; step < 6; ++step) {
    const std::vector<AnchorSet> sets = data.micro_step(step, o.anchors).value();
    for (const AnchorSet& set : sets) {
      EXPECT_EQ(std::count(held.begin(), held.end(), set.sample.input_ids), 0);
    }
  }
  o.checkpoint_steps = 12;
  train_all(o);
  const std::vector<std::string> rows = test::log_lines(o.out, "eval.csv");
  ASSERT_EQ(rows.size(), 3u) << "one per checkpoint, and the header";
  EXPECT_EQ(rows[1].rfind("12,", 0), 0u) << rows[1];
  EXPECT_EQ(rows[2].rfind("24,", 0), 0u) << rows[2];

  o.out = path("none");
  o.holdout = 0;
  train_all(o);
  EXPECT_EQ(test::log_lines(o.out, "eval.csv").size(), 1u);
}

/// Answers of three tokens to prompts of one token more than their number says.
class AnswersSource final : public SampleSource {
 public:
  explicit AnswersSource(std::vector<int32_t> prompts) : prompts_(std::move(prompts)) {}
  const std::string& name() const override { return name_; }
  const TargetCacheInfo& info() const override { return info_; }
  int64_t n_samples() const override { return static_cast<int64_t>(prompts_.size()); }
  void read_tokens(int64_t idx, TargetCacheSample& sample) const override {
    const int32_t prompt = prompts_[static_cast<size_t>(idx)];
    sample.input_ids.assign(static_cast<size_t>(prompt) + 1, prompt);
    sample.loss_mask.assign(sample.input_ids.size(), 0);
    for (int32_t i = 0; i < 3; ++i) sample.input_ids.push_back(static_cast<int32_t>(10 * idx + i));
    sample.loss_mask.resize(sample.input_ids.size(), 1);
  }
  Status read(int64_t idx, TargetCacheSample& sample) override {
    read_tokens(idx, sample);
    return ok_status();
  }

 private:
  std::vector<int32_t> prompts_;
  std::string name_ = "answers";
  TargetCacheInfo info_;
};

TEST_F(TrainOption, AllAnswersToAPromptAreHeldOutOrNone) {
  TrainOptions o = options("");
  o.holdout = 0.5;
  const auto held_prompts = [&](std::vector<std::vector<int32_t>> sources) {
    SampleSources all;
    for (std::vector<int32_t>& prompts : sources) all.push_back(std::make_unique<AnswersSource>(prompts));
    DataSource data = std::move(DataSource::create(o, std::move(all)).value());
    std::vector<int32_t> held;
    const std::vector<AnchorSet> sets = data.held_out(0, 99).value();
    for (const AnchorSet& set : sets) held.push_back(set.sample.input_ids.front());
    return held;
  };
  // By the first answers the prompts are 1, 2, 3, 4: the second and the fourth are held out.
  EXPECT_EQ(held_prompts({{1, 2, 1, 3, 2, 4, 3, 2}}), (std::vector<int32_t>{2, 2, 4, 2}));
  // Another cache changes nothing about the first, and its answers to known prompts stay on their sides.
  EXPECT_EQ(held_prompts({{1, 2, 1, 3}, {2, 1, 5, 6}}), (std::vector<int32_t>{2, 2, 5}));
  // Texts from a first token alone are prompts of their own.
  EXPECT_EQ(held_prompts({{0, 0, 0, 0, 0, 0}}).size(), 3u);
}

TEST_F(TrainOption, MaxContextCutsRowsBeforeTheFirstAnchor) {
  const TargetCacheReader cache = TargetCacheReader::open(options("").caches[0]).value();
  AnchorSet set;
  cache.read(0, set.sample);
  set.anchors = {10, 13};
  DraftConfig config;
  config.dim = cache.info().hidden_size;
  config.block_size = 2;
  config.taps.resize(cache.info().target_layer_ids.size());
  const StepBatch all = build_step_batch({set}, config, 0, at::kCPU);
  const StepBatch cut = build_step_batch({set}, config, 4, at::kCPU);
  EXPECT_EQ(all.context_positions.size(0), 13);
  EXPECT_TRUE(at::equal(cut.context_positions, at::arange(6, 13, at::kLong)));
  EXPECT_TRUE(at::equal(cut.features, all.features.slice(0, 6, 13)));
  EXPECT_EQ(build_step_batch({set}, config, 99, at::kCPU).context_positions.size(0), 13);

  TrainOptions o = options("whole");
  o.steps = 1;
  const double whole = train_all(o)[0].loss;
  o.out = path("cut");
  o.max_context = 2;
  EXPECT_NE(train_all(o)[0].loss, whole);
}

TEST_F(TrainOption, DraftVocabFileGivesTheIds) {
  json ids = json::array();
  for (int32_t id = 3; id < 93; id += 3) ids.push_back(id);
  write("vocab.json", json{{"ids", ids}}.dump());
  TrainOptions o = options("vocab");
  o.draft_vocab_file = path("vocab.json");
  o.steps = 2;
  train_all(o);
  EXPECT_EQ(open_trained(o).config.d2t, ids.get<std::vector<int32_t>>());

  const auto refused = [&](const json& list, const char* part) {
    write("vocab.json", json{{"ids", list}}.dump());
    o.out = path("refused");
    const Status status = train_drafter(o, {});
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    EXPECT_NE(status.message().find("vocab.json"), std::string::npos) << status.message();
  };
  refused({1, 5, 5}, "ids[2]");
  refused({1, 96}, "found 96");
  refused(json::array(), "expected a list");
}

/// The cache of the cases with the log-sum-exps that the target's head gives.
std::string cache_with_log_sums(const TrainOptions& o, const std::string& folder) {
  const TrainTarget target = open_train_target(o.target).value();
  const TargetCacheReader from = TargetCacheReader::open(o.caches[0]).value();
  TargetHead head;
  head.draft = HeadProduct(target.head, Precision::kFloat32, false);
  TargetCacheWriter::Options with;
  with.log_sum_exp = true;
  TargetCacheWriter to = TargetCacheWriter::create(folder, from.info(), with).value();
  TargetCacheSample sample;
  for (int64_t i = 0; i < from.n_samples(); ++i) {
    from.read(i, sample);
    const auto n_rows = static_cast<int64_t>(sample.n_tokens());
    const at::Tensor hidden = at::from_blob(sample.target_last_hidden.data(), {n_rows, target.config.dim},
                                            at::TensorOptions(at::kBFloat16));
    const at::Tensor sums = target_log_sum(head, hidden).contiguous();
    sample.log_sum_exp.assign(sums.const_data_ptr<float>(), sums.const_data_ptr<float>() + n_rows);
    EXPECT_TRUE(to.append(sample).ok());
  }
  EXPECT_TRUE(to.finish().ok());
  return folder;
}

TEST_F(TrainOption, StoredLogSumsGiveTheLossesOfComputedOnes) {
  TrainOptions o = options("computed");
  o.float32 = true;
  const std::vector<TrainRecord> computed = train_all(o);
  o.caches = {cache_with_log_sums(o, path("cache"))};
  o.out = path("stored");
  const std::vector<TrainRecord> stored = train_all(o);
  ASSERT_EQ(stored.size(), computed.size());
  for (size_t i = 0; i < stored.size(); ++i) {
    EXPECT_NEAR(stored[i].loss, computed[i].loss, 1e-4 * computed[i].loss) << "step " << i + 1;
  }
}

TEST_F(TrainOption, EveryKindOfDrafterLearns) {
  const struct {
    const char* name;
    SequentialHead head;
  } kinds[] = {
      {"dflash", SequentialHead::kNone}, {"gated", SequentialHead::kGated}, {"rnn", SequentialHead::kRnn}};
  for (const auto& kind : kinds) {
    SCOPED_TRACE(kind.name);
    TrainOptions o = options(kind.name);
    const bool dflash = kind.head == SequentialHead::kNone;
    o.kind = dflash ? "dflash" : "dspark";
    o.ce = dflash ? 1.0 : 0.0;
    if (!dflash) o.head = kind.name;
    o.steps = 60;
    o.accumulate = 1;
    o.average = 0;
    const std::vector<TrainRecord> records = train_all(o);
    ASSERT_EQ(records.size(), 60u);
    EXPECT_LT(records.back().loss, 0.95 * records.front().loss);
    EXPECT_GT(records.back().tau, records.front().tau);
    const DraftConfig config = open_trained(o).config;
    EXPECT_EQ(config.kind, dflash ? DraftKind::kDFlash : DraftKind::kDSpark);
    EXPECT_EQ(config.head, kind.head);
    EXPECT_EQ(config.confidence, !dflash);
  }
}

TEST_F(TrainOption, FirstStageTrainsOneSlot) {
  TrainOptions o = options("staged");
  o.accumulate = 1;
  o.first_stage = 0.5;
  o.first_anchors = 9;
  const std::vector<TrainRecord> records = train_all(o);
  ASSERT_EQ(records.size(), 24u);
  for (size_t i = 0; i < records.size(); ++i) {
    const bool first = i < 12;
    ASSERT_EQ(records[i].accept_rate.size(), 5u);
    EXPECT_EQ(records[i].accept_rate[4] == 0, first) << i;
    const int64_t n_blocks = records[i].anchors - (i == 0 ? 0 : records[i - 1].anchors);
    EXPECT_LE(n_blocks, first ? 18 : 12);
    EXPECT_GT(n_blocks, first ? 12 : 0);
  }
  EXPECT_EQ(open_trained(o).config.block_size, 5);
}

TEST_F(TrainOption, OnlyBlockDraftersHaveStages) {
  const auto refused = [&](const char* name, auto change) {
    TrainOptions o = options(name);
    o.kind = "mtp";
    change(o);
    expect_part(train_drafter(o, {}),
                "--first-stage, --short-blocks, --curriculum, --loss-slide: not for mtp drafters");
  };
  refused("first", [](TrainOptions& o) { o.first_stage = 0.3; });
  refused("short", [](TrainOptions& o) { o.short_blocks = 0.5; });
  refused("decay", [](TrainOptions& o) { o.curriculum = true; });
  refused("slide", [](TrainOptions& o) { o.loss_slide = true; });
}

TEST(StepPlan, FollowsTheBudget) {
  TrainOptions o;
  o.ce = 0;
  o.soft_ce = 0.6;
  o.l1 = 0.4;
  StepPlan plan = plan_step(o, 7, 0, 0.9);
  EXPECT_EQ(plan.block_size, 7);
  EXPECT_EQ(plan.anchors, 24);
  EXPECT_EQ(plan.weights.decay, 4.0);
  EXPECT_EQ(plan.weights.l1, 0.4);

  o.first_stage = 0.2;
  o.curriculum = o.loss_slide = true;
  plan = plan_step(o, 7, 0, 0.1);
  EXPECT_EQ(plan.block_size, 1);
  EXPECT_EQ(plan.anchors, 24 * 7) << "as many slots as later";
  EXPECT_EQ(plan.weights.decay, 1.0);
  plan = plan_step(o, 7, 0, 0.4);  // half of the way from .2 to .6
  EXPECT_EQ(plan.block_size, 7);
  EXPECT_NEAR(plan.weights.decay, 2.5, 1e-9);
  EXPECT_EQ(plan.weights.soft_ce, 0.6);
  plan = plan_step(o, 7, 0, 5.0 / 6);
  EXPECT_EQ(plan.weights.decay, 4.0);
  EXPECT_NEAR(plan.weights.ce, 0.05, 1e-9);
  EXPECT_NEAR(plan.weights.soft_ce, 0.3, 1e-9);
  EXPECT_NEAR(plan.weights.l1, 0.65, 1e-9);
  plan = plan_step(o, 7, 0, 1.0);
  EXPECT_NEAR(plan.weights.ce, 0.1, 1e-9);
  EXPECT_NEAR(plan.weights.soft_ce, 0.0, 1e-9);
  EXPECT_NEAR(plan.weights.l1, 0.9, 1e-9);
}

TEST(StepPlan, SpreadsShortBlocksEvenly) {
  TrainOptions o;
  o.first_stage = 0.1;
  o.short_blocks = 0.4;
  std::string sizes;
  for (int64_t step = 0; step < 10; ++step) {
    const StepPlan plan = plan_step(o, 7, step, 0.5);
    sizes += static_cast<char>('0' + plan.block_size);
    EXPECT_EQ(plan.anchors, plan.block_size == 7 ? 24 : 56) << "as many slots";
  }
  EXPECT_EQ(sizes, "7737377373");
  EXPECT_EQ(plan_step(o, 7, 2, 0.05).block_size, 1) << "the first stage comes before";
  o.short_block_size = 9;
  EXPECT_EQ(plan_step(o, 7, 2, 0.5).block_size, 7) << "never longer than the drafter's";
}

TEST_F(TrainOption, ShortBlocksTrainTheirSlots) {
  TrainOptions o = options("short");
  o.accumulate = 1;
  o.short_blocks = 0.5;
  o.short_block_size = 2;
  const std::vector<TrainRecord> records = train_all(o);
  ASSERT_EQ(records.size(), 24u);
  for (size_t i = 0; i < records.size(); ++i) {
    EXPECT_EQ(records[i].accept_rate[4] == 0, i % 2 == 1) << i;
    EXPECT_GT(records[i].accept_rate[1], 0) << i;
  }
  EXPECT_EQ(open_trained(o).config.block_size, 5);
  EXPECT_EQ(open_trained(o).config.short_block, 2) << "what it was trained for is what it drafts with";

  TrainOptions more = options("more");
  more.init = o.out + "/draft";
  more.steps = 1;
  train_all(more);
  EXPECT_EQ(open_trained(more).config.short_block, 2);
  more.out += "-longer";
  more.short_blocks = 1;
  more.short_block_size = 4;
  train_all(more);
  EXPECT_EQ(open_trained(more).config.short_block, 4);
  TrainOptions whole = options("whole");
  whole.steps = 1;
  whole.short_blocks = 0.5;
  whole.short_block_size = 5;  // no shorter than the others
  train_all(whole);
  EXPECT_EQ(open_trained(whole).config.short_block, 0);
}

TEST_F(TrainOption, ResumeRefusesOtherOptions) {
  const TrainOptions begun = options("run");
  const std::string file = path("options.json");
  ASSERT_TRUE(save_run_options(file, begun, Precision::kFloat32).ok());
  const auto resumed = [&](auto change) {
    TrainOptions o = begun;
    change(o);
    return check_run_options(file, o, Precision::kBFloat16);
  };
  // The run's own precision, whatever this machine would choose.
  EXPECT_EQ(resumed([](TrainOptions&) {}).value(), Precision::kFloat32);
  EXPECT_TRUE(resumed([](TrainOptions& o) {
                o.threads = 7;
                o.checkpoint_minutes = 3;
                o.checkpoint_steps = 5;
                o.steps += 10;
                o.float32 = true;
                o.target = "/elsewhere/target_qwen3_mini/";
                o.caches.push_back("more");
                o.sequences = 1;  // of two processes: the same micro-steps
                o.processes.world = 2;
                o.processes.rank = 1;
              }).ok());
  const auto refused = [&](const char* part, auto change) { expect_part(resumed(change).status(), part); };
  refused("--steps: the run began with 24, found 23", [](TrainOptions& o) { o.steps = 23; });
  refused("--minutes", [](TrainOptions& o) {
    o.steps = 0;
    o.minutes = 5;
  });
  refused("--bf16", [](TrainOptions& o) { o.bf16 = true; });
  refused("--anchors: the run began with 6, found 7", [](TrainOptions& o) { o.anchors = 7; });
  refused("--lr", [](TrainOptions& o) { o.learning_rate = 1e-3; });
  refused("--model", [](TrainOptions& o) { o.target = "other.gguf"; });
  refused("--data", [](TrainOptions& o) { o.caches = {"other"}; });
  refused("--kind: the run began with \"dspark\", found \"mtp\"", [](TrainOptions& o) { o.kind = "mtp"; });
  refused("--taps: the run began with [], found [1,3]", [](TrainOptions& o) { o.taps = {1, 3}; });
  refused("--max-length", [](TrainOptions& o) { o.max_length = 64; });
  refused("--log-sum-exp", [](TrainOptions& o) { o.log_sum_exp = true; });
  refused("--sequences: the run began with 2, found 4", [](TrainOptions& o) { o.processes.world = 2; });
  refused("--seed", [](TrainOptions& o) { o.seed = 1; });
  refused("--no-warm-start", [](TrainOptions& o) { o.warm_start = false; });
  refused("--step-scale", [](TrainOptions& o) { o.step_scale = true; });
  refused("--kv-heads", [](TrainOptions& o) { o.kv_heads = 4; });
  refused("--add-layers", [](TrainOptions& o) { o.add_layers = 1; });
  refused("--first-stage", [](TrainOptions& o) { o.first_stage = 0.1; });
  refused("--short-blocks", [](TrainOptions& o) { o.short_blocks = 0.1; });
  refused("--loss-slide", [](TrainOptions& o) { o.loss_slide = true; });

  // A run from before an option came, and one from before the file came.
  json stored = json::parse(test::file_bytes(file));
  stored.erase("decay");
  write("options.json", stored.dump());
  EXPECT_TRUE(resumed([](TrainOptions&) {}).ok());
  refused("--decay: the run began with 4", [](TrainOptions& o) { o.decay = 2; });
  stored.erase("kind");
  stored["dflash"] = true;
  write("options.json", stored.dump());
  EXPECT_TRUE(resumed([](TrainOptions& o) { o.kind = "dflash"; }).ok());
  refused("--kind: the run began with \"dflash\"", [](TrainOptions&) {});
  EXPECT_EQ(check_run_options(path("none.json"), begun, Precision::kBFloat16).value(), Precision::kBFloat16);
  stored["holdout"] = 0.02;
  stored.erase("holdout-unit");
  write("options.json", stored.dump());
  refused("held answers out, not prompts", [](TrainOptions& o) {
    o.kind = "dflash";
    o.holdout = 0.02;
  });
  write("options.json", "[]");
  EXPECT_EQ(resumed([](TrainOptions&) {}).status().code(), StatusCode::kCorruptData);
}

TEST_F(TrainOption, ARunIsContinuedWithItsOptionsOrALargerBudget) {
  TrainOptions o = options("run");
  train_all(o);
  o.resume = true;
  o.decay = 2;
  expect_part(train_drafter(o, {}), "--decay");
  o.decay = 4;
  o.steps = 27;
  EXPECT_EQ(train_all(o).size(), 3u);
  o.steps = 26;
  expect_part(train_drafter(o, {}), "--steps: the run began with 27");
}

}  // namespace
}  // namespace dspark
