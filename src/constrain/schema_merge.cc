#include "constrain/schema_merge.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string_view>
#include <utility>

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kAnnotations[] = {"title",
                                             "description",
                                             "default",
                                             "examples",
                                             "example",
                                             "$schema",
                                             "$id",
                                             "id",
                                             "$comment",
                                             "deprecated",
                                             "readOnly",
                                             "writeOnly",
                                             "$defs",
                                             "definitions",
                                             "$anchor",
                                             "xml",
                                             "externalDocs",
                                             "contentMediaType",
                                             "contentEncoding",
                                             "discriminator",
                                             "components",
                                             "$vocabulary",
                                             "markdownDescription",
                                             "enumDescriptions",
                                             "deprecationMessage",
                                             "propertyOrdering"};

bool contains(const Json& list, const Json& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

Json both(const Json& a, const Json& b) {
  if (a == b || b == true) return a;
  if (a == true) return b;
  if (a.is_object() && a.size() == 1 && a.contains("allOf") && a["allOf"].is_array()) {
    Json more = a;
    more["allOf"].push_back(b);
    return more;
  }
  return Json{{"allOf", Json::array({a, b})}};
}

Json type_list(const Json& type) {
  return type.is_array() ? type : Json::array({type});
}

Json merge_types(const Json& a, const Json& b) {
  Json shared = Json::array();
  const Json left = type_list(a), right = type_list(b);
  for (const Json& type : left) {
    if (contains(right, type)) shared.push_back(type);
    if (type == "integer" && contains(right, "number") && !contains(right, "integer")) shared.push_back(type);
    if (type == "number" && contains(right, "integer") && !contains(left, "integer"))
      shared.push_back("integer");
  }
  return shared;
}

Json merge_lists(const Json& a, const Json& b, bool intersect) {
  Json merged = intersect ? Json::array() : a;
  for (const Json& value : b) {
    if (contains(a, value) == intersect) merged.push_back(value);
  }
  return merged;
}

// Items behind a side's own prefix fall under its "items".
Json merge_prefixes(const Json& a, const Json& b) {
  const Json none = Json::array(), always = true;
  const Json& left = a.contains("prefixItems") ? a["prefixItems"] : none;
  const Json& right = b.contains("prefixItems") ? b["prefixItems"] : none;
  const Json& left_rest = a.contains("items") ? a["items"] : always;
  const Json& right_rest = b.contains("items") ? b["items"] : always;
  Json merged = Json::array();
  for (size_t i = 0; i < std::max(left.size(), right.size()); ++i) {
    merged.push_back(both(i < left.size() ? left[i] : left_rest, i < right.size() ? right[i] : right_rest));
  }
  return merged;
}

Result<Json> merge_branches(const Json& a, const Json& b) {
  constexpr size_t kMostPairs = 256;
  if (a.size() * b.size() > kMostPairs) {
    return resource_exhausted("more than " + std::to_string(kMostPairs) + " combinations of alternatives");
  }
  Json merged = Json::array();
  for (const Json& left : a) {
    for (const Json& right : b) merged.push_back(both(left, right));
  }
  return merged;
}

bool is_given(const Json& schema, const char* key) {
  return schema.contains(key) && schema[key] != true;
}

// What a side says about a member that it does not declare.
Result<Json> undeclared(const Json& schema, const std::string& name) {
  if (!is_given(schema, "additionalProperties")) return Json(true);
  if (schema.contains("patternProperties")) {
    return unsupported(
        "'" + name +
        "' of one schema's 'properties' beside 'patternProperties' and 'additionalProperties' of "
        "another");
  }
  return schema["additionalProperties"];
}

// Members of "properties": what one side does not name falls under its additionalProperties.
Result<Json> merge_properties(const Json& a, const Json& b) {
  const Json none = Json::object();
  const Json& left = a.contains("properties") ? a["properties"] : none;
  const Json& right = b.contains("properties") ? b["properties"] : none;
  Json merged = Json::object();
  for (const auto& [name, schema] : left.items()) {
    if (right.contains(name)) {
      merged[name] = both(schema, right[name]);
    } else {
      DSPARK_ASSIGN_OR_RETURN(const Json other, undeclared(b, name));
      merged[name] = both(schema, other);
    }
  }
  for (const auto& [name, schema] : right.items()) {
    if (left.contains(name)) continue;
    DSPARK_ASSIGN_OR_RETURN(const Json other, undeclared(a, name));
    merged[name] = both(other, schema);
  }
  return merged;
}

Json merge_patterns(const Json& a, const Json& b) {
  Json merged = a;
  for (const auto& [pattern, schema] : b.items()) {
    merged[pattern] = merged.contains(pattern) ? both(merged[pattern], schema) : schema;
  }
  return merged;
}

bool is_one_of(const std::string& key, std::initializer_list<std::string_view> keys) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

Result<Json> merge_values(const std::string& key, const Json& a, const Json& b) {
  if (a == b) return a;
  if (key == "type") return merge_types(a, b);
  const bool lists = a.is_array() && b.is_array();
  if (key == "required" && lists) return merge_lists(a, b, false);
  if (key == "enum" && lists) return merge_lists(a, b, true);
  if (is_one_of(key, {"anyOf", "oneOf"}) && lists) return merge_branches(a, b);
  if (key == "patternProperties" && a.is_object() && b.is_object()) return merge_patterns(a, b);
  if (key == "not") return Json{{"anyOf", merge_lists(a["anyOf"], b["anyOf"], false)}};
  if (key == "uniqueItems") return Json(a == true || b == true);
  if (key == "items" && (a.is_array() || b.is_array())) {
    return unsupported("two tuples in 'items' cannot be combined; use 'prefixItems'");
  }
  if (is_one_of(key, {"items", "additionalProperties", "propertyNames"})) return both(a, b);
  const bool numbers = a.is_number() && b.is_number();
  if (numbers && is_one_of(key, {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})) {
    return a < b ? b : a;
  }
  if (numbers && is_one_of(key, {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})) {
    return a < b ? a : b;
  }
  if (key == "multipleOf" && a.is_number_integer() && b.is_number_integer()) {
    constexpr int64_t kMost = 1'000'000'000;
    const auto left = a.get<int64_t>(), right = b.get<int64_t>();
    if (left > 0 && right > 0 && left <= kMost && right <= kMost) return Json(std::lcm(left, right));
  }
  return unsupported("two different values of '" + key + "' cannot be combined");
}

// Pairs of keywords of the two sides whose meanings get mixed up when they are put into one schema.
Status check_mixture(const Json& a, const Json& b) {
  for (const auto& [one, other] : {std::pair(&a, &b), std::pair(&b, &a)}) {
    if (is_given(*one, "additionalProperties") && other->contains("patternProperties") &&
        (!one->contains("patternProperties") ||
         (*one)["patternProperties"] != (*other)["patternProperties"])) {
      return unsupported(
          "'patternProperties' cannot be combined with the 'additionalProperties' of another schema");
    }
    if (other->contains("prefixItems") && one->contains("items") && (*one)["items"].is_array()) {
      return unsupported("tuples in 'items' and in 'prefixItems' cannot be combined");
    }
  }
  const auto of_contains = [](const Json& schema) {
    Json told = Json::array();
    for (const char* key : {"contains", "minContains", "maxContains"}) {
      if (schema.contains(key)) told.push_back({key, schema[key]});
    }
    return told;
  };
  const Json left = of_contains(a), right = of_contains(b);
  if (!left.empty() && !right.empty() && left != right) {
    return unsupported("two different 'contains' cannot be combined");
  }
  return ok_status();
}

}  // namespace

