// What a schema is made of: references, combinations, constants, types.

#include "constrain/json_schema.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "constrain/grammar.h"
#include "constrain/schema_compiler.h"
#include "constrain/schema_merge.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;
using Node = GrammarIr::Node;

constexpr int kMaxDepth = 64;
constexpr size_t kMaxNodes = size_t{1} << 20;
// Combinations of schemas are told apart by their text; hostile ones would make it without end.
constexpr size_t kMaxComposedBytes = size_t{8} << 20;

// Keywords with a meaning here, by the type they speak about.
const std::set<std::string, std::less<>>& keywords_of(std::string_view type) {
  static const std::set<std::string, std::less<>> object{
      "properties",    "required",      "additionalProperties", "patternProperties",
      "minProperties", "maxProperties", "propertyNames",        "unevaluatedProperties"};
  static const std::set<std::string, std::less<>> array{"items",    "prefixItems", "additionalItems",
                                                        "minItems", "maxItems",    "uniqueItems",
                                                        "contains", "minContains", "maxContains"};
  static const std::set<std::string, std::less<>> string{"minLength", "maxLength", "pattern", "format"};
  static const std::set<std::string, std::less<>> number{"minimum", "maximum", "exclusiveMinimum",
                                                         "exclusiveMaximum", "multipleOf"};
  static const std::set<std::string, std::less<>> any{"type",
                                                      "enum",
                                                      "const",
                                                      "anyOf",
                                                      "oneOf",
                                                      "allOf",
                                                      "$ref",
                                                      "nullable",
                                                      "not",
                                                      "if",
                                                      "then",
                                                      "else",
                                                      "dependentRequired",
                                                      "dependentSchemas",
                                                      "dependencies"};
  if (type == "object") return object;
  if (type == "array") return array;
  if (type == "string") return string;
  if (type == "number") return number;
  return any;
}

bool has_any(const Json& schema, std::string_view type) {
  return std::any_of(keywords_of(type).begin(), keywords_of(type).end(),
                     [&](const std::string& key) { return schema.contains(key); });
}

/// Whether the parts of a "oneOf" are constants no two of which are the same: nothing has to be kept apart.
bool are_different_constants(const Json& list) {
  std::set<std::string> seen;
  for (const Json& part : list) {
    if (!part.is_object() || !part.contains("const") || part["const"].is_structured()) return false;
    const Json& value = part["const"];
    const std::string text = value.is_number() ? Json(value.get<double>()).dump() : value.dump();
    if (!seen.insert(text).second) return false;
  }
  return true;
}

}  // namespace

Result<GrammarIr> SchemaCompiler::run() {
  // "#" may be referred to, so the root is a rule like any other.
  const Node root = rule_for("#", root_, "");
  if (!status_.ok()) return status_;
  if (root == kNothing) return invalid_argument(at("") + "the schema accepts no value");
  ir_.root = ir_.add_rule("root");
  ir_.set_body(ir_.root, root);
  return std::move(ir_);
}

std::string SchemaCompiler::at(const std::string& place) const {
  return name_ + "#" + place + ": ";
}
Node SchemaCompiler::fail(Status status) {
  if (status_.ok()) status_ = std::move(status);
  return kNothing;
}
Node SchemaCompiler::fail(const std::string& place, const std::string& message) {
  return fail(invalid_argument(at(place) + message));
}

Node SchemaCompiler::choice(std::vector<Node> parts) {
  std::erase(parts, kNothing);
  return parts.empty() ? kNothing : ir_.choice(std::move(parts));
}

Node SchemaCompiler::compile(const Json& schema, const std::string& place) {
  if (!status_.ok()) return kNothing;
  if (schema.is_boolean()) return schema.get<bool>() ? json_.value() : kNothing;
  if (!schema.is_object())
    return fail(place,
                "expected a schema (an object or a boolean), found " + std::string(schema.type_name()));
  if (depth_ >= kMaxDepth || ir_.nodes.size() > kMaxNodes) {
    return fail(resource_exhausted(at(place) + "the schema is nested too deep or too large"));
  }
  ++depth_;
  const Node node = compile_object(schema, place);
  --depth_;
  return node;
}

