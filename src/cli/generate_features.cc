#include "cli/generate_features.h"

#include <cstdio>
#include <filesystem>
#include <utility>

#include "train_data/cache_corpus.h"
#include "train_data/features.h"

namespace dspark::cli {
namespace {

constexpr int32_t kDefaultLayers = 5;

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
  const TargetCacheInfo info = corpus_cache_info(
      flags.folder, config, std::filesystem::path(loaded.path).filename().string(), options, {corpus});
  DSPARK_ASSIGN_OR_RETURN(AnswerCache cache, AnswerCache::create(flags.folder, info, FilterOptions()));
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
