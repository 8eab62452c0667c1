#pragma once
// Arguments of a tool in the notations of models, as grammars.

#include <string_view>

#include "base/status.h"
#include "constrain/grammar_ir.h"
#include "constrain/output_format.h"

namespace dspark {

/// All arguments that `schema` allows (empty: any), or a part of them. Formats in JSON keep to every keyword;
/// in the others text keeps to enum and const, but not to its length, pattern or format.
/// errors: those of compile_json_schema with the label; unsupported: what the notation cannot be held to,
/// with keyword and place; resource_exhausted: references and alternatives that lead to too many parts.
Result<GrammarIr::Node> parameters_in(ToolFormat format, GrammarIr& ir, std::string_view schema,
                                      std::string_view label);

}  // namespace dspark
