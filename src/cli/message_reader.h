#pragma once
// Messages of a chat: one line, or several with a trailing backslash or between lines of """.

#include <atomic>
#include <string>

#include "cli/line_editor.h"

namespace dspark::cli {

class MessageReader {
 public:
  /// interrupted: see LineEditor.
  explicit MessageReader(std::atomic<bool>& interrupted) : editor_(interrupted) {}
  /// Reads one message into `message`, line breaks kept inside it, none at its end. Ctrl-C in the middle
  /// gives kInterrupt and what was there so far.
  LineEnd read(std::string& message);

 private:
  LineEnd read_block(std::string& message);

  LineEditor editor_;
};

}  // namespace dspark::cli
