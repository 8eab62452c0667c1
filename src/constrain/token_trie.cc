#include "constrain/token_trie.h"

#include <algorithm>
#include <bitset>
#include <numeric>

namespace dspark {

TokenTrie::TokenTrie(int32_t vocab_size, const std::function<std::string_view(int32_t id)>& text)
    : vocab_size_(vocab_size) {
  begins_.push_back(0);
  for (int32_t id = 0; id < vocab_size; ++id) {
    const std::string_view t = text(id);
    if (t.size() <= kMaxDepth) blob_ += t;  // a longer token can never be chosen
    begins_.push_back(static_cast<uint32_t>(blob_.size()));
  }
  std::vector<int32_t> order(static_cast<size_t>(vocab_size));
  std::iota(order.begin(), order.end(), 0);
  std::erase_if(order, [this](int32_t id) { return bytes(id).empty(); });
  std::sort(order.begin(), order.end(), [this](int32_t a, int32_t b) {
    const int compared = bytes(a).compare(bytes(b));
    return compared != 0 ? compared < 0 : a < b;
  });
  std::vector<int32_t> path;  // nodes from the root to the last one inserted
  std::string_view previous;
  std::bitset<256> single;
  for (int32_t id : order) {
    const std::string_view t = bytes(id);
    insert(t, previous, path);
    tokens_.push_back(id);
    nodes_[static_cast<size_t>(path.back())].token_end = static_cast<int32_t>(tokens_.size());
    if (t.size() == 1) single.set(static_cast<uint8_t>(t[0]));
    previous = t;
  }
  for (int32_t open : path) nodes_[static_cast<size_t>(open)].skip = static_cast<int32_t>(nodes_.size());
  has_all_bytes_ = single.all();
}

void TokenTrie::insert(std::string_view text, std::string_view previous, std::vector<int32_t>& path) {
  size_t shared = 0;
  while (shared < std::min(text.size(), previous.size()) && text[shared] == previous[shared]) ++shared;
  while (path.size() > shared) {
    nodes_[static_cast<size_t>(path.back())].skip = static_cast<int32_t>(nodes_.size());
    path.pop_back();
  }
  const auto n_tokens = static_cast<int32_t>(tokens_.size());
  for (size_t i = shared; i < text.size(); ++i) {
    path.push_back(static_cast<int32_t>(nodes_.size()));
    nodes_.push_back({static_cast<uint8_t>(text[i]), static_cast<uint16_t>(i), 0, n_tokens, n_tokens});
  }
}

std::string_view TokenTrie::bytes(int32_t id) const {
  if (id < 0 || id >= vocab_size_) return {};
  const uint32_t begin = begins_[static_cast<size_t>(id)];
  return std::string_view(blob_).substr(begin, begins_[static_cast<size_t>(id) + 1] - begin);
}

int32_t TokenTrie::walk(StateMachine& machine, const Automaton& automaton, int32_t state, int32_t limit,
                        std::vector<uint32_t>& mask) const {
  int32_t path[kMaxDepth + 1];
  path[0] = state;
  int32_t largest = 0;
  const size_t n = nodes_.size();
  for (size_t i = 0; i < n;) {
    const Node& node = nodes_[i];
    const int32_t next = machine.next_class(path[node.depth], automaton.byte_class[node.byte]);
    if (next == StateMachine::kDead) {
      i = static_cast<size_t>(node.skip);
      continue;
    }
    path[node.depth + 1] = next;
    ++i;
    if (node.token_begin == node.token_end) continue;
    const int32_t to_end = machine.to_end(next);
    largest = std::max(largest, to_end);
    if (to_end > limit) continue;
    for (int32_t t = node.token_begin; t < node.token_end; ++t) {
      const auto id = static_cast<size_t>(tokens_[static_cast<size_t>(t)]);
      mask[id / 32] |= uint32_t{1} << (id % 32);
    }
  }
  return largest;
}

}  // namespace dspark
