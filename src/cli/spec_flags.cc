#include "cli/spec_flags.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <utility>

#include "cli/report.h"
#include "draft/factory.h"
#include "draft/target_match.h"
#include "engine/calibration_file.h"
#include "engine/cost_file.h"

namespace dspark::cli {
namespace {

Status with_flag(const char* flag, const Status& status) {
  return {status.code(), std::string(flag) + ": " + status.message()};
}

// A wrong name should not take the seconds of loading a model to be noticed.
Status check_drafter(const std::string& spec) {
  if (spec.empty() || spec == "none" || names_lookup(spec)) {
    const auto drafter = make_drafter(spec);
    return drafter.ok() ? ok_status() : with_flag("--drafter", drafter.status());
  }
  std::error_code ec;
  if (std::filesystem::exists(split_drafter_spec(spec).drafter, ec)) return ok_status();
  return not_found("--drafter: want none, ngram or the path of a drafter, found '" + spec +
                   "', which does not exist");
}

}  // namespace

void add_spec_flags(CLI::App& command, SpecFlags& flags) {
  command
      .add_option("-d,--drafter", flags.drafter,
                  "who proposes tokens: none, ngram (prompt lookup), or the path of a learned drafter; "
                  "+ngram behind a path is --hybrid")
      ->capture_default_str();
  add_policy_flags(command, flags);
}

void add_policy_flags(CLI::App& command, SpecFlags& flags) {
  command.add_flag(
      "--hybrid,!--no-hybrid", flags.hybrid,
      std::string("join a learned drafter with prompt lookup: the better of the two proposes (default: ") +
          (flags.hybrid ? "yes)" : "no)"));
  command.add_option(
      "--spec", flags.spec,
      "drafts checked per step: off, fixed:K, threshold:T (up to the first confidence below T), "
      "causal or adaptive (what pays at the present load); default: adaptive (eval and calibrate: the whole "
      "block, with ngram 7)");
  command
      .add_option("--accept", flags.accept,
                  "how drafts are judged: coupled (same text as without drafts), rejection, block")
      ->capture_default_str();
  command.add_option(
      "--calibration", flags.calibration,
      "confidence temperatures from 'dspark calibrate' (default: the file beside the drafter, if any; none: "
      "no temperatures)");
  command
      .add_option("--shortlist", flags.shortlist,
                  "the drafter's sequential head looks at this many tokens per slot (0: all)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option(
          "--cost-table", flags.cost_table,
          "what passes cost on this machine: a file (read if it is there, written at the end), auto (a "
          "file in the cache folder) or none (measured at every start)")
      ->capture_default_str();
}

Result<SpecChoice> check_spec(const SpecFlags& flags) {
  SpecChoice choice;
  DSPARK_RETURN_IF_ERROR(check_drafter(flags.drafter));
  const Result<AcceptRule> rule = parse_accept_rule(flags.accept);
  if (!rule.ok()) return with_flag("--accept", rule.status());
  choice.rule = *rule;
  const bool drafting = !flags.drafter.empty() && flags.drafter != "none";
  if (!drafting && !flags.calibration.empty()) {
    return invalid_argument("--calibration needs a drafter with a confidence head: add -d PATH");
  }
  if (flags.spec.empty()) return choice;
  const Result<VerifyPolicy> policy = VerifyPolicy::parse(flags.spec);
  if (!policy.ok()) return with_flag("--spec", policy.status());
  if (!drafting && policy->draft_tokens() > 0) {
    return invalid_argument("--spec " + flags.spec + " needs a drafter: add -d ngram or -d PATH");
  }
  choice.policy = *policy;
  return choice;
}

namespace {

// A calibration for another way of serving is better than none, but not as good as it looks. Whoever names a
// file is told; the file beside the drafter is nobody's choice, and only another target makes it suspicious.
void warn_of_mismatch(const LoadedModel& loaded, const SpecFlags& flags, AcceptRule rule) {
  if (flags.calibration == "none" || !flags.temperature) return;
  const std::string path = flags.calibration.empty() ? calibration_beside(flags.drafter) : flags.calibration;
  if (path.empty()) return;
  const Result<std::vector<Calibration>> tables = read_calibrations(path);
  if (!tables.ok()) return;  // load_drafter tells
  const std::string target = std::filesystem::path(loaded.path).filename().string();
  const auto temperature = static_cast<double>(*flags.temperature);
  const Calibration& used = (*tables)[best_calibration(*tables, rule, temperature, target)];
  const bool named = !flags.calibration.empty();
  const std::string text = calibration_mismatch(used, named ? rule : used.accept_rule,
                                                named ? temperature : used.temperature, target);
  if (!text.empty()) report_warning(path + ": " + text + "; 'dspark calibrate' makes one for this run");
}

// Models of one shape, such as a coder beside the model it was tuned from, take each other's drafters.
void warn_of_other_target(const LoadedModel& loaded, const Drafter* drafter, const std::string& path) {
  if (drafter == nullptr) return;
  const std::string target = loaded.checkpoint->meta_string("general.name").value_or("");
  if (!names_another_model(drafter->target_name(), target)) return;
  report_warning(path + ": made for '" + std::string(drafter->target_name()) + "', used with '" + target +
                 "': few drafts will be accepted");
}

}  // namespace

Result<std::unique_ptr<Engine>> make_spec_engine(LoadedModel& loaded, EngineOptions& options,
                                                 const SpecFlags& flags) {
  DSPARK_ASSIGN_OR_RETURN(const SpecChoice choice, check_spec(flags));
  DSPARK_ASSIGN_OR_RETURN(std::unique_ptr<Drafter> drafter, load_drafter(loaded, options,
                                                                         {.spec = flags.drafter,
                                                                          .calibration = flags.calibration,
                                                                          .shortlist = flags.shortlist,
                                                                          .hybrid = flags.hybrid,
                                                                          .rule = choice.rule,
                                                                          .temperature = flags.temperature}));
  options.policy = choice.policy.value_or(default_policy(drafter.get()));
  options.accept_rule = choice.rule;
  warn_of_mismatch(loaded, flags, choice.rule);
  warn_of_other_target(loaded, drafter.get(), flags.drafter);
  DSPARK_ASSIGN_OR_RETURN(const CostSource source,
                          find_costs(loaded, drafter.get(), flags.drafter, flags.cost_table, options));
  const bool named = flags.cost_table != "auto";
  options.on_close = [source, named](const Engine& engine) {
    const Status saved = save_costs(source, engine);
    if (!saved.ok() && named) report_warning(saved.message());
  };
  return make_engine(loaded, options, std::move(drafter));
}

std::string drafter_name(const Engine& engine) {
  return engine.drafter() == nullptr ? "none" : std::string(engine.drafter()->name());
}

}  // namespace dspark::cli
