#pragma once
// The automaton, made deterministic while it is used: states are sets of (position, stacks), interned, and
// every transition is computed once.
//
// The stacks of a state are kept together as one node: a sorted set of links (return position, node below),
// shared by all states and merged when two ways into a position differ in their stacks only. An ambiguous
// grammar so costs work in proportion to its positions, not to the number of ways to read a text.

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "constrain/automaton.h"

namespace dspark {

/// Most rules open at once (levels of nesting); what would go deeper is not allowed.
inline constexpr int32_t kMaxGrammarDepth = 1024;

/// Sets of stacks, hash-consed: equal sets have equal numbers. Node 0 holds the empty stack alone.
class StackPool {
 public:
  struct Link {
    int32_t after = 0;  // position to return to
    int32_t below = 0;  // node
    auto operator<=>(const Link&) const = default;
  };
  struct Node {
    int32_t begin = 0, end = 0;  // into links
    bool has_empty = false;      // the empty stack is one of them
    int32_t depth = 0;           // longest stack
    int32_t to_end = 0;          // least bytes until all of the cheapest stack has returned
  };

  explicit StackPool(const Automaton& automaton);
  const Node& node(int32_t n) const { return nodes_[static_cast<size_t>(n)]; }
  Link link(int32_t i) const { return links_[static_cast<size_t>(i)]; }
  /// All stacks of `below` with `after` on top; -1 beyond kMaxGrammarDepth.
  int32_t push(int32_t after, int32_t below);
  /// The stacks of both.
  int32_t merge(int32_t a, int32_t b);
  /// The node of another pool, with all that it rests on. memo: old number -> number here.
  int32_t copy(const StackPool& other, int32_t n, std::unordered_map<int32_t, int32_t>& memo);
  size_t bytes() const;

 private:
  int32_t intern(std::span<const Link> links, bool has_empty);

  const Automaton& automaton_;
  std::vector<Node> nodes_;
  std::vector<Link> links_;
  std::unordered_multimap<uint64_t, int32_t> by_hash_;
  std::unordered_map<uint64_t, int32_t> merged_;
};

/// thread: one at a time.
class StateMachine {
 public:
  /// The state that no text leaves.
  static constexpr int32_t kDead = 0;

  /// requires: the automaton outlives the machine.
  explicit StateMachine(const Automaton& automaton);

  int32_t start() const { return start_; }
  /// The state behind one more byte.
  int32_t next(int32_t state, uint8_t byte) { return next_class(state, automaton_.byte_class[byte]); }
  int32_t next_class(int32_t state, uint8_t byte_class) {
    const int32_t known = rows_[static_cast<size_t>(state) * n_classes_ + byte_class];
    return known >= 0 ? known : compute(state, byte_class);
  }
  /// The text may end here.
  bool accepts(int32_t state) const { return states_[static_cast<size_t>(state)].accepts; }
  /// The text must end here.
  bool is_final(int32_t state) const {
    const State& s = states_[static_cast<size_t>(state)];
    return s.accepts && s.begin == s.end;
  }
  /// Least bytes to a text that may end. kNeverEnds: dead.
  int32_t to_end(int32_t state) const { return states_[static_cast<size_t>(state)].to_end; }

  size_t n_states() const { return states_.size(); }
  /// Memory of states, transitions and stacks.
  size_t bytes() const;
  /// Forgets everything but `live` states, which get new numbers in place.
  void compact(std::span<std::vector<int32_t>* const> live);

 private:
  struct Config {
    int32_t position = 0;
    int32_t stacks = 0;
    bool operator==(const Config&) const = default;
  };
  struct State {
    size_t begin = 0, end = 0;  // into configs_
    bool accepts = false;
    int32_t to_end = kNeverEnds;
  };
  struct Tables;

  void clear();
  int32_t compute(int32_t state, uint8_t byte_class);
  void begin_closure();
  void reach(int32_t position, int32_t stacks);
  void expand(int32_t position, int32_t stacks);
  int32_t end_closure();
  int32_t intern(std::span<const Config> configs, bool accepts);

  const Automaton& automaton_;
  size_t n_classes_;
  uint8_t class_byte_[256] = {};  // some byte of each class
  std::unique_ptr<StackPool> stacks_;
  std::vector<State> states_;
  std::vector<Config> configs_;
  std::vector<int32_t> rows_;  // (n_states, n_classes) next state, -1: not computed yet
  std::unordered_multimap<uint64_t, int32_t> by_hash_;
  int32_t start_ = kDead;

  // The closure in hand.
  std::vector<uint32_t> stamp_;     // (positions) closure that reached the position last
  std::vector<int32_t> stacks_at_;  // (positions)
  std::vector<int32_t> reached_, todo_;
  std::vector<Config> found_;
  uint32_t closure_ = 0;
  bool accepts_ = false;
};

}  // namespace dspark
