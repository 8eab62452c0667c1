#include "constrain/grammar_ir.h"

#include <algorithm>
#include <utility>

namespace dspark {
namespace {

constexpr uint32_t kFirstSurrogate = 0xD800;
constexpr uint32_t kLastSurrogate = 0xDFFF;

void push_without_surrogates(CodeRange range, std::vector<CodeRange>& out) {
  range.last = std::min(range.last, kMaxCodePoint);
  if (range.first > range.last) return;
  if (range.last < kFirstSurrogate || range.first > kLastSurrogate) {
    out.push_back(range);
    return;
  }
  if (range.first < kFirstSurrogate) out.push_back({range.first, kFirstSurrogate - 1});
  if (range.last > kLastSurrogate) out.push_back({kLastSurrogate + 1, range.last});
}

}  // namespace

std::vector<CodeRange> normalise_ranges(std::vector<CodeRange> ranges) {
  std::vector<CodeRange> plain;
  for (const CodeRange& range : ranges) push_without_surrogates(range, plain);
  std::sort(plain.begin(), plain.end(),
            [](const CodeRange& a, const CodeRange& b) { return a.first < b.first; });
  std::vector<CodeRange> merged;
  for (const CodeRange& range : plain) {
    if (!merged.empty() && range.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, range.last);
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

std::vector<CodeRange> complement_ranges(const std::vector<CodeRange>& ranges) {
  std::vector<CodeRange> rest;
  uint32_t next = 0;
  for (const CodeRange& range : ranges) {
    if (range.first > next) push_without_surrogates({next, range.first - 1}, rest);
    next = range.last + 1;
  }
  if (next <= kMaxCodePoint) push_without_surrogates({next, kMaxCodePoint}, rest);
  return rest;
}

GrammarIr::Node GrammarIr::add(Expression expression) {
  nodes.push_back(std::move(expression));
  return static_cast<Node>(nodes.size()) - 1;
}

GrammarIr::Node GrammarIr::literal(std::string_view bytes) {
  Expression e;
  e.kind = Kind::kBytes;
  e.bytes = bytes;
  return add(std::move(e));
}

GrammarIr::Node GrammarIr::char_class(std::vector<CodeRange> ranges) {
  Expression e;
  e.kind = Kind::kClass;
  e.ranges = normalise_ranges(std::move(ranges));
  return add(std::move(e));
}

GrammarIr::Node GrammarIr::sequence(std::vector<Node> parts) {
  if (parts.size() == 1) return parts[0];
  Expression e;
  e.kind = Kind::kSequence;
  e.parts = std::move(parts);
  return add(std::move(e));
}

GrammarIr::Node GrammarIr::choice(std::vector<Node> parts) {
  if (parts.size() == 1) return parts[0];
  Expression e;
  e.kind = Kind::kChoice;
  e.parts = std::move(parts);
  return add(std::move(e));
}

GrammarIr::Node GrammarIr::repeat(Node node, int32_t min, int32_t max) {
  if (min == 1 && max == 1) return node;
  Expression e;
  e.kind = Kind::kRepeat;
  e.a = node;
  e.min = min;
  e.max = max;
  return add(std::move(e));
}

GrammarIr::Node GrammarIr::call(int32_t rule) {
  Expression e;
  e.kind = Kind::kCall;
  e.a = rule;
  return add(std::move(e));
}

int32_t GrammarIr::add_rule(std::string name) {
  rules.push_back({std::move(name), -1});
  return static_cast<int32_t>(rules.size()) - 1;
}

GrammarIr::Node GrammarIr::named(std::string name, Node body) {
  const int32_t rule = add_rule(std::move(name));
  set_body(rule, body);
  return call(rule);
}

std::pair<int32_t, int32_t> GrammarIr::lengths(Node node) const {
  const Expression& e = nodes[static_cast<size_t>(node)];
  const auto times = [](int32_t n, int32_t length) {
    return length == 0 ? 0 : n == kUnbounded || length == kUnbounded ? kUnbounded : n * length;
  };
  const auto bytes = static_cast<int32_t>(e.bytes.size());
  std::pair<int32_t, int32_t> all{0, 0};
  switch (e.kind) {
    case Kind::kBytes:
      return {bytes, bytes};
    case Kind::kClass:
      return {1, 1};
    case Kind::kCall:
      return lengths(rules[static_cast<size_t>(e.a)].body);
    case Kind::kRepeat:
      all = lengths(e.a);
      return {times(e.min, all.first), times(e.max, all.second)};
    case Kind::kSequence:
      for (const Node part : e.parts) {
        const auto [least, most] = lengths(part);
        all.first += least;
        all.second = all.second == kUnbounded || most == kUnbounded ? kUnbounded : all.second + most;
      }
      return all;
    case Kind::kChoice:
      all = lengths(e.parts[0]);
      for (const Node part : e.parts) {
        const auto [least, most] = lengths(part);
        all.first = std::min(all.first, least);
        all.second = all.second == kUnbounded || most == kUnbounded ? kUnbounded : std::max(all.second, most);
      }
      return all;
  }
  return all;
}

GrammarIr::Node GrammarIr::append(const GrammarIr& other) {
  const auto node_offset = static_cast<Node>(nodes.size());
  const auto rule_offset = static_cast<int32_t>(rules.size());
  for (Expression e : other.nodes) {
    if (e.kind == Kind::kRepeat) e.a += node_offset;
    if (e.kind == Kind::kCall) e.a += rule_offset;
    for (Node& part : e.parts) part += node_offset;
    nodes.push_back(std::move(e));
  }
  for (Rule rule : other.rules) {
    if (rule.body >= 0) rule.body += node_offset;
    rules.push_back(std::move(rule));
  }
  return call(rule_offset + other.root);
}

}  // namespace dspark
