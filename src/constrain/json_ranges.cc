// Numbers between bounds, as grammars over their digits.

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "constrain/json_terminals.h"

namespace dspark {
namespace {

using Node = GrammarIr::Node;

constexpr int64_t kLargestWhole = 999999999999999;

char digit_at(std::string_view digits, size_t i) {
  return i < digits.size() ? digits[i] : '0';
}

}  // namespace

Node JsonTerminals::integer_range(int64_t lo, int64_t hi) {
  std::vector<Node> parts;
  if (lo < 0) parts.push_back(ir_.sequence({text("-"), unsigned_range(std::max<int64_t>(1, -hi), -lo)}));
  if (hi >= 0) parts.push_back(unsigned_range(std::max<int64_t>(0, lo), hi));
  return ir_.choice(std::move(parts));
}

Node JsonTerminals::unsigned_range(int64_t lo, int64_t hi) {
  std::vector<Node> parts;
  int64_t first = 0, last = 9;  // numbers of one length
  while (first <= hi) {
    const int64_t from = std::max(first, lo), to = std::min(last, hi);
    if (from <= to) parts.push_back(same_length_range(std::to_string(from), std::to_string(to)));
    if (last > kLargestWhole * 1000) break;
    first = last + 1;
    last = last * 10 + 9;
  }
  return ir_.choice(std::move(parts));
}

Node JsonTerminals::same_length_range(std::string_view lo, std::string_view hi) {
  if (lo.empty()) return ir_.empty();
  const auto length = static_cast<int32_t>(lo.size());
  if (lo.find_first_not_of('0') == std::string_view::npos &&
      hi.find_first_not_of('9') == std::string_view::npos) {
    return digits(length, length);
  }
  const auto l = static_cast<uint8_t>(lo[0]), h = static_cast<uint8_t>(hi[0]);
  if (l == h) return ir_.sequence({text(lo.substr(0, 1)), same_length_range(lo.substr(1), hi.substr(1))});
  const std::string nines(lo.size() - 1, '9'), zeros(lo.size() - 1, '0');
  std::vector<Node> parts{ir_.sequence({text(lo.substr(0, 1)), same_length_range(lo.substr(1), nines)})};
  if (h - l > 1) {
    parts.push_back(ir_.sequence({ir_.char_class({{l + 1u, h - 1u}}), digits(length - 1, length - 1)}));
  }
  parts.push_back(ir_.sequence({text(hi.substr(0, 1)), same_length_range(zeros, hi.substr(1))}));
  return ir_.choice(std::move(parts));
}

/// Fractions between two digit strings, and the rules made for them so far.
struct JsonTerminals::FractionRange {
  std::string lo, hi;
  bool excludes_lo = false, excludes_hi = false;
  size_t places = 0;
  std::map<std::pair<size_t, int>, Node> made;

