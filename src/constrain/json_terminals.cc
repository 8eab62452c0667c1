#include "constrain/json_terminals.h"

#include <algorithm>
#include <map>

namespace dspark {
namespace {

using Node = GrammarIr::Node;

// What a string may not hold as it is: quotes, backslashes, control characters.
std::vector<CodeRange> raw_ranges() {
  return complement_ranges(normalise_ranges({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}, {0x7F, 0x7F}}));
}

std::vector<CodeRange> intersect(const std::vector<CodeRange>& a, const std::vector<CodeRange>& b) {
  std::vector<CodeRange> both;
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    const CodeRange range{std::max(a[i].first, b[j].first), std::min(a[i].last, b[j].last)};
    if (range.first <= range.last) both.push_back(range);
    (a[i].last < b[j].last ? i : j) += 1;
  }
  return both;
}

bool contains(const std::vector<CodeRange>& ranges, uint32_t c) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [c](const CodeRange& r) { return r.first <= c && c <= r.last; });
}

std::string escape_of(uint32_t c) {
  constexpr std::string_view kShort = "\b\f\n\r\t\"\\";
  constexpr std::string_view kLetters = "bfnrt\"\\";
  const size_t i = kShort.find(static_cast<char>(c));
  if (i != std::string_view::npos) return std::string("\\") + kLetters[i];
  constexpr char kHex[] = "0123456789abcdef";
  return std::string("\\u00") + kHex[c >> 4] + kHex[c & 15];
}

// The code points of valid UTF-8.
std::vector<uint32_t> code_points_of(std::string_view text) {
  std::vector<uint32_t> points;
  for (char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if ((byte & 0xC0) == 0x80 && !points.empty()) {
      points.back() = points.back() << 6 | (byte & 0x3F);
    } else {
      points.push_back(byte < 0x80   ? byte
                       : byte < 0xE0 ? byte & 0x1Fu
                       : byte < 0xF0 ? byte & 0x0Fu
                                     : byte & 0x07u);
    }
  }
  return points;
}

}  // namespace

Node JsonTerminals::once(int32_t& rule, const char* name, Node (JsonTerminals::*make)()) {
  if (rule < 0) {
    rule = ir_.add_rule(name);
    const int32_t made = rule;
    ir_.set_body(made, (this->*make)());
  }
  return ir_.call(rule);
}

Node JsonTerminals::one_of(std::string_view bytes) {
  std::vector<CodeRange> ranges;
  for (char c : bytes) ranges.push_back({static_cast<uint8_t>(c), static_cast<uint8_t>(c)});
  return ir_.char_class(std::move(ranges));
}

Node JsonTerminals::space() {
  return once(space_, "white space", &JsonTerminals::make_space);
}
Node JsonTerminals::make_space() {
  return ir_.choice(
      {ir_.empty(), text(" "), ir_.sequence({text("\n"), ir_.repeat(one_of(" \t"), 0, kMaxIndent)})});
}

Node JsonTerminals::character() {
  return once(character_, "character", &JsonTerminals::make_character);
}
Node JsonTerminals::make_character() {
  const Node hex = ir_.char_class({{'0', '9'}, {'a', 'f'}, {'A', 'F'}});
  const Node plain =
      ir_.choice({ir_.sequence({ir_.char_class({{'0', '9'}, {'a', 'c'}, {'A', 'C'}, {'e', 'f'}, {'E', 'F'}}),
                                ir_.repeat(hex, 3, 3)}),
                  ir_.sequence({one_of("dD"), one_of("01234567"), ir_.repeat(hex, 2, 2)})});
  const Node pair = ir_.sequence({one_of("dD"), one_of("89abAB"), ir_.repeat(hex, 2, 2), text("\\u"),
                                  one_of("dD"), one_of("cdefCDEF"), ir_.repeat(hex, 2, 2)});
  const Node escaped =
      ir_.choice({one_of("\"\\/bfnrt"), ir_.sequence({text("u"), ir_.choice({plain, pair})})});
  return ir_.choice({ir_.char_class(raw_ranges()), ir_.sequence({text("\\"), escaped})});
}

Node JsonTerminals::character_of(const std::vector<CodeRange>& ranges) {
  std::vector<Node> parts;
  std::vector<CodeRange> raw = intersect(normalise_ranges(ranges), raw_ranges());
  if (!raw.empty()) parts.push_back(ir_.char_class(std::move(raw)));
  for (uint32_t c = 0; c < 0x80; ++c) {
    if (!contains(raw_ranges(), c) && contains(ranges, c)) parts.push_back(text(escape_of(c)));
  }
  if (parts.empty()) return ir_.char_class({});
  return ir_.choice(std::move(parts));
}

