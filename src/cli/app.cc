#include "cli/app.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/nearest.h"
#include "cli/report.h"
#include "kernels/isa.h"

namespace dspark::cli {
namespace {

// llama.cpp has long names behind a single dash; CLI11 would read them as groups of one-letter flags.
std::string canonical_argument(const std::string& argument) {
  if (argument == "-sys") return "--system";
  if (argument == "-ctk") return "--kv-type";
  if (argument == "-ctv") return "--cache-type-v";
  return argument;
}

std::vector<std::string> subcommand_names(CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](CLI::App*) { return true; })) {
    names.push_back(sub->get_name());
  }
  return names;
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

int report_unknown(const std::string& kind, const std::string& word, const std::string& nearest,
                   const std::string& help_command) {
  std::string message = "unknown " + kind + " '" + word + "'";
  message += nearest.empty() ? "; see '" + help_command + " --help'" : "; did you mean '" + nearest + "'?";
  return report_usage(message);
}

// An argument nobody took explains more than the error that CLI11 met first ("a subcommand is required").
int report_parse_error(CLI::App& app, const CLI::ParseError& error) {
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  std::string command = "dspark";
  const CLI::App* innermost = &app;  // of nested commands
  for (std::vector<CLI::App*> next = chosen; !next.empty(); next = innermost->get_subcommands()) {
    innermost = next.front();
    command += " " + innermost->get_name();
  }
  for (const std::string& word : app.remaining(true)) {
    if (word.size() > 1 && word[0] == '-') {
      const std::string name = word.substr(0, word.find('='));
      return report_unknown("option", name, nearest_word(name, option_names(*innermost)), command);
    }
    if (chosen.empty()) {
      return report_unknown("command", word, nearest_word(word, subcommand_names(app)), command);
    }
    return report_usage(command + " does not take the argument '" + word + "'");
  }
  if (chosen.empty()) return report_usage("no command given; see 'dspark --help'");
  return report_usage(command + ": " + error.what());
}

void describe(CLI::App& app) {
  app.name("dspark");
  app.description("Language models with speculative decoding, on the CPU.");
  app.set_version_flag("--version",
                       std::string("dspark ") + DSPARK_VERSION + " (" + isa_name(active_isa()) + " kernels)");
  app.set_help_flag("-h,--help", "show this help, or with a command the help of the command");
  app.require_subcommand(1);
}

void register_all(CLI::App& app, int& exit_code) {
  register_run(app, exit_code);
  register_serve(app, exit_code);
  register_bench(app, exit_code);
  register_profile(app, exit_code);
  register_plan(app, exit_code);
  register_inspect(app, exit_code);
  register_tokenize(app, exit_code);
  register_eval(app, exit_code);
  register_calibrate(app, exit_code);
  register_draft(app, exit_code);
  register_perplexity(app, exit_code);
  register_logits(app, exit_code);
  register_quantize(app, exit_code);
  register_data(app, exit_code);
  register_train(app);
  // After the commands, which would inherit it.
  app.footer(
      "Every command has its own help, e.g. 'dspark run --help'.\n"
      "Variables: DSPARK_MODEL (default model file), DSPARK_ISA=portable|avx2|avx512vnni|avx512.");
}

// A misspelt or impossible instruction set would otherwise run another one than was asked for, unnoticed.
Status check_forced_isa() {
  const char* forced = std::getenv("DSPARK_ISA");
  if (forced == nullptr || std::string(forced) == isa_name(active_isa())) return ok_status();
  std::string names;
  for (Isa isa : runnable_isas()) names += std::string(names.empty() ? "" : ", ") + isa_name(isa);
  return invalid_argument("DSPARK_ISA: this machine runs " + names + "; found '" + forced + "'");
}

int parse_and_run(int argc, const char* const* argv) {
  if (is_train_command(argc, argv)) return run_train(argc, argv);
  if (const Status status = check_forced_isa(); !status.ok()) return report_usage(status.message());
  CLI::App app;
  int exit_code = 0;
  describe(app);
  register_all(app, exit_code);
  std::vector<std::string> arguments;  // CLI11 takes them last first
  for (int i = argc - 1; i > 0; --i) arguments.push_back(canonical_argument(argv[i]));
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    // --help and --version arrive as "errors" with status 0; CLI11 prints them to stdout.
    if (error.get_exit_code() == 0) return app.exit(error);
    return report_parse_error(app, error);
  }
  return exit_code;
}

}  // namespace

int run_command_line(int argc, const char* const* argv) {
  try {
    const int exit_code = parse_and_run(argc, argv);
    // A full disk shows when the last of the output is written.
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
      return report_failure(internal_error("standard output cannot be written"));
    }
    return exit_code;
  } catch (const std::bad_alloc&) {
    return report_failure(out_of_memory("out of memory"));
  } catch (const std::exception& error) {
    return report_failure(internal_error(std::string("unexpected failure (please report): ") + error.what()));
  }
}

}  // namespace dspark::cli
