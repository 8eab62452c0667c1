#include "cli/run_flags.h"

#include <CLI/CLI.hpp>
#include <random>

namespace dspark::cli {
namespace {

void add_prompt_flags(CLI::App& command, RunFlags& flags) {
  command.add_option("-p,--prompt", flags.prompt, "answer this prompt and end");
  command.add_option("-f,--file", flags.prompt_file, "the same with the text of a file");
  command.add_option("--system,--system-prompt", flags.system, "system message of the chat (also -sys)");
  command.add_flag("--raw,--no-chat", flags.raw, "continue the prompt as it is, without chat template");
  command
      .add_option("-n,--n-predict,--predict", flags.n_predict, "most tokens of an answer (-1: until it ends)")
      ->capture_default_str();
  command.add_option("-c,--ctx-size", flags.context, "tokens of context (0: all the model has)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_flag("--no-prefix-cache", flags.no_prefix_cache,
                   "read the whole conversation again in every turn");
  command.add_flag("--ignore-eos", flags.ignore_eos, "go on after the end-of-text token");
  command.add_option("--stop,-r,--reverse-prompt", flags.stop, "end the answer before this text; repeatable")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void add_sampling_flags(CLI::App& command, RunFlags& flags) {
  command.add_option("--temp", flags.temperature, "temperature; 0: always the likeliest token")
      ->capture_default_str();
  command.add_option("--top-k", flags.top_k, "keep the K likeliest tokens (0: all)")->capture_default_str();
  command.add_option("--top-p", flags.top_p, "keep the likeliest tokens with this mass (1: all)")
      ->capture_default_str();
  command.add_option("--min-p", flags.min_p, "drop tokens below this share of the likeliest one (0: none)")
      ->capture_default_str();
  command.add_option("--repeat-penalty", flags.repeat_penalty, "divides logits of seen tokens (1: off)")
      ->capture_default_str();
  command.add_option("--presence-penalty", flags.presence_penalty, "once per token of the answer (0: off)")
      ->capture_default_str();
  command.add_option("--frequency-penalty", flags.frequency_penalty, "per occurrence in the answer (0: off)")
      ->capture_default_str();
  command.add_option("-s,--seed", flags.seed, "seed of sampling (-1: a new one, shown with the statistics)")
      ->capture_default_str();
}

void add_output_flags(CLI::App& command, RunFlags& flags) {
  command.add_flag("--json", flags.json, "print one JSON object instead of text");
  command.add_flag("--show-drafts", flags.show_drafts,
                   "show which tokens were drafted, accepted, rejected and trimmed");
  command.add_flag(
      "--color{always}", flags.color,
      "colours: always, never, or auto: only with --show-drafts on a terminal. With always, text "
      "that came from accepted drafts is green");
  command.add_flag("-v,--verbose", flags.verbose, "say more on stderr");
}

}  // namespace

void add_run_flags(CLI::App& command, RunFlags& flags) {
  // An option given twice counts as given last, so that scripts can have defaults.
  command.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  add_model_flags(command, flags.model);
  add_prompt_flags(command, flags);
  add_grammar_flags(command, flags.grammar);
  add_sampling_flags(command, flags);
  add_spec_flags(command, flags.spec);
  add_output_flags(command, flags);
}

Status check_run_flags(const RunFlags& flags) {
  if (flags.color != "auto" && flags.color != "always" && flags.color != "never") {
    return invalid_argument("--color: expected auto, always or never, found '" + flags.color + "'");
  }
  if (flags.json && flags.show_drafts) return invalid_argument("--json and --show-drafts exclude each other");
  return check_spec(flags.spec).status();
}

GenerateRequest request_from(const RunFlags& flags, uint64_t seed) {
  GenerateRequest request;
  request.sampling.temperature = flags.temperature;
  request.sampling.top_k = flags.top_k;
  request.sampling.top_p = flags.top_p;
  request.sampling.min_p = flags.min_p;
  request.sampling.repetition_penalty = flags.repeat_penalty;
  request.sampling.presence_penalty = flags.presence_penalty;
  request.sampling.frequency_penalty = flags.frequency_penalty;
  request.sampling.seed = seed;
  request.max_tokens = flags.n_predict < 0 ? -1 : flags.n_predict;
  request.stop_strings = flags.stop;
  request.ignore_eos = flags.ignore_eos;
  return request;
}

uint64_t choose_seed(const RunFlags& flags) {
  if (flags.seed >= 0) return static_cast<uint64_t>(flags.seed);
  return std::random_device{}();
}

}  // namespace dspark::cli
