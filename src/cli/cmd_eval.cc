// dspark eval: how many drafts of a drafter the target accepts, and how well it knows.

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/eval_plots.h"
#include "cli/eval_report.h"
#include "cli/eval_setup.h"
#include "cli/report.h"
#include "formats/atomic_file.h"

namespace dspark::cli {
namespace {

struct EvalCommandFlags {
  EvalFlags eval;
  std::string baseline;
  std::string json;
  std::string plots;
};

Status write_json(const std::string& path, const EvalReport& report) {
  const std::string text =
      report_json(report).dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  if (path == "-") {
    std::fputs(text.c_str(), stdout);
    return ok_status();
  }
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  DSPARK_RETURN_IF_ERROR(file.write({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  return file.commit();
}

/// The look-up drafter verifies as many drafts per step as the drafter it is compared with.
SpecFlags baseline_flags(const EvalCommandFlags& flags, const Engine& engine) {
  const int32_t n_drafts = std::min(engine.options().policy.draft_tokens(),
                                    engine.drafter() == nullptr ? 0 : engine.drafter()->max_block());
  SpecFlags spec;
  spec.drafter = flags.baseline;
  spec.hybrid = false;  // what is named, and nothing beside it
  spec.accept = flags.eval.spec.accept;
  spec.spec = VerifyPolicy::fixed(n_drafts > 0 ? n_drafts : 7).to_string();
  return spec;
}

EvalHead head_of(const EvalCommandFlags& flags, const EvalSetup& setup, const Engine& engine) {
  EvalHead head;
  head.model = setup.loaded().path;
  head.drafter = flags.eval.spec.drafter;
  head.kind = drafter_name(engine);
  head.policy = engine.options().policy.to_string();
  head.accept_rule = accept_rule_name(engine.options().accept_rule);
  head.temperature = static_cast<double>(flags.eval.temperature);
  head.max_tokens = flags.eval.max_tokens;
  head.seed = flags.eval.seed;
  head.batch = flags.eval.batch;
  head.baseline = flags.baseline;
  return head;
}

Status run_eval(const EvalCommandFlags& flags) {
  if (!flags.baseline.empty()) {
    SpecFlags spec;
    spec.drafter = flags.baseline;
    if (const Status status = check_spec(spec).status(); !status.ok()) {
      return Status(status.code(), "--baseline: " + status.message());
    }
  }
  DSPARK_ASSIGN_OR_RETURN(EvalSetup setup, EvalSetup::open(flags.eval));
  std::vector<TaskAnswers> answers, baseline;
  EvalHead head;
  SpecFlags other;
  {
    DSPARK_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, setup.make_engine(flags.eval.spec));
    head = head_of(flags, setup, *engine);
    other = baseline_flags(flags, *engine);
    const auto start = std::chrono::steady_clock::now();
    DSPARK_ASSIGN_OR_RETURN(answers, setup.run(*engine, head.kind));
    head.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  if (!flags.baseline.empty()) {
    DSPARK_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, setup.make_engine(other));
    DSPARK_ASSIGN_OR_RETURN(baseline, setup.run(*engine, flags.baseline));
  }
  const EvalReport report = make_report(head, answers, baseline);
  if (!flags.json.empty()) DSPARK_RETURN_IF_ERROR(write_json(flags.json, report));
  if (!flags.plots.empty()) DSPARK_RETURN_IF_ERROR(write_plots(flags.plots, report, answers));
  if (flags.json != "-") std::fputs(report_text(report).c_str(), stdout);
  return ok_status();
}

}  // namespace

void register_eval(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<EvalCommandFlags>();
  CLI::App* command =
      app.add_subcommand("eval", "measure how many drafts are accepted, per task, position and confidence");
  add_eval_flags(*command, flags->eval);
  command->add_option("--baseline", flags->baseline, "run this drafter too and compare, e.g. ngram");
  command->add_option("--json", flags->json, "write everything as JSON to this file (-: standard output)");
  command->add_option("--plots", flags->plots, "write SVG pictures into this folder");
  command->callback([flags, &exit_code] {
    const Status status = run_eval(*flags);
    if (!status.ok()) exit_code = report_failure(status);
  });
}

}  // namespace dspark::cli
