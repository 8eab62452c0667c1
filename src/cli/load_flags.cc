#include "cli/load_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>

namespace dspark::cli {
namespace {

constexpr int32_t kMostClients = 1024;
constexpr int32_t kMostTokens = 1 << 20;
constexpr int32_t kDefaultSequences = 32;

void add_workload_flags(CLI::App& command, LoadFlags& flags) {
  command.add_option("prompts", flags.files, "prompt files, lines {\"prompt\": ...}")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_option("--synthetic", flags.synthetic, "random prompts of these lengths, e.g. 64,512")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check(CLI::Range(1, kMostTokens));
  command.add_option("--weights", flags.weights, "shares of the prompt files, then of the synthetic lengths")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_option("--limit", flags.limit, "prompts of each file (0: all)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_flag("--raw,--no-chat", flags.raw, "continue prompts as they are, without chat template");
  command
      .add_option("-n,--max-tokens", flags.answer_tokens,
                  "most tokens of an answer: N, or A-B: drawn from A to B")
      ->capture_default_str();
  command.add_option("--temp", flags.temperature, "temperature; 0: greedy")->capture_default_str();
  command.add_option("-s,--seed", flags.seed, "seed of the requests, their answers and arrivals")
      ->capture_default_str();
  command.add_flag("--ignore-eos", flags.ignore_eos, "answers go on after the end-of-text token");
}

void add_sweep_flags(CLI::App& command, LoadFlags& flags) {
  command.add_option("--concurrency", flags.concurrency, "numbers of clients, e.g. 1,4,16")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check(CLI::Range(1, kMostClients))
      ->capture_default_str();
  command
      .add_option(
          "--policies", flags.policies,
          "verify policies to compare (default: off,fixed:1,fixed:2,fixed:3,fixed:5,fixed:7,adaptive)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_option("-r,--rounds", flags.rounds, "rounds over all policies; medians are reported")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command
      .add_option("--requests", flags.requests, "measured requests of a run (0: 3 per client, at least 12)")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  command.add_option("--warmup", flags.warmup, "least tokens of the answers before the measurement")
      ->check(CLI::Range(1, kMostTokens))
      ->capture_default_str();
  command.add_option("--seconds", flags.seconds, "most seconds of one run; what is over is cut")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      .add_option(
          "--turn-seconds", flags.slice_s,
          "all policies of a load or a burst run together, so many seconds each in turn; 0: one after the "
          "other")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--arrivals", flags.arrivals,
                  "closed, poisson, bursty or bursty:B (groups of B in the mean)")
      ->capture_default_str();
  command.add_option("--rates", flags.rates, "requests per second with open arrivals")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      .add_option("--max-sequences", flags.max_sequences,
                  "places of the engine (0: the most clients, or 32 with open arrivals)")
      ->check(CLI::Range(0, kMostClients))
      ->capture_default_str();
  command.add_option("--kv-tokens", flags.kv_tokens, "tokens the cache holds (0: enough for every place)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--burst", flags.burst, "instead of a sweep: the number of clients over time, e.g. 1,16,1")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check(CLI::Range(1, kMostClients));
  command.add_option("--phase-seconds", flags.phase_seconds, "seconds of each number of --burst")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_flag("--random-drafter", flags.random_drafter,
                   "noise instead of the drafter's weights: what a bad drafter costs");
  command.add_flag("--remember", flags.remember,
                   "adaptive policies begin with what some answers, which are not timed, told of the drafts");
  command.add_flag("--reference", flags.reference,
                   "compare texts with runs of every request alone, which come first and are not timed");
}

Status parse_answer_tokens(const std::string& text, LoadChoice& choice) {
  const auto read = [](std::string_view part, int32_t& value) {
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    return error == std::errc() && end == part.data() + part.size() && value >= 1 && value <= kMostTokens;
  };
  const std::string_view view = text;
  const size_t dash = view.find('-');
  const bool ok = dash == std::string_view::npos
                      ? read(view, choice.least_tokens) && read(view, choice.most_tokens)
                      : read(view.substr(0, dash), choice.least_tokens) &&
                            read(view.substr(dash + 1), choice.most_tokens);
  if (ok && choice.least_tokens <= choice.most_tokens) return ok_status();
  return invalid_argument(
      fmt::format("--max-tokens: want N or A-B from 1 to {}, found '{}'", kMostTokens, text));
}

Status check_policies(const LoadFlags& flags, LoadChoice& choice) {
  std::vector<std::string> wanted = flags.policies;
  if (wanted.empty()) {
    wanted = {"off"};
    if (choice.has_drafter)
      wanted = {"off", "fixed:1", "fixed:2", "fixed:3", "fixed:5", "fixed:7", "adaptive"};
  }
  for (const std::string& text : wanted) {
    const Result<VerifyPolicy> policy = VerifyPolicy::parse(text);
    if (!policy.ok()) return Status(policy.status().code(), "--policies: " + policy.status().message());
    if (!choice.has_drafter && policy->draft_tokens() > 0) {
      return invalid_argument("--policies " + text + " needs a drafter: add -d ngram or -d PATH");
    }
    const std::string name = policy->to_string();
    if (std::ranges::find(choice.policies, name) != choice.policies.end()) {
      return invalid_argument("--policies: " + name + " is there twice");
    }
    choice.policies.push_back(name);
  }
  return ok_status();
}

Status check_sources(const LoadFlags& flags) {
  if (flags.files.empty() && flags.synthetic.empty()) {
    return invalid_argument("want prompt files or --synthetic with lengths");
  }
  for (const std::string& path : flags.files) {
    std::error_code ec;
    if (!std::filesystem::is_regular_file(path, ec)) return not_found(path + ": no such file");
  }
  const size_t n_sources = flags.files.size() + flags.synthetic.size();
  if (!flags.weights.empty() && flags.weights.size() != n_sources) {
    return invalid_argument(
        fmt::format("--weights: want {} numbers, one for each file and synthetic length, found {}", n_sources,
                    flags.weights.size()));
  }
  double total = flags.weights.empty() ? 1.0 : 0.0;
  for (double weight : flags.weights) {
    if (!std::isfinite(weight) || weight < 0.0) {
      return invalid_argument(fmt::format("--weights: want 0 or more, found {}", weight));
    }
    total += weight;
  }
  return total > 0.0 ? ok_status() : invalid_argument("--weights: want one above 0");
}

}  // namespace

void add_load_flags(CLI::App& command, LoadFlags& flags) {
  command.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  add_model_flags(command, flags.model);
  add_spec_flags(command, flags.spec);
  command.remove_option(command.get_option("--spec"));  // --policies takes its place
  add_workload_flags(command, flags);
  add_sweep_flags(command, flags);
  command.add_option("--json", flags.json, "write everything as JSON to this file (-: standard output)");
  command.add_option("--plot", flags.plot, "write SVG pictures into this folder");
  command.add_option(
      "--record", flags.record,
      "instead of measuring: write what the drafter proposes at every token, and how much of it is "
      "right, to this file (for 'dspark bench schedule')");
  command.add_flag("--strict", flags.strict, "fail when the adaptive policy loses more than it may");
  command.add_flag("-v,--verbose", flags.verbose, "a line on stderr for every run");
}

Result<LoadChoice> check_load_flags(const LoadFlags& flags) {
  LoadChoice choice;
  DSPARK_ASSIGN_OR_RETURN(const SpecChoice spec, check_spec(flags.spec));
  choice.rule = spec.rule;
  choice.has_drafter = !flags.spec.drafter.empty() && flags.spec.drafter != "none";
  DSPARK_RETURN_IF_ERROR(check_sources(flags));
  DSPARK_RETURN_IF_ERROR(check_policies(flags, choice));
  DSPARK_RETURN_IF_ERROR(parse_answer_tokens(flags.answer_tokens, choice));
  if (!(flags.temperature >= 0.0f)) {
    return invalid_argument(fmt::format("--temp: want 0 or more, found {}", flags.temperature));
  }
  const Result<ArrivalProcess> arrivals = ArrivalProcess::parse(flags.arrivals);
  if (!arrivals.ok()) return Status(arrivals.status().code(), "--arrivals: " + arrivals.status().message());
  choice.arrivals = *arrivals;
  const bool closed = choice.arrivals.kind == ArrivalProcess::Kind::kClosed;
  if (!closed && !flags.burst.empty()) return invalid_argument("--burst: wants closed arrivals");
  if (!choice.has_drafter && flags.random_drafter) {
    return invalid_argument("--random-drafter needs the drafter whose shape it has: add -d PATH");
  }
  if (flags.random_drafter && flags.spec.drafter.starts_with("ngram")) {
    return invalid_argument("--random-drafter: prompt lookup has no weights; add -d PATH");
  }
  if (!choice.has_drafter && flags.remember) {
    return invalid_argument("--remember: there are no drafts to learn of; add -d ngram or -d PATH");
  }
  if (flags.reference && choice.rule != AcceptRule::kCoupled && flags.temperature > 0.0f) {
    return invalid_argument(fmt::format("--reference: with --temp {:g} and --accept {} texts differ anyway",
                                        flags.temperature, accept_rule_name(choice.rule)));
  }
  if (!choice.has_drafter && !flags.record.empty())
    return invalid_argument("--record needs a drafter: add -d PATH");
  int32_t most = kDefaultSequences;
  if (closed) {
    const std::vector<int32_t>& clients = flags.burst.empty() ? flags.concurrency : flags.burst;
    choice.loads.assign(clients.begin(), clients.end());
    most = *std::ranges::max_element(clients);
  } else {
    choice.loads = flags.rates;
  }
  choice.max_sequences = flags.max_sequences > 0 ? flags.max_sequences : most;
  return choice;
}

}  // namespace dspark::cli
