// dspark data generate: answers of the target itself, batched.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/data_commands.h"
#include "cli/generate_features.h"
#include "cli/interrupt.h"
#include "cli/model_flags.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "train_data/corpus.h"
#include "train_data/jobs.h"
#include "train_data/regenerate.h"

namespace dspark::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kLogSeconds = 30.0;
constexpr int32_t kMaxBatch = 4096;

struct GenerateFlags {
  ModelFlags model;
  std::vector<std::string> prompts;
  std::string output;
  int32_t samples = 1;
  std::string task_samples;
  std::string variations;
  std::string temperatures = "0.8";
  int32_t self_prompts = 0;
  uint64_t seed = 0;
  bool raw = false;
  RegenerateOptions run;
  GenerateFeatureFlags features;
};

/// What the corpus holds from earlier runs.
struct Existing {
  std::map<std::string, ExistingRecord> records;
  int64_t answer_tokens = 0;
};

/// A line now and then, on a terminal a changing one.
class Report {
 public:
  explicit Report(int64_t n_jobs) : n_jobs_(n_jobs) {}
  void step(const RegenerateCounts& counts, const EngineStats& stats) {
    const Clock::time_point now = Clock::now();
    const double since = std::chrono::duration<double>(now - last_).count();
    if (since < (stderr_is_terminal() ? 0.5 : kLogSeconds)) return;
    last_ = now;
    const std::string text = line(counts, stats);
    if (stderr_is_terminal()) {
      progress_.show(text);
    } else {
      std::fprintf(stderr, "%s\n", text.c_str());
    }
  }
  std::string line(const RegenerateCounts& counts, const EngineStats& stats) const {
    const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    const double rate = static_cast<double>(stats.output_tokens) / std::max(seconds, 1e-9);
    const double left = static_cast<double>(n_jobs_ - counts.jobs_done) * seconds /
                        static_cast<double>(std::max<int64_t>(counts.jobs_done, 1));
    return fmt::format(
        "{} of {} answers, {} answer tokens, {:.0f} s, {:.1f} tok/s, {:.0f} s left if all jobs run",
        counts.jobs_done, n_jobs_, counts.answer_tokens, seconds, rate, left);
  }
  void clear() { progress_.clear(); }

 private:
  int64_t n_jobs_;
  Clock::time_point start_ = Clock::now(), last_ = start_;
  ProgressLine progress_;
};

/// A task that no prompt has is a slip of the pen that would be noticed hours later.
Status check_tasks(const JobOptions& options, const std::vector<PromptRecord>& prompts) {
  std::set<std::string_view> tasks;
  for (const PromptRecord& prompt : prompts) tasks.insert(prompt.task);
  for (const auto& [name, counts] : {std::pair("task-samples", &options.task_samples),
                                     std::pair("variations", &options.task_variations)}) {
    for (const auto& [task, n] : *counts) {
      if (!tasks.contains(task))
        return invalid_argument(fmt::format("{}: no prompt has the task '{}'", name, task));
    }
  }
  return ok_status();
}

Result<std::vector<Job>> jobs_of(const GenerateFlags& flags, const std::vector<PromptRecord>& prompts) {
  JobOptions options;
  options.samples = flags.samples;
  DSPARK_ASSIGN_OR_RETURN(options.task_samples, parse_task_counts(flags.task_samples, "task-samples"));
  DSPARK_ASSIGN_OR_RETURN(options.task_variations, parse_task_counts(flags.variations, "variations"));
  DSPARK_RETURN_IF_ERROR(check_tasks(options, prompts));
  DSPARK_ASSIGN_OR_RETURN(options.temperatures, TemperatureMix::parse(flags.temperatures));
  options.n_self_prompts = flags.self_prompts;
  options.seed = flags.seed;
  std::vector<Job> jobs = make_jobs(prompts, options);
  if (jobs.empty()) return invalid_argument("nothing to generate: no prompts and no --self-prompt");
  return jobs;
}

