#include "constrain/parameter_grammar.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "constrain/json_schema.h"
#include "constrain/parameter_types.h"
#include "constrain/text_grammar.h"

namespace dspark {
namespace {

using Node = GrammarIr::Node;
using Json = nlohmann::ordered_json;

constexpr int kMaxDepth = 16;
constexpr std::string_view kQuote = "<|\"|>";

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

// What the notations share: the schema and where its parts come from.
class ParameterGrammar {
 public:
  ParameterGrammar(GrammarIr& ir, const Json& root, std::string_view label)
      : ir_(ir), root_(root), label_(label) {}

  // One tag after the other. dsml: DeepSeek's tags, else Qwen's.
  Result<Node> tags(bool dsml) {
    DSPARK_RETURN_IF_ERROR(check(root_));
    const auto properties = root_.find("properties");
    if (properties == root_.end() || properties->empty()) {
      if (is_closed(root_)) return ir_.empty();
      const Json others = root_.value("additionalProperties", Json());
      if (others.is_object() && !others.empty()) return beyond("additionalProperties");
      const Node any =
          dsml ? ir_.sequence({ir_.literal("<｜DSML｜parameter name=\""), any_key(),
                               ir_.literal("\" string=\"true\">"), tagged_text(dsml)})
               : ir_.sequence({ir_.literal("<parameter="), any_key(), ir_.literal(">\n"), tagged_text(dsml)});
      return ir_.repeat(any, 0, GrammarIr::kUnbounded);
    }
    std::vector<Node> parts;
    for (const auto& [name, schema] : properties->items()) {
      DSPARK_ASSIGN_OR_RETURN(const Node one,
                              dsml ? dsml_parameter(name, schema) : qwen_parameter(name, schema));
      parts.push_back(is_required(root_, name) ? one : ir_.optional(one));
    }
    return ir_.sequence(std::move(parts));
  }

  Result<Node> gemma() { return gemma_object(root_, 0); }

 private:
  Status beyond(const char* keyword) const {
    return unsupported(std::string(label_) + ": '" + keyword + "' cannot be forced in this model's notation");
  }
  // Of any value.
  Status check_plain(const Json& schema) const {
    for (const char* keyword : kJsonOnly) {
      const auto it = schema.find(keyword);
      if (it != schema.end() && *it != false) return beyond(keyword);
    }
    return ok_status();
  }
  // Of an object.
  Status check(const Json& schema) const {
    for (const char* keyword : {"allOf", "anyOf", "oneOf", "$ref", "enum", "const"}) {
      if (schema.contains(keyword)) return beyond(keyword);
    }
    return check_plain(schema);
  }
  static bool is_closed(const Json& schema) {
    return schema.value("additionalProperties", Json(true)) == false;
  }
  static bool is_required(const Json& schema, const std::string& name) {
    const auto required = schema.find("required");
    return required != schema.end() && std::find(required->begin(), required->end(), name) != required->end();
  }
  Node any_key() {
    return ir_.repeat(ir_.char_class({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}), 1, 64);
  }

  JsonTypes types_of(const Json& schema) const {
    return ParameterTypes(Json{{"properties", {{"x", schema}}},
                               {"$defs", definitions("$defs")},
                               {"definitions", definitions("definitions")}}
                              .dump())
        .of("x");
  }
  Json definitions(const char* key) const { return root_.value(key, Json::object()); }

  // A part of the schema as JSON.
  Result<Node> json(const Json& schema) {
    Json whole = schema;
    for (const char* key : {"$defs", "definitions"}) {
      if (whole.is_object() && root_.contains(key)) whole[key] = root_[key];
    }
    DSPARK_ASSIGN_OR_RETURN(const GrammarIr part, compile_json_schema(whole.dump(), label_));
    return ir_.append(part);
  }

  static std::vector<Json> choices_of(const Json& schema) {
    if (!schema.is_object()) return {};
    if (schema.contains("const")) return {schema["const"]};
    const auto values = schema.find("enum");
    if (values == schema.end()) return {};
    return std::vector<Json>(values->begin(), values->end());
  }

