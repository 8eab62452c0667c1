// Strings of a format: subsets of RFC 3339 (dates, times, durations), RFC 4122 (uuid), RFC 5321 (email), RFC
// 3986 (uri), RFC 4291 (ipv6) and RFC 6901 (json-pointer) that every reader of them accepts.

#include <string_view>

#include "constrain/json_terminals.h"

namespace dspark {
namespace {

using Node = GrammarIr::Node;

}  // namespace

Node JsonTerminals::format(std::string_view name) {
  if (name == "date") return date();
  if (name == "time") return time();
  if (name == "date-time") return ir_.sequence({date(), text("T"), time()});
  if (name == "uuid") return uuid();
  if (name == "email" || name == "idn-email") return email();
  if (name == "ipv4") return ipv4();
  if (name == "ipv6") return ipv6();
  if (name == "uri" || name == "iri") return uri();
  if (name == "uri-reference" || name == "iri-reference") return ir_.choice({uri(), uri_path()});
  if (name == "hostname" || name == "idn-hostname") return hostname();
  if (name == "duration") return duration();
  if (name == "json-pointer") return json_pointer();
  return -1;
}

bool is_known_format(std::string_view name) {
  GrammarIr ir;
  return JsonTerminals(ir).format(name) >= 0;
}

/// Years 1000 to 9999; the 29th of February in leap years only.
Node JsonTerminals::date() {
  const Node d = digits(1, 1);
  const Node not_0 = ir_.char_class({{'1', '9'}});
  const auto month = [&](std::string_view a, std::string_view b) {
    return ir_.choice({ir_.sequence({text("0"), one_of(a)}), ir_.sequence({text("1"), one_of(b)})});
  };
  const Node to_28 = ir_.choice({ir_.sequence({text("0"), not_0}), ir_.sequence({text("1"), d}),
                                 ir_.sequence({text("2"), one_of("012345678")})});
  const Node to_30 = ir_.choice({to_28, text("29"), text("30")});
  const Node long_month = month("13578", "02"), short_month = month("469", "1");
  const Node day =
      ir_.choice({ir_.sequence({long_month, text("-"), ir_.choice({to_30, text("31")})}),
                  ir_.sequence({short_month, text("-"), to_30}), ir_.sequence({text("02-"), to_28})});
  const Node by_4 = ir_.choice(
      {ir_.sequence({one_of("2468"), one_of("048")}), ir_.sequence({one_of("13579"), one_of("26")})});
  const Node in_century = ir_.choice({ir_.sequence({text("0"), one_of("48")}), by_4});
  const Node leap_year = ir_.choice({ir_.sequence({not_0, d, in_century}), ir_.sequence({by_4, text("00")})});
  return ir_.named("date", ir_.choice({ir_.sequence({not_0, digits(3, 3), text("-"), day}),
                                       ir_.sequence({leap_year, text("-02-29")})}));
}

Node JsonTerminals::time() {
  const Node d = digits(1, 1);
  const Node hour = ir_.choice({ir_.sequence({one_of("01"), d}), ir_.sequence({text("2"), one_of("0123")})});
  const Node minute = ir_.sequence({one_of("012345"), d});
  const Node offset = ir_.choice({text("Z"), ir_.sequence({one_of("+-"), hour, text(":"), minute})});
  return ir_.named("time",
                   ir_.sequence({hour, text(":"), minute, text(":"), minute, optional_fraction(9), offset}));
}

Node JsonTerminals::uuid() {
  const Node hex = ir_.char_class({{'0', '9'}, {'a', 'f'}});
  const auto group = [&](int32_t n) { return ir_.repeat(hex, n, n); };
  const Node dash = text("-");
  return ir_.sequence({group(8), dash, group(4), dash, group(4), dash, group(4), dash, group(12)});
}

Node JsonTerminals::hostname() {
  const Node letter = ir_.char_class({{'a', 'z'}});
  const Node inner = ir_.char_class({{'a', 'z'}, {'0', '9'}});
  const Node label = ir_.sequence(
      {letter, ir_.repeat(inner, 0, 20), ir_.optional(ir_.sequence({text("-"), ir_.repeat(inner, 1, 20)}))});
  return ir_.sequence(
      {label, ir_.repeat(ir_.sequence({text("."), label}), 0, 3), text("."), ir_.repeat(letter, 2, 8)});
}

Node JsonTerminals::email() {
  const Node atom = ir_.repeat(
      ir_.char_class({{'a', 'z'}, {'A', 'Z'}, {'0', '9'}, {'_', '_'}, {'+', '+'}, {'-', '-'}}), 1, 20);
  const Node local = ir_.sequence({atom, ir_.repeat(ir_.sequence({text("."), atom}), 0, 2)});
  return ir_.sequence({local, text("@"), hostname()});
}

Node JsonTerminals::ipv4() {
  const Node octet = unsigned_range(0, 255);
  return ir_.sequence({octet, ir_.repeat(ir_.sequence({text("."), octet}), 3, 3)});
}

/// Eight groups, none left out.
Node JsonTerminals::ipv6() {
  const Node group = ir_.repeat(ir_.char_class({{'0', '9'}, {'a', 'f'}}), 1, 4);
  return ir_.sequence({group, ir_.repeat(ir_.sequence({text(":"), group}), 7, 7)});
}

/// Weeks, or years to days and hours to seconds; between two units that are written none is left out.
Node JsonTerminals::duration() {
  const auto part = [&](const char* unit) { return ir_.sequence({digits(1, 4), text(unit)}); };
  const Node minutes = ir_.sequence({part("M"), ir_.optional(part("S"))});
  const Node hours = ir_.sequence({part("H"), ir_.optional(minutes)});
  const Node time = ir_.sequence({text("T"), ir_.choice({hours, minutes, part("S")})});
  const Node months = ir_.sequence({part("M"), ir_.optional(part("D"))});
  const Node years = ir_.sequence({part("Y"), ir_.optional(months)});
  const Node date = ir_.sequence({ir_.choice({years, months, part("D")}), ir_.optional(time)});
  return ir_.sequence({text("P"), ir_.choice({date, time, part("W")})});
}

Node JsonTerminals::json_pointer() {
  const Node character =
      ir_.char_class({{'a', 'z'}, {'A', 'Z'}, {'0', '9'}, {'-', '-'}, {'.', '.'}, {'_', '_'}});
  const Node escaped = ir_.sequence({text("~"), one_of("01")});
  return ir_.repeat(ir_.sequence({text("/"), ir_.repeat(ir_.choice({character, escaped}), 0, 32)}), 0, 16);
}

Node JsonTerminals::uri_path() {
  const Node plain =
      ir_.char_class({{'a', 'z'}, {'A', 'Z'}, {'0', '9'}, {'-', '-'}, {'.', '.'}, {'_', '_'}, {'~', '~'}});
  return ir_.repeat(ir_.sequence({text("/"), ir_.repeat(plain, 1, 64)}), 1, 16);
}

Node JsonTerminals::uri() {
  const Node plain =
      ir_.char_class({{'a', 'z'}, {'A', 'Z'}, {'0', '9'}, {'-', '-'}, {'.', '.'}, {'_', '_'}, {'~', '~'}});
  const Node path = ir_.repeat(ir_.sequence({text("/"), ir_.repeat(plain, 0, 64)}), 0, 16);
  const Node query_char = ir_.char_class({{'a', 'z'},
                                          {'A', 'Z'},
                                          {'0', '9'},
                                          {'-', '-'},
                                          {'.', '.'},
                                          {'_', '_'},
                                          {'~', '~'},
                                          {'=', '='},
                                          {'&', '&'}});
  const Node query = ir_.optional(ir_.sequence({text("?"), ir_.repeat(query_char, 0, 128)}));
  const Node fragment = ir_.optional(ir_.sequence({text("#"), ir_.repeat(plain, 0, 64)}));
  const Node port = ir_.optional(ir_.sequence({text(":"), unsigned_range(1, 65535)}));
  return ir_.sequence(
      {text("http"), ir_.optional(text("s")), text("://"), hostname(), port, path, query, fragment});
}

}  // namespace dspark