Result<std::unique_ptr<Engine>> engine_for(LoadedModel& loaded, const GenerateFlags& flags,
                                           std::unique_ptr<FeatureTap> tap) {
  EngineOptions options;
  options.max_sequences = flags.run.batch;
  const int32_t trained = loaded.model->config().context_length;
  options.context_length = flags.run.context_length();
  if (const int32_t longest = flags.run.longest_text(); trained > 0 && longest > trained) {
    return invalid_argument(fmt::format(
        "--max-prompt and --max-tokens: {} tokens, the model was trained for {}", longest, trained));
  }
  options.max_batch_rows = std::max(options.max_batch_rows, flags.run.batch + options.prefill_rows);
  DSPARK_ASSIGN_OR_RETURN(options.kv_dtype, parse_kv_type(flags.model.kv_type));
  if (tap != nullptr) options.policy = VerifyPolicy::fixed(1);  // it is told of, and proposes nothing
  return make_engine(loaded, std::move(options), std::move(tap));
}

void print_counts(const RegenerateCounts& counts, const std::string& summary, const std::string& path) {
  std::fprintf(stderr, "%s\n", summary.c_str());
  for (const auto& [reason, n] : counts.left_out) {
    std::fprintf(stderr, "left out, %s: %lld\n", reason.c_str(), static_cast<long long>(n));
  }
  std::fprintf(stderr, "%s: %lld new answers, %lld answer tokens, %lld prompt tokens\n", path.c_str(),
               static_cast<long long>(counts.answers), static_cast<long long>(counts.answer_tokens),
               static_cast<long long>(counts.prompt_tokens));
}

/// returns: whether all was done, rather than interrupted.
Result<bool> generate_corpus(const GenerateFlags& flags) {
  DSPARK_RETURN_IF_ERROR(flags.run.validate());
  DSPARK_ASSIGN_OR_RETURN(const std::vector<PromptRecord> prompts, read_prompts(flags.prompts));
  DSPARK_ASSIGN_OR_RETURN(std::vector<Job> jobs, jobs_of(flags, prompts));
  Existing existing;
  DSPARK_ASSIGN_OR_RETURN(CorpusFile corpus, CorpusFile::open(flags.output, [&](CorpusRecord&& record) {
                            existing.records[record.id] = {record.seed, record.temperature};
                            existing.answer_tokens += static_cast<int64_t>(record.answer().size());
                            return ok_status();
                          }));
  auto left = jobs_left(std::move(jobs), existing.records);
  if (!left.ok()) return Status(left.status().code(), flags.output + ": " + left.status().message());
  const bool has_features = !flags.features.folder.empty();
  if (has_features && is_finished_cache(flags.features.folder)) {
    if (existing.records.empty()) {
      return invalid_argument("--cache " + flags.features.folder +
                              ": holds the finished cache of other answers, " + flags.output +
                              " has none; take another folder");
    }
    // Jobs that were left out (prompts too long, ...) have no record and look as if they were to be done.
    std::fprintf(stderr,
                 "%s: the cache %s is finished, nothing is generated (%zu jobs without an answer; for more "
                 "answers take another corpus and another folder)\n",
                 flags.output.c_str(), flags.features.folder.c_str(), left->size());
    return true;
  }
  DSPARK_ASSIGN_OR_RETURN(LoadedModel loaded, load_with_progress(flags.model));
  DSPARK_ASSIGN_OR_RETURN(const PromptCodec codec, make_prompt_codec(loaded, flags.raw));
  InterruptGuard interrupt;
  GenerateFeatures features;
  if (has_features) {
    DSPARK_ASSIGN_OR_RETURN(const KvDType kv_dtype, parse_kv_type(flags.model.kv_type));
    DSPARK_ASSIGN_OR_RETURN(
        features, open_generate_features(flags.features, flags.output, loaded, kv_dtype, &interrupt.flag()));
    if (!features.is_complete) return false;
  }
  FeatureSink feature_sink{features.tap.get(), [&](const CorpusRecord& record, TargetCacheSample&& sample) {
                             return features.cache->add(record, std::move(sample));
                           }};
  DSPARK_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                          engine_for(loaded, flags, std::move(features.tap)));
  std::fprintf(stderr, "%s: %zu answers to generate, %zu there already\n", flags.output.c_str(), left->size(),
               existing.records.size());
  Report report(static_cast<int64_t>(left->size()));
  const auto sink = [&](CorpusRecord&& record) { return corpus.append(record); };
  const auto on_step = [&](const RegenerateCounts& counts) { report.step(counts, engine->stats()); };
  DSPARK_ASSIGN_OR_RETURN(const RegenerateCounts counts,
                          regenerate(*engine, codec, *left, flags.run, existing.answer_tokens, sink, on_step,
                                     &interrupt.flag(), has_features ? &feature_sink : nullptr));
  report.clear();
  print_counts(counts, report.line(counts, engine->stats()), flags.output);
  if (!has_features) return counts.finished;
  if (counts.finished) DSPARK_RETURN_IF_ERROR(features.cache->finish());
  std::fprintf(stderr, "%s: %lld samples, %lld tokens\n", flags.features.folder.c_str(),
               static_cast<long long>(features.cache->n_samples()),
               static_cast<long long>(features.cache->n_tokens()));
  return counts.finished;
}

