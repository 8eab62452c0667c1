#pragma once
// dspark data generate --cache: features of the answers, stored while they are written.

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/loader.h"
#include "kernels/kv_cache.h"
#include "train_data/answer_cache.h"
#include "train_data/feature_tap.h"

namespace dspark::cli {

struct GenerateFeatureFlags {
  std::string folder;           // of the cache; empty: none
  std::vector<int32_t> layers;  // empty: five, spread evenly
};

struct GenerateFeatures {
  std::unique_ptr<AnswerCache> cache;
  std::unique_ptr<FeatureTap> tap;  // for the engine
  bool is_complete = false;         // false: cancelled while the cache caught up
};

/// Whether the folder holds a finished cache.
bool is_finished_cache(const std::string& folder);

/// Opens or continues the cache of `corpus` and computes what it lacks of the answers that are there.
/// Uses the model: no engine may exist yet. errors: those of the options, the files and the extractor.
Result<GenerateFeatures> open_generate_features(const GenerateFeatureFlags& flags, const std::string& corpus,
                                                LoadedModel& loaded, KvDType kv_dtype,
                                                const std::atomic<bool>* cancel);

}  // namespace dspark::cli
