#include "constrain/parameter_grammar.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "constrain/json_schema.h"
#include "constrain/parameter_schema.h"
#include "constrain/parameter_types.h"
#include "constrain/schema_merge.h"
#include "constrain/text_grammar.h"

namespace dspark {
namespace {

using Node = GrammarIr::Node;
using Json = nlohmann::ordered_json;
using Member = ParameterSchema::Member;
using Listed = ParameterSchema::Listed;

// A schema that no value satisfies.
constexpr Node kNothing = -1;
// Parts that references and alternatives may lead to, counted as often as they do.
constexpr int kMaxParts = 10'000;
// Every part that is written as JSON is compiled together with all definitions.
constexpr size_t kMaxJsonBytes = size_t{32} << 20;
constexpr size_t kMaxNodes = size_t{1} << 20;
constexpr std::string_view kQuote = "<|\"|>";

bool is_closed(const Json& schema) {
  return schema.value("additionalProperties", Json(true)) == false;
}

// What the notations share: the schema and where its parts come from.
class ParameterGrammar {
 public:
  ParameterGrammar(GrammarIr& ir, const Json& root, std::string_view label)
      : ir_(ir), root_(root), schema_(root, label) {}

  // One tag after the other. dsml: DeepSeek's tags, else Qwen's.
  Result<Node> tags(bool dsml) {
    DSPARK_RETURN_IF_ERROR(schema_.check_object(root_, ""));
    const std::vector<Member> members = ParameterSchema::members_of(root_, "");
    if (members.empty()) {
      if (is_closed(root_)) return ir_.empty();
      const Json others = root_.value("additionalProperties", Json());
      if (others.is_object() && !others.empty()) return schema_.beyond("additionalProperties", "");
      const Node any =
          dsml ? ir_.sequence({ir_.literal("<｜DSML｜parameter name=\""), any_key(),
                               ir_.literal("\" string=\"true\">"), tagged_text(dsml)})
               : ir_.sequence({ir_.literal("<parameter="), any_key(), ir_.literal(">\n"), tagged_text(dsml)});
      return ir_.repeat(any, 0, GrammarIr::kUnbounded);
    }
    std::vector<Node> parts;
    for (const Member& member : members) {
      DSPARK_ASSIGN_OR_RETURN(const Node one, dsml ? dsml_parameter(member) : qwen_parameter(member));
      if (one == kNothing && member.is_required) return schema_.accepts_nothing(member.place);
      if (one != kNothing) parts.push_back(member.is_required ? one : ir_.optional(one));
    }
    return ir_.sequence(std::move(parts));
  }

  Result<Node> gemma() {
    DSPARK_ASSIGN_OR_RETURN(const Node object, gemma_object(root_, "", 0));
    if (object == kNothing) return schema_.accepts_nothing("");
    return object;
  }

 private:
  Node any_key() {
    return ir_.repeat(ir_.char_class({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}), 1, 64);
  }

  // A part of the schema as JSON.
  Result<Node> json(const Json& schema, const std::string& place) {
    Json whole = schema;
    if (ParameterSchema::has_reference(schema, false)) {
      for (const char* key : {"$defs", "definitions"}) {
        if (root_.contains(key)) whole[key] = root_[key];
      }
      // Other places are not there when the part is compiled by itself.
      if (ParameterSchema::has_reference(whole, true)) {
        return unsupported(
            schema_.at(place) +
            "a '$ref' to another place than '$defs' cannot be forced in this model's notation");
      }
    }
    const std::string text = whole.dump();
    n_json_bytes_ += text.size();
    if (n_json_bytes_ > kMaxJsonBytes || ir_.nodes.size() > kMaxNodes) return schema_.too_large(place);
    const std::string label(schema_.label());
    const Result<GrammarIr> part = compile_json_schema(text, label);
    if (part.ok()) return ir_.append(*part);
    // Its places begin at the part.
    std::string message = part.status().message();
    if (message.starts_with(label + "#")) message.insert(label.size() + 1, place);
    return Status(part.status().code(), message);
  }

