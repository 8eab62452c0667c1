#pragma once
// Regular expressions of the keyword "pattern" as grammars over the characters of a JSON string.

#include <cstdint>
#include <string_view>

#include "base/status.h"
#include "constrain/json_terminals.h"

namespace dspark {

/// The content of strings that match, without quotes, and how long such strings are, in characters.
struct PatternContent {
  GrammarIr::Node node = -1;
  int32_t min_length = 0;
  int32_t max_length = 0;     // GrammarIr::kUnbounded: no maximum
  GrammarIr::Node unit = -1;  // the pattern is ^unit{min,max}$, unit being one character; else -1
};

/// The regular part of ECMA-262: alternatives, groups, classes, \d \w \s, escapes, quantifiers, `^` and `$`
/// at the ends of alternatives. A pattern may match anywhere in the string, unless it is anchored. errors:
/// invalid_argument, unsupported (look-around, back references, \b, \p), with the offset.
Result<PatternContent> compile_pattern(std::string_view pattern, GrammarIr& ir, JsonTerminals& json);
/// The same over plain characters instead of those of a JSON string: sequences, choices, repetitions and
/// classes only.
Result<GrammarIr::Node> compile_plain_pattern(std::string_view pattern, GrammarIr& ir);

}  // namespace dspark
