#pragma once
// The texts of a vocabulary as one tree, laid out for walking: which tokens may follow is asked for all of
// them at once.

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "constrain/state_machine.h"

namespace dspark {

/// Built once per model, then const. thread: const members from any thread.
class TokenTrie {
 public:
  /// text(id): the bytes of a token, empty for ids that a constrained text never contains (control tokens,
  /// padding). The views need only live during the call.
  TokenTrie(int32_t vocab_size, const std::function<std::string_view(int32_t id)>& text);

  int32_t vocab_size() const { return vocab_size_; }
  size_t n_nodes() const { return nodes_.size(); }
  /// Bytes of a token as given; empty outside the vocabulary.
  std::string_view bytes(int32_t id) const;
  /// Every byte is a token by itself, so every byte string can be spelled.
  bool has_all_bytes() const { return has_all_bytes_; }

  /// Sets the bits of tokens that lead from `state` to a state with at most `limit` bytes to its end.
  /// mask: (token_mask_words(vocab_size)) words. returns: the largest to_end among the states of the tokens
  /// that lead anywhere, whatever the limit.
  int32_t walk(StateMachine& machine, const Automaton& automaton, int32_t state, int32_t limit,
               std::vector<uint32_t>& mask) const;

 private:
  struct Node {
    uint8_t byte = 0;
    uint16_t depth = 0;  // of its parent; the longest texts are cut off at kMaxDepth
    int32_t skip = 0;    // first node that is not below this one
    int32_t token_begin = 0, token_end = 0;
  };
  static constexpr size_t kMaxDepth = 1024;

  void insert(std::string_view text, std::string_view previous, std::vector<int32_t>& path);

  int32_t vocab_size_;
  std::string blob_;
  std::vector<uint32_t> begins_;  // (vocab_size + 1) into blob_
  std::vector<Node> nodes_;       // in order of a depth-first walk
  std::vector<int32_t> tokens_;   // ids, grouped by node
  bool has_all_bytes_ = false;
};

}  // namespace dspark
