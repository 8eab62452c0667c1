#include "cli/generate_features.h"

#include <cstdio>
#include <filesystem>
#include <utility>

#include "train_data/features.h"

namespace dspark::cli {
namespace {

constexpr int32_t kDefaultLayers = 5;

TargetCacheInfo info_of(const GenerateFeatureFlags& flags, const std::string& corpus,
                        const LoadedModel& loaded, const FeatureOptions& options) {
  TargetCacheInfo info;
  info.hidden_size = loaded.model->config().dim;
  info.target_layer_ids = options.layer_ids;
  info.target_model_name_or_path = std::filesystem::path(loaded.path).filename().string();
  info.source_jsonl_paths = {corpus};
  info.chat_template = "as generated";
  info.max_length = options.max_length;
  info.project_name = "dspark.cpp";
  info.exp_name = std::filesystem::path(flags.folder).filename().string();
  return info;
}

}  // namespace

bool is_finished_cache(const std::string& folder) {
  return std::filesystem::exists(std::filesystem::path(folder) / "manifest.json");
}

Result<GenerateFeatures> open_generate_features(const GenerateFeatureFlags& flags, const std::string& corpus,
                                                LoadedModel& loaded, KvDType kv_dtype,
                                                const std::atomic<bool>* cancel) {
  const ModelConfig& config = loaded.model->config();
  FeatureOptions options;
  options.layer_ids = flags.layers.empty() ? spread_layer_ids(config.n_layers, kDefaultLayers) : flags.layers;
  options.kv_dtype = kv_dtype;
  options.log_sum_exp = true;
  if (config.context_length > 0) options.max_length = std::min(options.max_length, config.context_length);
  GenerateFeatures features;
  DSPARK_ASSIGN_OR_RETURN(features.tap, FeatureTap::create(*loaded.model, options.layer_ids));
  DSPARK_ASSIGN_OR_RETURN(
      AnswerCache cache,
      AnswerCache::create(flags.folder, info_of(flags, corpus, loaded, options), FilterOptions()));
  features.cache = std::make_unique<AnswerCache>(std::move(cache));
  DSPARK_ASSIGN_OR_RETURN(const std::unique_ptr<FeatureExtractor> extractor,
                          FeatureExtractor::create(*loaded.model, *loaded.pool, options));
  const int64_t n_before = features.cache->n_samples();
  DSPARK_ASSIGN_OR_RETURN(features.is_complete, features.cache->catch_up(corpus, *extractor, cancel));
  if (features.cache->n_samples() > 0) {
    std::fprintf(stderr, "%s: continues behind %lld samples, %lld of them computed now\n",
                 flags.folder.c_str(), static_cast<long long>(features.cache->n_samples()),
                 static_cast<long long>(features.cache->n_samples() - n_before));
  }
  return features;
}

}  // namespace dspark::cli
