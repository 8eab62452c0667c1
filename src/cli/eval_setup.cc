#include "cli/eval_setup.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <utility>

#include "cli/interrupt.h"
#include "cli/progress.h"
#include "text/chat_prompt.h"
#include "text/tokenizer.h"
#include "train_data/corpus.h"

namespace dspark::cli {
namespace {

/// The chat template where there is one, without thinking; else the plain text.
Result<std::vector<int32_t>> encode_prompt(const LoadedModel& loaded, const std::string& prompt, bool raw) {
  const Tokenizer& tokenizer = *loaded.tokenizer;
  if (raw || loaded.chat_template == nullptr) return tokenizer.encode(prompt, true, false);
  const ChatMessage message = {"user", prompt};
  DSPARK_ASSIGN_OR_RETURN(const std::string text,
                          render_chat(*loaded.chat_template, tokenizer, {&message, 1}, true, false));
  return encode_rendered(tokenizer, text);
}

Status check_flags(const EvalFlags& flags) {
  if (!(flags.temperature >= 0.0f)) {
    return invalid_argument(fmt::format("--temp: want 0 or more, found {}", flags.temperature));
  }
  return check_spec(flags.spec).status();
}

}  // namespace

Result<EvalTask> read_eval_task(const std::string& path, const LoadedModel& loaded, int32_t limit, bool raw,
                                uint64_t seed) {
  DSPARK_ASSIGN_OR_RETURN(std::vector<PromptRecord> records, read_prompts({&path, 1}));
  if (records.empty()) return invalid_argument(path + ": has no prompts");
  if (limit > 0 && records.size() > static_cast<size_t>(limit)) {
    records.resize(static_cast<size_t>(limit));
  }
  EvalTask task;
  task.name = std::filesystem::path(path).stem().string();
  for (size_t i = 0; i < records.size(); ++i) {
    Result<std::vector<int32_t>> tokens = encode_prompt(loaded, records[i].prompt, raw);
    if (!tokens.ok()) {
      return Status(tokens.status().code(), path + ": " + records[i].id + ": " + tokens.status().message());
    }
    if (tokens->empty()) return invalid_argument(path + ": " + records[i].id + ": the prompt has no tokens");
    // As the reference does: the seed of a sample is the seed plus its index in the data set.
    task.prompts.push_back({*std::move(tokens), seed + i});
  }
  return task;
}

void add_eval_flags(CLI::App& command, EvalFlags& flags) {
  command.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  add_model_flags(command, flags.model);
  add_spec_flags(command, flags.spec);
  command.add_option("prompts", flags.files, "prompt files, lines {\"prompt\": ...}; each is a task")
      ->required()
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_option("--temp", flags.temperature, "temperature; 0: greedy")->capture_default_str();
  command.add_option("-n,--max-tokens", flags.max_tokens, "most tokens of an answer")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command.add_option("--limit", flags.limit, "prompts of each file (0: all)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--batch", flags.batch, "sequences at the same time; changes the speed only")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command.add_option("-s,--seed", flags.seed, "seed of the first prompt of a file; the next one gets 1 more")
      ->capture_default_str();
  command.add_flag("--raw,--no-chat", flags.raw, "continue prompts as they are, without chat template");
}

Result<EvalSetup> EvalSetup::open(const EvalFlags& flags) {
  DSPARK_RETURN_IF_ERROR(check_flags(flags));
  EvalSetup setup;
  setup.flags_ = flags;
  DSPARK_ASSIGN_OR_RETURN(setup.kv_dtype_, parse_kv_type(flags.model.kv_type));
  for (const std::string& path : flags.files) {  // before seconds of loading
    std::error_code ec;
    if (!std::filesystem::is_regular_file(path, ec)) return not_found(path + ": no such file");
  }
  DSPARK_ASSIGN_OR_RETURN(LoadedModel loaded, load_with_progress(flags.model));
  if (loaded.tokenizer == nullptr) return unsupported(loaded.path + ": has no tokenizer");
  if (!flags.raw && !loaded.chat_template_status.ok()) {
    return Status(loaded.chat_template_status.code(),
                  loaded.path + ": chat template: " + loaded.chat_template_status.message() +
                      "; --raw does without it");
  }
  setup.loaded_ = std::make_unique<LoadedModel>(std::move(loaded));
  for (const std::string& path : flags.files) {
    DSPARK_ASSIGN_OR_RETURN(EvalTask task,
                            read_eval_task(path, *setup.loaded_, flags.limit, flags.raw, flags.seed));
    const auto same = std::count_if(setup.tasks_.begin(), setup.tasks_.end(),
                                    [&](const EvalTask& other) { return other.name == task.name; });
    if (same > 0) return invalid_argument(path + ": there is another task '" + task.name + "'");
    setup.tasks_.push_back(std::move(task));
  }
  return setup;
}

Result<std::unique_ptr<Engine>> EvalSetup::make_engine(const SpecFlags& spec) {
  EvalOptions eval;
  eval.max_tokens = flags_.max_tokens;
  int32_t longest = 0;
  for (const EvalTask& task : tasks_) {
    for (const EvalPrompt& prompt : task.prompts) {
      longest = std::max(longest, static_cast<int32_t>(prompt.tokens.size()));
    }
  }
  EngineOptions options;
  options.max_sequences = flags_.batch;
  options.context_length = eval.context_length(longest, kMaxDraftTokens);
  options.kv_dtype = kv_dtype_;
  options.prefill_rows = suitable_prefill_rows(loaded_->model->config());
  options.max_batch_rows = options.prefill_rows + flags_.batch * (kMaxDraftTokens + 1);
  // Whole blocks at every batch size, or tau would depend on it; the engine takes no more than its drafts
  // need.
  constexpr int64_t kMostLogitBytes = int64_t{1} << 30;
  const int64_t all_rows =
      int64_t{flags_.batch} * (kMaxDraftTokens + 1) * loaded_->model->config().vocab_size;
  options.logit_bytes = std::max(options.logit_bytes, std::min(all_rows * 4, kMostLogitBytes));
  const int32_t trained = loaded_->model->config().context_length;
  if (trained > 0 && options.context_length > trained) {
    return invalid_argument(
        fmt::format("--max-tokens: the longest prompt ({} tokens) and {} more do not fit the model's context "
                    "of {} tokens",
                    longest, options.context_length - longest, trained));
  }
  SpecFlags whole_block = spec;
  whole_block.temperature = flags_.temperature;
  if (spec.spec.empty() && !spec.drafter.empty() && spec.drafter != "none") {
    const bool lookup = spec.drafter.substr(0, spec.drafter.find(':')) == "ngram";
    whole_block.spec = lookup ? "fixed:7" : VerifyPolicy::fixed(kMaxDraftTokens).to_string();
  }
  return make_spec_engine(*loaded_, options, whole_block);
}

Result<std::vector<TaskAnswers>> EvalSetup::run(Engine& engine, const std::string& label) const {
  EvalOptions options;
  options.sampling.temperature = flags_.temperature;
  options.max_tokens = flags_.max_tokens;
  InterruptGuard interrupt;
  ProgressLine progress;
  std::vector<TaskAnswers> all;
  for (const EvalTask& task : tasks_) {
    const auto show = [&](const EvalProgress& done) {
      progress.show(fmt::format("{}: {}: {} of {} answers, {} tokens", label, task.name, done.answers,
                                task.prompts.size(), done.tokens));
    };
    Result<std::vector<EvalAnswer>> answers =
        evaluate(engine, task.prompts, options, show, &interrupt.flag());
    if (!answers.ok()) return Status(answers.status().code(), task.name + ": " + answers.status().message());
    all.push_back({task.name, *std::move(answers)});
  }
  return all;
}

}  // namespace dspark::cli
