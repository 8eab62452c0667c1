#pragma once
// Grammars that a text can be held to: what there is of them, and how to compile them. See
// docs/constrained.md.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace dspark {

class Automaton;  // constrain/automaton.h
class GrammarIr;  // constrain/grammar_ir.h

/// Longest source of a grammar or a schema.
inline constexpr size_t kMaxGrammarBytes = size_t{1} << 20;

/// A compiled grammar. Cheap to copy (shared). thread: const, any thread.
class Grammar {
 public:
  /// GBNF text. name: for messages, e.g. the path. errors: invalid_argument "NAME:LINE:COLUMN: ...";
  /// resource_exhausted.
  static Result<Grammar> from_gbnf(std::string_view text, std::string_view name = "grammar");
  /// JSON Schema. errors: invalid_argument (not JSON, contradictions) and unsupported (keywords), naming the
  /// place inside the schema; resource_exhausted.
  static Result<Grammar> from_json_schema(std::string_view schema, std::string_view name = "json_schema");
  /// Any JSON object.
  static Result<Grammar> json_object();
  /// From a grammar that the program made itself.
  static Result<Grammar> from_ir(const GrammarIr& ir);

  /// Whether the whole text belongs to the grammar.
  bool matches(std::string_view text) const;
  /// Whether the text can be continued to one that does.
  bool matches_start(std::string_view text) const;
  const Automaton& automaton() const { return *automaton_; }

 private:
  explicit Grammar(std::shared_ptr<const Automaton> automaton) : automaton_(std::move(automaton)) {}
  int32_t end_state(std::string_view text, bool* accepts) const;
  std::shared_ptr<const Automaton> automaton_;
};

}  // namespace dspark
