#pragma once
// Reads lines from a terminal, with editing keys and history; from anything else, plain lines.

#include <string>

#include "cli/line_buffer.h"

namespace dspark::cli {

enum class LineEnd {
  kLine,       // Enter
  kEndOfFile,  // Ctrl-D on an empty line, or the input ended
  kInterrupt,  // Ctrl-C; the text typed so far is given back
};

/// Editing: arrows, Home, End, Backspace, Delete, Ctrl-A E B F K U W L, Up and Down for history. Pasted line
/// breaks become part of the line. thread: one at a time.
class LineEditor {
 public:
  /// Shows `prompt` (one column per byte) and reads one line without its line break.
  LineEnd read(const std::string& prompt, std::string& line);
  void add_history(const std::string& line) { history_.add(line); }

 private:
  LineEnd edit(const std::string& prompt, std::string& line);
  LineEnd read_plain(std::string& line);
  void handle_escape(LineBuffer& buffer);
  void handle_key(char key, LineBuffer& buffer);
  void handle_numbered_key(const std::string& number, LineBuffer& buffer);
  void walk_history(bool older, LineBuffer& buffer);

  LineHistory history_;
  bool pasting_ = false;
};

}  // namespace dspark::cli
