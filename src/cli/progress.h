#pragma once
// One changing line on stderr, for people only.

#include <string>

namespace dspark::cli {

/// Shows a line and erases it when it is replaced or the object goes. Does nothing unless stderr is a
/// terminal, so logs and pipes never see it.
class ProgressLine {
 public:
  explicit ProgressLine(bool enabled = true);
  ~ProgressLine() { clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void show(const std::string& text);
  void clear();

 private:
  bool enabled_;
  bool shown_ = false;
};

/// Whether a person sits at that end.
bool stdin_is_terminal();
bool stdout_is_terminal();
bool stderr_is_terminal();

}  // namespace dspark::cli
