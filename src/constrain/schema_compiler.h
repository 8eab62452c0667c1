#pragma once
// The walk over a schema that makes its grammar. json_schema.cc decides what a schema is; schema_types.cc
// knows objects, arrays, strings and numbers.

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "constrain/grammar_ir.h"
#include "constrain/json_terminals.h"

namespace dspark {

/// One use. The first error stays in status(); after it everything returns kNothing.
class SchemaCompiler {
 public:
  using Json = nlohmann::ordered_json;
  using Node = GrammarIr::Node;
  /// A schema that no value satisfies (or an error).
  static constexpr Node kNothing = -1;

  SchemaCompiler(const Json& root, std::string_view name) : root_(root), name_(name), json_(ir_) {}
  Result<GrammarIr> run();

 private:
  // json_schema.cc
  Node compile(const Json& schema, const std::string& place);
  Node compile_object(const Json& schema, const std::string& place);
  bool check_keywords(const Json& schema, const std::string& place);
  Node reference(const Json& schema, const std::string& place);
  Node rule_for(const std::string& key, const Json& schema, const std::string& place);
  Node all_of(const Json& schema, const std::string& place);
  Node branches(const Json& schema, const char* key, const std::string& place);
  Node enumeration(const Json& schema, const std::string& place);
  Node by_type(const Json& schema, const std::string& place);
  std::vector<std::string> types_of(const Json& schema, const std::string& place);
  const Json* resolve(const std::string& pointer, const std::string& place);
  /// Without $ref and allOf at its top. Nothing: an error, or a contradiction.
  std::optional<Json> flatten(const Json& schema, const std::string& place, int depth);
  std::optional<Json> merge(const Json& a, const Json& b, const std::string& place);
  Node choice(std::vector<Node> parts);

  // schema_types.cc
  Node type(const std::string& name, const Json& schema, const std::string& place);
  Node object(const Json& schema, const std::string& place);
  Node members(const Json& schema, const std::string& place);
  Node dictionary(const Json& schema, const std::string& place);
  Node additional(const Json& schema, const std::string& place);
  Node array(const Json& schema, const std::string& place);
  Node string(const Json& schema, const std::string& place);
  Node pattern(const Json& schema, const std::string& place, int32_t min, int32_t max);
  Node integer(const Json& schema, const std::string& place);
  Node number(const Json& schema, const std::string& place);
  std::optional<DecimalBound> bound(const Json& schema, bool is_lower, const std::string& place);
  std::optional<int64_t> integer_bound(const Json& schema, bool is_lower, const std::string& place);
  int32_t count(const Json& schema, const char* key, int32_t fallback, const std::string& place);

  Node fail(Status status);
  Node fail(const std::string& place, const std::string& message);
  std::string at(const std::string& place) const;

  const Json& root_;
  std::string name_;
  GrammarIr ir_;
  JsonTerminals json_;
  Status status_;
  std::map<std::string, int32_t> rules_;  // "$ref" targets and composed schemas -> rule
  int depth_ = 0;
};

}  // namespace dspark
