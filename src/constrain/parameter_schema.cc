#include "constrain/parameter_schema.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "constrain/schema_merge.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

// Bounds of the work for one schema: references and alternatives multiply.
constexpr int64_t kMaxSteps = 4'000'000;
constexpr size_t kMaxComposedBytes = size_t{8} << 20;
// Listed values are copied as often as something refers to them.
constexpr size_t kMaxListedBytes = size_t{64} << 20;
constexpr size_t kMaxOneOf = 256;
// Values of other schemas' lists are looked for in these lists.
constexpr size_t kMaxForeignValues = 2048;

// What only JSON is held to. Passing over it would let through what the schema forbids.
constexpr const char* kJsonOnly[] = {"not",
                                     "if",
                                     "dependentRequired",
                                     "dependentSchemas",
                                     "dependencies",
                                     "patternProperties",
                                     "propertyNames",
                                     "unevaluatedProperties",
                                     "minProperties",
                                     "maxProperties",
                                     "prefixItems",
                                     "contains",
                                     "uniqueItems"};

bool is_required(const Json& schema, const std::string& name) {
  const auto required = schema.find("required");
  return required != schema.end() && std::find(required->begin(), required->end(), name) != required->end();
}

bool excludes_text(const Json& schema) {
  const auto type = schema.find("type");
  if (type == schema.end()) return false;
  const Json types = type->is_array() ? *type : Json::array({*type});
  return std::find(types.begin(), types.end(), "string") == types.end();
}

}  // namespace

ParameterSchema::ParameterSchema(const Json& root, std::string_view label)
    : root_(root),
      plain_root_(std::make_shared<const nlohmann::json>(nlohmann::json::parse(root.dump()))),
      label_(label),
      judge_(root) {}

std::string ParameterSchema::at(const std::string& place) const {
  return std::string(label_) + "#" + place + ": ";
}
Status ParameterSchema::beyond(const char* keyword, const std::string& place) const {
  return unsupported(at(place) + "'" + keyword + "' cannot be forced in this model's notation");
}
Status ParameterSchema::accepts_nothing(const std::string& place) const {
  return invalid_argument(at(place) + "the schema accepts no value");
}
Status ParameterSchema::too_deep(const std::string& place) const {
  return unsupported(at(place) + "nested too deep to be forced in this model's notation");
}
Status ParameterSchema::too_large(const std::string& place) const {
  return resource_exhausted(at(place) + "references and alternatives lead to too many parts or values");
}

Status ParameterSchema::check_value(const Json& schema, const std::string& place) const {
  for (const char* keyword : kJsonOnly) {
    const auto it = schema.find(keyword);
    if (it != schema.end() && *it != false) return beyond(keyword, place);
  }
  return ok_status();
}

Status ParameterSchema::check_object(const Json& schema, const std::string& place) const {
  for (const char* keyword : {"allOf", "anyOf", "oneOf", "$ref", "enum", "const"}) {
    if (schema.contains(keyword)) return beyond(keyword, place);
  }
  return check_value(schema, place);
}

std::vector<ParameterSchema::Member> ParameterSchema::members_of(const Json& schema,
                                                                 const std::string& place) {
  static const Json anything = true;
  std::vector<Member> members;
  if (const auto it = schema.find("properties"); it != schema.end() && it->is_object()) {
    for (const auto& [name, property] : it->items()) {
      members.push_back({name, &property, place + "/properties/" + name, is_required(schema, name)});
    }
  }
  const Json* others = &anything;
  for (const char* keyword : {"unevaluatedProperties", "additionalProperties"}) {
    if (const auto it = schema.find(keyword); it != schema.end()) others = &*it;
  }
  const auto required = schema.find("required");
  if (required == schema.end()) return members;
  for (const Json& entry : *required) {
    if (!entry.is_string()) continue;
    const auto name = entry.get<std::string>();
    const bool is_known = std::any_of(members.begin(), members.end(),
                                      [&](const Member& member) { return member.name == name; });
    if (!is_known) members.push_back({name, others, place + "/required/" + name, true});
  }
  return members;
}

JsonTypes ParameterSchema::types_of(const Json& schema) const {
  return types_in_schema(nlohmann::json::parse(schema.dump()), *plain_root_, n_steps_, kMaxSteps);
}

