// dspark run: answers a prompt, or talks.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "cli/answer_printer.h"
#include "cli/chat.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/run_flags.h"
#include "cli/run_stats.h"
#include "cli/session.h"
#include "kernels/isa.h"

namespace dspark::cli {
namespace {

Result<std::string> read_all(std::FILE* file, const std::string& name) {
  std::string text;
  char buffer[1 << 16];
  size_t n = 0;
  while ((n = std::fread(buffer, 1, sizeof(buffer), file)) > 0) text.append(buffer, n);
  if (std::ferror(file) != 0) return invalid_argument(name + ": cannot be read");
  // Editors and echo end a text with a line break that is not meant.
  if (!text.empty() && text.back() == '\n') text.pop_back();
  if (text.empty()) return invalid_argument(name + " is empty: no prompt");
  return text;
}

Result<std::string> read_file(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (file == nullptr) return not_found("--file: " + path + " cannot be opened");
  return read_all(file.get(), "--file: " + path);
}

// The prompt of a single answer. requires: there is one (not a chat).
Result<std::string> read_prompt(const RunFlags& flags) {
  if (flags.prompt && flags.prompt_file) return invalid_argument("--prompt and --file exclude each other");
  if (flags.prompt) return *flags.prompt;
  if (flags.prompt_file) return read_file(*flags.prompt_file);
  return read_all(stdin, "standard input");
}

Result<GenerateResult> answer_once(Session& session, const std::string& prompt, AnswerPrinter& printer,
                                   const InterruptGuard& interrupt) {
  std::vector<ChatMessage> turns;
  if (!session.flags().system.empty()) turns.push_back({"system", session.flags().system});
  turns.push_back({"user", prompt});
  DSPARK_ASSIGN_OR_RETURN(std::vector<int32_t> ids, session.encode(turns));
  return session.answer(
      std::move(ids), [&](const StreamUpdate& update) { printer.update(update); }, &interrupt.flag());
}

int run_once(Session& session, const std::string& prompt) {
  const bool json = session.flags().json;
  InterruptGuard interrupt;
  AnswerPrinter printer(session.printer_options());
  const Result<GenerateResult> result = answer_once(session, prompt, printer, interrupt);
  printer.finish();
  if (!result.ok()) return report_failure(result.status());
  if (json) {
    std::printf("%s\n", result_json(session, *result).c_str());
  } else {
    std::fprintf(stderr, "%s\n", stats_line(session, *result).c_str());
  }
  return interrupt.flag().load() ? kExitInterrupted : 0;
}

void print_setup(const Session& session) {
  const LoadedModel& loaded = session.loaded();
  const ModelConfig& config = loaded.model->config();
  std::fprintf(
      stderr,
      "%s: %s, %d layers, %.1f MB of weights, loaded in %.2f s; %s kernels, %d thread(s), context %d, "
      "%s; drafter %s, policy %s, %s rule\n",
      loaded.path.c_str(), config.arch.c_str(), config.n_layers,
      static_cast<double>(loaded.model->weight_bytes()) * 1e-6, loaded.load_s, isa_name(active_isa()),
      loaded.pool->n_threads(), session.engine().context_length(),
      session.is_chat() ? "chat template" : "no chat template", drafter_name(session.engine()).c_str(),
      session.policy().to_string().c_str(),
      std::string(accept_rule_name(session.engine().options().accept_rule)).c_str());
}

int run(const RunFlags& flags) {
  const bool chat = !flags.prompt && !flags.prompt_file && stdin_is_terminal();
  if (chat && flags.json) return report_usage("--json needs a prompt: -p, -f or standard input");
  if (const Status status = check_run_flags(flags); !status.ok()) return report_failure(status);
  std::string prompt;
  if (!chat) {
    // Before the model is loaded: a wrong path should not take seconds to be noticed.
    Result<std::string> text = read_prompt(flags);
    if (!text.ok()) return report_failure(text.status());
    prompt = std::move(*text);
  }
  Result<Session> session = Session::open(flags);
  if (!session.ok()) return report_failure(session.status());
  if (flags.verbose) print_setup(*session);
  return chat ? run_chat(*session) : run_once(*session, prompt);
}

}  // namespace

void register_run(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<RunFlags>();
  CLI::App* command = app.add_subcommand(
      "run", "answer a prompt (-p, -f or standard input); without one, on a terminal, talk");
  add_run_flags(*command, *flags);
  command->callback([flags, &exit_code] { exit_code = run(*flags); });
}

}  // namespace dspark::cli
