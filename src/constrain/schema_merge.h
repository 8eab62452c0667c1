#pragma once
// One schema that says what two say together, for allOf and for keywords beside $ref and anyOf.

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace dspark {

/// Both are objects without $ref, allOf and nullable at their top. Members that cannot be merged at once
/// become an allOf of both ("items", members of "properties", ...). Annotations are dropped. errors:
/// unsupported (two patterns or formats, "patternProperties" beside "additionalProperties", two "contains").
Result<nlohmann::ordered_json> merge_schemas(const nlohmann::ordered_json& a,
                                             const nlohmann::ordered_json& b);

/// Keywords that say nothing about which values are accepted.
bool is_annotation(const std::string& keyword);
/// The schema without a keyword and without annotations.
nlohmann::ordered_json schema_without(const nlohmann::ordered_json& schema, std::string_view key);

}  // namespace dspark