void add_sampling_flags(CLI::App& command, GenerateFlags& flags) {
  command.add_option("--samples", flags.samples, "answers per prompt")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  command.add_option("--task-samples", flags.task_samples,
                     "answers per prompt of some tasks instead, e.g. gsm8k=1,mbpp=6");
  command.add_option(
      "--variations", flags.variations,
      "other prompts of these tasks that the target writes from the beginning of each, e.g. mbpp=4");
  command
      .add_option("--temp,--temps", flags.temperatures,
                  "temperature, or several: 0,0.7,0.8 (equal shares), 0:0.1,0.8:0.9 (shares)")
      ->capture_default_str();
  command.add_option("--top-p", flags.run.top_p, "smallest head of the distribution with this mass (1: off)")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command.add_option("--top-k", flags.run.top_k, "only the k most likely tokens (0: off)")
      ->capture_default_str();
  command.add_option("--seed", flags.seed, "seed of everything; answers depend on it and on the prompt's id")
      ->capture_default_str();
  command
      .add_option("--self-prompt", flags.self_prompts,
                  "prompts that the target writes itself, from an empty user's turn")
      ->check(CLI::Range(0, 100'000'000))
      ->capture_default_str();
  command.add_option("--self-temp", flags.run.user_temperature, "temperature of self-written prompts")
      ->capture_default_str();
  command.add_flag("--raw,--no-chat", flags.raw, "continue prompts as they are, without chat template");
}

void add_size_flags(CLI::App& command, GenerateFlags& flags) {
  command.add_option("--max-tokens", flags.run.max_tokens, "most tokens of an answer")->capture_default_str();
  command.add_option("--max-prompt", flags.run.max_prompt, "leave out prompts with more tokens")
      ->capture_default_str();
  command
      .add_option("--target-tokens", flags.run.max_answer_tokens,
                  "end when the corpus has so many answer tokens (-1: when all answers are there)")
      ->capture_default_str();
  command.add_option("--batch", flags.run.batch, "answers that are written at the same time")
      ->check(CLI::Range(1, kMaxBatch))
      ->capture_default_str();
}

}  // namespace

void register_data_generate(CLI::App& data, int& exit_code) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command =
      data.add_subcommand("generate", "let the target answer prompts; continues a file that was cut off");
  add_model_flags(*command, flags->model);
  command->add_option("prompts", flags->prompts, "files of {\"task\", \"id\", \"prompt\"} lines");
  command->add_option("-o,--output", flags->output, "corpus to write or to continue (JSON lines)")
      ->required();
  CLI::Option* cache = command->add_option(
      "--cache", flags->features.folder,
      "also store the features of the answers that 'dspark data filter' would keep, in this folder");
  command
      ->add_option(
          "--layers", flags->features.layers,
          "with --cache: layers whose outputs are stored, -1: the embedding (default: five, spread evenly)")
      ->delimiter(',')
      ->needs(cache);
  add_sampling_flags(*command, *flags);
  add_size_flags(*command, *flags);
  command->callback([flags, &exit_code] {
    const Result<bool> finished = generate_corpus(*flags);
    if (!finished.ok()) {
      exit_code = report_failure(finished.status());
    } else if (!*finished) {
      exit_code = kExitInterrupted;
    }
  });
}

}  // namespace dspark::cli
