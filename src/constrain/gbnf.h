#pragma once
// GBNF, the notation of llama.cpp for grammars: rules `name ::= ...` of literals, character classes, groups,
// alternatives and repetitions. See docs/constrained.md for all of it.

#include <string_view>

#include "base/status.h"
#include "constrain/grammar_ir.h"

namespace dspark {

/// The grammar with the root rule "root". errors: invalid_argument "NAME:LINE:COLUMN: what was expected and
/// found"; resource_exhausted (text, nesting or repetition beyond reason).
Result<GrammarIr> parse_gbnf(std::string_view text, std::string_view name);

}  // namespace dspark