Node SchemaCompiler::compile_object(const Json& schema, const std::string& place) {
  if (!check_keywords(schema, place)) return kNothing;
  if (const auto nullable = schema.find("nullable"); nullable != schema.end()) {
    if (!nullable->is_boolean()) return fail(place, "'nullable' must be a boolean");
    const Json rest = schema_without(schema, "nullable");
    const Node node = compile_object(rest, place);
    if (!nullable->get<bool>() || rest.empty()) return node;
    return choice({node, status_.ok() ? json_.text("null") : kNothing});
  }
  for (const auto& [key, unused] : schema.items()) {
    if (key == "allOf" || key == "unevaluatedProperties" || is_told_by_others(key, schema)) {
      return all_of(schema, place);
    }
  }
  if (schema.contains("$ref")) return reference(schema, place);
  if (schema.contains("anyOf")) return branches(schema, "anyOf", place);
  if (schema.contains("oneOf")) return branches(schema, "oneOf", place);
  if (schema.contains("const") || schema.contains("enum")) return enumeration(schema, place);
  return by_type(schema, place);
}

bool SchemaCompiler::check_keywords(const Json& schema, const std::string& place) {
  for (const auto& [key, value] : schema.items()) {
    bool known = is_annotation(key);
    for (const char* type : {"object", "array", "string", "number", "any"}) {
      known = known || keywords_of(type).contains(key);
    }
    if (!known) {
      fail(unsupported(at(place) + "keyword '" + key + "' is not supported"));
      return false;
    }
  }
  return true;
}

const Json* SchemaCompiler::resolve(const std::string& pointer, const std::string& place) {
  if (!pointer.starts_with("#") || (pointer.size() > 1 && pointer[1] != '/')) {
    fail(unsupported(at(place) + "$ref '" + pointer +
                     "': only references inside the schema (#/...) are supported"));
    return nullptr;
  }
  std::string missing;
  const Json* target = follow_pointer(root_, pointer, &missing);
  if (target == nullptr) fail(place, "$ref '" + pointer + "': there is no '" + missing + "'");
  return target;
}

Node SchemaCompiler::rule_for(const std::string& key, const Json& schema, const std::string& place) {
  const auto [it, is_new] = rules_.try_emplace(key, -1);
  if (!is_new) return it->second < 0 ? kNothing : ir_.call(it->second);
  const int32_t rule = ir_.add_rule(key.substr(0, 80));
  it->second = rule;  // before the body, which may refer to it
  const Node body = compile(schema, place);
  if (body == kNothing) {
    // Whoever called it already finds a rule without any text.
    ir_.set_body(rule, ir_.char_class({}));
    rules_[key] = -1;
    return kNothing;
  }
  ir_.set_body(rule, body);
  return ir_.call(rule);
}

Node SchemaCompiler::reference(const Json& schema, const std::string& place) {
  const Json& pointer = schema["$ref"];
  if (!pointer.is_string()) return fail(place, "'$ref' must be a string");
  if (!schema_without(schema, "$ref").empty()) return all_of(schema, place);
  const Json* target = resolve(pointer.get<std::string>(), place);
  if (target == nullptr) return kNothing;
  const auto text = pointer.get<std::string>();
  return rule_for(text, *target, text.substr(1));
}

Node SchemaCompiler::all_of(const Json& schema, const std::string& place) {
  // Recursive schemas meet themselves again: equal compositions are one rule.
  const std::string key = "allOf " + schema_without(schema, "").dump();
  if (rules_.contains(key)) return rule_for(key, schema, place);
  composed_bytes_ += key.size();
  if (composed_bytes_ > kMaxComposedBytes) {
    return fail(resource_exhausted(at(place) + "combinations of more than " +
                                   std::to_string(kMaxComposedBytes) + " bytes"));
  }
  const std::optional<Json> merged = flatten(schema, place, 0);
  if (!merged) return kNothing;
  return rule_for(key, *merged, place);
}

