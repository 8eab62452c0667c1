#include "cli/answer_printer.h"

#include <algorithm>
#include <cstdio>

#include "cli/spec_report.h"

namespace dspark::cli {
namespace {

constexpr std::string_view kGreen = "\033[32m";
constexpr std::string_view kPlain = "\033[0m";

void write(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

}  // namespace

AnswerPrinter::AnswerPrinter(const PrinterOptions& options) : options_(options) {
  if (options.draft_view != nullptr) view_.emplace(*options.draft_view, options.color);
}

void AnswerPrinter::update(const StreamUpdate& update) {
  if (update.prompt_done < update.prompt_tokens) {
    progress_.show("reading the prompt: " + std::to_string(update.prompt_done) + " of " +
                   std::to_string(update.prompt_tokens) + " tokens");
    return;
  }
  progress_.clear();
  if (options_.silent) return;
  if (view_) return print_drafts(update);
  if (update.text.empty()) return;
  const bool drafted = std::any_of(update.tokens.begin(), update.tokens.end(), [](const TokenEvent& token) {
    return token.origin == TokenOrigin::kAccepted;
  });
  const bool green = options_.color && drafted;
  if (green) write(kGreen);
  print(update.text);
  if (green) write(kPlain);
  std::fflush(stdout);
}

void AnswerPrinter::print_drafts(const StreamUpdate& update) {
  if (!started_) print(view_->legend());
  started_ = true;
  print(view_->render(update));
  stats_ = update.stats->speculation;
  std::fflush(stdout);
}

void AnswerPrinter::print(std::string_view text) {
  if (text.empty()) return;
  write(text);
  at_line_start_ = text.back() == '\n';
}

void AnswerPrinter::finish() {
  progress_.clear();
  if (view_ && started_) print(view_->finish());
  if (!options_.silent && !at_line_start_) print("\n");
  if (view_ && started_) print(speculation_table(stats_));
  std::fflush(stdout);
}

}  // namespace dspark::cli
