// Drafters that grow between two runs.

#include <gtest/gtest.h>

#include "run_fixture.h"

namespace dspark {
namespace {

using test::open_trained;
using test::train_all;

class DraftGrowth : public test::RunFixture {
 protected:
  void SetUp() override {
    RunFixture::SetUp();
    TrainOptions first = options("first");
    first.steps = 60;
    train_all(first);
    trained_ = first.out + "/draft";
  }

  TrainOptions onwards(const std::string& name) const {
    TrainOptions o = options(name);
    o.init = trained_;
    o.float32 = true;
    o.average = 0;
    return o;
  }

  std::string trained_;
};

TEST_F(DraftGrowth, StartsWithTheFunctionOfTheSmallerOne) {
  const TrainRecord plain = train_all(onwards("plain"))[0];
  struct {
    const char* name;
    int32_t kv_heads, add_layers;
  } const cases[] = {{"heads", 4, 0}, {"layers", 0, 2}, {"both", 4, 1}};
  for (const auto& grown : cases) {
    SCOPED_TRACE(grown.name);
    TrainOptions o = onwards(grown.name);
    o.kv_heads = grown.kv_heads;
    o.add_layers = grown.add_layers;
    const std::vector<TrainRecord> records = train_all(o);
    ASSERT_EQ(records.size(), 24u);
    EXPECT_NEAR(records[0].loss, plain.loss, 1e-5 * plain.loss);
    EXPECT_NEAR(records[0].tau, plain.tau, 1e-5 * plain.tau);
    EXPECT_LT(records.back().loss, plain.loss);
    const DraftCheckpoint draft = open_trained(o);
    EXPECT_EQ(draft.config.n_kv_heads, grown.kv_heads > 0 ? 4 : 2);
    EXPECT_EQ(draft.config.n_layers, 1 + grown.add_layers);
  }
}

TEST_F(DraftGrowth, WhatWasAddedLearns) {
  TrainOptions o = onwards("grown");
  o.kv_heads = 4;
  o.add_layers = 1;
  train_all(o);
  const DraftCheckpoint draft = open_trained(o);
  const auto tensor = [&](const char* name) {
    for (const auto& [found, view] : draft.tensors) {
      if (found == name) return decode_tensor(view).value();
    }
    ADD_FAILURE() << name;
    return at::Tensor();
  };
  EXPECT_GT(tensor("layers.1.self_attn.o_proj.weight").abs().max().item<float>(), 0);
  EXPECT_GT(tensor("layers.1.mlp.down_proj.weight").abs().max().item<float>(), 0);
  const at::Tensor values = tensor("layers.0.self_attn.v_proj.weight");
  ASSERT_EQ(values.size(0), 4 * 16);
  EXPECT_FALSE(at::equal(values.slice(0, 0, 16), values.slice(0, 16, 32))) << "two copies of one head";
}

TEST_F(DraftGrowth, ResumesWhatHasGrown) {
  TrainOptions whole = onwards("whole");
  whole.kv_heads = 4;
  whole.add_layers = 1;
  train_all(whole);
  TrainOptions parts = whole;
  parts.out = (root_ / "parts").string();
  TrainCallbacks stops;
  stops.on_step = [](const TrainRecord& record) { return record.step < 10; };
  ASSERT_TRUE(train_drafter(parts, stops).ok());
  parts.resume = true;
  ASSERT_EQ(train_all(parts).size(), 14u);
  EXPECT_EQ(open_trained(parts).config.n_layers, 2) << "it grows once";
  EXPECT_EQ(test::log_lines(parts.out), test::log_lines(whole.out));
}

TEST_F(DraftGrowth, NewDraftersRepeatTheHeadsOfTheTarget) {
  TrainOptions o = options("new");
  const TrainRecord plain = train_all(o)[0];
  o.out = (root_ / "repeated").string();
  o.kv_heads = 4;
  const std::vector<TrainRecord> records = train_all(o);
  EXPECT_NEAR(records[0].loss, plain.loss, 1e-4 * plain.loss);
  EXPECT_EQ(open_trained(o).config.n_kv_heads, 4);
}

TEST_F(DraftGrowth, WrongSizesAreRefused) {
  const auto refused = [&](const char* part, auto change) {
    TrainOptions o = onwards("refused");
    change(o);
    const Status status = train_drafter(o, {});
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  };
  refused("--kv-heads: expected a multiple of 2 that divides 4, the drafter's heads, found 3",
          [](TrainOptions& o) { o.kv_heads = 3; });
  refused("--kv-heads", [](TrainOptions& o) { o.kv_heads = 8; });
  refused("--kv-heads: expected 0 or more", [](TrainOptions& o) { o.kv_heads = -1; });
  refused("--add-layers", [](TrainOptions& o) { o.add_layers = -1; });
  refused("--add-layers: expected --init", [](TrainOptions& o) {
    o.init.clear();
    o.add_layers = 1;
  });
  refused("--add-layers: only for dspark and dflash", [&](TrainOptions& o) {
    TrainOptions mtp = options("mtp");
    mtp.kind = "mtp";
    mtp.steps = 1;
    train_all(mtp);
    o.init = mtp.out + "/draft";
    o.add_layers = 1;
  });
}

}  // namespace
}  // namespace dspark
