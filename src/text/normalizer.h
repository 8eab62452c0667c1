#pragma once
// Rewriting of text before it is cut into words: Unicode normal forms, replacements, prefixes.

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/regex.h"

namespace dspark {

/// A sequence of steps; empty = text stays as it is. thread: const members from any thread.
class Normalizer {
 public:
  enum class Form { kNfc, kNfd, kNfkc, kNfkd };

  void add_form(Form form);
  /// Every occurrence of `from` becomes `to`. requires: from not empty.
  void add_replace(std::string_view from, std::string_view to);
  void add_replace(Regex from, std::string_view to);
  /// Puts `prefix` before a non-empty text; with `unless_present` only when the text does not start with it.
  void add_prefix(std::string_view prefix, bool unless_present);

  bool empty() const { return steps_.empty(); }
  /// Text that is not valid UTF-8 passes regex and normal-form steps unchanged.
  std::string apply(std::string_view text) const;

 private:
  struct Step {
    enum class Kind { kForm, kReplace, kReplaceRegex, kPrefix, kPrefixUnlessPresent } kind;
    Form form = Form::kNfc;
    std::string from;
    std::string to;
    std::vector<Regex> regex;  // one element for kReplaceRegex
  };
  static void apply_step(const Step& step, std::string& text);
  std::vector<Step> steps_;
};

}  // namespace dspark