bool is_annotation(const std::string& keyword) {
  return keyword.starts_with("x-") ||
         std::find(std::begin(kAnnotations), std::end(kAnnotations), keyword) != std::end(kAnnotations);
}

Json schema_without(const Json& schema, std::string_view key) {
  Json rest = Json::object();
  for (const auto& [name, value] : schema.items()) {
    if (name != key && !is_annotation(name)) rest[name] = value;
  }
  return rest;
}

Result<Json> merge_schemas(const Json& a, const Json& b) {
  DSPARK_RETURN_IF_ERROR(check_mixture(a, b));
  Json merged = Json::object();
  for (const auto& [key, value] : a.items()) {
    if (!is_annotation(key)) merged[key] = value;
  }
  for (const auto& [key, value] : b.items()) {
    if (is_annotation(key) || key == "properties" || key == "prefixItems") continue;
    if (!merged.contains(key)) {
      merged[key] = value;
    } else if (key == "const" && merged[key] != value) {
      merged["enum"] = Json::array();  // no value is both
    } else {
      DSPARK_ASSIGN_OR_RETURN(merged[key], merge_values(key, merged[key], value));
    }
  }
  if (a.contains("properties") || b.contains("properties")) {
    for (const Json* schema : {&a, &b}) {
      if (schema->contains("properties") && !(*schema)["properties"].is_object()) {
        return invalid_argument("'properties' must be an object");
      }
    }
    DSPARK_ASSIGN_OR_RETURN(merged["properties"], merge_properties(a, b));
  }
  if (a.contains("prefixItems") || b.contains("prefixItems")) {
    for (const Json* schema : {&a, &b}) {
      if (schema->contains("prefixItems") && !(*schema)["prefixItems"].is_array()) {
        return invalid_argument("'prefixItems' must be an array of schemas");
      }
    }
    merged["prefixItems"] = merge_prefixes(a, b);
  }
  return merged;
}

}  // namespace dspark
