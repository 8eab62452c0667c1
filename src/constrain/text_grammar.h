#pragma once
// Free text as a grammar: all of it but for what certain marks in it lead to.

#include <optional>
#include <string_view>
#include <vector>

#include "constrain/grammar_ir.h"

namespace dspark {

/// A piece of text that means something wherever it stands.
struct TextMark {
  std::string_view text;                    // not empty, UTF-8
  std::optional<GrammarIr::Node> followed;  // by this; nothing: the mark may not stand in the text
  bool goes_on = false;                     // behind that, the free text goes on; else all ends there
};

/// Text in which marks are followed by what they ask for. may_end: it may end before a mark, too. requires:
/// no mark inside of another.
GrammarIr::Node text_with_marks(GrammarIr& ir, const std::vector<TextMark>& marks, bool may_end);

/// Any text up to and with the first `marker`. requires: UTF-8.
GrammarIr::Node text_through(GrammarIr& ir, std::string_view marker);

/// Any text, the empty one too, that does not begin with one of `beginnings`, behind white space or at once.
/// requires: UTF-8, not empty, without white space in front, and none begins another.
GrammarIr::Node text_not_beginning_with(GrammarIr& ir, const std::vector<std::string_view>& beginnings);

/// Spaces, tabs and line ends, or none.
GrammarIr::Node blanks(GrammarIr& ir);

}  // namespace dspark
