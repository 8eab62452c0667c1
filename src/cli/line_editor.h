#pragma once
// Reads lines from a terminal, with editing keys and history; from anything else, plain lines.

#include <atomic>
#include <memory>
#include <string>

#include "cli/line_buffer.h"

namespace dspark::cli {

enum class LineEnd {
  kLine,       // Enter
  kEndOfFile,  // Ctrl-D on an empty line, or the input ended
  kInterrupt,  // Ctrl-C; the text typed so far is given back
};

/// Editing: arrows, Home, End, Backspace, Delete, Ctrl-A E B F K U W L, Up and Down for history. Pasted line
/// breaks become part of the line. While the editor lives, the terminal passes keys on one by one and does
/// not echo them, so that nothing typed during an answer is lost. thread: one at a time.
class LineEditor {
 public:
  /// `interrupted` is set by SIGINT (InterruptGuard); the editor clears it when it reports kInterrupt.
  explicit LineEditor(std::atomic<bool>& interrupted);
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  /// Shows `prompt` (one column per byte) and reads one line without its line break.
  LineEnd read(const std::string& prompt, std::string& line);
  void add_history(const std::string& line) { history_.add(line); }

 private:
  class Terminal;

  LineEnd edit(const std::string& prompt, std::string& line);
  LineEnd read_plain(const std::string& prompt, std::string& line);
  bool read_key(char& key, LineEnd& end);
  void handle_key(char key, LineBuffer& buffer);
  void handle_escape(LineBuffer& buffer);
  void handle_numbered_key(const std::string& number, LineBuffer& buffer);
  void walk_history(bool older, LineBuffer& buffer);

  std::atomic<bool>& interrupted_;
  std::unique_ptr<Terminal> terminal_;  // null: no editing here
  LineHistory history_;
  bool pasting_ = false;
};

}  // namespace dspark::cli
