#pragma once
// Validates JSON against a schema: the keywords that the suite uses, written straight from the definitions
// and sharing nothing with the compiler under test.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>
#include <utility>

namespace dspark::test {

class SchemaValidator {
 public:
  using Json = nlohmann::json;
  explicit SchemaValidator(Json root) : root_(std::move(root)) {}
  bool accepts(const Json& value) const { return accepts(root_, value); }

 private:
  static size_t length_of(const std::string& text) {
    return static_cast<size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
  }
  static bool has_type(const std::string& type, const Json& v) {
    if (type == "integer") return v.is_number() && v.get<double>() == std::floor(v.get<double>());
    if (type == "number") return v.is_number();
    if (type == "string") return v.is_string();
    if (type == "boolean") return v.is_boolean();
    if (type == "null") return v.is_null();
    if (type == "array") return v.is_array();
    return type == "object" && v.is_object();
  }
  // Made once: they are slow to make.
  static const std::regex& regex_of(const std::string& pattern) {
    static std::map<std::string, std::regex> known;
    const auto it = known.find(pattern);
    return it != known.end() ? it->second : known.emplace(pattern, std::regex(pattern)).first->second;
  }
  static bool has_format(const std::string& format, const std::string& text) {
    static const std::map<std::string, std::string> patterns{
        {"date", R"(^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$)"},
        {"time", R"(^([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$)"},
        {"date-time",
         R"(^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$)"},
        {"uuid", R"(^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$)"},
        {"email", R"(^[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}$)"},
        {"ipv4", R"(^((25[0-5]|2[0-4]\d|1?\d?\d)(\.(?!$)|$)){4}$)"},
        {"uri",
         R"(^https?://[a-z0-9.-]+(:\d+)?(/[A-Za-z0-9._~/-]*)?(\?[A-Za-z0-9._~=&-]*)?(#[A-Za-z0-9._~-]*)?$)"},
        {"hostname", R"(^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?$)"},
        {"ipv6", R"(^[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}$)"},
        {"uri-reference",
         R"(^(https?://[a-z0-9.-]+(:\d+)?)?(/[A-Za-z0-9._~/-]*)?(\?[A-Za-z0-9._~=&-]*)?(#[A-Za-z0-9._~-]*)?$)"},
        {"duration",
         R"(^P(\d+W|(?=.)(\d+Y(\d+M(\d+D)?)?|\d+M(\d+D)?|\d+D)?(T(\d+H(\d+M(\d+S)?)?|\d+M(\d+S)?|\d+S))?)$)"},
        {"json-pointer", R"(^(/([^/~]|~[01])*)*$)"}};
    const auto it = patterns.find(format);
    return it == patterns.end() || std::regex_match(text, regex_of(it->second));
  }

