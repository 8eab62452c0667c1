// Objects, arrays, strings and numbers of a schema.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "constrain/json_pattern.h"
#include "constrain/schema_compiler.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;
using Node = GrammarIr::Node;

constexpr int32_t kUnbounded = GrammarIr::kUnbounded;
constexpr int32_t kMaxCount = 100000;
constexpr double kLargestBound = 1e15;
/// Integers without a bound on one side get at most so many digits.
constexpr int64_t kLargestInteger = 999999999999999;

}  // namespace

Node SchemaCompiler::type(const std::string& name, const Json& schema, const std::string& place) {
  if (!status_.ok()) return kNothing;
  if (name == "object") return object(schema, place);
  if (name == "array") return array(schema, place);
  if (name == "string") return string(schema, place);
  if (name == "integer") return integer(schema, place);
  if (name == "number") return number(schema, place);
  return name == "boolean" ? json_.boolean() : json_.text("null");
}

/// A count that must be a whole number >= 0.
int32_t SchemaCompiler::count(const Json& schema, const char* key, int32_t fallback,
                              const std::string& place) {
  const auto it = schema.find(key);
  if (it == schema.end()) return fallback;
  const double value = it->is_number() ? it->get<double>() : -1.0;
  if (!(value >= 0.0) || value != std::floor(value)) {
    fail(place, std::string("'") + key + "' must be a whole number >= 0, found " + it->dump());
    return fallback;
  }
  if (value > kMaxCount) {
    fail(resource_exhausted(at(place) + "'" + key + "' may be at most " + std::to_string(kMaxCount)));
    return fallback;
  }
  return static_cast<int32_t>(value);
}

Node SchemaCompiler::object(const Json& schema, const std::string& place) {
  for (const char* key : {"properties", "required"}) {
    const auto it = schema.find(key);
    const bool is_list = std::string_view(key) == "required";
    if (it != schema.end() && !(is_list ? it->is_array() : it->is_object())) {
      return fail(place, std::string("'") + key + "' must be an " + (is_list ? "array" : "object"));
    }
  }
  const bool has_members = schema.contains("properties") && !schema["properties"].empty();
  const bool has_required = schema.contains("required") && !schema["required"].empty();
  const Node content = has_members || has_required ? members(schema, place) : dictionary(schema, place);
  if (content == kNothing) return kNothing;
  return ir_.sequence({json_.text("{"), content, json_.space(), json_.text("}")});
}

/// Schema of members that are not declared; kNothing: none are written.
Node SchemaCompiler::additional(const Json& schema, const std::string& place) {
  const auto it = schema.find("additionalProperties");
  if (it == schema.end()) return kNothing;
  return compile(*it, place + "/additionalProperties");
}

/// An object without declared members: any, of one schema, as many as asked for.
Node SchemaCompiler::dictionary(const Json& schema, const std::string& place) {
  const int32_t min = count(schema, "minProperties", 0, place);
  const int32_t max = count(schema, "maxProperties", kUnbounded, place);
  if (min > 1) {
    return fail(unsupported(at(place) + "'minProperties' above 1 without that many required properties"));
  }
  const Node value = schema.contains("additionalProperties") ? additional(schema, place) : json_.value();
  if (!status_.ok()) return kNothing;
  if (value == kNothing || max == 0) return min == 0 ? ir_.empty() : kNothing;
  Node name = json_.other_key({});
  if (const auto it = schema.find("propertyNames"); it != schema.end()) {
    name = compile(Json{{"allOf", Json::array({Json{{"type", "string"}}, *it})}}, place + "/propertyNames");
    if (name == kNothing) return status_.ok() && min == 0 ? ir_.empty() : kNothing;
  }
  const Node member = ir_.named("member", ir_.sequence({json_.key(name), value}));
  const Node next = ir_.sequence({json_.text(","), json_.space(), member});
  const Node more = ir_.repeat(next, 0, max == kUnbounded ? kUnbounded : max - 1);
  const Node all = ir_.sequence({json_.space(), member, more});
  return min == 0 ? ir_.optional(all) : all;
}

