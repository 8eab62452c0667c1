#include "constrain/schema_merge.h"

#include <algorithm>
#include <nlohmann/json.hpp>
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
                                             "discriminator"};

bool contains(const Json& list, const Json& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

Json both(const Json& a, const Json& b) {
  if (a == b) return a;
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

Json merge_prefixes(const Json& a, const Json& b) {
  Json merged = Json::array();
  for (size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
    merged.push_back(i >= a.size() ? b[i] : i >= b.size() ? a[i] : both(a[i], b[i]));
  }
  return merged;
}

Json merge_branches(const Json& a, const Json& b) {
  Json merged = Json::array();
  for (const Json& left : a) {
    for (const Json& right : b) merged.push_back(both(left, right));
  }
  return merged;
}

const Json& member_or_true(const Json& schema, const char* key) {
  static const Json always = true;
  const auto it = schema.find(key);
  return it != schema.end() ? *it : always;
}

// Members of "properties": what one side does not name falls under its additionalProperties.
Json merge_properties(const Json& a, const Json& b) {
  const Json none = Json::object();
  const Json& left = a.contains("properties") ? a["properties"] : none;
  const Json& right = b.contains("properties") ? b["properties"] : none;
  const Json& left_rest = member_or_true(a, "additionalProperties");
  const Json& right_rest = member_or_true(b, "additionalProperties");
  Json merged = Json::object();
  for (const auto& [name, schema] : left.items()) {
    const Json& other = right.contains(name) ? right[name] : right_rest;
    merged[name] = other == true ? schema : both(schema, other);
  }
  for (const auto& [name, schema] : right.items()) {
    if (!left.contains(name)) merged[name] = left_rest == true ? schema : both(schema, left_rest);
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
  if (key == "prefixItems" && lists) return merge_prefixes(a, b);
  if (is_one_of(key, {"anyOf", "oneOf"}) && lists) return merge_branches(a, b);
  if (is_one_of(key, {"items", "additionalProperties", "propertyNames"})) return both(a, b);
  const bool numbers = a.is_number() && b.is_number();
  if (numbers && is_one_of(key, {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})) {
    return a < b ? b : a;
  }
  if (numbers && is_one_of(key, {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})) {
    return a < b ? a : b;
  }
  if (key == "nullable") return Json(a == true && b == true);
  return unsupported("two different values of '" + key + "' cannot be combined");
}

}  // namespace

bool is_annotation(const std::string& keyword) {
  return keyword.starts_with("x-") ||
         std::find(std::begin(kAnnotations), std::end(kAnnotations), keyword) != std::end(kAnnotations);
}

Result<Json> merge_schemas(const Json& a, const Json& b) {
  Json merged = Json::object();
  for (const auto& [key, value] : a.items()) {
    if (!is_annotation(key)) merged[key] = value;
  }
  for (const auto& [key, value] : b.items()) {
    if (is_annotation(key) || key == "properties") continue;
    if (!merged.contains(key)) {
      merged[key] = value;
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
    merged["properties"] = merge_properties(a, b);
  }
  return merged;
}

}  // namespace dspark
