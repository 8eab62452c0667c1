#include "cli/message_reader.h"

#include <string_view>

namespace dspark::cli {
namespace {

constexpr std::string_view kQuotes = "\"\"\"";
constexpr const char* kFirstPrompt = "> ";
constexpr const char* kNextPrompt = "| ";

}  // namespace

LineEnd MessageReader::read(std::string& message) {
  message.clear();
  std::string line;
  LineEnd end = editor_.read(kFirstPrompt, line);
  if (end == LineEnd::kLine && std::string_view(line).starts_with(kQuotes)) {
    message = line.substr(kQuotes.size());
    end = read_block(message);
  } else {
    message = line;
    while (end == LineEnd::kLine && !message.empty() && message.back() == '\\') {
      end = editor_.read(kNextPrompt, line);
      message.back() = '\n';
      message += line;
    }
  }
  // The input may end inside a message: what is there counts.
  if (end == LineEnd::kEndOfFile && !message.empty()) end = LineEnd::kLine;
  if (end == LineEnd::kLine) editor_.add_history(message);
  return end;
}

LineEnd MessageReader::read_block(std::string& message) {
  LineEnd end = LineEnd::kLine;
  bool closed = message.size() >= kQuotes.size() && message.ends_with(kQuotes);
  while (!closed && end == LineEnd::kLine) {
    std::string line;
    end = editor_.read(kNextPrompt, line);
    if (!message.empty() && end != LineEnd::kEndOfFile) message += '\n';
    message += line;
    closed = line.ends_with(kQuotes);
  }
  if (closed) message.resize(message.size() - kQuotes.size());
  while (!message.empty() && message.back() == '\n') message.pop_back();
  return end;
}

}  // namespace dspark::cli