bool ParameterSchema::has_reference(const Json& schema, bool elsewhere) {
  if (!schema.is_structured()) return false;
  const auto it = schema.is_object() ? schema.find("$ref") : schema.end();
  if (it != schema.end() && it->is_string()) {
    const auto target = it->get<std::string>();
    if (!elsewhere || (!target.starts_with("#/$defs/") && !target.starts_with("#/definitions/"))) return true;
  }
  return std::any_of(schema.begin(), schema.end(),
                     [&](const Json& part) { return has_reference(part, elsewhere); });
}

const Json* ParameterSchema::target_of(const Json& schema) const {
  const auto it = schema.find("$ref");
  if (it == schema.end() || !it->is_string()) return nullptr;
  const auto text = it->get<std::string>();
  return text.starts_with("#") ? follow_pointer(root_, text) : nullptr;
}

bool ParameterSchema::is_too_much() const {
  return n_steps_ > kMaxSteps || n_listed_bytes_ > kMaxListedBytes;
}

ParameterSchema::Listed ParameterSchema::listed(const Json& schema, bool texts_only, int depth) const {
  ++n_steps_;
  if (!schema.is_object() || depth > kMaxDepth || is_too_much()) return {};
  if (texts_only && excludes_text(schema)) return {true, {}};
  Listed found;
  if (const auto it = schema.find("const"); it != schema.end()) {
    n_listed_bytes_ += it->dump().size();
    found.is_list = true;
    found.values.push_back(*it);
  } else if (const auto list = schema.find("enum"); list != schema.end() && list->is_array()) {
    n_steps_ += static_cast<int64_t>(list->size());
    n_listed_bytes_ += list->dump().size();
    found.is_list = true;
    found.values.assign(list->begin(), list->end());
  } else if (const Json* target = target_of(schema); target != nullptr) {
    found = listed(*target, texts_only, depth + 1);
  }
  if (found.is_list) return found;
  if (const auto it = schema.find("allOf"); it != schema.end()) {
    for (const Json& part : *it) {
      found = listed(part, texts_only, depth + 1);
      if (found.is_list) return found;
    }
  }
  for (const char* key : {"anyOf", "oneOf"}) {
    if (const auto it = schema.find(key); it != schema.end()) {
      found = listed_by_all(*it, texts_only, depth + 1);
      if (found.is_list) return found;
    }
  }
  return {};
}

ParameterSchema::Listed ParameterSchema::listed_by_all(const Json& parts, bool texts_only, int depth) const {
  Listed all;
  for (const Json& part : parts) {
    Listed found = listed(part, texts_only, depth);
    if (!found.is_list) return {};
    n_steps_ += static_cast<int64_t>(found.values.size());
    for (Json& value : found.values) all.values.push_back(std::move(value));
  }
  all.is_list = true;
  return all;
}

Result<ParameterSchema::Listed> ParameterSchema::accepted(const Json& schema, bool texts_only,
                                                          const std::string& place) const {
  const Json* own = &schema;
  for (int i = 0; i < kMaxDepth && own->is_object() && own->contains("$ref"); ++i) {
    const Json* target = target_of(*own);
    if (target == nullptr || !schema_without(*own, "$ref").empty()) break;
    own = target;
  }
  Listed all = listed(*own, texts_only, 0);
  if (is_too_much()) return too_large(place);
  if (!all.is_list) return all;
  // Values need not be looked for in the list that they come from.
  const char* list = own->contains("const") ? "const" : "enum";
  if (!own->contains(list) && all.values.size() > kMaxForeignValues) return too_large(place);
  const Json others = schema_without(*own, list);
  Listed kept;
  kept.is_list = true;
  for (Json& value : all.values) {
    if (texts_only && !value.is_string()) continue;
    const Verdict verdict = judge_.accepts(others, value);
    if (verdict == Verdict::kUnknown) {
      return unsupported(at(place) +
                         "whether the keywords beside 'enum' and 'const' accept their values is not known");
    }
    if (verdict == Verdict::kYes) kept.values.push_back(std::move(value));
  }
  return kept;
}

