#include "constrain/schema_opposite.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "constrain/json_terminals.h"
#include "constrain/schema_judge.h"
#include "constrain/schema_merge.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxDepth = 32;
// Of one opposite; schemas that refer to themselves several times would make it without end.
constexpr int kMaxSchemas = 500;
constexpr const char* kTypes[] = {"object", "array", "string", "number", "boolean", "null"};

bool is_one_of(std::string_view key, std::initializer_list<std::string_view> keys) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

bool holds(const Json& list, const char* text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

Json types_but(const Json& excluded) {
  Json others = Json::array();
  for (const char* type : kTypes) {
    if (!holds(excluded, type)) others.push_back(type);
  }
  return others;
}

class Refuser {
 public:
  explicit Refuser(const Json& root) : root_(root) {}

  Opposite of(const Json& schema, int depth) {
    Opposite out;
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) out.alternatives.emplace_back(true);
      return out;
    }
    if (!schema.is_object() || depth > kMaxDepth || ++n_schemas_ > kMaxSchemas) {
      out.gap = "$ref";
      return out;
    }
    // What is refused by its shape comes first: whoever takes only a few alternatives takes those.
    for (const bool by_shape : {true, false}) {
      for (const auto& [key, wanted] : schema.items()) {
        if (is_annotation(key) || key == "nullable") continue;
        if (is_one_of(key, {"type", "required"}) == by_shape) keyword(schema, key, wanted, depth, out);
      }
    }
    const auto nullable = schema.find("nullable");
    if (nullable == schema.end() || *nullable != true) return out;
    for (Json& one : out.alternatives) {
      one = Json{{"allOf", Json::array({Json{{"type", types_but(Json::array({"null"}))}}, one})}};
    }
    return out;
  }

 private:
  static void add(Opposite& out, Json alternative) { out.alternatives.push_back(std::move(alternative)); }
  static void add_all(Opposite& out, const Opposite& part) {
    for (const Json& one : part.alternatives) add(out, one);
    if (out.gap.empty()) out.gap = part.gap;
  }
  static void leave_gap(Opposite& out, const std::string& key) {
    if (out.gap.empty()) out.gap = key;
  }

  void keyword(const Json& schema, const std::string& key, const Json& wanted, int depth, Opposite& out) {
    if (key == "type") return type(wanted, out);
    if (key == "const") return values(Json::array({wanted}), out);
    if (key == "enum" && wanted.is_array()) return values(wanted, out);
    if (key == "required" && wanted.is_array()) return required(wanted, out);
    if (key == "properties" && wanted.is_object()) return properties(wanted, depth, out);
    if (key == "not") return add(out, wanted);
    if (key == "allOf" && wanted.is_array()) {
      for (const Json& part : wanted) add_all(out, of(part, depth + 1));
      return;
    }
    if (key == "anyOf" && wanted.is_array()) return any_of(wanted, depth, out);
    if (key == "oneOf" && wanted.is_array()) {
      // Values that several parts accept are refused too.
      leave_gap(out, key);
      return any_of(wanted, depth, out);
    }
    if (key == "$ref" && wanted.is_string() && wanted.get<std::string>().starts_with("#")) {
      const Json* target = follow_pointer(root_, wanted.get<std::string>());
      if (target != nullptr) return add_all(out, of(*target, depth + 1));
    }
    if (wanted.is_number() && limit(key, wanted, out)) return;
    if (key == "pattern" && wanted.is_string()) {
      return add(out, {{"type", "string"}, {"not", {{"anyOf", Json::array({Json{{"pattern", wanted}}})}}}});
    }
    const bool says_nothing =
        ((key == "then" || key == "else") && !schema.contains("if")) ||
        (key == "uniqueItems" && wanted == false) ||
        (is_one_of(key, {"items", "additionalProperties", "additionalItems", "unevaluatedProperties"}) &&
         (wanted == true || wanted == Json::object())) ||
        (key == "format" && wanted.is_string() && !is_known_format(wanted.get<std::string>()));
    if (!says_nothing) leave_gap(out, key);
  }

  static void type(const Json& wanted, Opposite& out) {
    Json list = wanted.is_array() ? wanted : Json::array({wanted});
    // Numbers that are no integers have no schema of their own.
    if (holds(list, "integer") && !holds(list, "number")) {
      leave_gap(out, "type");
      list.push_back("number");
    }
    const Json others = types_but(list);
    if (!others.empty()) add(out, {{"type", others}});
  }

  // Of the types of the values the others of that type, and the other types.
  static void values(const Json& list, Opposite& out) {
    Json types = Json::array(), strings = Json::array(), booleans = Json::array();
    std::vector<Json> numbers;
    for (const Json& value : list) {
      for (const char* type : kTypes) {
        if (is_of_type(value, type) && !holds(types, type)) types.push_back(type);
      }
      if (value.is_string()) strings.push_back(value);
      if (value.is_boolean()) booleans.push_back(value);
      if (value.is_number()) numbers.push_back(value);
      if (value.is_structured()) leave_gap(out, "enum");
    }
    const Json others = types_but(types);
    if (!others.empty()) add(out, {{"type", others}});
    if (!strings.empty()) {
      add(out, {{"type", "string"}, {"not", {{"anyOf", Json::array({Json{{"enum", strings}}})}}}});
    }
    for (const bool value : {true, false}) {
      const bool is_listed = std::find(booleans.begin(), booleans.end(), value) != booleans.end();
      if (!booleans.empty() && !is_listed) add(out, {{"const", value}});
    }
    // Numbers between the listed ones.
    std::sort(numbers.begin(), numbers.end(),
              [](const Json& a, const Json& b) { return a.get<double>() < b.get<double>(); });
    for (size_t i = 0; i <= numbers.size() && !numbers.empty(); ++i) {
      Json range{{"type", "number"}};
      if (i > 0) range["exclusiveMinimum"] = numbers[i - 1];
      if (i < numbers.size()) range["exclusiveMaximum"] = numbers[i];
      add(out, std::move(range));
    }
  }

  static void required(const Json& names, Opposite& out) {
    for (const Json& name : names) {
      if (!name.is_string()) continue;
      add(out, {{"type", "object"}, {"properties", {{name.get<std::string>(), false}}}});
    }
  }

  void properties(const Json& members, int depth, Opposite& out) {
    for (const auto& [name, schema] : members.items()) {
      const Opposite other = of(schema, depth + 1);
      leave_gap(out, other.gap);
      if (other.alternatives.empty()) continue;
      Json wrong = Json::object();
      wrong[name] = other.as_schema();
      add(out, {{"type", "object"}, {"required", Json::array({name})}, {"properties", wrong}});
    }
  }

  void any_of(const Json& parts, int depth, Opposite& out) {
    Json all = Json::array();
    for (const Json& part : parts) {
      const Opposite other = of(part, depth + 1);
      leave_gap(out, other.gap);
      all.push_back(other.as_schema());
    }
    add(out, {{"allOf", all}});
  }

  // Bounds, lengths and counts: one below the least, one above the most. returns: whether it was one of them.
  static bool limit(const std::string& key, const Json& wanted, Opposite& out) {
    struct Pair {
      const char *least, *most, *type;
    };
    if (key == "minimum") add(out, {{"type", "number"}, {"exclusiveMaximum", wanted}});
    if (key == "exclusiveMinimum") add(out, {{"type", "number"}, {"maximum", wanted}});
    if (key == "maximum") add(out, {{"type", "number"}, {"exclusiveMinimum", wanted}});
    if (key == "exclusiveMaximum") add(out, {{"type", "number"}, {"minimum", wanted}});
    if (is_one_of(key, {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"})) return true;
    for (const Pair& pair : {Pair{"minLength", "maxLength", "string"}, Pair{"minItems", "maxItems", "array"},
                             Pair{"minProperties", "maxProperties", "object"}}) {
      if (key != pair.least && key != pair.most) continue;
      const auto count = wanted.get<double>();
      if (key == pair.most) add(out, {{"type", pair.type}, {pair.least, count + 1.0}});
      if (key == pair.least && count >= 1) add(out, {{"type", pair.type}, {pair.most, count - 1.0}});
      return true;
    }
    return false;
  }

  const Json& root_;
  int n_schemas_ = 0;
};

}  // namespace

Json Opposite::as_schema() const {
  Json list = Json::array();
  for (const Json& one : alternatives) list.push_back(one);
  if (list.empty()) list.push_back(false);
  return Json{{"anyOf", std::move(list)}};
}

Opposite opposite_of(const Json& schema, const Json& root) {
  return Refuser(root).of(schema, 0);
}

bool is_string_exclusion(const Json& schema) {
  if (!schema.is_object() || !schema.contains("not") || !schema.contains("type")) return false;
  const Json& type = schema["type"];
  if (type != "string" && type != Json::array({"string"})) return false;
  const Json& excluded = schema["not"];
  if (!excluded.is_object() || excluded.size() != 1 || !excluded.contains("anyOf")) return false;
  const Json& parts = excluded["anyOf"];
  return parts.is_array() && std::all_of(parts.begin(), parts.end(), [](const Json& part) {
           if (!part.is_object() || part.size() != 1) return false;
           if (part.contains("pattern")) return part["pattern"].is_string();
           return part.contains("enum") && part["enum"].is_array() &&
                  std::all_of(part["enum"].begin(), part["enum"].end(),
                              [](const Json& text) { return text.is_string(); });
         });
}

}  // namespace dspark
