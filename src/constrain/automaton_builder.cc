// Expressions to edges (Thompson's construction; characters become sequences of UTF-8 byte ranges).

#include "constrain/automaton_builder.h"

#include <algorithm>
#include <utility>

namespace dspark {
namespace {

struct ByteRange {
  uint8_t first = 0, last = 0;
  auto operator<=>(const ByteRange&) const = default;
};
using ByteRanges = std::vector<ByteRange>;

int32_t utf8_length(uint32_t code_point) {
  return code_point < 0x80 ? 1 : code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
}

ByteRanges encode_pair(uint32_t first, uint32_t last, int32_t length) {
  constexpr uint8_t kLead[5] = {0, 0, 0xC0, 0xE0, 0xF0};
  ByteRanges bytes(static_cast<size_t>(length));
  for (int32_t i = length - 1; i > 0; --i, first >>= 6, last >>= 6) {
    bytes[static_cast<size_t>(i)] = {static_cast<uint8_t>(0x80 | (first & 0x3F)),
                                     static_cast<uint8_t>(0x80 | (last & 0x3F))};
  }
  bytes[0] = {static_cast<uint8_t>(kLead[length] | first), static_cast<uint8_t>(kLead[length] | last)};
  return bytes;
}

// Splits a range until both ends have one length and every byte behind the first differing one runs through
// all continuation bytes; then the pairs of bytes are exact.
void split_range(CodeRange range, std::vector<ByteRanges>& out) {
  constexpr uint32_t kLengthEnds[] = {0x7F, 0x7FF, 0xFFFF};
  for (uint32_t end : kLengthEnds) {
    if (range.first <= end && range.last > end) {
      split_range({range.first, end}, out);
      split_range({end + 1, range.last}, out);
      return;
    }
  }
  const int32_t length = utf8_length(range.first);
  for (int32_t i = 1; i < length; ++i) {
    const uint32_t mask = (uint32_t{1} << (6 * i)) - 1;
    if ((range.first & ~mask) == (range.last & ~mask)) break;
    if ((range.first & mask) != 0) {
      split_range({range.first, range.first | mask}, out);
      split_range({(range.first | mask) + 1, range.last}, out);
      return;
    }
    if ((range.last & mask) != mask) {
      split_range({range.first, (range.last & ~mask) - 1}, out);
      split_range({range.last & ~mask, range.last}, out);
      return;
    }
  }
  out.push_back(encode_pair(range.first, range.last, length));
}

class Builder {
 public:
  explicit Builder(const GrammarIr& grammar) : grammar_(grammar) {}

  Result<RawAutomaton> run() {
    raw_.rules.resize(grammar_.rules.size());
    reach(grammar_.root);
    while (!pending_.empty()) {
      const int32_t rule = pending_.back();
      pending_.pop_back();
      const GrammarIr::Rule& source = grammar_.rules[static_cast<size_t>(rule)];
      if (source.body < 0) return invalid_argument("rule '" + source.name + "' is not defined");
      const RawAutomaton::Rule& target = raw_.rules[static_cast<size_t>(rule)];
      connect(source.body, target.entry, target.end);
      if (too_large_) {
        return resource_exhausted("grammar too large: more than " + std::to_string(kMaxGrammarPositions) +
                                  " positions, at rule '" + source.name + "'");
      }
    }
    return std::move(raw_);
  }

 private:
  int32_t new_position() {
    if (raw_.positions.size() >= kMaxGrammarPositions) {
      too_large_ = true;
      return 0;
    }
    raw_.positions.emplace_back();
    return static_cast<int32_t>(raw_.positions.size()) - 1;
  }
  RawAutomaton::Position& at(int32_t p) { return raw_.positions[static_cast<size_t>(p)]; }

  void reach(int32_t rule) {
    RawAutomaton::Rule& r = raw_.rules[static_cast<size_t>(rule)];
    if (r.entry < 0) {
      r.entry = new_position();
      r.end = new_position();
      pending_.push_back(rule);
    }
  }

