#pragma once
// Sets of texts: what patterns, lengths and lists say about a string together, and what they do not.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "constrain/json_terminals.h"

namespace dspark {

/// A regular set of texts, as a deterministic automaton over code points. thread: const, any thread.
class TextSet {
 public:
  /// What needs more states is refused.
  static constexpr size_t kMaxStates = 4096;

  /// Every text.
  static TextSet all();
  /// These texts. requires: valid UTF-8.
  static TextSet of(const std::vector<std::string>& texts);
  /// Texts of min .. max characters (GrammarIr::kUnbounded: no maximum). errors: resource_exhausted.
  static Result<TextSet> lengths(int32_t min, int32_t max);
  /// What a pattern matches (constrain/json_pattern.h). errors: those of the pattern; resource_exhausted.
  static Result<TextSet> matching(std::string_view pattern);

  /// errors: resource_exhausted.
  Result<TextSet> intersect(const TextSet& other) const;
  TextSet complement() const;
  bool empty() const;
  /// requires: valid UTF-8.
  bool contains(std::string_view text) const;
  /// The content of JSON strings that hold these texts, without quotes; -1: there are none.
  GrammarIr::Node content(GrammarIr& ir, JsonTerminals& json) const;

 private:
  // Edges are sorted and cover all code points: each begins behind the one before it.
  struct Edge {
    uint32_t last = 0;
    int32_t target = 0;
  };
  struct State {
    std::vector<Edge> edges;
    bool accepts = false;
  };
  class Determiniser;  // text_set.cc

  // From which states a text of the set can still come.
  std::vector<bool> live_states() const;

  std::vector<State> states_;  // 0: the start
};

}  // namespace dspark
