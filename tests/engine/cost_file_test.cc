// Cost tables on disk: what is written is read, what is broken or foreign is told apart.
#include "engine/cost_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "draft/test_drafters.h"
#include "engine/fake_model.h"
#include "engine/watch.h"

namespace dspark {
namespace {

class CostFile : public testing::Test {
 protected:
  CostFile() : folder_(std::filesystem::path(testing::TempDir()) / "dspark_cost_file_test") {
    std::filesystem::remove_all(folder_);
  }
  ~CostFile() override { std::filesystem::remove_all(folder_); }
  std::string path(const char* name) const { return (folder_ / "below" / name).string(); }
  std::string write(const std::string& text) const {
    std::filesystem::create_directories(folder_ / "below");
    std::ofstream(path("written.json")) << text;
    return path("written.json");
  }

  std::filesystem::path folder_;
};

SavedCosts example() {
  SavedCosts saved;
  saved.key = {
      "a.gguf, 10 bytes, 2 x 64", "some processor, avx2", 2, "bf16", "d.gguf, dspark, 5 bytes, block 7", 8};
  saved.table.verify = {{1, 0.01}, {4, 0.012}};
  saved.table.draft = {{1, 0.001}};
  saved.table.draft_short = {{1, 0.0005}};
  saved.table.draft_length = 7;
  saved.table.draft_stair = {{1, 0.0007}};
  saved.table.stair_length = 3;
  saved.table.context_s = 1e-7;
  saved.table.context_curve = {{512, 700.5}, {2048, 900.0}};
  saved.memory.acceptance[0] = {10.0, 7.5};
  saved.memory.acceptance[1] = {5.0, 1.25};
  return saved;
}

TEST_F(CostFile, ReadsWhatItWrote) {
  const SavedCosts wrote = example();
  ASSERT_TRUE(write_costs(path("costs.json"), wrote).ok());
  const auto read = read_costs(path("costs.json"));
  ASSERT_TRUE(read.ok()) << read.status().to_string();
  EXPECT_TRUE(read->key == wrote.key);
  EXPECT_EQ(read->table.verify.size(), 2u);
  EXPECT_EQ(read->table.verify[1].n, 4);
  EXPECT_EQ(read->table.verify[1].seconds, 0.012);
  EXPECT_EQ(read->table.draft_short[0].seconds, 0.0005);
  EXPECT_EQ(read->table.draft_length, 7);
  EXPECT_EQ(read->table.stair_length, 3);
  ASSERT_EQ(read->table.draft_stair.size(), 1u);
  EXPECT_EQ(read->table.draft_stair[0].seconds, 0.0007);
  EXPECT_EQ(read->table.context_s, 1e-7);
  ASSERT_EQ(read->table.context_curve.size(), 2u);
  EXPECT_EQ(read->table.context_curve[0].positions, 512);
  EXPECT_EQ(read->table.context_curve[0].counted, 700.5);
  EXPECT_EQ(read->memory.acceptance[1].hits, 1.25);
  EXPECT_TRUE(check_cost_key("f", wrote.key, read->key).ok());
}

/// Passes of two rows take a fifth longer than the table says.
TEST_F(CostFile, KeepsWhatStepsSaidAboutASize) {
  test::FakeModel model;
  model.pass_seconds = [](int64_t n_rows) { return n_rows == 2 ? 0.012 : 0.010; };
  EngineOptions options;
  options.max_sequences = 2;
  options.context_length = 1000;
  options.clock = model.time.clock();
  options.costs.emplace();
  options.costs->verify = {{1, 0.010}, {2, 0.010}, {64, 0.640}};
  options.policy = VerifyPolicy::off();
  const auto engine = test::make(model, options,
                                 std::make_unique<test::ScriptedDrafter>(
                                     [](const std::vector<int32_t>&, std::span<int32_t>) { return 0; }, 7));
  const auto ignore = [](const StreamUpdate&) {};
  ASSERT_TRUE(engine->submit(test::request_of(1, 1, 600), ignore).ok());
  for (int i = 0; i < 400; ++i) {  // one sequence, now and then two
    if (i % 8 == 0) {
      ASSERT_TRUE(engine->submit(test::request_of(2, 1, 3), ignore).ok());
    }
    engine->step();
  }
  CostSource source;
  source.path = path("learned.json");
  source.named = true;
  source.key = example().key;
  ASSERT_TRUE(save_costs(source, *engine).ok());
  const auto kept = read_costs(source.path);
  ASSERT_TRUE(kept.ok()) << kept.status().to_string();
  EXPECT_NEAR(kept->table.verify[0].seconds, 0.010, 1e-6);
  EXPECT_NEAR(kept->table.verify[1].seconds, 0.012, 1e-6);
  EXPECT_NEAR(kept->table.verify[2].seconds, 0.640, 1e-6);
}

TEST_F(CostFile, NamesWhatIsForeign) {
  const CostKey key = example().key;
  const auto message = [&](CostKey want) { return check_cost_key("f.json", want, key).message(); };
  CostKey other = key;
  other.machine = "another";
  EXPECT_NE(message(other).find("f.json: machine: measured for 'some processor"), std::string::npos);
  other = key;
  other.threads = 3;
  EXPECT_NE(message(other).find("threads"), std::string::npos);
  other = key;
  other.drafter = "none";
  EXPECT_NE(message(other).find("drafter"), std::string::npos);
  other = key;
  other.max_sequences = 9;
  EXPECT_NE(message(other).find("max_sequences"), std::string::npos);
  other.max_sequences = 1;  // a table for more serves fewer
  EXPECT_EQ(message(other), "");
}

TEST_F(CostFile, RefusesWhatIsBroken) {
  const auto refused = [&](const std::string& text, const char* part) {
    const auto read = read_costs(write(text));
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_NE(read.status().message().find(part), std::string::npos) << read.status().message();
  };
  EXPECT_FALSE(read_costs(path("missing.json")).ok());
  refused("", "written.json");
  refused("[]", "JSON object");
  refused("{}", "dspark_cost_table");
  refused(R"({"dspark_cost_table": 2})", "version 3");
  ASSERT_TRUE(write_costs(path("costs.json"), example()).ok());
  std::ifstream in(path("costs.json"));
  const std::string good((std::istreambuf_iterator<char>(in)), {});
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return at == std::string::npos ? text : text.replace(at, from.size(), to);
  };
  refused(changed("\"verify\"", "\"verity\""), "verify");
  refused(changed("0.012", "-1"), "verify");
  refused(changed("0.012", "\"x\""), "verify");
  refused(changed("\"draft_length\": 7", "\"draft_length\": 700"), "draft_length");
  refused(changed("\"context_curve\"", "\"context_carve\""), "context_curve");
  refused(changed("700.5", "-700.5"), "context_curve");
  refused(changed("700.5", "null"), "context_curve");
  refused(changed("700.5", "900.5"), "context_curve");  // falls
  refused(changed("512", "4096"), "context_curve");     // does not ascend
  refused(changed("\"threads\": 2", "\"threads\": []"), "threads");
  refused(good.substr(0, good.size() / 2), "written.json");
}

/// They would be believed for as long as the file lasts.
TEST_F(CostFile, RefusesNumbersThatNobodyMeasured) {
  ASSERT_TRUE(write_costs(path("costs.json"), example()).ok());
  std::ifstream in(path("costs.json"));
  const nlohmann::json good = nlohmann::json::parse(in);
  const auto message_with = [&](const char* place, const char* number) {
    nlohmann::json json = good;
    json.at(nlohmann::json::json_pointer(place)) = "@";
    std::string text = json.dump();
    const auto read = read_costs(write(text.replace(text.find("\"@\""), 3, number)));
    EXPECT_FALSE(read.ok()) << text;
    return read.status().message();
  };
  struct Place {
    const char* at;
    const char* field;  // that the message names
  };
  const Place places[] = {{"/key/threads", "threads"},
                          {"/key/max_sequences", "max_sequences"},
                          {"/verify/0/0", "verify"},
                          {"/verify/1/1", "verify"},
                          {"/draft/0/1", "draft"},
                          {"/draft_short/0/1", "draft_short"},
                          {"/draft_length", "draft_length"},
                          {"/context_s", "context_s"},
                          {"/row_context_s", "row_context_s"},
                          {"/overhead_s", "overhead_s"},
                          {"/context_curve/1/0", "context_curve"},
                          {"/context_curve/1/1", "context_curve"},
                          {"/acceptance/0/0", "acceptance"},
                          {"/acceptance/0/1", "acceptance"}};
  for (const Place& place : places) {
    for (const char* number : {"1e300", "1e20", "-1", "-1e300"}) {
      const std::string message = message_with(place.at, number);
      EXPECT_NE(message.find(std::string("written.json: ") + place.field + ": want"), std::string::npos)
          << place.at << " " << number << ": " << message;
    }
    // JSON has none of these.
    for (const char* number : {"1e999", "-1e999", "inf", "Infinity", "nan", "NaN"}) {
      const std::string message = message_with(place.at, number);
      EXPECT_NE(message.find("written.json: not valid JSON"), std::string::npos)
          << place.at << " " << number << ": " << message;
    }
  }
}

TEST_F(CostFile, CacheFolderIsTheUsers) {
  const CostKey key = example().key;
  setenv("XDG_CACHE_HOME", folder_.c_str(), 1);
  const std::string one = cost_cache_path(key);
  EXPECT_EQ(one.rfind((folder_ / "dspark" / "costs-").string(), 0), 0u) << one;
  CostKey other = key;
  other.threads = 3;
  EXPECT_NE(cost_cache_path(other), one);
  EXPECT_EQ(cost_cache_path(key), one);
  setenv("XDG_CACHE_HOME", "", 1);
  setenv("HOME", "/home/nobody", 1);
  EXPECT_EQ(cost_cache_path(key).rfind("/home/nobody/.cache/dspark/", 0), 0u);
}

}  // namespace
}  // namespace dspark
