// Arrays of a schema: lists, tuples, items that differ, items that some must be.

#include <algorithm>
#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "constrain/schema_compiler.h"
#include "constrain/schema_merge.h"
#include "constrain/schema_opposite.h"

namespace dspark {
namespace {

using Json = nlohmann::ordered_json;
using Node = GrammarIr::Node;

constexpr int32_t kUnbounded = GrammarIr::kUnbounded;
// Values that differ come in any order up to so many, above that in the order of the schema.
constexpr size_t kMaxAnyOrder = 8;
constexpr size_t kMaxFewValues = 128;
// Items and matches that "contains" counts.
constexpr int64_t kMaxCounted = 4096;
constexpr int kMaxDepth = 16;

}  // namespace

Node SchemaCompiler::array(const Json& schema, const std::string& place) {
  const int32_t min = count(schema, "minItems", 0, place);
  const int32_t max = count(schema, "maxItems", kUnbounded, place);
  if (!status_.ok() || (max != kUnbounded && max < min)) return kNothing;
  // Draft 7 wrote tuples as a list in "items".
  const bool old_tuple = schema.contains("items") && schema["items"].is_array();
  const char* prefix_key = old_tuple ? "items" : "prefixItems";
  const char* rest_key = old_tuple ? "additionalItems" : "items";
  const bool is_tuple = schema.contains(prefix_key) && !schema[prefix_key].empty();
  const bool is_unique =
      schema.contains("uniqueItems") && schema["uniqueItems"] != false && max != 0 && max != 1;
  if (is_unique && schema["uniqueItems"] != true) return fail(place, "'uniqueItems' must be a boolean");
  for (const char* key : {"minContains", "maxContains"}) {
    if (schema.contains(key) && !schema.contains("contains")) {
      return fail(unsupported(at(place) + "'" + key + "' without 'contains'"));
    }
  }
  const bool is_counted = schema.contains("contains");
  if ((is_unique || is_counted) && is_tuple) {
    return fail(unsupported(at(place) + (is_counted ? "'contains'" : "'uniqueItems'") + " beside '" +
                            prefix_key + "'"));
  }
  if (is_unique) return unique_items(schema, min, max, place);
  if (is_counted) return containing(schema, min, max, place);
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
  return status_.ok() ? list(prefix, rest, min, max) : kNothing;
}

/// The prefix, then items of one kind (kNothing: none), min .. max in all.
Node SchemaCompiler::list(const std::vector<Node>& prefix, Node rest, int32_t min, int32_t max) {
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

std::optional<std::vector<Json>> SchemaCompiler::few_values(const Json& schema, const std::string& place,
                                                            int depth) {
  const std::optional<Json> flat = flatten(schema, place, depth);
  if (!flat) return status_.ok() ? std::optional(std::vector<Json>{}) : std::nullopt;
  std::vector<Json> values;
  const auto add = [&](const Json& value) {
    const bool is_known = std::any_of(values.begin(), values.end(),
                                      [&](const Json& other) { return same_value(value, other); });
    if (!is_known) values.push_back(value);
  };
  for (const char* key : {"anyOf", "oneOf"}) {
    if (!flat->contains(key)) continue;
    if (!(*flat)[key].is_array() || depth > kMaxDepth) return std::nullopt;
    for (const Json& part : (*flat)[key]) {
      const Json both = Json{{"allOf", Json::array({schema_without(*flat, key), part})}};
      const auto found = few_values(both, place, depth + 1);
      if (!found) return std::nullopt;
      for (const Json& value : *found) {
        if (judge_.accepts(*flat, value) == Verdict::kYes) add(value);
      }
    }
    return values;
  }
  if (flat->contains("const") || flat->contains("enum")) {
    const std::optional<Json> allowed = allowed_values(*flat, place);
    if (!allowed) return std::nullopt;
    for (const Json& value : *allowed) add(value);
    return values;
  }
  if (!flat->contains("type")) return std::nullopt;
  for (const std::string& type : types_of(*flat, place)) {
    if (type == "null") {
      add(nullptr);
    } else if (type == "boolean") {
      add(false);
      add(true);
    } else if (type == "integer" && !flat->contains("multipleOf")) {
      const std::optional<int64_t> lo = integer_bound(*flat, true, place);
      const std::optional<int64_t> hi = integer_bound(*flat, false, place);
      if (!lo || !hi || *hi - *lo >= static_cast<int64_t>(kMaxFewValues)) return std::nullopt;
      for (int64_t value = *lo; value <= *hi; ++value) add(value);
    } else {
      return std::nullopt;
    }
  }
  if (!status_.ok() || values.size() > kMaxFewValues) return std::nullopt;
  return values;
}

/// Items that all differ: a choice among few values.
Node SchemaCompiler::unique_items(const Json& schema, int32_t min, int32_t max, const std::string& place) {
  const Json items = schema.contains("items") ? schema["items"] : Json(true);
  const auto found = few_values(items, place + "/items", 0);
  if (!status_.ok()) return kNothing;
  if (!found) {
    return fail(unsupported(at(place) +
                            "'uniqueItems' of items that are not few known values ('enum', 'const', "
                            "booleans, small ranges of integers)"));
  }
  std::vector<Node> values;
  for (const Json& value : *found) values.push_back(json_.text(value.dump()));
  if (min > static_cast<int32_t>(values.size())) return kNothing;
  Node content = kNothing;
  if (values.size() <= kMaxAnyOrder) {
    content = unique_in_any_order(schema, *found, min, max, place);
  } else if (schema.contains("contains")) {
    return fail(unsupported(at(place) + "'contains' beside 'uniqueItems' of more than " +
                            std::to_string(kMaxAnyOrder) + " values"));
  } else {
    std::vector<Part> parts;
    for (const Node value : values) parts.push_back({ir_.named("item", value), false});
    content = selection(parts, min, max, kNothing, place);
  }
  if (content == kNothing) return kNothing;
  return ir_.sequence({json_.text("["), content, json_.space(), json_.text("]")});
}

/// One rule per set of values that were written.
Node SchemaCompiler::unique_in_any_order(const Json& schema, const std::vector<Json>& values, int32_t min,
                                         int32_t max, const std::string& place) {
  size_t matches = 0;  // of "contains"
  int32_t least = 0, most = kUnbounded;
  if (schema.contains("contains")) {
    least = count(schema, "minContains", 1, place);
    most = count(schema, "maxContains", kUnbounded, place);
    for (size_t i = 0; i < values.size(); ++i) {
      const Verdict verdict = judge_.accepts(schema["contains"], values[i]);
      if (verdict == Verdict::kUnknown)
        fail(unsupported(at(place) + "such a 'contains' beside 'uniqueItems'"));
      if (verdict == Verdict::kYes) matches |= size_t{1} << i;
    }
    if (!status_.ok()) return kNothing;
  }
  const size_t n_sets = size_t{1} << values.size();
  const Node comma = ir_.sequence({json_.text(","), json_.space()});
  std::vector<int32_t> rules;
  for (size_t set = 0; set < n_sets; ++set) rules.push_back(ir_.add_rule("different items"));
  for (size_t set = 0; set < n_sets; ++set) {
    const int32_t n_written = std::popcount(set), n_matches = std::popcount(set & matches);
    std::vector<Node> ways;
    if (n_written >= min && n_matches >= least && (most == kUnbounded || n_matches <= most)) {
      ways.push_back(ir_.empty());
    }
    for (size_t i = 0; i < values.size() && (max == kUnbounded || n_written < max); ++i) {
      if ((set >> i & 1) != 0) continue;
      ways.push_back(ir_.sequence({set == 0 ? json_.space() : comma, json_.text(values[i].dump()),
                                   ir_.call(rules[set | size_t{1} << i])}));
    }
    ir_.set_body(rules[set], ways.empty() ? ir_.char_class({}) : ir_.choice(std::move(ways)));
  }
  return ir_.call(rules[0]);
}

/// "contains": one rule per number of items and of matches so far, both counted as far as it matters.
Node SchemaCompiler::containing(const Json& schema, int32_t min, int32_t max, const std::string& place) {
  const int32_t least = count(schema, "minContains", 1, place);
  const int32_t most = count(schema, "maxContains", kUnbounded, place);
  if (!status_.ok() || (most != kUnbounded && most < least)) return kNothing;
  const Json items = schema.contains("items") ? schema["items"] : Json(true);
  const Json& wanted = schema["contains"];
  const std::string wanted_place = place + "/contains";
  const Node match = compile(Json{{"allOf", Json::array({items, wanted})}}, wanted_place);
  // Without a maximum any item will do beside the matches.
  const Node other =
      most == kUnbounded
          ? compile(items, place + "/items")
          : compile(Json{{"allOf", Json::array({items, opposite(wanted, wanted_place)})}}, wanted_place);
  if (!status_.ok() || (least > 0 && match == kNothing) || (max != kUnbounded && max < least))
    return kNothing;
  const int32_t n_items = max == kUnbounded ? std::max(1, min) : max;
  const int32_t n_matches = most == kUnbounded ? least : most;
  if ((int64_t{n_items} + 1) * (n_matches + 1) > kMaxCounted) {
    return fail(resource_exhausted(at(place) + "'contains' beside counts that are too large"));
  }
  const Node comma = ir_.sequence({json_.text(","), json_.space()});
  const auto rule_of = [&, first = ir_.rules.size()](int32_t n, int32_t m) {
    return static_cast<int32_t>(first) + n * (n_matches + 1) + m;
  };
  for (int32_t i = 0; i < (n_items + 1) * (n_matches + 1); ++i) ir_.add_rule("items with matches");
  const Node match_item = match == kNothing ? kNothing : ir_.named("item", match);
  const Node other_item = other == kNothing ? kNothing : ir_.named("item", other);
  for (int32_t n = 0; n <= n_items; ++n) {
    for (int32_t m = 0; m <= n_matches; ++m) {
      std::vector<Node> ways;
      if (n >= min && m >= least) ways.push_back(ir_.empty());
      const Node begin = n == 0 ? json_.space() : comma;
      const int32_t next = max == kUnbounded ? std::min(n + 1, n_items) : n + 1;
      const bool has_room = next <= n_items;
      const bool may_match = most == kUnbounded || m < most;
      if (has_room && match_item != kNothing && may_match) {
        ways.push_back(
            ir_.sequence({begin, match_item, ir_.call(rule_of(next, std::min(m + 1, n_matches)))}));
      }
      if (has_room && other_item != kNothing) {
        ways.push_back(ir_.sequence({begin, other_item, ir_.call(rule_of(next, m))}));
      }
      ir_.set_body(rule_of(n, m), ways.empty() ? ir_.char_class({}) : ir_.choice(std::move(ways)));
    }
  }
  return ir_.sequence({json_.text("["), ir_.call(rule_of(0, 0)), json_.space(), json_.text("]")});
}

}  // namespace dspark
