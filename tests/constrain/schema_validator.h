#pragma once
// Validates JSON against a schema: the keywords that the suite uses, written straight from the definitions
// and sharing nothing with the compiler under test.

#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>

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
        {"hostname", R"(^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?$)"}};
    const auto it = patterns.find(format);
    return it == patterns.end() || std::regex_match(text, std::regex(it->second));
  }

  bool accepts(const Json& schema, const Json& v) const {
    if (schema.is_boolean()) return schema.get<bool>();
    if (v.is_null() && schema.value("nullable", false)) return true;
    return refers(schema, v) && combines(schema, v) && is_typed(schema, v) &&
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
           (!s.contains("pattern") || std::regex_search(text, std::regex(s["pattern"].get<std::string>()))) &&
           (!s.contains("format") || has_format(s["format"].get<std::string>(), text));
  }
  static bool number(const Json& s, double v) {
    return v >= s.value("minimum", -HUGE_VAL) && v <= s.value("maximum", HUGE_VAL) &&
           v > s.value("exclusiveMinimum", -HUGE_VAL) && v < s.value("exclusiveMaximum", HUGE_VAL);
  }
  bool array(const Json& s, const Json& v) const {
    if (v.size() < s.value("minItems", size_t{0}) || v.size() > s.value("maxItems", SIZE_MAX)) return false;
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
      const bool declared = s.contains("properties") && s["properties"].contains(name);
      if (declared && !accepts(s["properties"][name], value)) return false;
      if (!declared && s.contains("additionalProperties") && !accepts(s["additionalProperties"], value))
        return false;
      if (s.contains("propertyNames") && !accepts(s["propertyNames"], Json(name))) return false;
    }
    return true;
  }

  Json root_;
};

}  // namespace dspark::test
