#include "constrain/text_set.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "constrain/json_pattern.h"

namespace dspark {
namespace {

using Node = GrammarIr::Node;
using StateIds = std::vector<int32_t>;

constexpr uint32_t kFirstSurrogate = 0xD800;
constexpr uint32_t kBehindSurrogates = 0xE000;
// Steps of making one set deterministic: bounds the time for hostile patterns.
constexpr int64_t kMaxSteps = 500'000;
constexpr int32_t kDeadPair = -1;
constexpr size_t kMaxPositions = size_t{1} << 17;
constexpr size_t kMaxEdges = size_t{1} << 18;  // of all positions: every repetition of a class has its ranges

Status too_large() {
  return resource_exhausted("the strings asked for need more than " + std::to_string(TextSet::kMaxStates) +
                            " states; use a simpler pattern, or smaller lengths beside it");
}

size_t index(int32_t i) {
  return static_cast<size_t>(i);
}

// A nondeterministic automaton: Thompson's construction over code points.
struct Positions {
  struct Position {
    std::vector<std::pair<CodeRange, int32_t>> edges;
    StateIds skips;
  };
  std::vector<Position> all;
  size_t n_edges = 0;
  bool is_too_large = false;

  int32_t add() {
    if (all.size() >= kMaxPositions) {
      is_too_large = true;
      return 0;
    }
    all.emplace_back();
    return static_cast<int32_t>(all.size()) - 1;
  }

  // requires: no calls of rules and no bytes, as in plain patterns.
  void connect(const GrammarIr& ir, Node node, int32_t from, int32_t to) {
    if (is_too_large) return;
    const GrammarIr::Expression& e = ir.nodes[index(node)];
    switch (e.kind) {
      case GrammarIr::Kind::kClass:
        n_edges += e.ranges.size();
        is_too_large = is_too_large || n_edges > kMaxEdges;
        if (is_too_large) return;
        for (const CodeRange& range : e.ranges) all[index(from)].edges.emplace_back(range, to);
        return;
      case GrammarIr::Kind::kSequence:
        for (Node part : e.parts) {
          const int32_t next = add();
          connect(ir, part, from, next);
          from = next;
        }
        all[index(from)].skips.push_back(to);
        return;
      case GrammarIr::Kind::kChoice:
        for (Node part : e.parts) connect(ir, part, from, to);
        return;
      case GrammarIr::Kind::kRepeat:
        connect_repeat(ir, e, from, to);
        return;
      default:
        DSPARK_DCHECK(false);
    }
  }

