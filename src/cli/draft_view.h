#pragma once
// Shows what speculation did to a text: every token by its origin, and the drafts that came to nothing.

#include <span>
#include <string>
#include <string_view>

#include "engine/request.h"
#include "text/tokenizer.h"

namespace dspark::cli {

/// What a piece of the view stands for.
enum class DraftMark { kPlain, kAccepted, kLookedUp, kCorrection, kBonus, kRejected, kTrimmed };

/// Turns updates of one request into text with colours (ANSI) or, without, with brackets around the pieces.
class DraftView {
 public:
  DraftView(const Tokenizer& tokenizer, bool color) : tokenizer_(tokenizer), color_(color) {}

  /// One line that explains the marks, with its line break.
  std::string legend() const;
  /// The view of one step: accepted drafts, then rejected and trimmed ones, then the target's own token.
  /// A character made of several tokens appears with the token that completes it.
  std::string render(const StreamUpdate& update);
  /// Bytes of a character that never became complete.
  std::string finish();

 private:
  void append(DraftMark mark, std::string_view text, std::string& out) const;
  void append_committed(const TokenEvent& event, DraftMark mark, std::string& out);
  void append_dropped(DraftMark mark, std::span<const int32_t> tokens, std::string& out) const;
  void flush_run(std::string& out);

  const Tokenizer& tokenizer_;
  bool color_;
  std::string pending_;  // bytes of an unfinished character
  std::string run_;      // text of neighbours with the same mark, not yet written
  DraftMark run_mark_ = DraftMark::kPlain;
};

}  // namespace dspark::cli