/// Declared members in their order, optional ones left out or not, then additional ones.
Node SchemaCompiler::members(const Json& schema, const std::string& place) {
  struct Member {
    std::string name;
    bool required = false;
    Node node = kNothing;
  };
  if (schema.contains("propertyNames"))
    return fail(unsupported(at(place) + "'propertyNames' beside 'properties'"));
  std::vector<Member> list;
  const Json declared = schema.contains("properties") ? schema["properties"] : Json::object();
  for (const auto& [name, property] : declared.items()) list.push_back({name});
  int32_t n_required = 0;
  const Json required = schema.contains("required") ? schema["required"] : Json::array();
  for (const Json& name : required) {
    if (!name.is_string()) return fail(place, "'required' must list names, found " + name.dump());
    auto it = std::find_if(list.begin(), list.end(),
                           [&](const Member& m) { return m.name == name.get<std::string>(); });
    if (it == list.end()) it = list.insert(list.end(), Member{name.get<std::string>()});
    n_required += it->required ? 0 : 1;
    it->required = true;
  }
  const int32_t min = count(schema, "minProperties", 0, place);
  const int32_t max = count(schema, "maxProperties", kUnbounded, place);
  std::vector<std::string> names;
  for (Member& member : list) {
    names.push_back(member.name);
    const std::string member_place = place + "/properties/" + member.name;
    Node value = json_.value();
    if (declared.contains(member.name)) {
      value = compile(declared[member.name], member_place);
    } else if (schema.contains("additionalProperties")) {
      value = additional(schema, place);
    }
    if (!status_.ok() || (value == kNothing && member.required)) return kNothing;
    if (value != kNothing) {
      member.node =
          ir_.named(member.name, ir_.sequence({json_.key(json_.text(Json(member.name).dump())), value}));
    }
  }
  const Node extra = additional(schema, place);
  if (!status_.ok()) return kNothing;
  if (min > n_required ||
      (max != kUnbounded && (extra != kNothing || max < static_cast<int32_t>(list.size())))) {
    return fail(unsupported(at(place) + "'minProperties' and 'maxProperties' beside 'properties'"));
  }
  const Node comma = ir_.sequence({json_.text(","), json_.space()});
  // What may follow member i, when a member stands before it and when none does; from the last backwards.
  Node after = ir_.empty(), first = ir_.empty();
  if (extra != kNothing) {
    const Node member = ir_.named("another member", ir_.sequence({json_.key(json_.other_key(names)), extra}));
    after = ir_.repeat(ir_.sequence({comma, member}), 0, kUnbounded);
    first = ir_.optional(ir_.sequence({json_.space(), member, after}));
  }
  for (size_t i = list.size(); i-- > 0;) {
    if (list[i].node == kNothing) continue;
    const Node then = ir_.named("members", after);
    const Node with_comma = ir_.sequence({comma, list[i].node, then});
    const Node at_start = ir_.sequence({json_.space(), list[i].node, then});
    first = list[i].required ? at_start : ir_.choice({at_start, ir_.named("members", first)});
    after = list[i].required ? with_comma : ir_.choice({with_comma, then});
  }
  return first;
}

