// Objects of a schema: declared members, those of patterns, others.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "constrain/schema_compiler.h"
#include "constrain/schema_merge.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;
using Node = GrammarIr::Node;

constexpr int32_t kUnbounded = GrammarIr::kUnbounded;
// Patterns of names may overlap: every way to match some of them is told apart.
constexpr size_t kMaxNameRegions = 32;

// Names that match the same patterns, and what their values must be.
struct NameRegion {
  TextSet names;
  Json schemas = Json::array();
};

}  // namespace

Node SchemaCompiler::object(const Json& schema, const std::string& place) {
  for (const char* key : {"properties", "required", "patternProperties"}) {
    const auto it = schema.find(key);
    const bool is_list = std::string_view(key) == "required";
    if (it != schema.end() && !(is_list ? it->is_array() : it->is_object())) {
      return fail(place, std::string("'") + key + "' must be an " + (is_list ? "array" : "object"));
    }
  }
  const std::vector<NamePattern> patterns = name_patterns(schema, place);
  const int32_t min = count(schema, "minProperties", 0, place);
  const int32_t max = count(schema, "maxProperties", kUnbounded, place);
  std::vector<std::string> names;
  if (schema.contains("properties")) {
    for (const auto& [name, unused] : schema["properties"].items()) names.push_back(name);
  }
  const Json required = schema.contains("required") ? schema["required"] : Json::array();
  for (const Json& name : required) {
    if (!name.is_string()) return fail(place, "'required' must list names, found " + name.dump());
    const auto text = name.get<std::string>();
    if (std::find(names.begin(), names.end(), text) == names.end()) names.push_back(text);
  }
  std::vector<Part> parts;
  for (const std::string& name : names) {
    if (!status_.ok()) return kNothing;
    const bool is_required = std::find(required.begin(), required.end(), name) != required.end();
    const Node value = member_value(schema, name, patterns, place);
    if (value == kNothing && is_required) return kNothing;
    if (value == kNothing) continue;
    parts.push_back(
        {ir_.named(name, ir_.sequence({json_.key(json_.text(Json(name).dump())), value})), is_required});
  }
  if (!status_.ok()) return kNothing;
  const Node extra = other_members(schema, names, patterns, place);
  if (!status_.ok()) return kNothing;
  const Node content = selection(parts, min, max, extra, place);
  if (content == kNothing) return kNothing;
  return ir_.sequence({json_.text("{"), content, json_.space(), json_.text("}")});
}

std::vector<SchemaCompiler::NamePattern> SchemaCompiler::name_patterns(const Json& schema,
                                                                       const std::string& place) {
  std::vector<NamePattern> patterns;
  if (!schema.contains("patternProperties")) return patterns;
  for (const auto& [text, part] : schema["patternProperties"].items()) {
    const Result<TextSet>& names = judge_.matching(text);
    if (!names.ok()) {
      fail(
          Status(names.status().code(), at(place + "/patternProperties/" + text) + names.status().message()));
      return {};
    }
    patterns.push_back({&part, *names});
  }
  return patterns;
}

/// What a member of this name must be: what its own schema and those of all patterns that match it say.
Node SchemaCompiler::member_value(const Json& schema, const std::string& name,
                                  const std::vector<NamePattern>& patterns, const std::string& place) {
  if (const auto it = schema.find("propertyNames"); it != schema.end()) {
    const Verdict verdict = judge_.accepts(*it, Json(name));
    if (verdict == Verdict::kNo) return kNothing;
    if (verdict == Verdict::kUnknown) {
      return fail(unsupported(at(place) + "whether 'propertyNames' allows '" + name + "' is not known"));
    }
  }
  Json schemas = Json::array();
  if (schema.contains("properties") && schema["properties"].contains(name)) {
    schemas.push_back(schema["properties"][name]);
  }
  for (const NamePattern& pattern : patterns) {
    if (pattern.names.contains(name)) schemas.push_back(*pattern.schema);
  }
  const std::string member_place = place + "/properties/" + name;
  if (schemas.size() > 1) return compile(Json{{"allOf", std::move(schemas)}}, member_place);
  if (schemas.size() == 1) return compile(schemas[0], member_place);
  if (!schema.contains("additionalProperties")) return json_.value();
  return compile(schema["additionalProperties"], place + "/additionalProperties");
}