Node SchemaCompiler::branches(const Json& schema, const char* key, const std::string& place) {
  const Json& list = schema[key];
  if (!list.is_array() || list.empty())
    return fail(place, std::string("'") + key + "' must be an array of schemas");
  const Json base = schema_without(schema, key);
  const bool only_one = std::string_view(key) == "oneOf" && !are_different_constants(list);
  // Every part is compared with every other one, beside the base each time.
  constexpr size_t kMostCompared = 50'000'000;  // bytes
  if (only_one && list.size() > 1) {
    const size_t bytes = base.dump().size() + list.dump().size() / list.size();
    if (list.size() > 10'000 || list.size() * list.size() * bytes > kMostCompared) {
      return fail(resource_exhausted(at(place) + "'oneOf' has too many parts to keep them apart"));
    }
  }
  std::vector<Node> parts;
  std::string gap;
  for (size_t i = 0; i < list.size() && status_.ok(); ++i) {
    const std::string part_place = place + "/" + key + "/" + std::to_string(i);
    Json all = base.empty() ? Json::array({list[i]}) : Json::array({base, list[i]});
    if (only_one) {
      const std::optional<Json> apart = apart_from_others(base, list, i, part_place, gap);
      if (!apart) return kNothing;
      all.insert(all.end(), apart->begin(), apart->end());
    }
    parts.push_back(all.size() == 1 ? compile(list[i], part_place)
                                    : compile(Json{{"allOf", std::move(all)}}, part_place));
  }
  const Node node = choice(std::move(parts));
  if (node == kNothing && !gap.empty()) {
    return fail(unsupported(at(place) +
                            "'oneOf': which values only one part accepts is not known, because the "
                            "opposite of '" +
                            gap + "' is not supported"));
  }
  return node;
}

Node SchemaCompiler::enumeration(const Json& schema, const std::string& place) {
  const std::optional<Json> values = allowed_values(schema, place);
  if (!values) return kNothing;
  std::vector<Node> parts;
  for (const Json& value : *values) parts.push_back(json_.text(value.dump()));
  return choice(std::move(parts));
}

std::optional<Json> SchemaCompiler::allowed_values(const Json& schema, const std::string& place) {
  if (schema.contains("enum") && !schema["enum"].is_array()) {
    fail(place, "'enum' must be an array");
    return std::nullopt;
  }
  types_of(schema, place);  // its errors
  const Json listed = schema.contains("const") ? Json::array({schema["const"]}) : schema["enum"];
  // Values need not be looked for in the list that they come from.
  const Json others =
      schema.contains("const") ? schema_without(schema, "const") : schema_without(schema, "enum");
  Json values = Json::array();
  for (const Json& value : listed) {
    const Verdict verdict = judge_.accepts(others, value);
    if (verdict == Verdict::kYes) values.push_back(value);
    if (verdict != Verdict::kUnknown) continue;
    std::string what = "a keyword";
    for (const auto& [key, wanted] : schema.items()) {
      if (judge_.accepts(Json{{key, wanted}}, value) == Verdict::kUnknown) what = "'" + key + "'";
    }
    fail(unsupported(at(place) + what + " beside 'enum' or 'const' is not supported"));
  }
  if (!status_.ok()) return std::nullopt;
  return values;
}

std::vector<std::string> SchemaCompiler::types_of(const Json& schema, const std::string& place) {
  static const std::set<std::string, std::less<>> known{"object",  "array",   "string", "number",
                                                        "integer", "boolean", "null"};
  std::vector<std::string> types;
  if (const auto it = schema.find("type"); it != schema.end()) {
    const Json list = it->is_array() ? *it : Json::array({*it});
    for (const Json& type : list) {
      if (!type.is_string() || !known.contains(type.get<std::string>())) {
        fail(place, "'type' must name types of JSON, found " + type.dump());
        return {};
      }
      types.push_back(type.get<std::string>());
    }
    return types;
  }
  for (const char* type : {"object", "array", "string", "number"}) {
    if (has_any(schema, type)) types.emplace_back(type);
  }
  return types;
}

Node SchemaCompiler::by_type(const Json& schema, const std::string& place) {
  const std::vector<std::string> types = types_of(schema, place);
  if (!status_.ok()) return kNothing;
  if (types.empty()) return schema.contains("type") ? kNothing : json_.value();
  std::vector<Node> parts;
  for (const std::string& name : types) parts.push_back(type(name, schema, place));
  return status_.ok() ? choice(std::move(parts)) : kNothing;
}

Result<GrammarIr> compile_json_schema(std::string_view schema, std::string_view name) {
  const std::string label(name);
  if (schema.size() > kMaxGrammarBytes) {
    return resource_exhausted(label + ": " + std::to_string(schema.size()) + " bytes; at most " +
                              std::to_string(kMaxGrammarBytes) + " are read");
  }
  bool too_deep = false;
  const auto limit_depth = [&too_deep](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > 4 * kMaxDepth;
    return !too_deep;
  };
  Json root;
  try {
    root = Json::parse(schema, limit_depth);
  } catch (const Json::exception& error) {
    return invalid_argument(label + ": " + error.what());
  }
  if (too_deep) return resource_exhausted(label + ": nested too deep");
  return SchemaCompiler(root, name).run();
}

}  // namespace dspark
