#include "cli/chat.h"

#include <clocale>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "cli/answer_printer.h"
#include "cli/interrupt.h"
#include "cli/message_reader.h"
#include "cli/nearest.h"
#include "cli/report.h"
#include "cli/run_stats.h"

namespace dspark::cli {
namespace {

constexpr const char* kHelp =
    "/help   this text\n"
    "/reset  forget the conversation\n"
    "/stats  what the last answer cost\n"
    "/quit   leave (also Ctrl-D)\n"
    "End a line with \\ to go on in the next one, or write several lines between \"\"\" and \"\"\".\n"
    "Ctrl-C stops an answer; once more at the prompt leaves.\n";

class Chat {
 public:
  explicit Chat(Session& session) : session_(session), reader_(interrupt_.flag()) { forget(); }

  int run() {
    std::string message;
    for (;;) {
      const LineEnd end = reader_.read(message);
      if (end == LineEnd::kEndOfFile) return 0;
      if (end == LineEnd::kInterrupt) {
        if (message.empty() && interrupted_) return 0;
        interrupted_ = message.empty();
        if (interrupted_) say("(Ctrl-C once more, or /quit, to leave)");
        continue;
      }
      interrupted_ = false;
      if (message.empty()) continue;
      if (message[0] == '/' && message.find_first_of(" \n/", 1) == std::string::npos) {
        if (!handle_command(message)) return 0;
      } else {
        answer(message);
      }
    }
  }

 private:
  static void say(const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); }

  void forget() {
    turns_.clear();
    if (!session_.flags().system.empty()) turns_.push_back({"system", session_.flags().system});
  }

  // returns: false to leave.
  bool handle_command(const std::string& command) {
    if (command == "/quit" || command == "/exit") return false;
    if (command == "/help") {
      std::fputs(kHelp, stderr);
    } else if (command == "/reset") {
      forget();
      say("(the conversation starts anew)");
    } else if (command == "/stats") {
      say(last_stats_.empty() ? "(no answer yet)" : last_stats_);
    } else {
      const std::string nearest = nearest_word(command, {"/help", "/reset", "/stats", "/quit"});
      say("unknown command " + command +
          (nearest.empty() ? "; see /help" : "; did you mean " + nearest + "?"));
    }
    return true;
  }

  void answer(const std::string& message) {
    if (!session_.is_chat()) forget();  // a base model continues each text by itself
    turns_.push_back({"user", message});
    AnswerPrinter printer(session_.printer_options());
    Result<GenerateResult> result = generate_answer(printer);
    printer.finish();
    interrupted_ = interrupt_.flag().exchange(false);
    if (!result.ok()) {
      turns_.pop_back();
      report_failure(result.status());
      if (result.status().code() == StatusCode::kResourceExhausted) {
        say("(the conversation is longer than the context: /reset starts anew, -c makes room for more)");
      }
      return;
    }
    turns_.push_back({"assistant", std::move(result->text)});
    last_stats_ = stats_line(session_, *result);
    if (session_.flags().verbose) say(last_stats_);
  }

  Result<GenerateResult> generate_answer(AnswerPrinter& printer) {
    DSPARK_ASSIGN_OR_RETURN(std::vector<int32_t> prompt, session_.encode(turns_));
    return session_.answer(
        std::move(prompt), [&](const StreamUpdate& update) { printer.update(update); }, &interrupt_.flag());
  }

  Session& session_;
  InterruptGuard interrupt_;  // for the whole conversation: Ctrl-C between two prompts must not end it
  MessageReader reader_;
  std::vector<ChatMessage> turns_;
  std::string last_stats_;
  bool interrupted_ = false;  // the last thing that happened was a Ctrl-C
};

}  // namespace

int run_chat(Session& session) {
  std::setlocale(LC_CTYPE, "");  // column widths of characters
  const std::string name = session.loaded().model->config().name;
  std::fprintf(stderr, "%s, %d thread(s). /help for help.\n", name.empty() ? "model loaded" : name.c_str(),
               session.loaded().pool->n_threads());
  if (!session.is_chat()) std::fputs("No chat template: each text is continued by itself.\n", stderr);
  return Chat(session).run();
}

}  // namespace dspark::cli
