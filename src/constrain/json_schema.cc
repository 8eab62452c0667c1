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

// Keywords with a meaning here, by the type they speak about.
const std::set<std::string, std::less<>>& keywords_of(std::string_view type) {
  static const std::set<std::string, std::less<>> object{
      "properties", "required", "additionalProperties", "minProperties", "maxProperties", "propertyNames"};
  static const std::set<std::string, std::less<>> array{"items", "prefixItems", "additionalItems", "minItems",
                                                        "maxItems"};
  static const std::set<std::string, std::less<>> string{"minLength", "maxLength", "pattern", "format"};
  static const std::set<std::string, std::less<>> number{"minimum", "maximum", "exclusiveMinimum",
                                                         "exclusiveMaximum"};
  static const std::set<std::string, std::less<>> any{"type",  "enum",  "const", "anyOf",
                                                      "oneOf", "allOf", "$ref",  "nullable"};
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

bool is_of_type(const Json& value, const std::string& type) {
  if (type == "integer") {
    return value.is_number_integer() ||
           (value.is_number_float() &&
            value.get<double>() ==
                static_cast<double>(static_cast<int64_t>(std::clamp(value.get<double>(), -9e18, 9e18))));
  }
  if (type == "number") return value.is_number();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "array") return value.is_array();
  return type == "object" && value.is_object();
}

Json without(const Json& schema, std::string_view key) {
  Json rest = Json::object();
  for (const auto& [name, value] : schema.items()) {
    if (name != key && !is_annotation(name)) rest[name] = value;
  }
  return rest;
}

// The members of a JSON pointer's way, unescaped.
std::vector<std::string> pointer_parts(std::string_view pointer) {
  std::vector<std::string> parts;
  while (!pointer.empty()) {
    pointer.remove_prefix(1);
    const size_t end = std::min(pointer.find('/'), pointer.size());
    std::string part(pointer.substr(0, end));
    for (size_t i = part.find('~'); i != std::string::npos; i = part.find('~', i + 1)) {
      part.replace(i, 2, i + 1 < part.size() && part[i + 1] == '1' ? "/" : "~");
    }
    parts.push_back(std::move(part));
    pointer.remove_prefix(end);
  }
  return parts;
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
  if (schema.contains("$ref")) return reference(schema, place);
  if (schema.contains("allOf")) return all_of(schema, place);
  if (schema.contains("anyOf")) return branches(schema, "anyOf", place);
  if (schema.contains("oneOf")) return branches(schema, "oneOf", place);
  const auto nullable = schema.find("nullable");
  if (nullable != schema.end()) {
    if (!nullable->is_boolean()) return fail(place, "'nullable' must be a boolean");
    const Json rest = without(schema, "nullable");
    const Node node = compile_object(rest, place);
    if (!nullable->get<bool>() || rest.empty()) return node;
    return choice({node, status_.ok() ? json_.text("null") : kNothing});
  }
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
  const Json* target = &root_;
  for (const std::string& part : pointer_parts(std::string_view(pointer).substr(1))) {
    const Json* next = nullptr;
    if (target->is_object() && target->contains(part)) {
      next = &(*target)[part];
    } else if (target->is_array() && !part.empty() && part.size() < 7 &&
               part.find_first_not_of("0123456789") == std::string::npos &&
               std::stoul(part) < target->size()) {
      next = &(*target)[std::stoul(part)];
    }
    if (next == nullptr) {
      fail(place, "$ref '" + pointer + "': there is no '" + part + "'");
      return nullptr;
    }
    target = next;
  }
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
  const Json rest = without(schema, "$ref");
  if (!rest.empty()) return all_of(schema, place);
  const Json* target = resolve(pointer.get<std::string>(), place);
  if (target == nullptr) return kNothing;
  const auto text = pointer.get<std::string>();
  return rule_for(text, *target, text.substr(1));
}

std::optional<Json> SchemaCompiler::merge(const Json& a, const Json& b, const std::string& place) {
  Result<Json> merged = merge_schemas(a, b);
  if (merged.ok()) return std::move(merged).value();
  fail(Status(merged.status().code(), at(place) + merged.status().message()));
  return std::nullopt;
}

