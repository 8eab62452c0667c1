#include "cli/answer_printer.h"

#include <algorithm>
#include <cstdio>

namespace dspark::cli {
namespace {

constexpr std::string_view kGreen = "\033[32m";
constexpr std::string_view kPlain = "\033[0m";

void write(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

}  // namespace

void AnswerPrinter::update(const StreamUpdate& update) {
  if (update.prompt_done < update.prompt_tokens) {
    progress_.show("reading the prompt: " + std::to_string(update.prompt_done) + " of " +
                   std::to_string(update.prompt_tokens) + " tokens");
    return;
  }
  progress_.clear();
  const bool drafted = std::any_of(update.tokens.begin(), update.tokens.end(), [](const TokenEvent& token) {
    return token.origin == TokenOrigin::kAccepted;
  });
  if (!silent_ && !update.text.empty()) print(update.text, drafted);
}

void AnswerPrinter::print(std::string_view text, bool drafted) {
  if (color_ && drafted) write(kGreen);
  write(text);
  if (color_ && drafted) write(kPlain);
  std::fflush(stdout);
  at_line_start_ = text.back() == '\n';
}

void AnswerPrinter::finish() {
  progress_.clear();
  if (silent_ || at_line_start_) return;
  write("\n");
  std::fflush(stdout);
  at_line_start_ = true;
}

}  // namespace dspark::cli
