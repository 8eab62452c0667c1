// Schemas put together: allOf and what stands beside $ref, what is told by other keywords, which parts of a
// "oneOf" keep apart.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "constrain/schema_compiler.h"
#include "constrain/schema_merge.h"
#include "constrain/schema_opposite.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxDepth = 64;
// Proofs that a schema is empty look so deep.
constexpr int kMaxProofDepth = 12;
// Bounds of the work that combinations may make: schemas put together (large ones count more), entries of one
// "anyOf".
constexpr int64_t kMaxCombined = 40000;
constexpr size_t kMaxEntries = 256;
// So many ways out of another part of a "oneOf" are followed.
constexpr size_t kMaxWaysOut = 6;

bool is_one_of(std::string_view key, std::initializer_list<std::string_view> keys) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

bool is_string(const Json& value) {
  return value.is_string();
}

/// Values in a schema, counted up to a limit.
size_t weight(const Json& value, size_t limit = 4096) {
  size_t n = 1;
  if (!value.is_structured()) return n;
  for (const Json& part : value) {
    if (n >= limit) break;
    n += weight(part, limit - n);
  }
  return n;
}

Json all_of_these(Json parts) {
  return Json{{"allOf", std::move(parts)}};
}

// Whether a least number is above the most.
bool are_crossed(const Json& schema, const char* least, const char* most) {
  return schema.contains(least) && schema.contains(most) && schema[least].is_number() &&
         schema[most].is_number() && schema[least].get<double>() > schema[most].get<double>();
}

bool is_only(const Json& schema, const char* type) {
  const auto it = schema.find("type");
  return it != schema.end() && (*it == type || *it == Json::array({type}));
}

// {"nullable":true,...} is OpenAPI's word for one of ... and null.
Json without_nullable(const Json& schema) {
  Json rest = schema_without(schema, "nullable");
  if (schema["nullable"] != true || rest.empty()) return rest;
  return Json{{"anyOf", Json::array({rest, Json{{"type", "null"}}})}};
}

}  // namespace

bool SchemaCompiler::is_told_by_others(const std::string& key, const Json& schema) {
  if (key == "not") return !is_string_exclusion(schema);
  return is_one_of(key, {"if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies"});
}

