#pragma once
// The reference's targets, drafters and whole generations (golden set and fixtures).

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "engine/loader.h"
#include "support/test_paths.h"

namespace dspark::test {

/// A drafter with recorded generations, and the target it belongs to.
struct DraftGolden {
  std::string name;
  std::filesystem::path draft;
  std::filesystem::path target;
  /// expected.json; its NaN, which JSON does not have, become null.
  nlohmann::json expected() const {
    std::ifstream file(draft / "expected.json");
    std::string text(std::istreambuf_iterator<char>(file), {});
    for (size_t at = 0; (at = text.find("NaN", at)) != std::string::npos;) text.replace(at, 3, "null");
    return nlohmann::json::parse(text);
  }
};
inline void PrintTo(const DraftGolden& golden, std::ostream* out) {
  *out << golden.name;
}

/// The fixtures, and the full set where it is found.
inline std::vector<DraftGolden> draft_goldens() {
  namespace fs = std::filesystem;
  std::vector<DraftGolden> found;
  const auto add_all = [&found](const fs::path& drafts, const fs::path& targets, const std::string& prefix) {
    for (const fs::directory_entry& entry : fs::directory_iterator(drafts)) {
      DraftGolden golden{prefix + entry.path().filename().string(), entry.path(), {}};
      if (!fs::exists(golden.draft / "expected.json")) continue;
      golden.target = targets / golden.expected().at("target").get<std::string>();
      if (fs::exists(golden.target)) found.push_back(golden);
    }
  };
  const fs::path targets = data_dir() / "draft" / "targets";
  add_all(data_dir() / "draft" / "drafts", targets, "fixture_");
  add_all(data_dir() / "drafters" / "drafts", targets, "fixture_");
  if (!golden_dir().empty()) {
    add_all(golden_dir() / "draft" / "drafts", golden_dir() / "draft" / "targets", "");
  }
  std::sort(found.begin(), found.end(),
            [](const DraftGolden& a, const DraftGolden& b) { return a.name < b.name; });
  return found;
}

/// The target with exact float arithmetic.
inline LoadedModel load_golden_target(const DraftGolden& golden, int n_threads = 2,
                                      bool float_activations = true) {
  auto loaded = load_model(golden.target.string(),
                           {.n_threads = n_threads, .float_activations = float_activations, .on_stage = {}});
  EXPECT_TRUE(loaded.ok()) << loaded.status().to_string();
  return std::move(loaded).value();
}

/// An engine over `loaded` with the golden's drafter. `options`: everything but the policy's drafter.
inline std::unique_ptr<Engine> golden_engine(LoadedModel& loaded, const DraftGolden& golden,
                                             const EngineOptions& options) {
  auto drafter = load_drafter(loaded, options, {.spec = golden.draft.string(), .calibration = {}});
  EXPECT_TRUE(drafter.ok()) << drafter.status().to_string();
  if (!drafter.ok()) return nullptr;
  auto engine = make_engine(loaded, options, std::move(drafter).value());
  EXPECT_TRUE(engine.ok()) << engine.status().to_string();
  return engine.ok() ? std::move(engine).value() : nullptr;
}

}  // namespace dspark::test
