#pragma once
// The walk over a schema that makes its grammar. json_schema.cc decides what a schema is; schema_combine.cc
// puts schemas together; schema_objects.cc, schema_arrays.cc and schema_scalars.cc know the types.

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
#include "constrain/schema_judge.h"
#include "constrain/text_set.h"

namespace dspark {

/// One use. The first error stays in status(); after it everything returns kNothing.
class SchemaCompiler {
 public:
  using Json = nlohmann::ordered_json;
  using Node = GrammarIr::Node;
  /// A schema that no value satisfies (or an error).
  static constexpr Node kNothing = -1;

  SchemaCompiler(const Json& root, std::string_view name)
      : root_(root), name_(name), json_(ir_), judge_(root) {}
  Result<GrammarIr> run();

 private:
  /// What is made of keywords that are told by others ("if", "not", "dependentRequired", ...).
  enum class Told : uint8_t {
    kExactly,   // schemas that accept no other values, at worst fewer
    kLeftAway,  // nothing, so that more values are accepted
  };
  /// Something between commas. node: kNothing drops it.
  struct Part {
    Node node = kNothing;
    bool required = false;
  };
  /// Of "patternProperties".
  struct NamePattern {
    const Json* schema = nullptr;
    TextSet names;
  };
  struct Step;  // of "multipleOf"

  // json_schema.cc
  Node compile(const Json& schema, const std::string& place);
  Node compile_object(const Json& schema, const std::string& place);
  bool check_keywords(const Json& schema, const std::string& place);
  Node reference(const Json& schema, const std::string& place);
  Node rule_for(const std::string& key, const Json& schema, const std::string& place);
  Node all_of(const Json& schema, const std::string& place);
  Node branches(const Json& schema, const char* key, const std::string& place);
  Node enumeration(const Json& schema, const std::string& place);
  /// Those of "const" and "enum" that the other keywords accept.
  std::optional<Json> allowed_values(const Json& schema, const std::string& place);
  Node by_type(const Json& schema, const std::string& place);
  std::vector<std::string> types_of(const Json& schema, const std::string& place);
  const Json* resolve(const std::string& pointer, const std::string& place);
  Node choice(std::vector<Node> parts);

  // schema_combine.cc
  static bool is_told_by_others(const std::string& key, const Json& schema);
  /// Without $ref and allOf at its top. Nothing: an error, or a contradiction.
  std::optional<Json> flatten(const Json& schema, const std::string& place, int depth,
                              Told told = Told::kExactly);
  std::optional<Json> close_unevaluated(Json schema, const Json& unevaluated, const std::string& place);
  std::optional<Json> merge(const Json& a, const Json& b, const std::string& place, int depth, Told told);
  std::optional<Json> settled(const Json& rest, Json entry, const std::string& place, int depth, Told told);
  std::optional<Json> sure_values(const Json& flat) const;
  std::optional<Json> rewritten(const Json& schema, const std::string& place, Told told);
  Json conditional(const Json& schema, const std::string& place);
  Json opposite(const Json& schema, const std::string& place);
  void add_dependencies(const std::string& key, const Json& wanted, const std::string& place, Json& parts);
  /// Whether it can be shown that the schema accepts no value. Never an error.
  bool is_nothing(const Json& schema, int depth);
  bool flat_is_nothing(const Json& flat, int depth);
  bool any_part_is_something(const Json& flat, const char* key, int depth);
  /// Schemas that keep part `i` of a "oneOf" apart from the others. Nothing: an error. gap: a keyword whose
  /// refusals were not told (schema_opposite.h), if it was empty.
  std::optional<Json> apart_from_others(const Json& base, const Json& list, size_t i,
                                        const std::string& place, std::string& gap);
  Json ways_apart(const Json& mine, const Json& other, std::string& gap);
  std::optional<std::string> required_but_never_written(const Json& schema, const Json& other,
                                                        const std::string& place);

  // schema_objects.cc
  Node object(const Json& schema, const std::string& place);
  std::vector<NamePattern> name_patterns(const Json& schema, const std::string& place);
  Node member_value(const Json& schema, const std::string& name, const std::vector<NamePattern>& patterns,
                    const std::string& place);
  Node other_members(const Json& schema, const std::vector<std::string>& names,
                     const std::vector<NamePattern>& patterns, const std::string& place);
  Node members_by_pattern(const Json& schema, TextSet names, const std::vector<NamePattern>& patterns,
                          const std::string& place);
  std::optional<TextSet> allowed_names(const Json& schema, const std::string& place);
  Node member(Node name, Node value);
  /// Parts in their order with commas between, optional ones left out or not, min .. max of them; `extra`
  /// (unless kNothing) as often as one likes behind them.
  Node selection(const std::vector<Part>& parts, int32_t min, int32_t max, Node extra,
                 const std::string& place);

  // schema_arrays.cc
  Node array(const Json& schema, const std::string& place);
  Node list(const std::vector<Node>& prefix, Node rest, int32_t min, int32_t max);
  Node unique_items(const Json& schema, int32_t min, int32_t max, const std::string& place);
  Node unique_in_any_order(const Json& schema, const std::vector<Json>& values, int32_t min, int32_t max,
                           const std::string& place);
  Node containing(const Json& schema, int32_t min, int32_t max, const std::string& place);
  /// All values that a schema accepts, when they are few.
  std::optional<std::vector<Json>> few_values(const Json& schema, const std::string& place, int depth);

  // schema_scalars.cc
  Node type(const std::string& name, const Json& schema, const std::string& place);
  Node string(const Json& schema, const std::string& place);
  Node format(const std::string& name, int32_t min, int32_t max, const std::string& place);
  Node pattern(const Json& schema, const std::string& place, int32_t min, int32_t max);
  std::optional<TextSet> text_set(const Json& schema, int32_t min, int32_t max, const std::string& place);
  Node integer(const Json& schema, const std::string& place);
  Node number(const Json& schema, const std::string& place);
  std::optional<Step> step_of(const Json& schema, const std::string& place);
  Node whole_multiples(int64_t step, int64_t lo, int64_t hi, const std::string& place);
  Node multiples(const Step& step, const std::optional<DecimalBound>& lo,
                 const std::optional<DecimalBound>& hi, const std::string& place);
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
  SchemaJudge judge_;
  Status status_;
  std::map<std::string, int32_t> rules_;  // "$ref" targets and composed schemas -> rule
  int depth_ = 0;
  int64_t n_combined_ = 0;     // schemas put together, large ones count more
  int64_t n_proofs_ = 0;       // the same for proofs that one is empty
  size_t composed_bytes_ = 0;  // of the names of composed schemas
};

}  // namespace dspark