  void connect_repeat(const GrammarIr& ir, const GrammarIr::Expression& e, int32_t from, int32_t to) {
    for (int32_t i = 0; i < e.min && !is_too_large; ++i) {
      const int32_t next = add();
      connect(ir, e.a, from, next);
      from = next;
    }
    if (e.max == GrammarIr::kUnbounded) {
      const int32_t loop = add();
      all[index(from)].skips.push_back(loop);
      connect(ir, e.a, loop, loop);
      from = loop;
    }
    for (int32_t i = e.min; i < e.max && !is_too_large; ++i) {
      const int32_t next = add();
      all[index(from)].skips.push_back(to);
      connect(ir, e.a, from, next);
      from = next;
    }
    all[index(from)].skips.push_back(to);
  }
};

std::vector<uint32_t> code_points_of(std::string_view text) {
  std::vector<uint32_t> points;
  for (char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if ((byte & 0xC0) == 0x80 && !points.empty()) {
      points.back() = points.back() << 6 | (byte & 0x3Fu);
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

// The subset construction.
class TextSet::Determiniser {
 public:
  Determiniser(const Positions& positions, int32_t start, int32_t end)
      : positions_(positions), end_(end), marks_(positions.all.size(), 0) {
    cut_alphabet();
    number({start});
  }

  Result<TextSet> run() {
    for (size_t i = 0; i < sets_.size(); ++i) {
      expand(i);
      if (sets_.size() > kMaxStates || n_steps_ > kMaxSteps) return too_large();
    }
    return std::move(made_);
  }

 private:
  // Characters between two neighbours of `starts_` are never told apart. Surrogates are no characters and
  // fall to what stands before them.
  void cut_alphabet() {
    std::set<uint32_t> starts{0};
    const auto add = [&](uint32_t c) {
      if (c >= kFirstSurrogate && c < kBehindSurrogates) c = kBehindSurrogates;
      if (c <= kMaxCodePoint) starts.insert(c);
    };
    for (const auto& position : positions_.all) {
      for (const auto& [range, target] : position.edges) {
        add(range.first);
        add(range.last + 1);
      }
    }
    starts_.assign(starts.begin(), starts.end());
  }

  // Everything that is reached without a character, sorted.
  StateIds closure(StateIds todo) {
    ++mark_;
    StateIds reached;
    while (!todo.empty()) {
      const int32_t p = todo.back();
      todo.pop_back();
      ++n_steps_;
      if (std::exchange(marks_[index(p)], mark_) == mark_) continue;
      reached.push_back(p);
      const StateIds& skips = positions_.all[index(p)].skips;
      todo.insert(todo.end(), skips.begin(), skips.end());
    }
    std::sort(reached.begin(), reached.end());
    return reached;
  }

  int32_t number(StateIds begin) {
    StateIds set = closure(std::move(begin));
    const auto [it, is_new] = numbers_.try_emplace(set, static_cast<int32_t>(sets_.size()));
    if (is_new) {
      State state;
      state.accepts = std::binary_search(set.begin(), set.end(), end_);
      made_.states_.push_back(std::move(state));
      sets_.push_back(std::move(set));
    }
    return it->second;
  }

  void expand(size_t i) {
    std::vector<StateIds> targets(starts_.size());
    for (const int32_t p : sets_[i]) {
      for (const auto& [range, target] : positions_.all[index(p)].edges) {
        if (n_steps_ > kMaxSteps) return;  // run() gives up
        const auto first = std::lower_bound(starts_.begin(), starts_.end(), range.first);
        for (auto c = first; c != starts_.end() && *c <= range.last; ++c) {
          targets[static_cast<size_t>(c - starts_.begin())].push_back(target);
          ++n_steps_;
        }
      }
    }
    n_steps_ += static_cast<int64_t>(starts_.size());
    std::vector<Edge> edges;
    for (size_t c = 0; c < starts_.size(); ++c) {
      const uint32_t last = c + 1 < starts_.size() ? starts_[c + 1] - 1 : kMaxCodePoint;
      const bool as_before = c > 0 && targets[c] == targets[c - 1];
      const int32_t target = as_before ? edges.back().target : number(targets[c]);
      if (!edges.empty() && edges.back().target == target) {
        edges.back().last = last;
      } else {
        edges.push_back({last, target});
      }
    }
    made_.states_[i].edges = std::move(edges);
  }

  const Positions& positions_;
  const int32_t end_;
  std::vector<uint32_t> starts_;
  std::vector<StateIds> sets_;
  std::map<StateIds, int32_t> numbers_;
  std::vector<int64_t> marks_;
  int64_t mark_ = 0;
  int64_t n_steps_ = 0;
  TextSet made_;
};

TextSet TextSet::all() {
  TextSet set;
  set.states_.push_back({{{kMaxCodePoint, 0}}, true});
  return set;
}

TextSet TextSet::of(const std::vector<std::string>& texts) {
  // A tree of the texts; state 0 is its root and state 1 what lies outside.
  std::vector<std::map<uint32_t, int32_t>> children(2);
  std::vector<bool> ends(2);
  for (const std::string& text : texts) {
    int32_t at = 0;
    for (const uint32_t c : code_points_of(text)) {
      const auto [it, is_new] = children[index(at)].try_emplace(c, static_cast<int32_t>(children.size()));
      at = it->second;
      if (is_new) {
        children.emplace_back();
        ends.push_back(false);
      }
    }
    ends[index(at)] = true;
  }
  TextSet set;
  for (size_t i = 0; i < children.size(); ++i) {
    State state;
    state.accepts = ends[i];
    for (const auto& [c, child] : children[i]) {
      const uint32_t next = state.edges.empty() ? 0 : state.edges.back().last + 1;
      if (c > next) state.edges.push_back({c - 1, 1});
      state.edges.push_back({c, child});
    }
    if (state.edges.empty() || state.edges.back().last < kMaxCodePoint) {
      state.edges.push_back({kMaxCodePoint, 1});
    }
    set.states_.push_back(std::move(state));
  }
  return set;
}

Result<TextSet> TextSet::lengths(int32_t min, int32_t max) {
  const bool is_bounded = max != GrammarIr::kUnbounded;
  const auto n_counted = static_cast<size_t>(is_bounded ? max : min) + 1;
  if (n_counted >= kMaxStates) return too_large();
  TextSet set;
  for (size_t length = 0; length < n_counted; ++length) {
    const bool stays = !is_bounded && length + 1 == n_counted;
    const auto target = static_cast<int32_t>(stays ? length : length + 1);
    set.states_.push_back({{{kMaxCodePoint, target}}, length >= static_cast<size_t>(min)});
  }
  if (is_bounded) set.states_.push_back({{{kMaxCodePoint, static_cast<int32_t>(n_counted)}}, false});
  return set;
}

Result<TextSet> TextSet::matching(std::string_view pattern) {
  GrammarIr ir;
  DSPARK_ASSIGN_OR_RETURN(const Node node, compile_plain_pattern(pattern, ir));
  Positions positions;
  const int32_t start = positions.add(), end = positions.add();
  positions.connect(ir, node, start, end);
  if (positions.is_too_large) return too_large();
  return Determiniser(positions, start, end).run();
}

Result<TextSet> TextSet::intersect(const TextSet& other) const {
  TextSet both;
  const std::vector<bool> lives = live_states(), other_lives = other.live_states();
  std::map<std::pair<int32_t, int32_t>, int32_t> numbers;
  std::vector<std::pair<int32_t, int32_t>> pairs;
  const auto number = [&](int32_t a, int32_t b) {
    // Pairs that no text comes from are all the same.
    if (!lives[index(a)] || !other_lives[index(b)]) a = b = kDeadPair;
    const auto [it, is_new] = numbers.try_emplace({a, b}, static_cast<int32_t>(pairs.size()));
    if (is_new) {
      pairs.emplace_back(a, b);
      const bool accepts = a != kDeadPair && states_[index(a)].accepts && other.states_[index(b)].accepts;
      both.states_.push_back({{}, accepts});
    }
    return it->second;
  };
  number(0, 0);
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (pairs.size() > kMaxStates) return too_large();
    const auto [a, b] = pairs[i];
    if (a == kDeadPair) {
      both.states_[i].edges.push_back({kMaxCodePoint, static_cast<int32_t>(i)});
      continue;
    }
    const std::vector<Edge>&left = states_[index(a)].edges, &right = other.states_[index(b)].edges;
    std::vector<Edge> edges;
    for (size_t l = 0, r = 0; l < left.size() && r < right.size();) {
      const uint32_t last = std::min(left[l].last, right[r].last);
      const int32_t target = number(left[l].target, right[r].target);
      if (!edges.empty() && edges.back().target == target) {
        edges.back().last = last;
      } else {
        edges.push_back({last, target});
      }
      const bool left_ends = left[l].last == last, right_ends = right[r].last == last;
      l += left_ends ? 1 : 0;
      r += right_ends ? 1 : 0;
    }
    both.states_[i].edges = std::move(edges);
  }
  return both;
}

TextSet TextSet::complement() const {
  TextSet others = *this;
  for (State& state : others.states_) state.accepts = !state.accepts;
  return others;
}

std::vector<bool> TextSet::live_states() const {
  std::vector<StateIds> sources(states_.size());
  StateIds todo;
  std::vector<bool> live(states_.size());
  for (size_t i = 0; i < states_.size(); ++i) {
    for (const Edge& edge : states_[i].edges) {
      sources[index(edge.target)].push_back(static_cast<int32_t>(i));
    }
    if (!states_[i].accepts) continue;
    live[i] = true;
    todo.push_back(static_cast<int32_t>(i));
  }
  while (!todo.empty()) {
    const int32_t state = todo.back();
    todo.pop_back();
    for (const int32_t source : sources[index(state)]) {
      if (live[index(source)]) continue;
      live[index(source)] = true;
      todo.push_back(source);
    }
  }
  return live;
}

bool TextSet::empty() const {
  return !live_states()[0];
}

bool TextSet::contains(std::string_view text) const {
  int32_t at = 0;
  for (const uint32_t c : code_points_of(text)) {
    const std::vector<Edge>& edges = states_[index(at)].edges;
    const auto edge = std::lower_bound(edges.begin(), edges.end(), c,
                                       [](const Edge& e, uint32_t point) { return e.last < point; });
    at = edge->target;
  }
  return states_[index(at)].accepts;
}

Node TextSet::content(GrammarIr& ir, JsonTerminals& json) const {
  const std::vector<bool> live = live_states();
  if (!live[0]) return -1;
  std::vector<int32_t> rules(states_.size(), -1);
  for (size_t i = 0; i < states_.size(); ++i) {
    if (live[i]) rules[i] = ir.add_rule("text");
  }
  std::map<std::vector<uint32_t>, Node> known;  // characters that lead to one state are a rule of their own
  const auto characters = [&](const std::vector<CodeRange>& ranges) {
    if (ranges.size() == 1 && ranges[0].first == 0 && ranges[0].last == kMaxCodePoint)
      return json.character();
    std::vector<uint32_t> key;
    for (const CodeRange& range : ranges) key.insert(key.end(), {range.first, range.last});
    const auto [it, is_new] = known.try_emplace(key, -1);
    if (is_new) it->second = ir.named("characters", json.character_of(normalise_ranges(ranges)));
    return it->second;
  };
  for (size_t i = 0; i < states_.size(); ++i) {
    if (!live[i]) continue;
    std::map<int32_t, std::vector<CodeRange>> by_target;
    uint32_t first = 0;
    for (const Edge& edge : states_[i].edges) {
      if (live[index(edge.target)]) by_target[edge.target].push_back({first, edge.last});
      first = edge.last + 1;
    }
    std::vector<Node> parts;
    if (states_[i].accepts) parts.push_back(ir.empty());
    for (const auto& [target, ranges] : by_target) {
      parts.push_back(ir.sequence({characters(ranges), ir.call(rules[index(target)])}));
    }
    ir.set_body(rules[i], ir.choice(std::move(parts)));
  }
  return ir.call(rules[0]);
}

}  // namespace dspark
