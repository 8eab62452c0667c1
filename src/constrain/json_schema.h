#pragma once
// JSON Schema to a grammar whose texts are JSON values that the schema accepts. Which keywords are
// understood, and what the texts look like (order of members, white space), is told in docs/json_schema.md.

#include <string_view>

#include "base/status.h"
#include "constrain/grammar_ir.h"

namespace dspark {

/// errors: invalid_argument (not JSON, a keyword's value of the wrong kind, a schema that accepts nothing),
/// unsupported (keywords and combinations by name), resource_exhausted; messages give the place as a JSON
/// pointer: "NAME#/properties/a: ...".
Result<GrammarIr> compile_json_schema(std::string_view schema, std::string_view name);

}  // namespace dspark