Node SchemaCompiler::member(Node name, Node value) {
  if (name == kNothing || value == kNothing) return kNothing;
  return ir_.named("member", ir_.sequence({json_.key(name), value}));
}

/// One member that is not declared; kNothing: none are written.
Node SchemaCompiler::other_members(const Json& schema, const std::vector<std::string>& names,
                                   const std::vector<NamePattern>& patterns, const std::string& place) {
  const bool has_value = schema.contains("additionalProperties");
  const bool has_names = schema.contains("propertyNames");
  if (patterns.empty() && !names.empty() && !has_value) return kNothing;
  if (!patterns.empty() || (has_names && !names.empty())) {
    TextSet others = TextSet::of(names).complement();
    if (has_names) {
      const std::optional<TextSet> allowed = allowed_names(schema["propertyNames"], place + "/propertyNames");
      if (!allowed) return kNothing;
      Result<TextSet> both = others.intersect(*allowed);
      if (!both.ok()) return fail(Status(both.status().code(), at(place) + both.status().message()));
      others = std::move(both).value();
    }
    return members_by_pattern(schema, std::move(others), patterns, place);
  }
  const Node value =
      has_value ? compile(schema["additionalProperties"], place + "/additionalProperties") : json_.value();
  if (value == kNothing) return kNothing;
  Node name = json_.other_key(names);
  if (has_names) {
    const Json text = Json{{"allOf", Json::array({Json{{"type", "string"}}, schema["propertyNames"]})}};
    name = compile(text, place + "/propertyNames");
  }
  return member(name, value);
}

std::optional<TextSet> SchemaCompiler::allowed_names(const Json& schema, const std::string& place) {
  const std::optional<Json> flat =
      flatten(Json{{"allOf", Json::array({Json{{"type", "string"}}, schema})}}, place, 0);
  if (!flat) return std::nullopt;
  for (const auto& [key, unused] : flat->items()) {
    const bool is_known = key == "type" || key == "minLength" || key == "maxLength" || key == "pattern" ||
                          key == "not" || key == "enum" || key == "const";
    if (is_known) continue;
    fail(unsupported(at(place) + "'" + key +
                     "' in 'propertyNames' beside 'properties' or 'patternProperties'"));
    return std::nullopt;
  }
  if (flat->contains("enum") || flat->contains("const")) {
    const std::optional<Json> values = allowed_values(*flat, place);
    if (!values) return std::nullopt;
    return TextSet::of(values->get<std::vector<std::string>>());
  }
  const int32_t min = count(*flat, "minLength", 0, place), max = count(*flat, "maxLength", kUnbounded, place);
  return status_.ok() ? text_set(*flat, min, max, place) : std::nullopt;
}