  bool accepts(const Json& schema, const Json& v) const {
    if (schema.is_boolean()) return schema.get<bool>();
    if (v.is_null() && schema.value("nullable", false)) return true;
    return refers(schema, v) && combines(schema, v) && depends(schema, v) && is_typed(schema, v) &&
           (!v.is_string() || string(schema, v.get<std::string>())) &&
           (!v.is_number() || number(schema, v.get<double>())) && (!v.is_array() || array(schema, v)) &&
           (!v.is_object() || object(schema, v));
  }
  bool refers(const Json& s, const Json& v) const {
    if (!s.contains("$ref")) return true;
    return accepts(root_.at(Json::json_pointer(s["$ref"].get<std::string>().substr(1))), v);
  }
  bool combines(const Json& s, const Json& v) const {
    const auto count = [&](const char* key) {
      return std::count_if(s[key].begin(), s[key].end(), [&](const Json& part) { return accepts(part, v); });
    };
    return (!s.contains("allOf") || count("allOf") == static_cast<std::ptrdiff_t>(s["allOf"].size())) &&
           (!s.contains("anyOf") || count("anyOf") > 0) && (!s.contains("oneOf") || count("oneOf") == 1);
  }
  bool depends(const Json& s, const Json& v) const {
    if (s.contains("not") && accepts(s["not"], v)) return false;
    if (s.contains("if")) {
      const char* branch = accepts(s["if"], v) ? "then" : "else";
      if (s.contains(branch) && !accepts(s[branch], v)) return false;
    }
    for (const char* key : {"dependentRequired", "dependentSchemas", "dependencies"}) {
      if (!s.contains(key) || !v.is_object()) continue;
      for (const auto& [name, needs] : s[key].items()) {
        if (!v.contains(name)) continue;
        if (!needs.is_array() && !accepts(needs, v)) return false;
        for (const Json& other : needs.is_array() ? needs : Json::array()) {
          if (!v.contains(other.get<std::string>())) return false;
        }
      }
    }
    return true;
  }
  static bool is_typed(const Json& s, const Json& v) {
    if (s.contains("const") && s["const"] != v) return false;
    if (s.contains("enum") && std::find(s["enum"].begin(), s["enum"].end(), v) == s["enum"].end())
      return false;
    if (!s.contains("type")) return true;
    const Json types = s["type"].is_array() ? s["type"] : Json::array({s["type"]});
    return std::any_of(types.begin(), types.end(),
                       [&](const Json& type) { return has_type(type.get<std::string>(), v); });
  }
  static bool string(const Json& s, const std::string& text) {
    return (!s.contains("minLength") || length_of(text) >= s["minLength"].get<size_t>()) &&
           (!s.contains("maxLength") || length_of(text) <= s["maxLength"].get<size_t>()) &&
           (!s.contains("pattern") || std::regex_search(text, regex_of(s["pattern"].get<std::string>()))) &&
           (!s.contains("format") || has_format(s["format"].get<std::string>(), text));
  }
  static bool number(const Json& s, double v) {
    return v >= s.value("minimum", -HUGE_VAL) && v <= s.value("maximum", HUGE_VAL) &&
           v > s.value("exclusiveMinimum", -HUGE_VAL) && v < s.value("exclusiveMaximum", HUGE_VAL) &&
           (!s.contains("multipleOf") || std::fmod(v, s["multipleOf"].get<double>()) == 0.0);
  }
  bool array(const Json& s, const Json& v) const {
    if (v.size() < s.value("minItems", size_t{0}) || v.size() > s.value("maxItems", SIZE_MAX)) return false;
    if (s.value("uniqueItems", false) && std::set<Json>(v.begin(), v.end()).size() != v.size()) return false;
    if (s.contains("contains")) {
      const auto n =
          std::count_if(v.begin(), v.end(), [&](const Json& item) { return accepts(s["contains"], item); });
      if (n < s.value("minContains", 1) || n > s.value("maxContains", 1 << 30)) return false;
    }
    const bool old_tuple = s.contains("items") && s["items"].is_array();
    const char* prefix = old_tuple ? "items" : "prefixItems";
    const char* rest = old_tuple ? "additionalItems" : "items";
    const size_t n_prefix = s.contains(prefix) ? s[prefix].size() : 0;
    for (size_t i = 0; i < v.size(); ++i) {
      if (i < n_prefix ? !accepts(s[prefix][i], v[i]) : s.contains(rest) && !accepts(s[rest], v[i]))
        return false;
    }
    return true;
  }
  bool object(const Json& s, const Json& v) const {
    if (v.size() < s.value("minProperties", size_t{0}) || v.size() > s.value("maxProperties", SIZE_MAX))
      return false;
    for (const Json& name : s.value("required", Json::array())) {
      if (!v.contains(name.get<std::string>())) return false;
    }
    for (const auto& [name, value] : v.items()) {
      if (s.contains("propertyNames") && !accepts(s["propertyNames"], Json(name))) return false;
      if (!speaks_of(s, name)) {
        if (s.contains("additionalProperties") && !accepts(s["additionalProperties"], value)) return false;
        if (s.contains("unevaluatedProperties") && !s.contains("additionalProperties") &&
            !evaluates(s, name, v) && !accepts(s["unevaluatedProperties"], value)) {
          return false;
        }
        continue;
      }
      if (s.contains("properties") && s["properties"].contains(name) &&
          !accepts(s["properties"][name], value)) {
        return false;
      }
      const Json patterns = s.value("patternProperties", Json::object());
      for (const auto& [pattern, part] : patterns.items()) {
        if (std::regex_search(name, regex_of(pattern)) && !accepts(part, value)) return false;
      }
    }
    return true;
  }
  static bool speaks_of(const Json& s, const std::string& name) {
    if (s.contains("properties") && s["properties"].contains(name)) return true;
    const Json patterns = s.value("patternProperties", Json::object());
    for (const auto& [pattern, unused] : patterns.items()) {
      if (std::regex_search(name, regex_of(pattern))) return true;
    }
    return false;
  }
  // Whether a schema that is applied to the same object speaks of the member.
  bool evaluates(const Json& s, const std::string& name, const Json& v) const {
    if (speaks_of(s, name) || s.contains("additionalProperties")) return true;
    if (s.contains("$ref") &&
        evaluates(root_.at(Json::json_pointer(s["$ref"].get<std::string>().substr(1))), name, v)) {
      return true;
    }
    for (const char* key : {"allOf", "anyOf", "oneOf"}) {
      for (const Json& part : s.value(key, Json::array())) {
        if (part.is_object() && accepts(part, v) && evaluates(part, name, v)) return true;
      }
    }
    return false;
  }

  Json root_;
};

}  // namespace dspark::test
