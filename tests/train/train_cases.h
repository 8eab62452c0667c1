#pragma once
// Reading the training cases: a small target, a starting drafter, three optimiser steps.

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "draft/draft_checkpoint.h"
#include "formats/checkpoint.h"
#include "formats/target_cache.h"
#include "support/test_paths.h"
#include "train/draft_model.h"

namespace dspark::test {

/// Fixtures of the repository, or the full set when it is there: folders <case>, cache, cache_gemma4,
/// cache_eagle3.
inline std::filesystem::path train_cases_dir() {
  const std::filesystem::path golden = golden_dir();
  return golden.empty() ? data_dir() / "train" : golden / "draft" / "train";
}

inline TensorMap read_tensors(const std::filesystem::path& path) {
  TensorMap map;
  const auto file = Checkpoint::open(path.string());
  EXPECT_TRUE(file.ok()) << file.status().to_string();
  if (!file.ok()) return map;
  for (const TensorView& view : file->tensors()) {
    auto tensor = decode_tensor(view);
    EXPECT_TRUE(tensor.ok()) << tensor.status().to_string();
    if (tensor.ok()) map[view.name] = *tensor;
  }
  return map;
}

/// One folder of the training cases, opened.
struct TrainCase {
  nlohmann::json expected;
  DraftModel model;
  FrozenTarget target;
  TargetCacheReader cache;
  TensorMap gradients;  // of step 0
  TensorMap after;      // parameters after three steps
};

inline TrainCase open_train_case(const std::string& name) {
  TrainCase out;
  const std::filesystem::path root = train_cases_dir();
  std::ifstream(root / name / "expected.json") >> out.expected;
  const auto checkpoint = open_draft_checkpoint((root / name / "init").string());
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
  if (!checkpoint.ok()) return out;
  auto model = draft_model_from(*checkpoint);
  EXPECT_TRUE(model.ok()) << model.status().to_string();
  out.model = std::move(*model);
  const bool gemma = out.model.config.backbone == DraftBackbone::kGemma4;
  // The cases were computed in fp32, where the square root of the width is not rounded to bf16.
  if (gemma) out.model.config.embedding_scale = std::sqrt(static_cast<float>(out.model.config.dim));
  const auto embedding = decode_tensor(*checkpoint->find("embed_tokens.weight"));
  const auto head = decode_tensor(*checkpoint->find("lm_head.weight"));
  out.target = frozen_target(out.model.config, *embedding, *head, Precision::kFloat32, at::kCPU);
  const bool eagle3 = out.model.config.kind == DraftKind::kEagle3;
  const char* cache_name = eagle3 ? "cache_eagle3" : gemma ? "cache_gemma4" : "cache";
  auto cache = TargetCacheReader::open((root / cache_name).string());
  EXPECT_TRUE(cache.ok()) << cache.status().to_string();
  if (cache.ok()) out.cache = std::move(*cache);
  out.gradients = read_tensors(root / name / "grads_step0.safetensors");
  out.after = read_tensors(root / name / "params_after3.safetensors");
  return out;
}

/// The blocks of one expected step, without its dummies; of Eagle3 the samples.
inline std::vector<AnchorSet> anchor_sets(const TrainCase& data, const nlohmann::json& step) {
  std::vector<AnchorSet> sets;
  for (size_t i = 0; i < step["samples"].size(); ++i) {
    AnchorSet set;
    data.cache.read(step["samples"][i].get<int64_t>(), set.sample);
    for (size_t a = 0; step.contains("anchors") && a < step["anchors"][i].size(); ++a) {
      if (step["block_keep"][i][a].get<int>() != 0)
        set.anchors.push_back(step["anchors"][i][a].get<int32_t>());
    }
    sets.push_back(set);
  }
  return sets;
}

}  // namespace dspark::test
