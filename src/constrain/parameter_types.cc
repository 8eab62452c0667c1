#include "constrain/parameter_types.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "constrain/call_scanner.h"
#include "constrain/text_scan.h"

namespace dspark {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 32;
// References and alternatives multiply. What is left beyond this many steps may be anything.
constexpr int64_t kMaxSteps = 1'000'000;

JsonTypes type_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return kJsonNull;
    case Json::value_t::boolean:
      return kJsonBoolean;
    case Json::value_t::string:
      return kJsonString;
    case Json::value_t::array:
      return kJsonArray;
    case Json::value_t::object:
      return kJsonObject;
    default:
      return kJsonNumber;
  }
}

JsonTypes type_named(const Json& name) {
  if (name == "null") return kJsonNull;
  if (name == "boolean") return kJsonBoolean;
  if (name == "integer" || name == "number") return kJsonNumber;
  if (name == "string") return kJsonString;
  if (name == "array") return kJsonArray;
  if (name == "object") return kJsonObject;
  return kJsonAny;
}

class SchemaTypes {
 public:
  // n_steps: counted on from what it is.
  SchemaTypes(const Json& root, int64_t& n_steps, int64_t max_steps)
      : root_(root), n_steps_(n_steps), max_steps_(max_steps) {}

  JsonTypes of(const Json& schema, int depth = 0) const {
    if (!schema.is_object() || depth > kMaxDepth || n_steps_ > max_steps_) return kJsonAny;
    n_steps_ += 1 + static_cast<int64_t>(schema.size());
    JsonTypes types = kJsonAny;
    for (const auto& [key, value] : schema.items()) {
      if (key == "type") types &= value.is_array() ? any_of(value, type_named) : type_named(value);
      if (key == "enum" && value.is_array()) types &= any_of(value, type_of);
      if (key == "const") types &= type_of(value);
      if (key == "$ref") types &= target(value, depth);
      if ((key == "anyOf" || key == "oneOf") && value.is_array())
        types &= any_of(value, [&](const Json& part) { return of(part, depth + 1); });
      if (key == "allOf" && value.is_array()) {
        n_steps_ += static_cast<int64_t>(value.size());
        for (const Json& part : value) types &= of(part, depth + 1);
      }
    }
    if (schema.value("nullable", Json()) == true) types |= kJsonNull;
    return types;
  }

 private:
  template <typename F>
  JsonTypes any_of(const Json& values, F types_of) const {
    n_steps_ += static_cast<int64_t>(values.size());
    JsonTypes types = 0;
    for (const Json& value : values) types |= types_of(value);
    return types;
  }

  JsonTypes target(const Json& reference, int depth) const {
    if (!reference.is_string()) return kJsonAny;
    const auto text = reference.get<std::string>();
    if (!text.starts_with("#/")) return kJsonAny;
    // Definitions are one name below the root; other places are not worth their escapes.
    const size_t slash = text.find('/', 2);
    if (slash == std::string::npos) return kJsonAny;
    const auto group = root_.find(text.substr(2, slash - 2));
    if (group == root_.end() || !group->is_object()) return kJsonAny;
    const auto found = group->find(text.substr(slash + 1));
    return found == group->end() ? kJsonAny : of(*found, depth + 1);
  }

  const Json& root_;
  int64_t& n_steps_;
  const int64_t max_steps_;
};

}  // namespace

JsonTypes types_in_schema(const nlohmann::json& schema, const nlohmann::json& root, int64_t& n_steps,
                          int64_t max_steps) {
  return SchemaTypes(root, n_steps, max_steps).of(schema);
}

ParameterTypes::ParameterTypes(std::string_view schema) {
  const Json root = Json::parse(schema, nullptr, false);
  if (!root.is_object()) return;
  int64_t n_steps = 0;
  const SchemaTypes types(root, n_steps, kMaxSteps);
  const auto properties = root.find("properties");
  if (properties != root.end() && properties->is_object()) {
    for (const auto& [name, property] : properties->items()) known_[name] = types.of(property);
  }
  const auto others = root.find("additionalProperties");
  if (others != root.end()) others_ = types.of(*others);
}

JsonTypes ParameterTypes::of(const std::string& name) const {
  const auto found = known_.find(name);
  return found == known_.end() ? others_ : found->second;
}

std::string json_of_text(std::string_view text, JsonTypes types) {
  const std::optional<std::string> json = literal_as_json(trimmed(text));
  if (json) {
    const bool is_allowed = (types & type_of(Json::parse(*json, nullptr, false))) != 0;
    if (is_allowed || (types & kJsonString) == 0) return *json;
  }
  return json_quoted(text);
}

}  // namespace dspark