std::optional<Json> SchemaCompiler::flatten(const Json& schema, const std::string& place, int depth) {
  if (depth > kMaxDepth) {
    fail(resource_exhausted(at(place) + "$ref and allOf lead into each other without end"));
    return std::nullopt;
  }
  if (schema.is_boolean()) {
    if (schema.get<bool>()) return Json::object();
    return std::nullopt;
  }
  if (!schema.is_object()) {
    fail(place, "expected a schema (an object or a boolean)");
    return std::nullopt;
  }
  if (!check_keywords(schema, place)) return std::nullopt;
  std::vector<const Json*> parts;
  std::vector<std::string> places;
  if (const auto it = schema.find("$ref"); it != schema.end()) {
    if (!it->is_string()) {
      fail(place, "'$ref' must be a string");
      return std::nullopt;
    }
    parts.push_back(resolve(it->get<std::string>(), place));
    if (parts.back() == nullptr) return std::nullopt;
    places.push_back(it->get<std::string>().substr(1));
  }
  if (const auto it = schema.find("allOf"); it != schema.end()) {
    if (!it->is_array()) {
      fail(place, "'allOf' must be an array");
      return std::nullopt;
    }
    for (size_t i = 0; i < it->size(); ++i) {
      parts.push_back(&(*it)[i]);
      places.push_back(place + "/allOf/" + std::to_string(i));
    }
  }
  std::optional<Json> all = without(without(schema, "$ref"), "allOf");
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::optional<Json> part = flatten(*parts[i], places[i], depth + 1);
    if (!part) return std::nullopt;
    all = merge(*all, *part, place);
    if (!all) return std::nullopt;
  }
  return all;
}

Node SchemaCompiler::all_of(const Json& schema, const std::string& place) {
  // Recursive schemas meet themselves again: equal compositions are one rule.
  const std::string key = "allOf " + without(schema, "").dump();
  if (rules_.contains(key)) return rule_for(key, schema, place);
  const std::optional<Json> merged = flatten(schema, place, 0);
  if (!merged) return kNothing;
  return rule_for(key, *merged, place);
}

Node SchemaCompiler::branches(const Json& schema, const char* key, const std::string& place) {
  const Json& list = schema[key];
  if (!list.is_array() || list.empty())
    return fail(place, std::string("'") + key + "' must be an array of schemas");
  const Json base = without(schema, key);
  std::vector<Node> parts;
  for (size_t i = 0; i < list.size() && status_.ok(); ++i) {
    const std::string part_place = place + "/" + key + "/" + std::to_string(i);
    if (base.empty()) {
      parts.push_back(compile(list[i], part_place));
    } else {
      parts.push_back(compile(Json{{"allOf", Json::array({base, list[i]})}}, part_place));
    }
  }
  return choice(std::move(parts));
}

Node SchemaCompiler::enumeration(const Json& schema, const std::string& place) {
  for (const auto& [key, value] : schema.items()) {
    if (!is_annotation(key) && key != "type" && key != "enum" && key != "const") {
      return fail(unsupported(at(place) + "'" + key + "' beside 'enum' or 'const' is not supported"));
    }
  }
  Json values = Json::array();
  if (schema.contains("enum")) {
    values = schema["enum"];
    if (!values.is_array()) return fail(place, "'enum' must be an array");
  }
  if (schema.contains("const")) {
    const Json& value = schema["const"];
    const bool fits =
        !schema.contains("enum") || std::find(values.begin(), values.end(), value) != values.end();
    values = Json::array();
    if (fits) values.push_back(value);
  }
  const std::vector<std::string> types =
      schema.contains("type") ? types_of(schema, place) : std::vector<std::string>{};
  std::vector<Node> parts;
  for (const Json& value : values) {
    const bool fits = types.empty() || std::any_of(types.begin(), types.end(), [&](const std::string& type) {
                        return is_of_type(value, type);
                      });
    if (fits && status_.ok()) parts.push_back(json_.text(value.dump()));
  }
  return choice(std::move(parts));
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
