#pragma once
// Grammars as trees of expressions over Unicode code points: what the GBNF reader and the JSON Schema
// compiler produce and what the automaton (constrain/automaton.h) is built from.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dspark {

/// Code points first .. last, both included.
struct CodeRange {
  uint32_t first = 0;
  uint32_t last = 0;
};

inline constexpr uint32_t kMaxCodePoint = 0x10FFFF;

/// Sorted, merged, without surrogates and without what lies above U+10FFFF.
std::vector<CodeRange> normalise_ranges(std::vector<CodeRange> ranges);
/// Everything else, normalised. requires: normalised ranges.
std::vector<CodeRange> complement_ranges(const std::vector<CodeRange>& ranges);

/// Expressions and the rules that name them. Node numbers are only valid for the grammar that made them.
class GrammarIr {
 public:
  using Node = int32_t;
  static constexpr int32_t kUnbounded = -1;
  enum class Kind : uint8_t { kBytes, kClass, kSequence, kChoice, kRepeat, kCall };

  struct Expression {
    Kind kind = Kind::kSequence;
    int32_t a = 0;  // kRepeat: the repeated node; kCall: the rule
    int32_t min = 0;
    int32_t max = 0;                // kRepeat: kUnbounded or >= min
    std::string bytes;              // kBytes
    std::vector<CodeRange> ranges;  // kClass, normalised
    std::vector<Node> parts;        // kSequence (empty: matches nothing but the empty text), kChoice
  };
  struct Rule {
    std::string name;
    Node body = -1;  // -1: not defined (yet)
  };

  Node empty() { return sequence({}); }
  /// Exactly these bytes.
  Node literal(std::string_view bytes);
  /// One code point of `ranges`.
  Node char_class(std::vector<CodeRange> ranges);
  Node not_in(std::vector<CodeRange> ranges) {
    return char_class(complement_ranges(normalise_ranges(std::move(ranges))));
  }
  Node sequence(std::vector<Node> parts);
  /// requires: at least one part.
  Node choice(std::vector<Node> parts);
  Node repeat(Node node, int32_t min, int32_t max);
  Node optional(Node node) { return repeat(node, 0, 1); }
  Node call(int32_t rule);

  /// A new rule without a body. Names are for messages and need not differ.
  int32_t add_rule(std::string name);
  void set_body(int32_t rule, Node body) { rules[static_cast<size_t>(rule)].body = body; }
  /// A call of a new rule with this body.
  Node named(std::string name, Node body);

  /// Least and most characters of its texts (kUnbounded: no most; classes count one, bytes must be ASCII).
  /// requires: no recursion.
  std::pair<int32_t, int32_t> lengths(Node node) const;

  /// All rules of another grammar. returns: a call of its root.
  Node append(const GrammarIr& other);

  std::vector<Expression> nodes;
  std::vector<Rule> rules;
  int32_t root = -1;

 private:
  Node add(Expression expression);
};

}  // namespace dspark
