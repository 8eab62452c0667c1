// The targets that the drafters' reference data was made with: what a drafter reads of them.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "formats/checkpoint.h"
#include "models/harness.h"
#include "support/test_paths.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;

constexpr float kTolerance = 2e-4f;

/// The folders that hold targets/ and drafts/: the fixtures, and the full set where it is found.
std::vector<fs::path> draft_roots() {
  std::vector<fs::path> roots = {test::data_dir() / "draft"};
  if (!test::golden_dir().empty()) roots.push_back(test::golden_dir() / "draft");
  return roots;
}

/// expected.json of a drafter. Its statistics may hold NaN, which is no JSON; nothing here reads those.
nlohmann::json read_expected_json(const fs::path& draft) {
  std::ifstream file(draft / "expected.json");
  std::string text(std::istreambuf_iterator<char>(file), {});
  for (size_t at = text.find("NaN"); at != std::string::npos; at = text.find("NaN", at)) {
    text.replace(at, 3, "null");
  }
  return nlohmann::json::parse(text);
}

std::string target_of(const fs::path& draft) {
  return read_expected_json(draft).at("target").get<std::string>();
}

struct Case {
  std::string name;
  fs::path draft;
  fs::path targets;
};
void PrintTo(const Case& one, std::ostream* out) {
  *out << one.name;
}

std::vector<Case> cases() {
  std::vector<Case> found;
  for (const fs::path& root : draft_roots()) {
    const std::string prefix = root == draft_roots().front() ? "fixture_" : "";
    for (const fs::directory_entry& entry : fs::directory_iterator(root / "drafts")) {
      if (!fs::exists(entry.path() / "expected.safetensors")) continue;
      if (!fs::exists(root / "targets" / target_of(entry.path()))) continue;  // not all travel with the clone
      found.push_back({prefix + entry.path().filename().string(), entry.path(), root / "targets"});
    }
  }
  std::sort(found.begin(), found.end(), [](const Case& a, const Case& b) { return a.name < b.name; });
  return found;
}

std::vector<float> floats(const Checkpoint& file, const std::string& name) {
  const TensorView* tensor = file.find(name);
  EXPECT_TRUE(tensor != nullptr && tensor->dtype == DType::kF32) << name;
  if (tensor == nullptr) return {};
  std::vector<float> values(tensor->n_bytes / sizeof(float));
  std::memcpy(values.data(), tensor->data, tensor->n_bytes);
  return values;
}

class DraftTarget : public testing::TestWithParam<Case> {};

TEST_P(DraftTarget, FeaturesHiddenStatesAndLogits) {
  const nlohmann::json expected = read_expected_json(GetParam().draft);
  const fs::path target = GetParam().targets / target_of(GetParam().draft);
  Result<Checkpoint> values = Checkpoint::open((GetParam().draft / "expected.safetensors").string());
  ASSERT_TRUE(values.ok()) << values.status().to_string();
  ThreadPool pool(2);
  const auto model = test::open_model(target, pool, true);
  ASSERT_NE(model, nullptr);

  std::vector<int32_t> layers;  // -1 is the embedding's output
  for (int32_t id : expected.at("target_layer_ids")) layers.push_back(id + 1);
  model->set_capture_layers(layers);
  test::Session session(*model, KvDType::kF32, 1, 64);
  const auto prompt = expected.at("prompts").at(0).get<std::vector<int32_t>>();
  const test::Outputs got = session.forward(0, prompt);

  const auto dim = static_cast<size_t>(model->config().dim);
  const std::vector<float> features = floats(*values, "prompt.features");
  ASSERT_EQ(features.size(), got.captured.size());
  for (size_t row = 0; row < prompt.size(); ++row) {
    for (size_t tap = 0; tap < layers.size(); ++tap) {
      const float* want = features.data() + (row * layers.size() + tap) * dim;
      const float* have = got.captured.data() + (tap * prompt.size() + row) * dim;
      EXPECT_LE(test::max_abs_diff(have, want, dim), kTolerance) << "row " << row << " tap " << tap;
    }
  }
  const std::vector<float> last_hidden = floats(*values, "prompt.last_hidden");
  ASSERT_EQ(last_hidden.size(), got.final_norm.size());
  EXPECT_LE(test::max_abs_diff(got.final_norm.data(), last_hidden.data(), last_hidden.size()), kTolerance);
  const std::vector<float> logits = floats(*values, "prompt.logits");
  ASSERT_EQ(logits.size(), got.logits.size());
  EXPECT_LE(test::max_abs_diff(got.logits.data(), logits.data(), logits.size()), kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Cases, DraftTarget, testing::ValuesIn(cases()),
                         [](const auto& param) { return param.param.name; });

}  // namespace
}  // namespace dspark
