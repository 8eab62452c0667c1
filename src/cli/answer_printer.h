#pragma once
// Writes an answer to the terminal or a pipe while it is generated.

#include <optional>
#include <string>
#include <string_view>

#include "cli/draft_view.h"
#include "cli/progress.h"
#include "engine/request.h"

namespace dspark::cli {

/// How an answer is shown.
struct PrinterOptions {
  bool silent = false;                    // progress only: the text is printed later as JSON
  bool color = false;                     // text of accepted drafts in green, the view of drafts in colours
  const Tokenizer* draft_view = nullptr;  // show every token by its origin, spelled by this tokenizer
};

class AnswerPrinter {
 public:
  explicit AnswerPrinter(const PrinterOptions& options);
  /// Use as the callback of a request.
  void update(const StreamUpdate& update);
  /// Ends the last line if the answer did not; with the view of drafts, its statistics follow.
  void finish();

 private:
  void print(std::string_view text);
  void print_drafts(const StreamUpdate& update);

  ProgressLine progress_;
  PrinterOptions options_;
  std::optional<DraftView> view_;
  SpeculationStats stats_;  // of the latest update, for the view
  bool started_ = false;
  bool at_line_start_ = true;
};

}  // namespace dspark::cli