  static std::string_view value_end(bool dsml) {
    return dsml ? "</｜DSML｜parameter>\n" : "\n</parameter>\n";
  }
  Node tagged_text(bool dsml) { return text_through(ir_, value_end(dsml)); }
  // Text as it is: one of the texts of the schema, or any.
  Node text_value(const Listed& texts, bool dsml) {
    if (!texts.is_list) return tagged_text(dsml);
    std::vector<Node> parts;
    for (const Json& value : texts.values)
      parts.push_back(ir_.literal(value.get<std::string>() + std::string(value_end(dsml))));
    return ir_.choice(std::move(parts));
  }

  Result<Node> json_value(const Member& member, bool dsml) {
    DSPARK_ASSIGN_OR_RETURN(const Node value, json(*member.schema, member.place));
    return ir_.sequence({value, ir_.literal(value_end(dsml))});
  }

  Result<Node> qwen_parameter(const Member& member) {
    if (*member.schema == false) return kNothing;
    const Node begin = ir_.literal("<parameter=" + member.name + ">\n");
    const JsonTypes types = schema_.types_of(*member.schema);
    DSPARK_ASSIGN_OR_RETURN(const Listed texts, schema_.accepted(*member.schema, true, member.place));
    // Text that is no JSON of another type is text; where lists and objects are allowed, JSON alone is safe.
    const bool is_text = (types & kJsonString) != 0 && (types == kJsonString || !texts.is_list) &&
                         (types & (kJsonArray | kJsonObject)) == 0;
    if (is_text && texts.is_list && texts.values.empty()) return kNothing;
    if (is_text) return ir_.sequence({begin, text_value(texts, false)});
    DSPARK_ASSIGN_OR_RETURN(const Node value, json_value(member, false));
    return ir_.sequence({begin, value});
  }

  Result<Node> dsml_parameter(const Member& member) {
    if (*member.schema == false) return kNothing;
    const std::string begin = "<｜DSML｜parameter name=\"" + member.name + "\" string=\"";
    const JsonTypes types = schema_.types_of(*member.schema);
    DSPARK_ASSIGN_OR_RETURN(const Listed texts, schema_.accepted(*member.schema, true, member.place));
    // Where only some texts are allowed beside other values, JSON says which.
    const bool has_text =
        types == kJsonString || (types != kJsonAny && (types & kJsonString) != 0 && !texts.is_list);
    if (has_text && texts.is_list && texts.values.empty()) return kNothing;
    Node text = kNothing;
    if (has_text) text = ir_.sequence({ir_.literal(begin + "true\">"), text_value(texts, true)});
    if (types == kJsonString) return text;
    DSPARK_ASSIGN_OR_RETURN(const Node value, json_value(member, true));
    const Node other = ir_.sequence({ir_.literal(begin + "false\">"), value});
    return has_text ? ir_.choice({text, other}) : other;
  }

  // One of several alternatives beside what stands around them.
  Result<Node> gemma_alternatives(const Json& schema, const char* keyword, const std::string& place,
                                  int depth) {
    DSPARK_ASSIGN_OR_RETURN(const std::vector<Json> parts,
                            schema_.alternatives(schema, keyword, place, depth));
    std::vector<Node> nodes;
    for (size_t i = 0; i < parts.size(); ++i) {
      const std::string part_place = place + "/" + keyword + "/" + std::to_string(i);
      DSPARK_ASSIGN_OR_RETURN(const Node one, gemma_value(parts[i], part_place, depth + 1));
      nodes.push_back(one);
    }
    return choice(std::move(nodes));
  }

  Node choice(std::vector<Node> parts) {
    std::erase(parts, kNothing);
    return parts.empty() ? kNothing : ir_.choice(std::move(parts));
  }

  Result<Node> gemma_listed(const Json& schema, const Listed& values, const std::string& place) {
    std::vector<Node> parts;
    for (const Json& value : values.values) {
      if (value.is_structured()) continue;
      parts.push_back(ir_.literal(value.is_string()
                                      ? std::string(kQuote) + value.get<std::string>() + std::string(kQuote)
                                      : value.dump()));
    }
    if (parts.empty() && !values.values.empty())
      return schema_.beyond(schema.contains("const") ? "const" : "enum", place);
    return choice(std::move(parts));
  }