Result<Json> ParameterSchema::resolved(const Json& schema, const std::string& place, int depth) const {
  if (++n_steps_ > kMaxSteps) return too_large(place);
  if (!schema.is_object()) return schema;
  if (depth > kMaxDepth) return too_deep(place);
  DSPARK_RETURN_IF_ERROR(check_value(schema, place));
  std::vector<const Json*> parts;
  if (schema.contains("$ref")) {
    const Json* target = target_of(schema);
    if (target == nullptr) return unsupported(at(place) + "$ref " + schema["$ref"].dump());
    parts.push_back(target);
  }
  if (const auto it = schema.find("allOf"); it != schema.end()) {
    for (const Json& part : *it) parts.push_back(&part);
  }
  Json all = schema_without(schema_without(schema, "$ref"), "allOf");
  all.erase("nullable");
  for (const Json* part : parts) {
    DSPARK_ASSIGN_OR_RETURN(const Json flat, resolved(*part, place, depth + 1));
    if (flat == false) return flat;
    if (!flat.is_object()) continue;
    // It speaks of members that its own schema does not declare, and both are one from here on.
    if (flat.contains("unevaluatedProperties")) return beyond("unevaluatedProperties", place);
    Result<Json> merged = merge_schemas(all, flat);
    if (!merged.ok()) return Status(merged.status().code(), at(place) + merged.status().message());
    all = std::move(merged).value();
    n_composed_bytes_ += all.dump().size();
    if (n_composed_bytes_ > kMaxComposedBytes) return too_large(place);
  }
  return all;
}

/// Types of the values that are written for a schema, where it may accept more.
JsonTypes ParameterSchema::written_types(const Json& flat) const {
  if (!flat.is_object()) return kJsonAny;
  for (const char* keyword : {"type", "enum", "const", "anyOf", "oneOf"}) {
    if (flat.contains(keyword)) return types_of(flat);
  }
  return flat.contains("properties") ? kJsonObject : kJsonString;
}

/// Whether both list their values, and have none in common.
bool ParameterSchema::list_others(const Json& a, const Json& b) const {
  const Listed left = listed(a, false, 0), right = listed(b, false, 0);
  n_steps_ += static_cast<int64_t>(left.values.size() * right.values.size());
  if (!left.is_list || !right.is_list || is_too_much()) return false;
  return std::none_of(left.values.begin(), left.values.end(), [&](const Json& value) {
    return std::any_of(right.values.begin(), right.values.end(),
                       [&](const Json& other) { return same_value(value, other); });
  });
}

/// Whether it is plain that `b` accepts nothing that is written for `a`: values of another type, or a member
/// that both require and that differs.
bool ParameterSchema::is_apart(const Json& a, JsonTypes written, const Json& b, JsonTypes allowed) const {
  if (a == false || b == false) return true;
  if (!a.is_object() || !b.is_object()) return false;
  const int shared = written & allowed;
  if (shared == 0 || list_others(a, b)) return true;
  if (shared != kJsonObject || !a.contains("properties") || !b.contains("properties")) return false;
  const Json& left = a["properties"];
  const Json& right = b["properties"];
  for (const auto& [name, schema] : left.items()) {
    n_steps_ += static_cast<int64_t>(right.size());
    if (is_too_much()) return false;
    const bool both_require = is_required(a, name) && is_required(b, name) && right.contains(name);
    if (both_require && list_others(schema, right[name])) return true;
  }
  return false;
}

Result<std::vector<Json>> ParameterSchema::alternatives(const Json& schema, const char* keyword,
                                                        const std::string& place, int depth) const {
  const Json base = schema_without(schema, keyword);
  const Json& list = schema[keyword];
  std::vector<Json> all;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string part_place = place + "/" + keyword + "/" + std::to_string(i);
    const Json both = Json{{"allOf", Json::array({base, list[i]})}};
    DSPARK_ASSIGN_OR_RETURN(Json flat, resolved(both, part_place, depth));
    all.push_back(std::move(flat));
  }
  if (std::string_view(keyword) != "oneOf") return all;
  if (all.size() > kMaxOneOf) return too_large(place);
  std::vector<JsonTypes> written, allowed;
  for (const Json& flat : all) {
    written.push_back(written_types(flat));
    allowed.push_back(types_of(flat));
  }
  if (is_too_much()) return too_large(place);
  for (size_t i = 0; i < all.size(); ++i) {
    for (size_t k = 0; k < all.size(); ++k) {
      if (k == i || is_apart(all[i], written[i], all[k], allowed[k])) continue;
      if (is_too_much()) return too_large(place);
      return unsupported(at(place) + "'oneOf' whose parts " + std::to_string(i) + " and " +
                         std::to_string(k) +
                         " may accept the same value cannot be forced in this model's notation");
    }
  }
  return all;
}

}  // namespace dspark
