#include "constrain/automaton.h"

#include <algorithm>
#include <bitset>
#include <functional>
#include <queue>
#include <utility>

#include "constrain/automaton_builder.h"

namespace dspark {
namespace {

// Least bytes from every position to the end of its rule: Dijkstra's search from the ends backwards, extended
// to calls, which cost the called rule and what follows it (Knuth 1977, "A generalization of Dijkstra's
// algorithm").
class LeastBytes {
 public:
  explicit LeastBytes(const RawAutomaton& raw)
      : raw_(raw), cost_(raw.positions.size(), kNeverEnds), is_final_(raw.positions.size()) {
    collect();
  }

  std::vector<int32_t> run() {
    for (const RawAutomaton::Rule& rule : raw_.rules) {
      if (rule.end >= 0) offer(rule.end, 0);
    }
    while (!queue_.empty()) {
      const int32_t p = queue_.top().second;
      queue_.pop();
      if (is_final_[index(p)]) continue;
      is_final_[index(p)] = true;
      for (int32_t i = begins_[index(p)]; i < begins_[index(p) + 1]; ++i) {
        const Use& use = uses_[index(i)];
        if (use.other < 0) {
          offer(use.source, cost_[index(p)] + use.bytes);
        } else if (is_final_[index(use.other)]) {
          offer(use.source, cost_[index(p)] + cost_[index(use.other)]);
        }
      }
    }
    return std::move(cost_);
  }

 private:
  // An edge, seen from its target. other: the second target of a call.
  struct Use {
    int32_t source, bytes, other;
  };
  static size_t index(int32_t i) { return static_cast<size_t>(i); }

  template <typename Visit>
  void for_each_use(Visit&& visit) const {
    for (size_t i = 0; i < raw_.positions.size(); ++i) {
      const auto source = static_cast<int32_t>(i);
      for (const auto& edge : raw_.positions[i].bytes) visit(edge.target, Use{source, 1, -1});
      for (int32_t target : raw_.positions[i].skips) visit(target, Use{source, 0, -1});
      for (const auto& [rule, after] : raw_.positions[i].calls) {
        const int32_t entry = raw_.rules[index(rule)].entry;
        visit(entry, Use{source, 0, after});
        visit(after, Use{source, 0, entry});
      }
    }
  }

  void collect() {
    begins_.assign(raw_.positions.size() + 1, 0);
    for_each_use([&](int32_t target, const Use&) { ++begins_[index(target) + 1]; });
    for (size_t i = 1; i < begins_.size(); ++i) begins_[i] += begins_[i - 1];
    uses_.resize(index(begins_.back()));
    std::vector<int32_t> next(begins_.begin(), begins_.end() - 1);
    for_each_use([&](int32_t target, const Use& use) { uses_[index(next[index(target)]++)] = use; });
  }

  void offer(int32_t p, int32_t cost) {
    cost = std::min(cost, kNeverEnds - 1);
    if (cost >= cost_[index(p)]) return;
    cost_[index(p)] = cost;
    queue_.emplace(cost, p);
  }

  using Entry = std::pair<int32_t, int32_t>;
  const RawAutomaton& raw_;
  std::vector<int32_t> begins_;
  std::vector<Use> uses_;
  std::vector<int32_t> cost_;
  std::vector<bool> is_final_;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue_;
};

// Looks for a rule that can call itself before it has read a byte.
class LeftRecursion {
 public:
  LeftRecursion(const GrammarIr& grammar, const RawAutomaton& raw)
      : grammar_(grammar), raw_(raw), marks_(raw.rules.size(), Mark::kNew), seen_(raw.positions.size(), -1) {}

  Status check() {
    for (size_t i = 0; i < marks_.size(); ++i) {
      if (raw_.rules[i].entry >= 0) DSPARK_RETURN_IF_ERROR(visit(static_cast<int32_t>(i)));
    }
    return ok_status();
  }

 private:
  enum class Mark : uint8_t { kNew, kOpen, kDone };
  struct Frame {
    int32_t rule;
    std::vector<int32_t> first_calls;
    size_t next = 0;
  };

  // Rules that can be called before the rule has read a byte.
  std::vector<int32_t> first_calls(int32_t rule) {
    std::vector<int32_t> calls;
    std::vector<int32_t> todo{raw_.rules[static_cast<size_t>(rule)].entry};
    while (!todo.empty()) {
      const int32_t p = todo.back();
      todo.pop_back();
      if (std::exchange(seen_[static_cast<size_t>(p)], rule) == rule) continue;
      const RawAutomaton::Position& position = raw_.positions[static_cast<size_t>(p)];
      todo.insert(todo.end(), position.skips.begin(), position.skips.end());
      for (const auto& [callee, after] : position.calls) {
        calls.push_back(callee);
        if (raw_.rules[static_cast<size_t>(callee)].nullable) todo.push_back(after);
      }
    }
    return calls;
  }