  Result<Node> gemma_value(const Json& schema, const std::string& place, int depth) {
    if (depth > ParameterSchema::kMaxDepth) return schema_.too_deep(place);
    if (++n_parts_ > kMaxParts) return schema_.too_large(place);
    if (schema == false) return kNothing;
    if (!schema.is_object() || schema.empty()) return any_scalar(place);
    DSPARK_RETURN_IF_ERROR(schema_.check_value(schema, place));
    DSPARK_ASSIGN_OR_RETURN(const Listed values, schema_.accepted(schema, false, place));
    if (values.is_list) return gemma_listed(schema, values, place);
    DSPARK_ASSIGN_OR_RETURN(const Json flat, schema_.resolved(schema, place, depth));
    if (flat == false) return kNothing;
    if (!flat.is_object()) return any_scalar(place);
    for (const char* keyword : {"anyOf", "oneOf"}) {
      if (flat.contains(keyword)) return gemma_alternatives(flat, keyword, place, depth);
    }
    const Json type = flat.value("type", Json(flat.contains("properties") ? "object" : "string"));
    const Json types = type.is_array() ? type : Json::array({type});
    std::vector<Node> parts;
    for (const Json& name : types) {
      if (!name.is_string()) return schema_.beyond("type", place);
      DSPARK_ASSIGN_OR_RETURN(const Node one, gemma_typed(flat, name.get<std::string>(), place, depth));
      parts.push_back(one);
    }
    return choice(std::move(parts));
  }

  Result<Node> any_scalar(const std::string& place) {
    return json(Json{{"type", {"number", "boolean", "null"}}}, place);
  }

  Result<Node> gemma_typed(const Json& schema, const std::string& type, const std::string& place, int depth) {
    if (type == "string") return ir_.sequence({ir_.literal(kQuote), text_through(ir_, kQuote)});
    if (type == "object") return gemma_object(schema, place, depth);
    if (type == "array") return gemma_list(schema, place, depth);
    Json scalar = schema;
    for (const char* keyword : {"properties", "required", "additionalProperties", "items"})
      scalar = schema_without(scalar, keyword);
    scalar["type"] = type;
    return json(scalar, place);
  }

  Result<Node> gemma_list(const Json& schema, const std::string& place, int depth) {
    const Json items = schema.value("items", Json());
    if (items.is_array()) return schema_.beyond("items", place);  // a tuple, as older schemas wrote it
    const int least = schema.value("minItems", 0), most = schema.value("maxItems", GrammarIr::kUnbounded);
    if (most >= 0 && least > most) return kNothing;
    DSPARK_ASSIGN_OR_RETURN(const Node item, gemma_value(items, place + "/items", depth + 1));
    if (item == kNothing && least > 0) return kNothing;
    if (item == kNothing || most == 0) return ir_.literal("[]");
    const Node more = ir_.repeat(ir_.sequence({ir_.literal(","), item}), std::max(0, least - 1),
                                 most < 0 ? most : most - 1);
    const Node all = ir_.sequence({item, more});
    return ir_.sequence({ir_.literal("["), least > 0 ? all : ir_.optional(all), ir_.literal("]")});
  }

  Result<Node> gemma_object(const Json& schema, const std::string& place, int depth) {
    DSPARK_RETURN_IF_ERROR(schema_.check_object(schema, place));
    std::vector<std::pair<Node, bool>> members;  // with whether they are required
    for (const Member& member : ParameterSchema::members_of(schema, place)) {
      DSPARK_ASSIGN_OR_RETURN(const Node value, gemma_value(*member.schema, member.place, depth + 1));
      if (value == kNothing && member.is_required) return kNothing;
      if (value == kNothing) continue;
      members.emplace_back(ir_.sequence({ir_.literal(member.name + ":"), value}), member.is_required);
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
  ParameterSchema schema_;
  int n_parts_ = 0;
  size_t n_json_bytes_ = 0;  // of what was compiled as JSON
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
  // Parts that no text of JSON needs were not looked at before: keywords there may be of any kind.
  try {
    ParameterGrammar grammar(ir, root, label);
    return is_tagged ? grammar.tags(format != ToolFormat::kQwenXml) : grammar.gemma();
  } catch (const Json::exception& error) {
    return invalid_argument(std::string(label) + ": " + error.what());
  }
}

}  // namespace dspark
