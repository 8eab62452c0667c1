#pragma once
// The flags that hold an answer to a grammar.

#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "constrain/grammar.h"
#include "engine/loader.h"

namespace CLI {
class App;
}

namespace dspark::cli {

struct GrammarFlags {
  std::optional<std::string> grammar;      // --grammar: path of a GBNF file
  std::optional<std::string> json_schema;  // --json-schema: path, or the schema itself
  bool json_object = false;                // --json-object
};

void add_grammar_flags(CLI::App& command, GrammarFlags& flags);

/// Reads and compiles what the flags name; nothing without them. Needs no model, so mistakes are told before
/// one is loaded. errors: two of the flags, unreadable files, those of Grammar.
Result<std::optional<Grammar>> read_grammar(const GrammarFlags& flags);

/// The grammar over the model's tokens, for answers of at most `max_tokens` (-1: no limit).
std::shared_ptr<const TokenConstraint> make_constraint(const Grammar& grammar, const LoadedModel& loaded,
                                                       int32_t max_tokens);

}  // namespace dspark::cli
