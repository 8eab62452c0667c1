#pragma once
// What a schema of a tool's arguments says, as far as grammars of notations that are not JSON have to know
// it.

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "constrain/parameter_types.h"
#include "constrain/schema_judge.h"

namespace dspark {

/// Questions about a schema and its parts. `place` is that of a part, as a JSON pointer ("/properties/a");
/// messages begin "LABEL#PLACE: ". thread: one at a time.
class ParameterSchema {
 public:
  using Json = nlohmann::ordered_json;
  /// Objects, lists, references and alternatives are followed so deep.
  static constexpr int kMaxDepth = 16;

  struct Member {
    std::string name;
    const Json* schema = nullptr;  // a part of the object's
    std::string place;
    bool is_required = false;
  };
  /// Values that a schema lists in "enum" and "const", its own or those of its parts.
  struct Listed {
    bool is_list = false;  // else it accepts values that are not listed
    std::vector<Json> values;
  };

  /// root: an object, which must outlive this, like the label.
  ParameterSchema(const Json& root, std::string_view label);

  const Json& root() const { return root_; }
  std::string_view label() const { return label_; }

  // Errors.
  std::string at(const std::string& place) const;
  /// unsupported: a keyword that the notation is not held to.
  Status beyond(const char* keyword, const std::string& place) const;
  Status accepts_nothing(const std::string& place) const;
  Status too_deep(const std::string& place) const;
  Status too_large(const std::string& place) const;
  /// errors: unsupported: keywords that only JSON is held to; of an object also those that combine schemas.
  Status check_value(const Json& schema, const std::string& place) const;
  Status check_object(const Json& schema, const std::string& place) const;

  /// Members that an object may have: the declared ones, then those that are only required, which are what
  /// members that are not declared may be.
  static std::vector<Member> members_of(const Json& schema, const std::string& place);
  /// Types that it allows at most.
  JsonTypes types_of(const Json& schema) const;
  /// The listed values that all keywords accept. texts_only: those that are texts; what allows no text lists
  /// none. errors: unsupported (it is not known whether one is accepted), resource_exhausted.
  Result<Listed> accepted(const Json& schema, bool texts_only, const std::string& place) const;
  /// The schema together with those that it refers to and that its "allOf" lists, without annotations and
  /// without "nullable", which only lets in more; `false` when they contradict each other. errors:
  /// unsupported, resource_exhausted.
  Result<Json> resolved(const Json& schema, const std::string& place, int depth) const;
  /// The parts of "anyOf" or "oneOf" (keyword), each resolved together with what stands beside them. errors:
  /// as resolved; unsupported: parts of a "oneOf" that may accept the same value.
  Result<std::vector<Json>> alternatives(const Json& schema, const char* keyword, const std::string& place,
                                         int depth) const;
  /// Whether a schema has references (elsewhere: to other places than definitions) anywhere inside.
  static bool has_reference(const Json& schema, bool elsewhere);

 private:
  const Json* target_of(const Json& schema) const;
  bool is_too_much() const;
  Listed listed(const Json& schema, bool texts_only, int depth) const;
  Listed listed_by_all(const Json& parts, bool texts_only, int depth) const;
  JsonTypes written_types(const Json& flat) const;
  bool list_others(const Json& a, const Json& b) const;
  bool is_apart(const Json& a, JsonTypes written, const Json& b, JsonTypes allowed) const;

  const Json& root_;
  const std::shared_ptr<const nlohmann::json> plain_root_;  // the root once more, without the order
  const std::string_view label_;
  const SchemaJudge judge_;
  mutable int64_t n_steps_ = 0;          // of looking for types and values and of putting together
  mutable size_t n_listed_bytes_ = 0;    // of listed values, as JSON, as often as they are copied
  mutable size_t n_composed_bytes_ = 0;  // of schemas that were put together
};

}  // namespace dspark
