// Multiples of a number between bounds, as grammars over their digits.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "constrain/json_terminals.h"

namespace dspark {
namespace {

using Node = GrammarIr::Node;

constexpr int64_t kLargestWhole = 999999999999999;

}  // namespace

bool NumberInterval::contains(double value) const {
  return (excludes_lo ? value > lo : value >= lo) && (excludes_hi ? value < hi : value <= hi);
}

std::string decimal_text(double value) {
  char digits[400];
  const auto end = std::to_chars(digits, digits + sizeof(digits), value, std::chars_format::fixed);
  return {digits, end.ptr};
}

/// The numbers of one length that are walked digit by digit, with the remainder so far.
struct JsonTerminals::DigitWalk {
  int64_t step = 1;
  Node end = -1;                                    // the empty text, one node for all
  std::map<std::pair<size_t, int64_t>, Node> made;  // (digits left, remainder) away from the bounds
};

/// Multiples of `step`, lo .. hi; -1: there are none. Zeros at the end of `step` stand behind each.
Node JsonTerminals::integer_multiples(int64_t lo, int64_t hi, int64_t step) {
  std::string zeros;
  int64_t unit = 1;
  for (; step % 10 == 0; step /= 10) {
    unit *= 10;
    zeros += '0';
  }
  DigitWalk walk;
  walk.step = step;
  walk.end = ir_.empty();
  std::vector<Node> parts;
  const auto add = [&](int64_t from, int64_t to, const char* sign) {
    const Node digits = positive_multiples(walk, (from + unit - 1) / unit, to / unit);
    if (digits >= 0) parts.push_back(ir_.sequence({text(sign), digits, text(zeros)}));
  };
  if (lo < 0) add(std::max<int64_t>(1, -hi), -lo, "-");
  if (lo <= 0 && hi >= 0) parts.push_back(text("0"));
  if (hi > 0) add(std::max<int64_t>(1, lo), hi, "");
  return parts.empty() ? -1 : ir_.choice(std::move(parts));
}

Node JsonTerminals::positive_multiples(DigitWalk& walk, int64_t lo, int64_t hi) {
  std::vector<Node> parts;
  for (int64_t first = 1, last = 9; first <= hi; first = last + 1, last = last * 10 + 9) {
    const int64_t from = std::max(first, lo), to = std::min(last, hi);
    if (from > to) continue;
    const Node node = walk_digits(walk, std::to_string(from), std::to_string(to), 0, true, true);
    if (node >= 0) parts.push_back(node);
  }
  return parts.empty() ? -1 : ir_.choice(std::move(parts));
}

/// The rest of the number behind digits that leave `remainder`, not below lo nor above hi while these are
/// touched.
Node JsonTerminals::walk_digits(DigitWalk& walk, std::string_view lo, std::string_view hi, int64_t remainder,
                                bool at_lo, bool at_hi) {
  if (lo.empty()) return remainder == 0 ? walk.end : -1;
  const bool is_free = !at_lo && !at_hi;
  const auto key = std::make_pair(lo.size(), remainder);
  if (const auto known = walk.made.find(key); is_free && known != walk.made.end()) return known->second;
  std::map<Node, std::vector<CodeRange>> by_rest;
  const char first = at_lo ? lo[0] : '0', last = at_hi ? hi[0] : '9';
  for (char digit = first; digit <= last; ++digit) {
    const Node rest =
        walk_digits(walk, lo.substr(1), hi.substr(1), (remainder * 10 + (digit - '0')) % walk.step,
                    at_lo && digit == first, at_hi && digit == last);
    const auto code = static_cast<uint8_t>(digit);
    if (rest >= 0) by_rest[rest].push_back({code, code});
  }
  std::vector<Node> parts;
  for (const auto& [rest, digits] : by_rest) parts.push_back(ir_.sequence({ir_.char_class(digits), rest}));
  const Node node = parts.empty() ? -1 : ir_.named("digits of a multiple", ir_.choice(std::move(parts)));
  if (is_free) walk.made.emplace(key, node);
  return node;
}

/// Whole numbers with each fraction of `step`, a power of 1/2; -1: there are none in the range.
Node JsonTerminals::fraction_multiples(double step, const NumberInterval& range) {
  std::vector<Node> parts;
  const NumberInterval mirrored{-range.hi, -range.lo, range.excludes_hi, range.excludes_lo};
  for (const NumberInterval* side : {&range, &mirrored}) {
    const bool is_negative = side == &mirrored;
    for (double fraction = 0.0; fraction < 1.0; fraction += step) {
      double lo = std::max(is_negative && fraction == 0.0 ? 1.0 : 0.0, std::floor(side->lo));
      double hi = std::min(static_cast<double>(kLargestWhole), std::ceil(side->hi));
      while (lo <= hi && !side->contains(lo + fraction)) lo += 1.0;
      while (lo <= hi && !side->contains(hi + fraction)) hi -= 1.0;
      if (lo > hi) continue;
      const std::string behind = fraction == 0.0 ? "" : decimal_text(fraction).substr(1);
      parts.push_back(
          ir_.sequence({text(is_negative ? "-" : ""),
                        unsigned_range(static_cast<int64_t>(lo), static_cast<int64_t>(hi)), text(behind)}));
    }
  }
  return parts.empty() ? -1 : ir_.choice(std::move(parts));
}

}  // namespace dspark