Node SchemaCompiler::array(const Json& schema, const std::string& place) {
  const int32_t min = count(schema, "minItems", 0, place);
  const int32_t max = count(schema, "maxItems", kUnbounded, place);
  if (!status_.ok() || (max != kUnbounded && max < min)) return kNothing;
  // Draft 7 wrote tuples as a list in "items".
  const bool old_tuple = schema.contains("items") && schema["items"].is_array();
  const char* prefix_key = old_tuple ? "items" : "prefixItems";
  const char* rest_key = old_tuple ? "additionalItems" : "items";
  std::vector<Node> prefix;
  if (const auto it = schema.find(prefix_key); it != schema.end()) {
    if (!it->is_array()) return fail(place, std::string("'") + prefix_key + "' must be an array of schemas");
    for (size_t i = 0; i < it->size() && (max == kUnbounded || prefix.size() < static_cast<size_t>(max));
         ++i) {
      prefix.push_back(compile((*it)[i], place + "/" + prefix_key + "/" + std::to_string(i)));
      if (prefix.back() == kNothing) return kNothing;
    }
  }
  Node rest = kNothing;
  if (const auto it = schema.find(rest_key); it != schema.end()) {
    rest = compile(*it, place + "/" + rest_key);
  } else if (prefix.empty() || min > static_cast<int32_t>(prefix.size())) {
    rest = json_.value();
  }
  if (!status_.ok()) return kNothing;
  const auto n_prefix = static_cast<int32_t>(prefix.size());
  const int32_t rest_min = std::max(0, min - n_prefix);
  const int32_t rest_max = max == kUnbounded ? kUnbounded : max - n_prefix;
  if (rest == kNothing && rest_min > 0) return kNothing;
  const Node comma = ir_.sequence({json_.text(","), json_.space()});
  Node items = ir_.empty();
  if (rest != kNothing && rest_max != 0) {
    if (n_prefix > 0) {
      items = ir_.repeat(ir_.sequence({comma, rest}), rest_min, rest_max);
    } else {
      const Node item = ir_.named("item", rest);
      const Node more = ir_.repeat(ir_.sequence({comma, item}), std::max(0, rest_min - 1),
                                   rest_max == kUnbounded ? kUnbounded : rest_max - 1);
      items = ir_.sequence({json_.space(), item, more});
      if (rest_min == 0) items = ir_.optional(items);
    }
  }
  std::vector<Node> parts{json_.text("[")};
  for (size_t i = 0; i < prefix.size(); ++i) {
    parts.push_back(i == 0 ? json_.space() : comma);
    parts.push_back(prefix[i]);
  }
  parts.insert(parts.end(), {items, json_.space(), json_.text("]")});
  return ir_.sequence(std::move(parts));
}

Node SchemaCompiler::string(const Json& schema, const std::string& place) {
  const int32_t min = count(schema, "minLength", 0, place);
  const int32_t max = count(schema, "maxLength", kUnbounded, place);
  if (!status_.ok() || (max != kUnbounded && max < min)) return kNothing;
  if (schema.contains("pattern")) return pattern(schema, place, min, max);
  if (const auto it = schema.find("format"); it != schema.end()) {
    if (!it->is_string()) return fail(place, "'format' must be a string");
    const Node content = json_.format(it->get<std::string>());
    if (content >= 0) {
      if (min > 0 || max != kUnbounded) {
        return fail(unsupported(at(place) + "'minLength' and 'maxLength' beside this 'format'"));
      }
      return json_.quoted(content);
    }
  }
  return json_.string(min, max);
}

Node SchemaCompiler::pattern(const Json& schema, const std::string& place, int32_t min, int32_t max) {
  if (!schema["pattern"].is_string()) return fail(place, "'pattern' must be a string");
  if (const auto it = schema.find("format");
      it != schema.end() && it->is_string() && json_.format(it->get<std::string>()) >= 0) {
    return fail(unsupported(at(place) + "'pattern' beside 'format'"));
  }
  Result<PatternContent> found = compile_pattern(schema["pattern"].get<std::string>(), ir_, json_);
  if (!found.ok()) return fail(Status(found.status().code(), at(place) + found.status().message()));
  const bool fits = found->min_length >= min &&
                    (max == kUnbounded || (found->max_length != kUnbounded && found->max_length <= max));
  if (fits) return json_.quoted(found->node);
  if (found->unit < 0) {
    return fail(
        unsupported(at(place) +
                    "'minLength' and 'maxLength' beside a 'pattern' that allows other lengths; put the "
                    "lengths into the pattern"));
  }
  const int32_t least = std::max(min, found->min_length);
  const int32_t most = max == kUnbounded                 ? found->max_length
                       : found->max_length == kUnbounded ? max
                                                         : std::min(max, found->max_length);
  if (most != kUnbounded && most < least) return kNothing;
  return json_.quoted(ir_.repeat(found->unit, least, most));
}