  // Whether the fraction may end before digit `place`, given that it equals a bound so far.
  bool may_end(size_t place, bool at_lo, bool at_hi) const {
    if (at_lo && (place < lo.size() || excludes_lo)) return false;
    return !(at_hi && place >= hi.size() && excludes_hi);
  }
};

/// At least one more digit; -1 when no digits lead into the range.
Node JsonTerminals::fraction(FractionRange& range, size_t place, bool at_lo, bool at_hi) {
  if (place >= range.places) return -1;
  const auto key = std::make_pair(place, (at_lo ? 1 : 0) + (at_hi ? 2 : 0));
  if (const auto known = range.made.find(key); known != range.made.end()) return known->second;
  const char first = at_lo ? digit_at(range.lo, place) : '0';
  const char last = at_hi ? digit_at(range.hi, place) : '9';
  std::vector<Node> parts;
  for (char from = first; from <= last;) {
    // Digits that leave both bounds behind can share one class.
    char to = from;
    const auto inside = [&](char d) { return !(at_lo && d == first) && !(at_hi && d == last); };
    while (inside(from) && to < last && inside(static_cast<char>(to + 1))) ++to;
    const bool lo_next = at_lo && from == first, hi_next = at_hi && from == last;
    const Node digit = ir_.char_class({{static_cast<uint8_t>(from), static_cast<uint8_t>(to)}});
    const Node rest = fraction(range, place + 1, lo_next, hi_next);
    const bool ends = range.may_end(place + 1, lo_next, hi_next);
    if (rest >= 0) parts.push_back(ir_.sequence({digit, ends ? ir_.optional(rest) : rest}));
    if (rest < 0 && ends) parts.push_back(digit);
    from = static_cast<char>(to + 1);
  }
  const Node node = parts.empty() ? -1 : ir_.named("fraction", ir_.choice(std::move(parts)));
  range.made.emplace(key, node);
  return node;
}

/// lo and hi taken as absolute values.
Node JsonTerminals::positive_range(const DecimalBound& lo, const std::optional<DecimalBound>& hi,
                                   int32_t places) {
  std::vector<Node> parts;
  const auto add = [&](int64_t whole, bool at_lo, bool at_hi) {
    FractionRange range;
    range.places = static_cast<size_t>(places);
    range.lo = lo.fraction;
    range.excludes_lo = lo.is_exclusive;
    if (hi) range.hi = hi->fraction;
    range.excludes_hi = hi && hi->is_exclusive;
    const Node digits_behind = fraction(range, 0, at_lo, at_hi);
    const Node number = text(std::to_string(whole));
    if (range.may_end(0, at_lo, at_hi)) parts.push_back(number);
    if (digits_behind >= 0) parts.push_back(ir_.sequence({number, text("."), digits_behind}));
  };
  const int64_t hi_whole = hi ? hi->whole : kLargestWhole + 1;
  add(lo.whole, true, hi && hi->whole == lo.whole);
  if (lo.whole + 1 <= hi_whole - 1) {
    parts.push_back(ir_.sequence({unsigned_range(lo.whole + 1, hi_whole - 1), optional_fraction(places)}));
  }
  if (hi && hi->whole > lo.whole) add(hi->whole, false, true);
  return parts.empty() ? -1 : ir_.choice(std::move(parts));
}

Node JsonTerminals::number_range(const std::optional<DecimalBound>& lo,
                                 const std::optional<DecimalBound>& hi) {
  // Decimals of at most 15 digits are all different as doubles, so a reader sees them on the same side of the
  // bounds as they were written.
  size_t whole_digits = 1, fraction_digits = 0;
  for (const auto* bound : {&lo, &hi}) {
    if (!*bound) continue;
    whole_digits = std::max(whole_digits, std::to_string((*bound)->whole).size());
    fraction_digits = std::max(fraction_digits, (*bound)->fraction.size());
  }
  const size_t room = whole_digits < 15 ? 15 - whole_digits : 0;
  const auto places = static_cast<int32_t>(std::max(fraction_digits, std::min<size_t>(6, room)));

  const auto is_zero = [](const DecimalBound& b) { return b.whole == 0 && b.fraction.empty(); };
  std::vector<Node> parts;
  if (!lo || (lo->is_negative && !is_zero(*lo))) {
    DecimalBound nearest;  // to zero
    if (hi && (hi->is_negative || is_zero(*hi))) nearest = *hi;
    // Not "-0", which some readers take for another number than 0.
    if (is_zero(nearest)) nearest.is_exclusive = true;
    const Node negative = positive_range(nearest, lo, places);
    if (negative >= 0) parts.push_back(ir_.sequence({text("-"), negative}));
  }
  if (!hi || !hi->is_negative || is_zero(*hi)) {
    DecimalBound nearest;
    if (lo && (!lo->is_negative || is_zero(*lo))) nearest = *lo;
    const bool contradicts = hi && is_zero(*hi) && (hi->is_exclusive || nearest.is_exclusive);
    const Node positive = contradicts ? -1 : positive_range(nearest, hi, places);
    if (positive >= 0) parts.push_back(positive);
  }
  return parts.empty() ? -1 : ir_.choice(std::move(parts));
}

}  // namespace dspark