std::optional<Json> SchemaCompiler::flatten(const Json& schema, const std::string& place, int depth,
                                            Told told) {
  int64_t& n_combined = told == Told::kExactly ? n_combined_ : n_proofs_;
  n_combined += 1 + static_cast<int64_t>(weight(schema) / 32);
  if (depth > kMaxDepth || n_combined > kMaxCombined) {
    fail(resource_exhausted(at(place) + "$ref, allOf and anyOf lead into each other without end"));
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
  if (schema.contains("nullable")) return flatten(without_nullable(schema), place, depth + 1, told);
  const std::optional<Json> plain = rewritten(schema, place, told);
  if (!plain) return std::nullopt;
  std::vector<std::pair<const Json*, std::string>> parts;
  if (const auto it = plain->find("$ref"); it != plain->end()) {
    if (!it->is_string()) {
      fail(place, "'$ref' must be a string");
      return std::nullopt;
    }
    parts.emplace_back(resolve(it->get<std::string>(), place), it->get<std::string>().substr(1));
    if (parts.back().first == nullptr) return std::nullopt;
  }
  if (const auto it = plain->find("allOf"); it != plain->end()) {
    if (!it->is_array()) {
      fail(place, "'allOf' must be an array");
      return std::nullopt;
    }
    for (size_t i = 0; i < it->size(); ++i) {
      parts.emplace_back(&(*it)[i], place + "/allOf/" + std::to_string(i));
    }
  }
  std::optional<Json> all = schema_without(schema_without(*plain, "$ref"), "allOf");
  all->erase("unevaluatedProperties");
  for (const auto& [part, part_place] : parts) {
    const std::optional<Json> flat = flatten(*part, part_place, depth + 1, told);
    if (!flat) return std::nullopt;
    all = merge(*all, *flat, place, depth + 1, told);
    if (!all) return std::nullopt;
  }
  if (const auto type = all->find("type"); type != all->end() && *type == Json::array()) return std::nullopt;
  const auto unevaluated = plain->find("unevaluatedProperties");
  if (unevaluated == plain->end() || told == Told::kLeftAway) return all;
  return close_unevaluated(std::move(*all), *unevaluated, place);
}

/// Only members that no other keyword speaks about fall under "unevaluatedProperties".
std::optional<Json> SchemaCompiler::close_unevaluated(Json schema, const Json& unevaluated,
                                                      const std::string& place) {
  if (unevaluated == true || schema.contains("additionalProperties")) return schema;
  for (const char* key : {"anyOf", "oneOf"}) {
    if (!schema.contains(key)) continue;
    fail(
        unsupported(at(place) + "'unevaluatedProperties' beside alternatives ('anyOf', 'oneOf', 'if', ...)"));
    return std::nullopt;
  }
  schema["additionalProperties"] = unevaluated;
  return schema;
}

/// What two flat schemas say together. Pairs of alternatives that contradict each other are dropped.
std::optional<Json> SchemaCompiler::merge(const Json& a, const Json& b, const std::string& place, int depth,
                                          Told told) {
  const bool has_pairs = a.contains("anyOf") && b.contains("anyOf") && a["anyOf"] != b["anyOf"];
  Result<Json> merged =
      has_pairs ? merge_schemas(schema_without(a, "anyOf"), schema_without(b, "anyOf")) : merge_schemas(a, b);
  if (!merged.ok()) {
    fail(Status(merged.status().code(), at(place) + merged.status().message()));
    return std::nullopt;
  }
  if (!has_pairs) return std::move(merged).value();
  if (!a["anyOf"].is_array() || !b["anyOf"].is_array()) {
    fail(place, "'anyOf' must be an array of schemas");
    return std::nullopt;
  }
  constexpr size_t kMostTries = 64 * kMaxEntries;  // most of which contradict each other
  if (a["anyOf"].size() * b["anyOf"].size() > kMostTries) {
    fail(
        resource_exhausted(at(place) + "more than " + std::to_string(kMostTries) + " pairs of alternatives"));
    return std::nullopt;
  }
  Json pairs = Json::array();
  for (const Json& left : a["anyOf"]) {
    for (const Json& right : b["anyOf"]) {
      std::optional<Json> pair = flatten(all_of_these(Json::array({left, right})), place, depth + 1, told);
      if (pair) pair = settled(*merged, std::move(*pair), place, depth + 1, told);
      if (!status_.ok()) return std::nullopt;
      if (!pair) continue;
      if (pairs.size() == kMaxEntries) {
        fail(resource_exhausted(at(place) + "more than " + std::to_string(kMaxEntries) +
                                " combinations of alternatives"));
        return std::nullopt;
      }
      pairs.push_back(std::move(*pair));
    }
  }
  if (pairs.empty()) return std::nullopt;
  (*merged)["anyOf"] = std::move(pairs);
  return std::move(merged).value();
}

/// One of several alternatives beside `rest`, without what contradicts that: long lists of cases ("if" this,
/// "if" that) stay short in this way. Nothing: it contradicts as a whole, or an error.
std::optional<Json> SchemaCompiler::settled(const Json& rest, Json entry, const std::string& place, int depth,
                                            Told told) {
  const auto contradicts = [&](const Json& base, const Json& way) {
    return is_nothing(all_of_these(Json::array({rest, base, way})), depth);
  };
  if (entry.contains("anyOf") && entry["anyOf"].is_array()) {
    const Json base = schema_without(entry, "anyOf");
    Json ways = Json::array();
    for (const Json& way : entry["anyOf"]) {
      if (!contradicts(base, way)) ways.push_back(way);
    }
    if (ways.empty()) return std::nullopt;
    if (ways.size() == 1) {
      std::optional<Json> only = flatten(all_of_these(Json::array({base, ways[0]})), place, depth, told);
      if (!only) return std::nullopt;
      entry = std::move(*only);
    } else {
      entry["anyOf"] = std::move(ways);
    }
  } else if (contradicts(entry, true)) {
    return std::nullopt;
  }
  if (!entry.contains("properties") || !entry["properties"].is_object()) return entry;
  // Members of known values: which of them are left.
  for (auto& [name, schema] : entry["properties"].items()) {
    if (!schema.is_object() || schema.size() != 1 || !schema.contains("allOf")) continue;
    const bool is_declared = rest.contains("properties") && rest["properties"].contains(name);
    const Json both = is_declared ? all_of_these(Json::array({rest["properties"][name], schema})) : schema;
    const std::optional<Json> flat = flatten(both, place, depth, told);
    if (!status_.ok()) return std::nullopt;
    if (!flat) {
      schema = false;
    } else if (const std::optional<Json> values = sure_values(*flat)) {
      schema = Json{{"enum", *values}};
    }
  }
  return entry;
}

/// Those of "const" and "enum" that the other keywords accept, when there is no doubt about any.
std::optional<Json> SchemaCompiler::sure_values(const Json& flat) const {
  if (!flat.contains("const") && !flat.contains("enum")) return std::nullopt;
  const Json listed = flat.contains("const") ? Json::array({flat["const"]}) : flat["enum"];
  if (!listed.is_array()) return std::nullopt;
  Json values = Json::array();
  for (const Json& value : listed) {
    const Verdict verdict = judge_.accepts(flat, value);
    if (verdict == Verdict::kUnknown) return std::nullopt;
    if (verdict == Verdict::kYes) values.push_back(value);
  }
  return values;
}

/// Keywords that are told by others become entries of "allOf".
std::optional<Json> SchemaCompiler::rewritten(const Json& schema, const std::string& place, Told told) {
  Json rest = Json::object(), parts = Json::array();
  for (const auto& [key, wanted] : schema.items()) {
    if (!is_told_by_others(key, schema)) {
      rest[key] = wanted;
    } else if (told == Told::kExactly) {
      if (key == "not") parts.push_back(opposite(wanted, place + "/not"));
      if (key == "if" && (schema.contains("then") || schema.contains("else"))) {
        parts.push_back(conditional(schema, place));
      }
      if (!is_one_of(key, {"not", "if", "then", "else"})) add_dependencies(key, wanted, place, parts);
      if (!status_.ok()) return std::nullopt;
    }
  }
  if (parts.empty()) return rest;
  if (!rest.contains("allOf")) rest["allOf"] = Json::array();
  if (!rest["allOf"].is_array()) {
    fail(place, "'allOf' must be an array");
    return std::nullopt;
  }
  for (Json& part : parts) rest["allOf"].push_back(std::move(part));
  return rest;
}

Json SchemaCompiler::conditional(const Json& schema, const std::string& place) {
  Json holds = Json::array({schema["if"]});
  Json fails = Json::array({opposite(schema["if"], place + "/if")});
  if (schema.contains("then")) holds.push_back(schema["then"]);
  if (schema.contains("else")) fails.push_back(schema["else"]);
  return Json{{"anyOf", Json::array({all_of_these(std::move(holds)), all_of_these(std::move(fails))})}};
}

Json SchemaCompiler::opposite(const Json& schema, const std::string& place) {
  if (!schema.is_object() && !schema.is_boolean()) {
    fail(place, "expected a schema (an object or a boolean), found " + std::string(schema.type_name()));
    return false;
  }
  const Opposite found = opposite_of(schema, root_);
  if (!found.gap.empty()) {
    fail(unsupported(at(place) + "the opposite of '" + found.gap + "' is not supported"));
  }
  return found.as_schema();
}

/// "dependentRequired", "dependentSchemas" and "dependencies", which was both: a member is missing, or what
/// it brings along holds.
void SchemaCompiler::add_dependencies(const std::string& key, const Json& wanted, const std::string& place,
                                      Json& parts) {
  if (!wanted.is_object()) {
    fail(place, "'" + key + "' must be an object");
    return;
  }
  for (const auto& [name, needs] : wanted.items()) {
    const bool is_names = needs.is_array() && std::all_of(needs.begin(), needs.end(), is_string);
    if (!is_names && (needs.is_array() || key == "dependentRequired")) {
      fail(place, "'" + key + "' must list names, found " + needs.dump());
      return;
    }
    Json absent = Json::object(), names = Json::array({name});
    absent["properties"][name] = false;
    if (is_names) names.insert(names.end(), needs.begin(), needs.end());
    Json present = Json::array({Json{{"required", names}}});
    if (!is_names) present.push_back(needs);
    parts.push_back(Json{{"anyOf", Json::array({absent, all_of_these(std::move(present))})}});
  }
}

bool SchemaCompiler::is_nothing(const Json& schema, int depth) {
  if (!status_.ok() || depth > kMaxProofDepth) return false;
  const std::optional<Json> flat = flatten(schema, "", depth, Told::kLeftAway);
  if (!status_.ok()) {
    status_ = ok_status();
    return false;
  }
  return !flat || flat_is_nothing(*flat, depth);
}

bool SchemaCompiler::flat_is_nothing(const Json& flat, int depth) {
  const Json listed = flat.contains("const")  ? Json::array({flat["const"]})
                      : flat.contains("enum") ? flat["enum"]
                                              : Json();
  if (listed.is_array() && std::all_of(listed.begin(), listed.end(), [&](const Json& value) {
        return judge_.accepts(flat, value) == Verdict::kNo;
      })) {
    return true;
  }
  if ((is_only(flat, "number") || is_only(flat, "integer")) && are_crossed(flat, "minimum", "maximum"))
    return true;
  if (is_only(flat, "string") && are_crossed(flat, "minLength", "maxLength")) return true;
  if (is_only(flat, "array") && are_crossed(flat, "minItems", "maxItems")) return true;
  if (is_only(flat, "object") && are_crossed(flat, "minProperties", "maxProperties")) return true;
  if (is_only(flat, "object") && flat.contains("required") && !flat.contains("patternProperties")) {
    const Json always = true;
    for (const Json& name : flat["required"]) {
      if (!name.is_string()) continue;
      const auto text = name.get<std::string>();
      const bool is_declared = flat.contains("properties") && flat["properties"].contains(text);
      const Json& value = is_declared                             ? flat["properties"][text]
                          : flat.contains("additionalProperties") ? flat["additionalProperties"]
                                                                  : always;
      if (is_nothing(value, depth + 1)) return true;
    }
  }
  for (const char* key : {"anyOf", "oneOf"}) {
    if (flat.contains(key) && !any_part_is_something(flat, key, depth)) return true;
  }
  return false;
}

bool SchemaCompiler::any_part_is_something(const Json& flat, const char* key, int depth) {
  const Json& list = flat[key];
  if (!list.is_array() || list.size() > kMaxEntries) return true;
  const Json rest = schema_without(flat, key);
  return std::any_of(list.begin(), list.end(), [&](const Json& part) {
    return !is_nothing(all_of_these(Json::array({rest, part})), depth + 1);
  });
}

std::optional<Json> SchemaCompiler::apart_from_others(const Json& base, const Json& list, size_t i,
                                                      const std::string& place, std::string& gap) {
  Json apart = Json::array(), never_written = Json::array();
  const Json mine = all_of_these(Json::array({base, list[i]}));
  for (size_t j = 0; j < list.size(); ++j) {
    if (j == i || is_nothing(all_of_these(Json::array({base, list[i], list[j]})), 0)) continue;
    const std::optional<std::string> name = required_but_never_written(mine, list[j], place);
    if (!status_.ok()) return std::nullopt;
    if (name) {
      Json absent = Json::object();
      absent["properties"][*name] = false;
      never_written.push_back(std::move(absent));
      continue;
    }
    apart.push_back(ways_apart(mine, list[j], gap));
    if (!status_.ok()) return std::nullopt;
  }
  // What keeps the part from one may make it write what another one requires.
  if (!apart.empty()) apart.insert(apart.end(), never_written.begin(), never_written.end());
  return apart;
}

/// What keeps the values of a schema from those of another one, without what contradicts it. Ways that bring
/// members along which the schema does not declare are taken only when there are no others.
Json SchemaCompiler::ways_apart(const Json& mine, const Json& other, std::string& gap) {
  Opposite opposite = opposite_of(other, root_);
  if (gap.empty()) gap = opposite.gap;
  const std::optional<Json> written = flatten(mine, "", 0, Told::kLeftAway);
  if (!status_.ok()) status_ = ok_status();
  std::erase_if(opposite.alternatives, [&](const Json& way) {
    return is_nothing(all_of_these(Json::array({mine, way})), 0);
  });
  const auto is_foreign = [&](const Json& way) {
    const Json none = Json::array();
    const Json& names = way.is_object() && way.contains("required") ? way["required"] : none;
    return std::any_of(names.begin(), names.end(), [&](const Json& name) {
      return !name.is_string() || !written || !written->contains("properties") ||
             !(*written)["properties"].contains(name.get<std::string>());
    });
  };
  std::vector<Json>& ways = opposite.alternatives;
  if (!std::all_of(ways.begin(), ways.end(), is_foreign)) std::erase_if(ways, is_foreign);
  if (ways.size() > kMaxWaysOut) ways.resize(kMaxWaysOut);
  return opposite.as_schema();
}

/// A member that `other` requires and that the objects written for `schema` lack: members that are not
/// declared are written only where "additionalProperties" asks for them.
std::optional<std::string> SchemaCompiler::required_but_never_written(const Json& schema, const Json& other,
                                                                      const std::string& place) {
  const std::optional<Json> wanted = flatten(other, "", 0, Told::kLeftAway);
  if (!status_.ok()) status_ = ok_status();  // a proof that failed is no error
  if (!wanted || !wanted->contains("required") || !(*wanted)["required"].is_array()) return std::nullopt;
  const std::optional<Json> written = flatten(schema, place, 0);
  if (!written || (!is_only(*written, "object") && !is_only(*wanted, "object"))) return std::nullopt;
  for (const char* key : {"anyOf", "oneOf", "patternProperties"}) {
    if (written->contains(key)) return std::nullopt;
  }
  const Json none = Json::object();
  const Json& declared = written->contains("properties") ? (*written)["properties"] : none;
  const Json& required = written->contains("required") ? (*written)["required"] : none;
  const bool is_closed = written->contains("additionalProperties")
                             ? (*written)["additionalProperties"] == false
                             : !declared.empty();
  for (const Json& name : (*wanted)["required"]) {
    if (!is_closed || !name.is_string() || declared.contains(name.get<std::string>())) continue;
    if (std::find(required.begin(), required.end(), name) == required.end()) return name.get<std::string>();
  }
  return std::nullopt;
}

}  // namespace dspark
