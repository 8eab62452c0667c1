#include "constrain/state_machine.h"

#include <algorithm>
#include <utility>

namespace dspark {
namespace {

uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
  return hash ^ (hash >> 29);
}

uint64_t pair_key(int32_t a, int32_t b) {
  return static_cast<uint64_t>(static_cast<uint32_t>(a)) << 32 | static_cast<uint32_t>(b);
}

}  // namespace

StackPool::StackPool(const Automaton& automaton) : automaton_(automaton) {
  intern({}, true);
}

int32_t StackPool::intern(std::span<const Link> links, bool has_empty) {
  uint64_t hash = has_empty ? 1 : 0;
  for (const Link& link : links) hash = mix(hash, pair_key(link.after, link.below));
  const auto [first, last] = by_hash_.equal_range(hash);
  for (auto it = first; it != last; ++it) {
    const Node& n = node(it->second);
    const std::span<const Link> known(links_.data() + n.begin, links_.data() + n.end);
    if (n.has_empty == has_empty && std::equal(known.begin(), known.end(), links.begin(), links.end())) {
      return it->second;
    }
  }
  Node n{static_cast<int32_t>(links_.size()), 0, has_empty, 0, has_empty ? 0 : kNeverEnds};
  for (const Link& link : links) {
    n.depth = std::max(n.depth, node(link.below).depth + 1);
    const int32_t cost = automaton_.position(link.after).to_end + node(link.below).to_end;
    n.to_end = std::min({n.to_end, cost, kNeverEnds});
  }
  links_.insert(links_.end(), links.begin(), links.end());
  n.end = static_cast<int32_t>(links_.size());
  nodes_.push_back(n);
  const auto id = static_cast<int32_t>(nodes_.size()) - 1;
  by_hash_.emplace(hash, id);
  return id;
}

int32_t StackPool::push(int32_t after, int32_t below) {
  if (node(below).depth >= kMaxGrammarDepth) return -1;
  const Link link{after, below};
  return intern({&link, 1}, false);
}

int32_t StackPool::merge(int32_t a, int32_t b) {
  if (a == b) return a;
  if (a > b) std::swap(a, b);
  const uint64_t key = pair_key(a, b);
  if (const auto known = merged_.find(key); known != merged_.end()) return known->second;
  const Node x = node(a), y = node(b);
  std::vector<Link> links;
  int32_t i = x.begin, j = y.begin;
  while (i < x.end || j < y.end) {
    if (j == y.end || (i < x.end && link(i).after < link(j).after)) {
      links.push_back(link(i++));
    } else if (i == x.end || link(j).after < link(i).after) {
      links.push_back(link(j++));
    } else {
      const Link first = link(i++), second = link(j++);
      links.push_back({first.after, merge(first.below, second.below)});
    }
  }
  const int32_t id = intern(links, x.has_empty || y.has_empty);
  merged_.emplace(key, id);
  return id;
}

int32_t StackPool::copy(const StackPool& other, int32_t n, std::unordered_map<int32_t, int32_t>& memo) {
  if (const auto known = memo.find(n); known != memo.end()) return known->second;
  const Node source = other.node(n);
  std::vector<Link> links;
  for (int32_t i = source.begin; i < source.end; ++i) {
    const Link link = other.link(i);
    links.push_back({link.after, copy(other, link.below, memo)});
  }
  const int32_t id = intern(links, source.has_empty);
  memo.emplace(n, id);
  return id;
}

size_t StackPool::bytes() const {
  return nodes_.size() * (sizeof(Node) + 48) + links_.size() * sizeof(Link) + merged_.size() * 48;
}

StateMachine::StateMachine(const Automaton& automaton)
    : automaton_(automaton),
      n_classes_(static_cast<size_t>(automaton.n_byte_classes)),
      stamp_(automaton.positions.size()),
      stacks_at_(automaton.positions.size()) {
  for (size_t byte = 256; byte-- > 0;) class_byte_[automaton.byte_class[byte]] = static_cast<uint8_t>(byte);
  clear();
}

void StateMachine::clear() {
  stacks_ = std::make_unique<StackPool>(automaton_);
  states_.clear();
  configs_.clear();
  rows_.clear();
  by_hash_.clear();
  intern({}, false);  // kDead
  std::fill(rows_.begin(), rows_.end(), kDead);
  begin_closure();
  reach(automaton_.root_entry, 0);
  start_ = end_closure();
}

void StateMachine::begin_closure() {
  ++closure_;
  reached_.clear();
  accepts_ = false;
}

/// Adds a position with some stacks and all that can be reached from it without a byte.
void StateMachine::reach(int32_t position, int32_t stacks) {
  const auto i = static_cast<size_t>(position);
  if (stamp_[i] != closure_) {
    stamp_[i] = closure_;
    stacks_at_[i] = stacks;
    reached_.push_back(position);
  } else {
    const int32_t merged = stacks_->merge(stacks_at_[i], stacks);
    if (merged == stacks_at_[i]) return;
    stacks_at_[i] = merged;
  }
  todo_.push_back(position);
}