  static std::string_view value_end(bool dsml) {
    return dsml ? "</｜DSML｜parameter>\n" : "\n</parameter>\n";
  }
  Node tagged_text(bool dsml) { return text_through(ir_, value_end(dsml)); }
  // Text as it is: one of the texts of the schema, or any.
  Node text_value(const Json& schema, bool dsml) {
    std::vector<Node> texts;
    for (const Json& value : choices_of(schema)) {
      if (value.is_string())
        texts.push_back(ir_.literal(value.get<std::string>() + std::string(value_end(dsml))));
    }
    return texts.empty() ? tagged_text(dsml) : ir_.choice(std::move(texts));
  }

  Result<Node> json_value(const Json& schema, bool dsml) {
    DSPARK_ASSIGN_OR_RETURN(const Node value, json(schema));
    return ir_.sequence({value, ir_.literal(value_end(dsml))});
  }

  Result<Node> qwen_parameter(const std::string& name, const Json& schema) {
    const Node begin = ir_.literal("<parameter=" + name + ">\n");
    const JsonTypes types = types_of(schema);
    // Text that is no JSON of another type is text; where lists and objects are allowed, JSON alone is safe.
    const bool is_text = (types & kJsonString) != 0 && (types == kJsonString || choices_of(schema).empty()) &&
                         (types & (kJsonArray | kJsonObject)) == 0;
    if (is_text) return ir_.sequence({begin, text_value(schema, false)});
    DSPARK_ASSIGN_OR_RETURN(const Node value, json_value(schema, false));
    return ir_.sequence({begin, value});
  }

  Result<Node> dsml_parameter(const std::string& name, const Json& schema) {
    const std::string begin = "<｜DSML｜parameter name=\"" + name + "\" string=\"";
    const JsonTypes types = types_of(schema);
    const Node text = ir_.sequence({ir_.literal(begin + "true\">"), text_value(schema, true)});
    if (types == kJsonString) return text;
    DSPARK_ASSIGN_OR_RETURN(const Node value, json_value(schema, true));
    const Node other = ir_.sequence({ir_.literal(begin + "false\">"), value});
    // Where only some texts are allowed beside other values, JSON says which.
    return types == kJsonAny || (types & kJsonString) == 0 || !choices_of(schema).empty()
               ? other
               : ir_.choice({text, other});
  }

  Result<Node> gemma_value(const Json& schema, int depth) {
    if (depth > kMaxDepth)
      return unsupported(std::string(label_) + ": nested too deep to be forced in this model's notation");
    if (!schema.is_object() || schema.empty()) return json(Json{{"type", {"number", "boolean", "null"}}});
    DSPARK_RETURN_IF_ERROR(check_plain(schema));
    std::vector<Node> parts;
    const std::vector<Json> choices = choices_of(schema);
    for (const Json& value : choices) {
      if (value.is_structured()) continue;
      parts.push_back(ir_.literal(value.is_string()
                                      ? std::string(kQuote) + value.get<std::string>() + std::string(kQuote)
                                      : value.dump()));
    }
    if (!parts.empty()) return ir_.choice(std::move(parts));
    if (!choices.empty()) return beyond(schema.contains("const") ? "const" : "enum");
    for (const char* keyword : {"anyOf", "oneOf"}) {
      if (!schema.contains(keyword)) continue;
      for (const Json& part : schema[keyword]) {
        DSPARK_ASSIGN_OR_RETURN(const Node one, gemma_value(part, depth + 1));
        parts.push_back(one);
      }
      return ir_.choice(std::move(parts));
    }
    if (schema.contains("$ref")) return gemma_reference(schema["$ref"], depth);
    if (schema.contains("allOf")) return beyond("allOf");
    const Json type = schema.value("type", Json(schema.contains("properties") ? "object" : "string"));
    const Json types = type.is_array() ? type : Json::array({type});
    for (const Json& name : types) {
      DSPARK_ASSIGN_OR_RETURN(const Node one, gemma_typed(schema, name.get<std::string>(), depth));
      parts.push_back(one);
    }
    return ir_.choice(std::move(parts));
  }