  // Edges that lead from `from` to `to` along texts of the expression, and no others.
  void connect(GrammarIr::Node node, int32_t from, int32_t to) {
    if (too_large_) return;
    const GrammarIr::Expression& e = grammar_.nodes[static_cast<size_t>(node)];
    switch (e.kind) {
      case GrammarIr::Kind::kBytes:
        return connect_bytes(e.bytes, from, to);
      case GrammarIr::Kind::kClass:
        return connect_class(e.ranges, from, to);
      case GrammarIr::Kind::kSequence:
        return connect_sequence(e.parts, from, to);
      case GrammarIr::Kind::kChoice:
        for (GrammarIr::Node part : e.parts) connect(part, from, to);
        return;
      case GrammarIr::Kind::kRepeat:
        return connect_repeat(e, from, to);
      case GrammarIr::Kind::kCall:
        reach(e.a);  // makes positions, so before the reference
        at(from).calls.emplace_back(e.a, to);
        return;
    }
  }

  void connect_bytes(const std::string& bytes, int32_t from, int32_t to) {
    if (bytes.empty()) {
      at(from).skips.push_back(to);
      return;
    }
    for (size_t i = 0; i < bytes.size() && !too_large_; ++i) {
      const int32_t next = i + 1 == bytes.size() ? to : new_position();
      const auto byte = static_cast<uint8_t>(bytes[i]);
      at(from).bytes.push_back({byte, byte, next});
      from = next;
    }
  }

  void connect_sequence(const std::vector<GrammarIr::Node>& parts, int32_t from, int32_t to) {
    if (parts.empty()) at(from).skips.push_back(to);
    for (size_t i = 0; i < parts.size() && !too_large_; ++i) {
      const int32_t next = i + 1 == parts.size() ? to : new_position();
      connect(parts[i], from, next);
      from = next;
    }
  }

  void connect_repeat(const GrammarIr::Expression& e, int32_t from, int32_t to) {
    for (int32_t i = 0; i < e.min && !too_large_; ++i) {
      const int32_t next = new_position();
      connect(e.a, from, next);
      from = next;
    }
    if (e.max == GrammarIr::kUnbounded) {
      // Its own position: `from` may have other edges, and nothing may lead back to them.
      const int32_t loop = new_position();
      if (too_large_) return;
      at(from).skips.push_back(loop);
      connect(e.a, loop, loop);
      at(loop).skips.push_back(to);
      return;
    }
    for (int32_t i = e.min; i < e.max && !too_large_; ++i) {
      const int32_t next = new_position();
      at(from).skips.push_back(to);
      connect(e.a, from, next);
      from = next;
    }
    if (!too_large_) at(from).skips.push_back(to);
  }

  void connect_class(const std::vector<CodeRange>& ranges, int32_t from, int32_t to) {
    std::vector<ByteRanges> sequences;
    for (const CodeRange& range : ranges) split_range(range, sequences);
    // Equal ends of sequences share positions: what follows depends on the remaining ranges only.
    std::map<ByteRanges, int32_t> tails;
    for (const ByteRanges& sequence : sequences) {
      int32_t p = from;
      for (size_t i = 0; i < sequence.size() && !too_large_; ++i) {
        const ByteRanges rest(sequence.begin() + static_cast<std::ptrdiff_t>(i) + 1, sequence.end());
        const auto known = rest.empty() ? tails.end() : tails.find(rest);
        const int32_t next = rest.empty() ? to : known != tails.end() ? known->second : new_position();
        at(p).bytes.push_back({sequence[i].first, sequence[i].last, next});
        if (known != tails.end()) break;
        if (!rest.empty()) tails.emplace(rest, next);
        p = next;
      }
    }
  }

  const GrammarIr& grammar_;
  RawAutomaton raw_;
  std::vector<int32_t> pending_;
  bool too_large_ = false;
};

}  // namespace

Result<RawAutomaton> make_raw_automaton(const GrammarIr& grammar) {
  return Builder(grammar).run();
}

}  // namespace dspark