void StateMachine::expand(int32_t position, int32_t stacks) {
  const Automaton::Position p = automaton_.position(position);
  for (int32_t i = p.skip_begin; i < p.skip_end; ++i) reach(automaton_.skips[static_cast<size_t>(i)], stacks);
  for (int32_t i = p.call_begin; i < p.call_end; ++i) {
    const Automaton::CallEdge call = automaton_.call_edges[static_cast<size_t>(i)];
    // Where nothing follows the call, the caller need not be remembered: lists by recursion stay flat.
    const int32_t below =
        automaton_.position(call.after).only_ends ? stacks : stacks_->push(call.after, stacks);
    if (below >= 0) reach(call.entry, below);
  }
  if (!p.ends_rule) return;
  const StackPool::Node node = stacks_->node(stacks);
  if (node.has_empty) accepts_ = true;
  for (int32_t i = node.begin; i < node.end; ++i) {
    const StackPool::Link link = stacks_->link(i);
    reach(link.after, link.below);
  }
}

int32_t StateMachine::end_closure() {
  while (!todo_.empty()) {
    const int32_t position = todo_.back();
    todo_.pop_back();
    expand(position, stacks_at_[static_cast<size_t>(position)]);
  }
  found_.clear();
  for (int32_t position : reached_) {
    const Automaton::Position& p = automaton_.position(position);
    if (p.byte_begin != p.byte_end) found_.push_back({position, stacks_at_[static_cast<size_t>(position)]});
  }
  std::sort(found_.begin(), found_.end(),
            [](const Config& a, const Config& b) { return a.position < b.position; });
  return intern(found_, accepts_);
}

int32_t StateMachine::compute(int32_t state, uint8_t byte_class) {
  begin_closure();
  const uint8_t byte = class_byte_[byte_class];
  const State from = states_[static_cast<size_t>(state)];
  for (size_t c = from.begin; c < from.end; ++c) {
    const Config config = configs_[c];
    const Automaton::Position& p = automaton_.position(config.position);
    for (int32_t i = p.byte_begin; i < p.byte_end; ++i) {
      const Automaton::ByteEdge& edge = automaton_.byte_edges[static_cast<size_t>(i)];
      if (edge.first <= byte && byte <= edge.last) reach(edge.target, config.stacks);
    }
  }
  const int32_t next = reached_.empty() ? kDead : end_closure();
  rows_[static_cast<size_t>(state) * n_classes_ + byte_class] = next;
  return next;
}

int32_t StateMachine::intern(std::span<const Config> configs, bool accepts) {
  uint64_t hash = accepts ? 1 : 0;
  for (const Config& c : configs) hash = mix(hash, pair_key(c.position, c.stacks));
  const auto [first, last] = by_hash_.equal_range(hash);
  for (auto it = first; it != last; ++it) {
    const State& s = states_[static_cast<size_t>(it->second)];
    const std::span<const Config> known(configs_.data() + s.begin, configs_.data() + s.end);
    if (s.accepts == accepts && std::equal(known.begin(), known.end(), configs.begin(), configs.end())) {
      return it->second;
    }
  }
  State s{configs_.size(), 0, accepts, accepts ? 0 : kNeverEnds};
  for (const Config& c : configs) {
    s.to_end = std::min(s.to_end, automaton_.position(c.position).to_end + stacks_->node(c.stacks).to_end);
  }
  configs_.insert(configs_.end(), configs.begin(), configs.end());
  s.end = configs_.size();
  states_.push_back(s);
  rows_.resize(rows_.size() + n_classes_, -1);
  const auto id = static_cast<int32_t>(states_.size()) - 1;
  by_hash_.emplace(hash, id);
  return id;
}

size_t StateMachine::bytes() const {
  return states_.size() * (sizeof(State) + 48) + configs_.size() * sizeof(Config) +
         rows_.size() * sizeof(int32_t) + stacks_->bytes();
}

void StateMachine::compact(std::span<std::vector<int32_t>* const> live) {
  const std::unique_ptr<StackPool> old_stacks = std::move(stacks_);
  const std::vector<State> old_states = std::move(states_);
  const std::vector<Config> old_configs = std::move(configs_);
  clear();
  std::unordered_map<int32_t, int32_t> memo;
  std::vector<Config> configs;
  for (std::vector<int32_t>* numbers : live) {
    for (int32_t& number : *numbers) {
      const State& s = old_states[static_cast<size_t>(number)];
      configs.assign(old_configs.begin() + static_cast<std::ptrdiff_t>(s.begin),
                     old_configs.begin() + static_cast<std::ptrdiff_t>(s.end));
      for (Config& c : configs) c.stacks = stacks_->copy(*old_stacks, c.stacks, memo);
      number = intern(configs, s.accepts);
    }
  }
}

}  // namespace dspark
