#pragma once
// Prompt lookup: drafts what followed the last time the newest tokens occurred in the same sequence.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "draft/drafter.h"

namespace dspark {

/// Latest position behind every n-gram of one token sequence, for a range of n. A token costs O(max_n) to
/// add, a look-up O(max_n), whatever the length of the sequence.
class NgramIndex {
 public:
  NgramIndex(int32_t min_n, int32_t max_n) : min_n_(min_n), max_n_(max_n) {}

  /// Takes the memory for `n_tokens` tokens, or for kMostReserved if that is less: appending up to there
  /// allocates nothing. Longer sequences double it, as all do without a call.
  void reserve(int32_t n_tokens);
  static constexpr int32_t kMostReserved = 16384;
  /// Forgets everything, keeps the memory. Costs time in proportion to the tokens.
  void clear();
  void append(std::span<const int32_t> tokens);
  std::span<const int32_t> tokens() const { return tokens_; }
  /// The tokens that followed the most recent earlier occurrence of the longest suffix with min_n..max_n
  /// tokens that has one; at most `max_tokens`, empty without a match. Valid until the next append or clear.
  std::span<const int32_t> lookup(int32_t max_tokens) const;

  /// An earlier occurrence of the newest tokens.
  struct Match {
    int32_t next = 0;    // index of the token behind it
    int32_t length = 0;  // tokens that agree, counted backwards up to kMaxMatch; 0: there is none
  };
  static constexpr int32_t kMaxMatch = 32;
  /// What lookup() finds if `ahead` followed the sequence's tokens, with the whole length of the agreement.
  Match match(std::span<const int32_t> ahead = {}) const;
  /// Fills `out` with what follows a match of the same `ahead`. Where that reaches the end of what is known
  /// it goes on with itself, so that a short loop fills any length.
  void follow(const Match& match, std::span<const int32_t> ahead, std::span<int32_t> out) const;

 private:
  struct Bucket {
    uint64_t hash = 0;
    int32_t next = 0;  // index of the token behind the n-gram, 0: empty (an n-gram has a token before it)
  };

  /// Indexes the n-grams whose follower is token `next`.
  void index_follower(int32_t next);
  void insert(uint64_t hash, int32_t next);
  void rehash(size_t n_buckets);
  int32_t find(uint64_t hash) const;
  /// Token `idx` of the sequence with `ahead` behind it.
  int32_t token_at(int32_t idx, std::span<const int32_t> ahead) const {
    const auto at = static_cast<size_t>(idx);
    return at < tokens_.size() ? tokens_[at] : ahead[at - tokens_.size()];
  }

  int32_t min_n_;
  int32_t max_n_;
  std::vector<int32_t> tokens_;
  std::vector<Bucket> buckets_;  // size a power of two, linear probing
  size_t n_used_ = 0;
};

struct NgramOptions {
  int32_t min_n = 1;       // shortest suffix that counts as a match
  int32_t max_n = 4;       // longest suffix tried, first
  int32_t max_block = 64;  // most tokens of one proposal
  int32_t reserve = 0;     // tokens that every sequence's index has memory for from its first token on

  static constexpr int32_t kMaxBlock = 64;
  /// errors: invalid_argument: want 1 <= min_n <= max_n <= 16 and 1 <= max_block <= kMaxBlock.
  Status validate() const;
};

/// Drafter over one NgramIndex per slot. Needs no model and no features.
class NgramDrafter final : public Drafter {
 public:
  /// requires: options.validate().ok().
  explicit NgramDrafter(const NgramOptions& options) : options_(options) {}

  std::string_view name() const override { return "ngram"; }
  int32_t max_block() const override { return options_.max_block; }
  Status propose(std::span<const DraftRequest> requests, DraftBlock& out) override;
  void commit(std::span<const CommitEvent> events) override;
  void release(int32_t slot) override;

 private:
  NgramIndex& index_of(int32_t slot);

  NgramOptions options_;
  std::vector<std::unique_ptr<NgramIndex>> indices_;  // by slot; kept and reused
};

}  // namespace dspark
