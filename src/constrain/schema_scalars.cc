// Strings and numbers of a schema.

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
// So few multiples are listed; above that a step has at most so many remainders, or halves, quarters, ...
constexpr int64_t kMaxListed = 256;
constexpr int64_t kMaxRemainders = 1024;
constexpr int kMaxHalvings = 4;

double value_of(const DecimalBound& bound) {
  const double absolute = std::stod(std::to_string(bound.whole) + "." + bound.fraction + "0");
  return bound.is_negative ? -absolute : absolute;
}

}  // namespace

/// "multipleOf" as numerator / 2^halvings.
struct SchemaCompiler::Step {
  int64_t numerator = 1;
  int halvings = 0;
  double value() const { return std::ldexp(static_cast<double>(numerator), -halvings); }
};

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

Node SchemaCompiler::string(const Json& schema, const std::string& place) {
  const int32_t min = count(schema, "minLength", 0, place);
  const int32_t max = count(schema, "maxLength", kUnbounded, place);
  if (!status_.ok() || (max != kUnbounded && max < min)) return kNothing;
  const auto format_name = schema.find("format");
  if (format_name != schema.end() && !format_name->is_string())
    return fail(place, "'format' must be a string");
  if (format_name != schema.end() && is_known_format(format_name->get<std::string>())) {
    for (const char* key : {"pattern", "not"}) {
      if (schema.contains(key)) return fail(unsupported(at(place) + "'" + key + "' beside 'format'"));
    }
    return format(format_name->get<std::string>(), min, max, place);
  }
  if (schema.contains("not")) {
    const std::optional<TextSet> set = text_set(schema, min, max, place);
    const Node content = set ? set->content(ir_, json_) : kNothing;
    return content == kNothing ? kNothing : json_.quoted(content);
  }
  return schema.contains("pattern") ? pattern(schema, place, min, max) : json_.string(min, max);
}

/// A known format. Its texts are not told apart by length: all of them fit, or it is refused.
Node SchemaCompiler::format(const std::string& name, int32_t min, int32_t max, const std::string& place) {
  const Node content = json_.format(name);
  const auto [least, most] = ir_.lengths(content);
  if (least >= min && (max == kUnbounded || (most != kUnbounded && most <= max)))
    return json_.quoted(content);
  if (max != kUnbounded && max < least) return kNothing;
  return fail(unsupported(at(place) + "'minLength' or 'maxLength' beside the format '" + name +
                          "', whose texts have " + std::to_string(least) + " to " + std::to_string(most) +
                          " characters"));
}

/// What "pattern", the lengths and "not" say together.
std::optional<TextSet> SchemaCompiler::text_set(const Json& schema, int32_t min, int32_t max,
                                                const std::string& place) {
  TextSet set = TextSet::all();
  const auto narrow = [&](const Result<TextSet>& other, bool is_excluded = false) {
    if (!status_.ok()) return;
    Status error = other.status();
    if (error.ok()) {
      Result<TextSet> both = set.intersect(is_excluded ? other->complement() : *other);
      error = both.status();
      if (both.ok()) set = std::move(both).value();
    }
    if (!error.ok()) fail(Status(error.code(), at(place) + error.message()));
  };
  if (const auto it = schema.find("pattern"); it != schema.end()) {
    if (!it->is_string()) {
      fail(place, "'pattern' must be a string");
      return std::nullopt;
    }
    narrow(judge_.matching(it->get<std::string>()));
  }
  if (min > 0 || max != kUnbounded) narrow(TextSet::lengths(min, max));
  if (const auto it = schema.find("not"); it != schema.end()) {
    for (const Json& part : (*it)["anyOf"]) {
      if (part.contains("pattern")) {
        narrow(judge_.matching(part["pattern"].get<std::string>()), true);
      } else {
        narrow(TextSet::of(part["enum"].get<std::vector<std::string>>()), true);
      }
    }
  }
  if (!status_.ok()) return std::nullopt;
  return set;
}