  Status visit(int32_t start) {
    if (marks_[static_cast<size_t>(start)] != Mark::kNew) return ok_status();
    std::vector<Frame> path;
    const auto open = [&](int32_t rule) {
      marks_[static_cast<size_t>(rule)] = Mark::kOpen;
      path.push_back({rule, first_calls(rule)});
    };
    open(start);
    while (!path.empty()) {
      Frame& frame = path.back();
      if (frame.next == frame.first_calls.size()) {
        marks_[static_cast<size_t>(frame.rule)] = Mark::kDone;
        path.pop_back();
        continue;
      }
      const int32_t callee = frame.first_calls[frame.next++];
      if (marks_[static_cast<size_t>(callee)] == Mark::kOpen) return cycle(path, callee);
      if (marks_[static_cast<size_t>(callee)] == Mark::kNew) open(callee);
    }
    return ok_status();
  }

  Status cycle(const std::vector<Frame>& path, int32_t callee) const {
    size_t i = path.size();
    while (i > 0 && path[i - 1].rule != callee) --i;
    std::string names;
    for (size_t j = i - 1; j < path.size(); ++j) names += name(path[j].rule) + " -> ";
    return invalid_argument("left recursion: " + names + name(callee) +
                            "; a rule must read a character before it comes to itself again");
  }
  const std::string& name(int32_t rule) const { return grammar_.rules[static_cast<size_t>(rule)].name; }

  const GrammarIr& grammar_;
  const RawAutomaton& raw_;
  std::vector<Mark> marks_;
  std::vector<int32_t> seen_;  // last rule whose search came here
};

// Edges into positions that can never end would only be dead ends.
class Packer {
 public:
  explicit Packer(const RawAutomaton& raw) : raw_(raw) {}

  Automaton pack(int32_t root) {
    Automaton a;
    a.positions.resize(raw_.positions.size());
    for (size_t i = 0; i < raw_.positions.size(); ++i) pack_position(i, a);
    for (const RawAutomaton::Rule& rule : raw_.rules) {
      if (rule.end >= 0) a.positions[static_cast<size_t>(rule.end)].ends_rule = true;
    }
    for (Automaton::Position& p : a.positions) {
      p.only_ends = p.ends_rule && p.byte_begin == p.byte_end && p.call_begin == p.call_end &&
                    p.skip_begin == p.skip_end;
    }
    a.root_entry = raw_.rules[static_cast<size_t>(root)].entry;
    number_classes(a);
    return a;
  }

 private:
  bool lives(int32_t p) const { return raw_.to_end[static_cast<size_t>(p)] < kNeverEnds; }

  void pack_position(size_t i, Automaton& a) const {
    const RawAutomaton::Position& from = raw_.positions[i];
    Automaton::Position& p = a.positions[i];
    p.to_end = raw_.to_end[i];
    p.byte_begin = static_cast<int32_t>(a.byte_edges.size());
    for (const auto& edge : from.bytes) {
      if (lives(edge.target)) a.byte_edges.push_back(edge);
    }
    p.byte_end = static_cast<int32_t>(a.byte_edges.size());
    p.call_begin = static_cast<int32_t>(a.call_edges.size());
    for (const auto& [rule, after] : from.calls) {
      const int32_t entry = raw_.rules[static_cast<size_t>(rule)].entry;
      if (lives(entry) && lives(after)) a.call_edges.push_back({entry, after});
    }
    p.call_end = static_cast<int32_t>(a.call_edges.size());
    p.skip_begin = static_cast<int32_t>(a.skips.size());
    for (int32_t target : from.skips) {
      if (lives(target)) a.skips.push_back(target);
    }
    p.skip_end = static_cast<int32_t>(a.skips.size());
  }

  static void number_classes(Automaton& a) {
    std::bitset<257> starts;
    starts.set(0);
    for (const auto& edge : a.byte_edges) {
      starts.set(edge.first);
      starts.set(static_cast<size_t>(edge.last) + 1);
    }
    int32_t n = -1;
    for (size_t byte = 0; byte < 256; ++byte) {
      if (starts.test(byte)) ++n;
      a.byte_class[byte] = static_cast<uint8_t>(n);
    }
    a.n_byte_classes = n + 1;
  }

  const RawAutomaton& raw_;
};

}  // namespace

Status analyse(const GrammarIr& grammar, RawAutomaton& raw) {
  raw.to_end = LeastBytes(raw).run();
  for (RawAutomaton::Rule& rule : raw.rules) {
    if (rule.entry < 0) continue;
    rule.least_bytes = raw.to_end[static_cast<size_t>(rule.entry)];
    rule.nullable = rule.least_bytes == 0;
  }
  const auto root = static_cast<size_t>(grammar.root);
  if (raw.rules[root].least_bytes >= kNeverEnds) {
    return invalid_argument("rule '" + grammar.rules[root].name +
                            "' can never end: it matches no finite text");
  }
  return LeftRecursion(grammar, raw).check();
}

Result<Automaton> Automaton::build(const GrammarIr& grammar) {
  if (grammar.root < 0) return invalid_argument("grammar has no root rule");
  DSPARK_ASSIGN_OR_RETURN(RawAutomaton raw, make_raw_automaton(grammar));
  DSPARK_RETURN_IF_ERROR(analyse(grammar, raw));
  return Packer(raw).pack(grammar.root);
}

}  // namespace dspark
