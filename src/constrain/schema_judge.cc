#include "constrain/schema_judge.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "constrain/json_terminals.h"
#include "constrain/schema_merge.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxDepth = 64;
// Bounds of the work for one schema.
constexpr int64_t kMaxSteps = 1'000'000;
constexpr size_t kMaxPatterns = 512;

Verdict known(bool yes) {
  return yes ? Verdict::kYes : Verdict::kNo;
}
Verdict both(Verdict a, Verdict b) {
  return std::min(a, b);
}
Verdict opposite(Verdict a) {
  return a == Verdict::kUnknown ? a : known(a == Verdict::kNo);
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

bool is_one_of(std::string_view key, std::initializer_list<std::string_view> keys) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

size_t characters_of(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

bool is_of_type(const Json& value, std::string_view type) {
  if (type == "integer") {
    return value.is_number_integer() ||
           (value.is_number_float() && value.get<double>() == std::floor(value.get<double>()));
  }
  if (type == "number") return value.is_number();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "array") return value.is_array();
  return type == "object" && value.is_object();
}

bool same_value(const Json& a, const Json& b) {
  if (a.is_array() && b.is_array()) return std::equal(a.begin(), a.end(), b.begin(), b.end(), same_value);
  if (!a.is_object() || !b.is_object()) return a == b;
  if (a.size() != b.size()) return false;
  return std::all_of(a.items().begin(), a.items().end(), [&](const auto& member) {
    return b.contains(member.key()) && same_value(member.value(), b[member.key()]);
  });
}

const Json* follow_pointer(const Json& root, std::string_view pointer, std::string* missing) {
  const Json* target = &root;
  for (const std::string& part : pointer_parts(pointer.substr(1))) {
    const Json* next = nullptr;
    if (target->is_object() && target->contains(part)) {
      next = &(*target)[part];
    } else if (target->is_array() && !part.empty() && part.size() < 7 &&
               part.find_first_not_of("0123456789") == std::string::npos &&
               std::stoul(part) < target->size()) {
      next = &(*target)[std::stoul(part)];
    }
    if (next == nullptr) {
      if (missing != nullptr) *missing = part;
      return nullptr;
    }
    target = next;
  }
  return target;
}

const Result<TextSet>& SchemaJudge::matching(const std::string& pattern) const {
  const auto known = sets_.find(pattern);
  if (known != sets_.end()) return known->second;
  if (sets_.size() < kMaxPatterns) return sets_.emplace(pattern, TextSet::matching(pattern)).first->second;
  const Status error = resource_exhausted("more than " + std::to_string(kMaxPatterns) +
                                          " different patterns that are " + "combined with other conditions");
  return sets_.emplace(pattern, error).first->second;
}

Verdict SchemaJudge::accepts(const Json& schema, const Json& value, int depth) const {
  if (schema.is_boolean()) return known(schema.get<bool>());
  if (!schema.is_object() || depth > kMaxDepth || ++n_steps_ > kMaxSteps) return Verdict::kUnknown;
  if (value.is_null() && schema.contains("nullable") && schema["nullable"] == true) return Verdict::kYes;
  Verdict all = Verdict::kYes;
  for (const auto& [key, unused] : schema.items()) {
    if (!is_annotation(key)) all = both(all, keyword(schema, key, value, depth));
    if (all == Verdict::kNo) break;
  }
  return all;
}

Verdict SchemaJudge::keyword(const Json& schema, const std::string& key, const Json& value, int depth) const {
  const Json& wanted = schema[key];
  if (key == "type") {
    const Json types = wanted.is_array() ? wanted : Json::array({wanted});
    return known(std::any_of(types.begin(), types.end(), [&](const Json& type) {
      return type.is_string() && is_of_type(value, type.get<std::string>());
    }));
  }
  if (key == "const") return known(same_value(wanted, value));
  if (key == "enum") {
    return known(
        std::any_of(wanted.begin(), wanted.end(), [&](const Json& one) { return same_value(one, value); }));
  }
  if (key == "nullable") return Verdict::kYes;
  if (is_one_of(key, {"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "$ref"})) {
    return combined(schema, key, value, depth);
  }
  if (is_one_of(key, {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})) {
    return value.is_number() ? in_number(key, wanted, value.get<double>()) : Verdict::kYes;
  }
  if (is_one_of(key, {"minLength", "maxLength", "pattern", "format"})) {
    return value.is_string() ? in_string(key, wanted, value.get<std::string>()) : Verdict::kYes;
  }
  if (is_one_of(key, {"items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems",
                      "contains", "minContains", "maxContains"})) {
    return value.is_array() ? in_array(schema, key, value, depth) : Verdict::kYes;
  }
  if (is_one_of(key, {"properties", "required", "additionalProperties", "patternProperties", "minProperties",
                      "maxProperties", "propertyNames", "dependentRequired", "dependentSchemas",
                      "dependencies", "unevaluatedProperties"})) {
    return value.is_object() ? in_object(schema, key, value, depth) : Verdict::kYes;
  }
  return Verdict::kUnknown;
}

Verdict SchemaJudge::combined(const Json& schema, const std::string& key, const Json& value,
                              int depth) const {
  const Json& wanted = schema[key];
  if (key == "then" || key == "else") return Verdict::kYes;  // told by "if"
  if (key == "not") return opposite(accepts(wanted, value, depth + 1));
  if (key == "if") {
    const Verdict holds = accepts(wanted, value, depth + 1);
    const auto branch = [&](const char* name) {
      return schema.contains(name) ? accepts(schema[name], value, depth + 1) : Verdict::kYes;
    };
    if (holds == Verdict::kUnknown) {
      return branch("then") == branch("else") ? branch("then") : Verdict::kUnknown;
    }
    return branch(holds == Verdict::kYes ? "then" : "else");
  }
  if (key == "$ref") {
    if (!wanted.is_string() || !wanted.get<std::string>().starts_with("#")) return Verdict::kUnknown;
    const Json* target = follow_pointer(root_, wanted.get<std::string>());
    return target == nullptr ? Verdict::kUnknown : accepts(*target, value, depth + 1);
  }
  if (!wanted.is_array()) return Verdict::kUnknown;
  Verdict all = Verdict::kYes, any = Verdict::kNo;
  int n_yes = 0, n_unknown = 0;
  for (const Json& part : wanted) {
    const Verdict verdict = accepts(part, value, depth + 1);
    all = both(all, verdict);
    any = std::max(any, verdict);
    n_yes += verdict == Verdict::kYes ? 1 : 0;
    n_unknown += verdict == Verdict::kUnknown ? 1 : 0;
  }
  if (key == "allOf") return all;
  if (key == "anyOf") return any;
  if (n_yes > 1) return Verdict::kNo;
  return n_unknown > 0 ? Verdict::kUnknown : known(n_yes == 1);
}

Verdict SchemaJudge::in_number(const std::string& key, const Json& limit, double value) const {
  if (!limit.is_number()) return Verdict::kUnknown;
  const auto bound = limit.get<double>();
  if (key == "minimum") return known(value >= bound);
  if (key == "maximum") return known(value <= bound);
  if (key == "exclusiveMinimum") return known(value > bound);
  if (key == "exclusiveMaximum") return known(value < bound);
  return bound > 0.0 ? known(std::fmod(value, bound) == 0.0) : Verdict::kUnknown;
}

Verdict SchemaJudge::in_string(const std::string& key, const Json& limit, const std::string& value) const {
  if (key == "minLength" || key == "maxLength") {
    if (!limit.is_number()) return Verdict::kUnknown;
    const auto length = static_cast<double>(characters_of(value));
    return known(key == "minLength" ? length >= limit.get<double>() : length <= limit.get<double>());
  }
  if (!limit.is_string()) return Verdict::kUnknown;
  if (key == "format") return is_known_format(limit.get<std::string>()) ? Verdict::kUnknown : Verdict::kYes;
  const Result<TextSet>& set = matching(limit.get<std::string>());
  return set.ok() ? known(set->contains(value)) : Verdict::kUnknown;
}

Verdict SchemaJudge::in_array(const Json& schema, const std::string& key, const Json& value,
                              int depth) const {
  const Json& wanted = schema[key];
  if (key == "minItems" || key == "maxItems") {
    if (!wanted.is_number()) return Verdict::kUnknown;
    const auto size = static_cast<double>(value.size());
    return known(key == "minItems" ? size >= wanted.get<double>() : size <= wanted.get<double>());
  }
  if (key == "uniqueItems") {
    if (wanted != true) return Verdict::kYes;
    for (size_t i = 0; i < value.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        if (same_value(value[i], value[j])) return Verdict::kNo;
      }
    }
    return Verdict::kYes;
  }
  if (key == "minContains" || key == "maxContains") return Verdict::kYes;  // told by "contains"
  if (key == "contains") return contained(schema, value, depth);
  // "items" is told together with the tuple before it.
  const bool old_tuple = schema.contains("items") && schema["items"].is_array();
  const char* prefix_key = old_tuple ? "items" : "prefixItems";
  if (schema.contains(prefix_key) && !schema[prefix_key].is_array()) return Verdict::kUnknown;
  const size_t n_prefix = schema.contains(prefix_key) ? schema[prefix_key].size() : 0;
  Verdict all = Verdict::kYes;
  if (key == prefix_key) {
    for (size_t i = 0; i < std::min(n_prefix, value.size()); ++i) {
      all = both(all, accepts(wanted[i], value[i], depth + 1));
    }
  } else if (key == (old_tuple ? "additionalItems" : "items")) {
    for (size_t i = n_prefix; i < value.size(); ++i) all = both(all, accepts(wanted, value[i], depth + 1));
  }
  return all;
}

Verdict SchemaJudge::contained(const Json& schema, const Json& value, int depth) const {
  double n_least = 0, n_most = 0;
  for (const Json& item : value) {
    const Verdict verdict = accepts(schema["contains"], item, depth + 1);
    n_least += verdict == Verdict::kYes ? 1 : 0;
    n_most += verdict == Verdict::kNo ? 0 : 1;
  }
  for (const char* key : {"minContains", "maxContains"}) {
    if (schema.contains(key) && !schema[key].is_number()) return Verdict::kUnknown;
  }
  const double min = schema.value("minContains", 1.0), max = schema.value("maxContains", HUGE_VAL);
  if (n_least >= min && n_most <= max) return Verdict::kYes;
  return n_most < min || n_least > max ? Verdict::kNo : Verdict::kUnknown;
}

// By its own schema, by those of the patterns that match its name, else by "additionalProperties".
Verdict SchemaJudge::member(const Json& schema, const std::string& name, const Json& value, int depth) const {
  Verdict all = Verdict::kYes;
  bool is_told = false, is_sure = true;
  if (schema.contains("properties") && schema["properties"].contains(name)) {
    all = accepts(schema["properties"][name], value, depth + 1);
    is_told = true;
  }
  if (schema.contains("patternProperties")) {
    for (const auto& [pattern, part] : schema["patternProperties"].items()) {
      const Result<TextSet>& set = matching(pattern);
      is_sure = is_sure && set.ok();
      if (!set.ok() || !set->contains(name)) continue;
      all = both(all, accepts(part, value, depth + 1));
      is_told = true;
    }
  }
  if (!is_told && schema.contains("additionalProperties")) {
    all = accepts(schema["additionalProperties"], value, depth + 1);
  }
  return is_sure ? all : Verdict::kUnknown;
}

Verdict SchemaJudge::dependencies(const Json& wanted, const Json& value, int depth) const {
  if (!wanted.is_object()) return Verdict::kUnknown;
  Verdict all = Verdict::kYes;
  for (const auto& [name, needs] : wanted.items()) {
    if (!value.contains(name)) continue;
    if (!needs.is_array()) {
      all = both(all, accepts(needs, value, depth + 1));
      continue;
    }
    for (const Json& other : needs) {
      all = both(all, known(other.is_string() && value.contains(other.get<std::string>())));
    }
  }
  return all;
}

Verdict SchemaJudge::in_object(const Json& schema, const std::string& key, const Json& value,
                               int depth) const {
  const Json& wanted = schema[key];
  if (key == "minProperties" || key == "maxProperties") {
    if (!wanted.is_number()) return Verdict::kUnknown;
    const auto size = static_cast<double>(value.size());
    return known(key == "minProperties" ? size >= wanted.get<double>() : size <= wanted.get<double>());
  }
  if (is_one_of(key, {"dependentRequired", "dependentSchemas", "dependencies"})) {
    return dependencies(wanted, value, depth);
  }
  if (key == "unevaluatedProperties") return wanted == true ? Verdict::kYes : Verdict::kUnknown;
  if (key == "required") {
    return known(wanted.is_array() && std::all_of(wanted.begin(), wanted.end(), [&](const Json& name) {
                   return name.is_string() && value.contains(name.get<std::string>());
                 }));
  }
  Verdict all = Verdict::kYes;
  if (key == "propertyNames") {
    for (const auto& [name, unused] : value.items()) {
      all = both(all, accepts(wanted, Json(name), depth + 1));
    }
    return all;
  }
  for (const char* group : {"properties", "patternProperties"}) {
    if (schema.contains(group) && !schema[group].is_object()) return Verdict::kUnknown;
  }
  for (const auto& [name, part] : value.items()) all = both(all, member(schema, name, part, depth));
  return all;
}

}  // namespace dspark