  Result<Node> gemma_reference(const Json& reference, int depth) {
    const auto text = reference.get<std::string>();
    const Json::json_pointer place(text.starts_with("#/") ? text.substr(1) : "/");
    if (!root_.contains(place)) return unsupported(std::string(label_) + ": $ref '" + text + "'");
    return gemma_value(root_[place], depth + 1);
  }

  Result<Node> gemma_typed(const Json& schema, const std::string& type, int depth) {
    if (type == "string") return ir_.sequence({ir_.literal(kQuote), text_through(ir_, kQuote)});
    if (type == "object") return gemma_object(schema, depth);
    if (type == "array") return gemma_list(schema, depth);
    Json scalar = schema;
    scalar["type"] = type;
    return json(scalar);
  }

  Result<Node> gemma_list(const Json& schema, int depth) {
    DSPARK_ASSIGN_OR_RETURN(const Node item, gemma_value(schema.value("items", Json()), depth + 1));
    const int least = schema.value("minItems", 0), most = schema.value("maxItems", GrammarIr::kUnbounded);
    if (most == 0) return ir_.literal("[]");
    const Node more = ir_.repeat(ir_.sequence({ir_.literal(","), item}), std::max(0, least - 1),
                                 most < 0 ? most : most - 1);
    const Node items = ir_.sequence({item, more});
    return ir_.sequence({ir_.literal("["), least > 0 ? items : ir_.optional(items), ir_.literal("]")});
  }

  Result<Node> gemma_object(const Json& schema, int depth) {
    DSPARK_RETURN_IF_ERROR(check(schema));
    std::vector<std::pair<Node, bool>> members;  // with whether they are required
    const Json properties = schema.value("properties", Json::object());
    for (const auto& [name, property] : properties.items()) {
      DSPARK_ASSIGN_OR_RETURN(const Node value, gemma_value(property, depth + 1));
      members.emplace_back(ir_.sequence({ir_.literal(name + ":"), value}), is_required(schema, name));
    }
    // From the last to the first: what follows when nothing was written yet, and when something was.
    Node at_first = ir_.empty(), later = ir_.empty();
    for (auto member = members.rbegin(); member != members.rend(); ++member) {
      const Node first = ir_.sequence({member->first, later});
      const Node next = ir_.sequence({ir_.literal(","), member->first, later});
      at_first = ir_.named("members", member->second ? first : ir_.choice({first, at_first}));
      later = ir_.named("members", member->second ? next : ir_.choice({next, later}));
    }
    return ir_.sequence({ir_.literal("{"), at_first, ir_.literal("}")});
  }

  GrammarIr& ir_;
  const Json& root_;
  std::string_view label_;
};

}  // namespace

Result<Node> parameters_in(ToolFormat format, GrammarIr& ir, std::string_view schema,
                           std::string_view label) {
  const std::string_view whole = schema.empty() ? R"({"type":"object"})" : schema;
  // Also where JSON is not the notation: it finds what is wrong with the schema.
  DSPARK_ASSIGN_OR_RETURN(const GrammarIr in_json, compile_json_schema(whole, label));
  const bool is_tagged = format == ToolFormat::kQwenXml || format == ToolFormat::kDeepSeekV32 ||
                         format == ToolFormat::kDeepSeekV4;
  if (!is_tagged && format != ToolFormat::kGemma4) return ir.append(in_json);
  const Json root = Json::parse(whole, nullptr, false);
  if (!root.is_object())
    return unsupported(std::string(label) + ": want an object that describes the arguments");
  ParameterGrammar grammar(ir, root, label);
  return is_tagged ? grammar.tags(format != ToolFormat::kQwenXml) : grammar.gemma();
}

}  // namespace dspark