/// Members of the names in `names`, told apart by the patterns that match them.
Node SchemaCompiler::members_by_pattern(const Json& schema, TextSet names,
                                        const std::vector<NamePattern>& patterns, const std::string& place) {
  std::vector<NameRegion> regions{{std::move(names), Json::array()}};
  for (const NamePattern& pattern : patterns) {
    std::vector<NameRegion> cut;
    for (NameRegion& region : regions) {
      for (const bool matches : {true, false}) {
        Result<TextSet> part = region.names.intersect(matches ? pattern.names : pattern.names.complement());
        if (!part.ok()) return fail(Status(part.status().code(), at(place) + part.status().message()));
        if (part->empty()) continue;
        cut.push_back({std::move(part).value(), region.schemas});
        if (matches) cut.back().schemas.push_back(*pattern.schema);
      }
    }
    regions = std::move(cut);
    if (regions.size() > kMaxNameRegions) {
      return fail(unsupported(at(place) + "'patternProperties' overlap in too many ways"));
    }
  }
  std::vector<Node> members;
  for (const NameRegion& region : regions) {
    Node value = kNothing;
    if (!region.schemas.empty()) {
      const bool is_one = region.schemas.size() == 1;
      value =
          compile(is_one ? region.schemas[0] : Json{{"allOf", region.schemas}}, place + "/patternProperties");
    } else if (schema.contains("additionalProperties")) {
      value = compile(schema["additionalProperties"], place + "/additionalProperties");
    }
    if (value != kNothing) members.push_back(member(json_.quoted(region.names.content(ir_, json_)), value));
  }
  return choice(std::move(members));
}

Node SchemaCompiler::selection(const std::vector<Part>& parts, int32_t min, int32_t max, Node extra,
                               const std::string& place) {
  std::vector<Part> kept;
  std::copy_if(parts.begin(), parts.end(), std::back_inserter(kept),
               [](const Part& part) { return part.node != kNothing; });
  const auto n_parts = static_cast<int32_t>(kept.size());
  // Names of extras may repeat, so that only the first one surely counts.
  if (extra != kNothing && min > n_parts + 1) {
    return fail(
        unsupported(at(place) + "'minProperties' above the number of declared properties and one more"));
  }
  const bool is_bounded = max != kUnbounded && (extra != kNothing || max < n_parts);
  // So many are told apart: enough to know the comma, whether there are enough, and whether there is room.
  const int32_t n_told = std::min(n_parts, std::max({1, min, is_bounded ? max + 1 : 0}));
  constexpr int64_t kMostWays = 100'000;
  if (int64_t{n_parts} * (n_told + 1) > kMostWays) {
    return fail(resource_exhausted(at(place) + std::to_string(n_parts) +
                                   " properties whose number is limited: too many ways to choose them"));
  }
  const Node comma = ir_.sequence({json_.text(","), json_.space()});
  // What may follow behind the parts that were looked at, by how many were written; from the last backwards.
  std::vector<Node> rest(static_cast<size_t>(n_told) + 1, kNothing);
  for (int32_t n = 0; n <= n_told; ++n) {
    const bool is_enough = n >= min, has_room = !is_bounded || n < max;
    Node& end = rest[static_cast<size_t>(n)];
    if (is_enough && (!is_bounded || n <= max)) end = ir_.empty();
    if (extra == kNothing || !has_room || n + 1 < min) continue;
    const Node further = ir_.sequence({comma, extra});
    const int32_t most = is_bounded ? max - n : kUnbounded;
    if (n > 0) {
      end = ir_.repeat(further, is_enough ? 0 : 1, most);
      continue;
    }
    const Node more = ir_.repeat(further, 0, most == kUnbounded ? kUnbounded : most - 1);
    const Node all = ir_.sequence({json_.space(), extra, more});
    end = is_enough ? ir_.optional(all) : all;
  }
  for (int32_t i = n_parts; i-- > 0;) {
    const Part& part = kept[static_cast<size_t>(i)];
    for (Node& node : rest) {
      if (node != kNothing) node = ir_.named("members", node);
    }
    std::vector<Node> before(rest.size(), kNothing);
    for (int32_t n = 0; n <= std::min(i, n_told); ++n) {
      std::vector<Node> ways;
      const Node then = rest[static_cast<size_t>(std::min(n + 1, n_told))];
      if (then != kNothing) ways.push_back(ir_.sequence({n == 0 ? json_.space() : comma, part.node, then}));
      if (!part.required) ways.push_back(rest[static_cast<size_t>(n)]);
      before[static_cast<size_t>(n)] = choice(std::move(ways));
    }
    rest = std::move(before);
  }
  return rest[0];
}

}  // namespace dspark
