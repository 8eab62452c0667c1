#pragma once
// Private to the room: the largest bias that a token gives to each chunk of a row of logits, remembered from
// the last time it was computed.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

namespace dspark {

/// A table of fixed size, one place per group of token ids, the newest stays. No allocation after reset().
class BiasBounds {
 public:
  /// Forgets everything; `n_chunks` bounds per token from now on.
  void reset(int64_t n_chunks) {
    constexpr uint64_t kFloats = 1 << 20;  // of the whole table
    n_chunks_ = static_cast<size_t>(n_chunks);
    const auto n_places = std::bit_floor(std::max<uint64_t>(kFloats / static_cast<uint64_t>(n_chunks), 64));
    tokens_.assign(n_places, -1);
    bounds_.assign(n_places * n_chunks_, 0.0f);
  }
  /// (n_chunks) bounds of a token; empty: not known.
  std::span<const float> find(int32_t token) const {
    return tokens_[place(token)] == token ? std::span(bounds_).subspan(place(token) * n_chunks_, n_chunks_)
                                          : std::span<const float>();
  }
  /// Room for a token's bounds, to be filled before the next find(). Empty when another token got the same
  /// place since begin().
  std::span<float> claim(int32_t token) {
    for (const size_t taken : claimed_) {
      if (taken == place(token)) return {};
    }
    claimed_.push_back(place(token));
    tokens_[place(token)] = token;
    return std::span(bounds_).subspan(place(token) * n_chunks_, n_chunks_);
  }
  /// Starts a group of claims that are filled together, at most `n` of them.
  void begin(size_t n) {
    claimed_.clear();
    claimed_.reserve(n);
  }

 private:
  size_t place(int32_t token) const { return static_cast<size_t>(token) & (tokens_.size() - 1); }

  size_t n_chunks_ = 0;
  std::vector<int32_t> tokens_;
  std::vector<float> bounds_;
  std::vector<size_t> claimed_;
};

}  // namespace dspark
