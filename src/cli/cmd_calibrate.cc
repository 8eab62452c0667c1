// dspark calibrate: fits the temperatures of a confidence head to what the target really accepts.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/eval_setup.h"
#include "cli/report.h"
#include "draft/factory.h"
#include "engine/calibration_file.h"

namespace dspark::cli {
namespace {

struct CalibrateFlags {
  EvalFlags eval;
  std::string output;
  std::string fit = "affine";
};

std::string task_names(const EvalSetup& setup) {
  std::string names;
  for (const EvalTask& task : setup.tasks()) names += (names.empty() ? "" : ", ") + task.name;
  return names;
}

void print_fit(const Calibration& calibration) {
  fmt::print("{} rounds of {}, {} rule, temperature {:g}\n", calibration.num_samples, calibration.dataset,
             accept_rule_name(calibration.accept_rule), calibration.temperature);
  fmt::print("position  temperature    bias  ECE before  ECE after\n");
  for (size_t k = 0; k < calibration.temperatures.size(); ++k) {
    const double bias = calibration.biases.empty() ? 0.0 : calibration.biases[k];
    fmt::print("{:8}{:13.3f}{:8.3f}{:12.4f}{:11.4f}\n", k + 1, calibration.temperatures[k], bias,
               calibration.ece_before[k], calibration.ece_after[k]);
  }
}

Status calibrate(CalibrateFlags flags) {
  SpecFlags& spec = flags.eval.spec;
  if (!spec.calibration.empty()) {
    return invalid_argument("--calibration: a fit starts from what the confidence head says itself");
  }
  if (spec.hybrid || !split_drafter_spec(spec.drafter).lookup.empty()) {
    return invalid_argument("--drafter: a fit is for the drafter itself, without prompt lookup beside it");
  }
  if (!spec.spec.empty() && spec.spec.rfind("fixed:", 0) != 0) {
    return invalid_argument("--spec: a fit needs every draft verified: fixed:K or nothing, found '" +
                            spec.spec + "'");
  }
  if (spec.drafter == "none") return invalid_argument("--drafter: want the path of a learned drafter");
  if (flags.output.empty()) flags.output = calibration_path(spec.drafter);
  if (flags.output.empty()) {
    return invalid_argument("--output: want a file to write ('" + spec.drafter +
                            "' is no path that it could lie beside)");
  }
  // A file that is something else is neither replaced nor a reason to lose a fit.
  std::vector<Calibration> tables;
  if (std::error_code ec; std::filesystem::exists(flags.output, ec)) {
    DSPARK_ASSIGN_OR_RETURN(tables, read_calibrations(flags.output));
  }
  DSPARK_ASSIGN_OR_RETURN(EvalSetup setup, EvalSetup::open(flags.eval));
  SpecFlags raw = spec;
  raw.calibration = "none";
  DSPARK_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, setup.make_engine(raw));
  DSPARK_ASSIGN_OR_RETURN(const std::vector<TaskAnswers> tasks, setup.run(*engine, drafter_name(*engine)));
  CalibrationData data;
  for (const TaskAnswers& task : tasks) {
    for (const EvalAnswer& answer : task.answers) add_calibration(answer, data);
  }
  if (data.n_rounds() == 0) {
    return unsupported(spec.drafter + ": the drafter has no confidence head, or no round took place");
  }
  const bool affine = flags.fit == "affine";
  Calibration calibration = affine ? fit_affine_calibration(data) : fit_calibration(data);
  calibration.target = std::filesystem::path(setup.loaded().path).filename().string();
  calibration.dataset = task_names(setup);
  calibration.accept_rule = engine->options().accept_rule;
  calibration.temperature = static_cast<double>(flags.eval.temperature);
  put_calibration(tables, calibration);
  DSPARK_RETURN_IF_ERROR(write_calibrations(flags.output, tables));
  print_fit(calibration);
  const std::string count = tables.size() > 1 ? fmt::format(" ({} tables)", tables.size()) : "";
  fmt::print("written to {}{}\n", flags.output, count);
  return ok_status();
}

}  // namespace

void register_calibrate(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<CalibrateFlags>();
  CLI::App* command =
      app.add_subcommand("calibrate", "fit a drafter's confidences to what is accepted (for --calibration)");
  add_eval_flags(*command, flags->eval);
  command
      ->add_option(
          "--fit", flags->fit,
          "affine: a temperature and a bias per position; temperature: temperatures alone, as DSpark does")
      ->check(CLI::IsMember({"affine", "temperature"}))
      ->capture_default_str();
  command->add_option(
      "-o,--output", flags->output,
      "JSON file (default: beside the drafter, where every run finds it); one that is there keeps its tables "
      "for other targets, temperatures and accept rules");
  command->callback([flags, &exit_code] {
    const Status status = calibrate(*flags);
    if (!status.ok()) exit_code = report_failure(status);
  });
}

}  // namespace dspark::cli