Node SchemaCompiler::pattern(const Json& schema, const std::string& place, int32_t min, int32_t max) {
  if (!schema["pattern"].is_string()) return fail(place, "'pattern' must be a string");
  Result<PatternContent> found = compile_pattern(schema["pattern"].get<std::string>(), ir_, json_);
  if (!found.ok()) return fail(Status(found.status().code(), at(place) + found.status().message()));
  const bool fits = found->min_length >= min &&
                    (max == kUnbounded || (found->max_length != kUnbounded && found->max_length <= max));
  if (fits) return json_.quoted(found->node);
  if (found->unit < 0) {
    const std::optional<TextSet> set = text_set(schema, min, max, place);
    const Node content = set ? set->content(ir_, json_) : kNothing;
    return content == kNothing ? kNothing : json_.quoted(content);
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
  const std::optional<Step> step = step_of(schema, place);
  if (!status_.ok()) return kNothing;
  // Whole multiples of a fraction in lowest terms are those of its numerator.
  const int64_t whole_step = step ? step->numerator : 1;
  if (!lo && !hi && whole_step == 1) return json_.integer();
  const int64_t first = lo.value_or(-kLargestInteger), last = hi.value_or(kLargestInteger);
  if (first > last) return kNothing;
  if (whole_step > 1) return whole_multiples(whole_step, first, last, place);
  return ir_.named("integer range", json_.integer_range(first, last));
}

Node SchemaCompiler::number(const Json& schema, const std::string& place) {
  const std::optional<DecimalBound> lo = bound(schema, true, place);
  const std::optional<DecimalBound> hi = bound(schema, false, place);
  const std::optional<Step> step = step_of(schema, place);
  if (!status_.ok()) return kNothing;
  if (lo && hi) {
    if (value_of(*lo) > value_of(*hi)) return kNothing;
    if (value_of(*lo) == value_of(*hi) && (lo->is_exclusive || hi->is_exclusive)) return kNothing;
  }
  if (step && step->halvings == 0) return integer(schema, place);
  if (step) return multiples(*step, lo, hi, place);
  if (!lo && !hi) return json_.number();
  const Node range = json_.number_range(lo, hi);
  return range < 0 ? kNothing : ir_.named("number range", range);
}

std::optional<SchemaCompiler::Step> SchemaCompiler::step_of(const Json& schema, const std::string& place) {
  const auto it = schema.find("multipleOf");
  if (it == schema.end()) return std::nullopt;
  const double value = it->is_number() ? it->get<double>() : 0.0;
  if (!(value > 0.0 && value <= kLargestBound)) {
    fail(place, "'multipleOf' must be a number above 0 and at most 1e15, found " + it->dump());
    return std::nullopt;
  }
  Step step;
  double numerator = value;
  while (numerator != std::floor(numerator) && step.halvings < kMaxHalvings) {
    numerator *= 2.0;
    ++step.halvings;
  }
  if (numerator != std::floor(numerator)) {
    fail(unsupported(
        at(place) + "'multipleOf' " + it->dump() +
        ": only whole numbers, halves, quarters, eighths and sixteenths, whose multiples all readers "
        "of JSON agree on"));
    return std::nullopt;
  }
  step.numerator = static_cast<int64_t>(numerator);
  return step;
}

/// Multiples of a whole number, lo .. hi.
Node SchemaCompiler::whole_multiples(int64_t step, int64_t lo, int64_t hi, const std::string& place) {
  const int64_t first = lo / step + (lo > 0 && lo % step != 0 ? 1 : 0);
  const int64_t last = hi / step - (hi < 0 && hi % step != 0 ? 1 : 0);
  if (first > last) return kNothing;
  if (last - first < kMaxListed) {
    std::vector<Node> parts;
    for (int64_t n = first; n <= last; ++n) parts.push_back(json_.text(std::to_string(n * step)));
    return choice(std::move(parts));
  }
  int64_t remainders = step;
  while (remainders % 10 == 0) remainders /= 10;
  if (remainders > kMaxRemainders) {
    return fail(unsupported(at(place) + "'multipleOf' " + std::to_string(step) + ": above " +
                            std::to_string(kMaxRemainders) + " (zeros at the end not counted) at most " +
                            std::to_string(kMaxListed) + " multiples may lie between the bounds"));
  }
  return ir_.named("multiple", json_.integer_multiples(lo, hi, step));
}

/// Multiples of a fraction: few between the bounds, or halves, quarters, ... of every whole number.
Node SchemaCompiler::multiples(const Step& step, const std::optional<DecimalBound>& lo,
                               const std::optional<DecimalBound>& hi, const std::string& place) {
  NumberInterval range;
  if (lo) {
    range.lo = value_of(*lo);
    range.excludes_lo = lo->is_exclusive;
  }
  if (hi) {
    range.hi = value_of(*hi);
    range.excludes_hi = hi->is_exclusive;
  }
  const double first = std::floor(range.lo / step.value()) - 1.0,
               last = std::ceil(range.hi / step.value()) + 1.0;
  if (last - first < static_cast<double>(kMaxListed)) {
    std::vector<Node> parts;
    for (double n = first; n <= last; n += 1.0) {
      if (range.contains(n * step.value())) parts.push_back(json_.text(decimal_text(n * step.value())));
    }
    return choice(std::move(parts));
  }
  if (step.numerator != 1) {
    return fail(unsupported(at(place) + "'multipleOf' " + decimal_text(step.value()) + ": at most " +
                            std::to_string(kMaxListed) + " multiples may lie between the bounds"));
  }
  const Node node = json_.fraction_multiples(step.value(), range);
  return node < 0 ? kNothing : ir_.named("multiple", node);
}

}  // namespace dspark