Node JsonTerminals::string(int32_t min, int32_t max) {
  return quoted(ir_.repeat(character(), min, max));
}

Node JsonTerminals::quoted(Node content) {
  return ir_.sequence({text("\""), content, text("\"")});
}

Node JsonTerminals::key(Node name) {
  return ir_.sequence({name, text(":"), space()});
}

Node JsonTerminals::make_raw_key_tail() {
  return ir_.sequence({ir_.repeat(ir_.char_class(raw_ranges()), 0, kMaxKeyLength - 1), text("\"")});
}

Node JsonTerminals::other_key(const std::vector<std::string>& taken) {
  // A tree of the taken names: on every way through it, leave it, or end where no name ends.
  struct Branch {
    std::map<uint32_t, size_t> children;
    bool ends = false;
  };
  std::vector<Branch> tree(1);
  tree[0].ends = true;  // no empty names
  for (const std::string& name : taken) {
    size_t at = 0;
    for (uint32_t c : code_points_of(name)) {
      const auto [it, is_new] = tree[at].children.try_emplace(c, tree.size());
      const size_t child = it->second;
      if (is_new) tree.emplace_back();
      at = child;
    }
    tree[at].ends = true;
  }
  const Node tail = once(key_tail_, "rest of a name", &JsonTerminals::make_raw_key_tail);
  std::vector<int32_t> rules;
  for (size_t i = 0; i < tree.size(); ++i) rules.push_back(ir_.add_rule("another name"));
  for (size_t i = 0; i < tree.size(); ++i) {
    std::vector<CodeRange> children;
    std::vector<Node> parts;
    for (const auto& [c, child] : tree[i].children) {
      children.push_back({c, c});
      if (contains(raw_ranges(), c)) {
        parts.push_back(ir_.sequence({ir_.char_class({{c, c}}), ir_.call(rules[child])}));
      }
    }
    const std::vector<CodeRange> others = complement_ranges(normalise_ranges(children));
    parts.push_back(ir_.sequence({ir_.char_class(intersect(others, raw_ranges())), tail}));
    if (!tree[i].ends) parts.push_back(text("\""));
    ir_.set_body(rules[i], ir_.choice(std::move(parts)));
  }
  return ir_.sequence({text("\""), ir_.call(rules[0])});
}

Node JsonTerminals::value() {
  return once(value_, "value", &JsonTerminals::make_value);
}
Node JsonTerminals::make_value() {
  return ir_.choice({object(), array(), string(0, GrammarIr::kUnbounded), number(), boolean(), text("null")});
}

Node JsonTerminals::object() {
  return once(object_, "object", &JsonTerminals::make_object);
}
Node JsonTerminals::make_object() {
  const Node member = ir_.named("member", ir_.sequence({key(other_key({})), value()}));
  const Node more = ir_.repeat(ir_.sequence({text(","), space(), member}), 0, GrammarIr::kUnbounded);
  const Node members = ir_.sequence({space(), member, more});
  return ir_.sequence({text("{"), ir_.optional(members), space(), text("}")});
}

Node JsonTerminals::array() {
  return once(array_, "array", &JsonTerminals::make_array);
}
Node JsonTerminals::make_array() {
  const Node more = ir_.repeat(ir_.sequence({text(","), space(), value()}), 0, GrammarIr::kUnbounded);
  const Node items = ir_.sequence({space(), value(), more});
  return ir_.sequence({text("["), ir_.optional(items), space(), text("]")});
}

Node JsonTerminals::boolean() {
  return ir_.choice({text("true"), text("false")});
}

Node JsonTerminals::integer() {
  return once(integer_, "integer", &JsonTerminals::make_integer);
}
Node JsonTerminals::make_integer() {
  const Node positive = ir_.sequence({ir_.char_class({{'1', '9'}}), digits(0, 15)});
  return ir_.choice({text("0"), ir_.sequence({ir_.optional(text("-")), positive})});
}

Node JsonTerminals::number() {
  return once(number_, "number", &JsonTerminals::make_number);
}
Node JsonTerminals::make_number() {
  const Node whole = ir_.choice({text("0"), ir_.sequence({ir_.char_class({{'1', '9'}}), digits(0, 15)})});
  const Node exponent = ir_.sequence({one_of("eE"), ir_.optional(one_of("+-")), digits(1, 2)});
  return ir_.sequence({ir_.optional(text("-")), whole, optional_fraction(16), ir_.optional(exponent)});
}

Node JsonTerminals::optional_fraction(int32_t places) {
  if (places < 1) return ir_.empty();
  return ir_.optional(ir_.sequence({text("."), digits(1, places)}));
}

}  // namespace dspark
