#pragma once
// What a schema refuses, told as schemas of what is accepted instead: for "not", for the else branch of "if"
// and for "oneOf".

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace dspark {

/// Schemas, each of which accepts only values that the schema in question refuses.
struct Opposite {
  using Json = nlohmann::ordered_json;
  /// All of them as one schema; {"anyOf":[false]} for none.
  Json as_schema() const;

  std::vector<Json> alternatives;
  std::string gap;  // empty: every refused value is told; else a keyword whose refusals are not
};

/// root: what references start from. Values are told by type, "enum", "const", bounds, lengths, patterns,
/// "required", "properties" and combinations of those; other keywords leave a gap.
Opposite opposite_of(const nlohmann::ordered_json& schema, const nlohmann::ordered_json& root);

/// {"type":"string","not":{"anyOf":[...]}} with lists of strings and patterns only: the form of "not" that
/// opposites are told in, and that grammars are made for.
bool is_string_exclusion(const nlohmann::ordered_json& schema);

}  // namespace dspark