/// The tighter of the two keywords for one end, as a decimal.
std::optional<DecimalBound> SchemaCompiler::bound(const Json& schema, bool is_lower,
                                                  const std::string& place) {
  std::optional<DecimalBound> found;
  double tightest = 0.0;
  for (const bool exclusive : {false, true}) {
    const char* key = is_lower ? (exclusive ? "exclusiveMinimum" : "minimum")
                               : (exclusive ? "exclusiveMaximum" : "maximum");
    const auto it = schema.find(key);
    if (it == schema.end()) continue;
    const double value = it->is_number() ? it->get<double>() : NAN;
    if (!(std::abs(value) <= kLargestBound)) {
      fail(place, std::string("'") + key + "' must be a number between -1e15 and 1e15, found " + it->dump());
      return std::nullopt;
    }
    if (found && (is_lower ? value < tightest : value > tightest)) continue;
    tightest = value;
    char digits[400];
    const auto end =
        std::to_chars(digits, digits + sizeof(digits), std::abs(value), std::chars_format::fixed);
    const std::string_view text(digits, static_cast<size_t>(end.ptr - digits));
    const size_t point = std::min(text.find('.'), text.size());
    found =
        DecimalBound{value < 0.0, 0, std::string(text.substr(std::min(point + 1, text.size()))), exclusive};
    std::from_chars(text.data(), text.data() + point, found->whole);
    if (found->fraction.size() > 30) {
      fail(unsupported(at(place) + "'" + key + "' has too many decimals"));
      return std::nullopt;
    }
  }
  return found;
}

std::optional<int64_t> SchemaCompiler::integer_bound(const Json& schema, bool is_lower,
                                                     const std::string& place) {
  const std::optional<DecimalBound> found = bound(schema, is_lower, place);
  if (!found) return std::nullopt;
  const int64_t whole = found->is_negative ? -found->whole : found->whole;
  if (found->fraction.empty()) {
    if (!found->is_exclusive) return whole;
    return is_lower ? whole + 1 : whole - 1;
  }
  // Cutting the fraction off rounded towards zero.
  if (is_lower) return found->is_negative ? whole : whole + 1;
  return found->is_negative ? whole - 1 : whole;
}

Node SchemaCompiler::integer(const Json& schema, const std::string& place) {
  const std::optional<int64_t> lo = integer_bound(schema, true, place);
  const std::optional<int64_t> hi = integer_bound(schema, false, place);
  if (!status_.ok()) return kNothing;
  if (!lo && !hi) return json_.integer();
  const int64_t first = lo.value_or(-kLargestInteger), last = hi.value_or(kLargestInteger);
  if (first > last) return kNothing;
  return ir_.named("integer range", json_.integer_range(first, last));
}

Node SchemaCompiler::number(const Json& schema, const std::string& place) {
  const std::optional<DecimalBound> lo = bound(schema, true, place);
  const std::optional<DecimalBound> hi = bound(schema, false, place);
  if (!status_.ok()) return kNothing;
  if (!lo && !hi) return json_.number();
  const auto value = [](const DecimalBound& b) {
    const double absolute = std::stod(std::to_string(b.whole) + "." + b.fraction + "0");
    return b.is_negative ? -absolute : absolute;
  };
  if (lo && hi) {
    if (value(*lo) > value(*hi)) return kNothing;
    if (value(*lo) == value(*hi) && (lo->is_exclusive || hi->is_exclusive)) return kNothing;
  }
  const Node range = json_.number_range(lo, hi);
  return range < 0 ? kNothing : ir_.named("number range", range);
}

}  // namespace dspark
