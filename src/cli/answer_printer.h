#pragma once
// Writes an answer to the terminal or a pipe while it is generated.

#include <string>
#include <string_view>

#include "cli/progress.h"
#include "engine/request.h"

namespace dspark::cli {

class AnswerPrinter {
 public:
  /// silent: show progress only, the text is printed later as JSON.
  AnswerPrinter(bool silent, bool color) : silent_(silent), color_(color) {}
  /// Use as the callback of a request.
  void update(const StreamUpdate& update);
  /// Ends the last line if the answer did not.
  void finish();

 private:
  void print(std::string_view text, bool drafted);

  ProgressLine progress_;
  bool silent_;
  bool color_;
  bool at_line_start_ = true;
};

}  // namespace dspark::cli
