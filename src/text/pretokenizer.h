#pragma once
// Cuts text into words; BPE merges never cross a word boundary.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/regex.h"

namespace dspark {

/// Steps applied one after the other, each to every word of the step before it, as in tokenizer.json.
/// No step: the whole text is one word. thread: const members from any thread.
class PreTokenizer {
 public:
  /// What happens to the parts a pattern matches (the "delimiters"), names as in tokenizer.json.
  enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

  /// The pre-tokeniser of a GGUF file by its tokenizer.ggml.pre ("" and "default" are accepted).
  /// errors: unsupported, listing the known names.
  static Result<PreTokenizer> named(std::string_view name);
  /// True when a file with this tokenizer.ggml.pre takes a word that is a token as it is, whatever the
  /// merges.
  static bool ignores_merges(std::string_view name);
  /// True for the Llama 3 family, which adds BOS when the file does not say.
  static bool adds_bos(std::string_view name);

  void add_split(Regex pattern, Behavior behavior, bool invert);
  /// Numbers (Unicode category N) apart from other text; `individual`: each digit apart.
  void add_digits(bool individual);

  /// The steps of `other`, after those here.
  void append(PreTokenizer other);

  bool empty() const { return steps_.empty(); }

  /// Calls `emit(begin, end)` for every word, in order, with byte positions in `text`.
  /// requires: `text` fit for Regex::find.
  void split(std::string_view text, Regex::Scratch& scratch,
             const std::function<void(size_t, size_t)>& emit) const;

 private:
  struct Step {
    std::vector<Regex> regex;  // one element, or none for digits
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;
    bool individual_digits = false;
  };
  struct Walk;
  std::vector<Step> steps_;
};

}  // namespace dspark
