// dspark data cache: the target's features of a corpus, on disk.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cli/data_commands.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/sequence_runner.h"
#include "train_data/cache_corpus.h"

namespace dspark::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int32_t kDefaultLayers = 5;
constexpr double kLogSeconds = 30.0;

struct CacheFlags {
  ModelFlags model;
  std::string dtype = "auto";
  std::vector<std::string> corpora;
  std::string output;
  std::vector<int32_t> layers;
  std::string target_name;
  int32_t max_length = 4096;
  int32_t min_loss_tokens = 14;
  int32_t batch_rows = 512;
  bool log_sum_exp = false;
  uint64_t shard_bytes = kTargetCacheShardLimit;
};

/// The target's name in the manifest.
std::string target_name(const CacheFlags& flags) {
  if (!flags.target_name.empty()) return flags.target_name;
  const std::string& model = flags.model.model;
  return model.empty() ? "default" : std::filesystem::path(model).filename().string();
}

std::string progress_line(const CacheCounts& counts, Clock::time_point start) {
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return fmt::format("{} samples, {} tokens; {:.0f} s, {:.1f} tok/s", counts.samples, counts.tokens, seconds,
                     static_cast<double>(counts.new_tokens) / std::max(seconds, 1e-9));
}

Result<bool> make_cache(const CacheFlags& flags) {
  DSPARK_ASSIGN_OR_RETURN(OpenedModel opened, open_model(flags.model, flags.dtype));
  const ModelConfig& config = opened.model->config();
  FeatureOptions options;
  options.layer_ids = flags.layers.empty() ? spread_layer_ids(config.n_layers, kDefaultLayers) : flags.layers;
  options.kv_dtype = opened.kv_dtype;
  options.batch_rows = flags.batch_rows;
  options.max_length =
      config.context_length > 0 ? std::min(flags.max_length, config.context_length) : flags.max_length;
  options.log_sum_exp = flags.log_sum_exp;
  DSPARK_ASSIGN_OR_RETURN(const std::unique_ptr<FeatureExtractor> extractor,
                          FeatureExtractor::create(*opened.model, *opened.pool, options));
  TargetCacheInfo info = corpus_cache_info(flags.output, config, target_name(flags), options, flags.corpora);
  info.min_loss_tokens = flags.min_loss_tokens;
  DSPARK_ASSIGN_OR_RETURN(
      TargetCacheWriter writer,
      TargetCacheWriter::create(flags.output, info, {flags.shard_bytes, flags.log_sum_exp}));
  if (writer.n_samples() > 0) {
    std::fprintf(stderr, "%s: continues behind %lld samples\n", flags.output.c_str(),
                 static_cast<long long>(writer.n_samples()));
  }
  InterruptGuard interrupt;
  ProgressLine progress;
  const Clock::time_point start = Clock::now();
  Clock::time_point last = start;
  const auto on_pass = [&](const CacheCounts& counts) {
    progress.show(progress_line(counts, start));
    if (stderr_is_terminal() || std::chrono::duration<double>(Clock::now() - last).count() < kLogSeconds)
      return;
    last = Clock::now();
    std::fprintf(stderr, "%s\n", progress_line(counts, start).c_str());
  };
  DSPARK_ASSIGN_OR_RETURN(const CacheCounts counts,
                          cache_corpus(flags.corpora, info, *extractor, writer, on_pass, &interrupt.flag()));
  progress.clear();
  if (counts.finished) DSPARK_RETURN_IF_ERROR(writer.finish());
  std::fprintf(
      stderr, "%s: %s\n%lld records read, %lld with fewer than %d supervised tokens, %lld cut to %d tokens\n",
      flags.output.c_str(), progress_line(counts, start).c_str(), static_cast<long long>(counts.records),
      static_cast<long long>(counts.dropped), flags.min_loss_tokens, static_cast<long long>(counts.truncated),
      info.max_length);
  return counts.finished;
}

}  // namespace

void register_data_cache(CLI::App& data, int& exit_code) {
  auto flags = std::make_shared<CacheFlags>();
  CLI::App* command = data.add_subcommand(
      "cache", "compute the target's features of a corpus; continues a cache that was cut off");
  add_model_flags(*command, flags->model);
  command->add_option("corpus", flags->corpora, "corpus files (JSON lines)")->required();
  command->add_option("-o,--output", flags->output, "folder of the cache")->required();
  command
      ->add_option("--layers", flags->layers,
                   "layers whose outputs are stored, -1: the embedding (default: five, spread evenly)")
      ->delimiter(',');
  command->add_option("--target-name", flags->target_name,
                      "name of the target in the manifest (default: file name)");
  command->add_option("--max-length", flags->max_length, "cut longer samples to so many tokens")
      ->capture_default_str();
  command
      ->add_option("--min-tokens", flags->min_loss_tokens, "leave out samples with fewer supervised tokens")
      ->capture_default_str();
  command->add_flag("--log-sum-exp", flags->log_sum_exp,
                    "also store the log-sum-exp of the logits of supervised positions (log_sum_exp.bin)");
  command->add_option("--batch-rows", flags->batch_rows, "tokens of one forward pass")->capture_default_str();
  command->add_option("--shard-bytes", flags->shard_bytes, "most bytes of a shard")->capture_default_str();
  command->add_option("--dtype", flags->dtype, "auto: as the model is served; f32: exact float arithmetic")
      ->capture_default_str();
  command->callback([flags, &exit_code] {
    const Result<bool> finished = make_cache(*flags);
    if (!finished.ok()) {
      exit_code = report_failure(finished.status());
    } else if (!*finished) {
      exit_code = kExitInterrupted;
    }
  });
}

}  // namespace dspark::cli
