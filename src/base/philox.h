#pragma once
// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011) and the sampling noise made
// of it. A number is a pure function of its keys; there is no generator state to save or restore.

#include <array>
#include <cmath>
#include <cstdint>

namespace dspark {

inline constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u;
inline constexpr uint32_t kPhiloxMultiplier1 = 0xCD9E8D57u;
inline constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u;
inline constexpr uint32_t kPhiloxWeyl1 = 0xBB67AE85u;

/// Ten rounds over a 128-bit counter with a 64-bit key.
constexpr std::array<uint32_t, 4> philox4x32_10(std::array<uint32_t, 4> counter,
                                                std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{kPhiloxMultiplier0} * counter[0];
    const uint64_t product1 = uint64_t{kPhiloxMultiplier1} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key = {key[0] + kPhiloxWeyl0, key[1] + kPhiloxWeyl1};
  }
  return counter;
}

/// The 32 random bits of a token at an absolute position. Four neighbouring tokens share one Philox call.
constexpr uint32_t noise_word(uint64_t seed, uint64_t position, uint32_t token) {
  return philox4x32_10(
      {token >> 2, static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0},
      {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)})[token & 3];
}

/// A uniform number in (0, 1), never 0 or 1: the middle of the word's interval of width 2^-32.
constexpr double uniform_of_word(uint32_t word) {
  return (static_cast<double>(word) + 0.5) * 0x1p-32;
}

/// What a random number is for: word 3 of the counter, so that no two purposes share numbers.
enum class NoisePurpose : uint32_t {
  kCoupled = 0,  // noise_word: one word per token of the vocabulary
  kDraft = 1,    // sampling a draft
  kCoin = 2,     // accepting or rejecting a draft
  kDraw = 3,     // drawing the correction or the bonus
};

/// A uniform number in [0, 1) with 53 random bits for the token `offset` places behind the anchor (draft k of
/// a round: offset k, from 1) at absolute index `anchor`.
///
/// The key is the round and the place in it, not the absolute position alone: a position whose draft was
/// dropped is drafted and judged again in a later round, and by then the numbers of its first time have
/// already decided about what was committed (block verification looks at all drafts, schedulers remember
/// confidences). Used twice they would bias the output. Anchors of one sequence never repeat.
constexpr double uniform_at(uint64_t seed, uint64_t anchor, uint32_t offset, NoisePurpose purpose) {
  const std::array<uint32_t, 4> words =
      philox4x32_10({offset, static_cast<uint32_t>(anchor), static_cast<uint32_t>(anchor >> 32),
                     static_cast<uint32_t>(purpose)},
                    {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return static_cast<double>(((uint64_t{words[0]} << 32) | words[1]) >> 11) * 0x1p-53;
}

/// Exp(1) noise of a token: -log(u), at least 1.16e-10.
inline double noise_exponential(uint64_t seed, uint64_t position, uint32_t token) {
  return -std::log(uniform_of_word(noise_word(seed, position, token)));
}

/// Standard Gumbel noise of a token: -log(-log(u)).
inline double noise_gumbel(uint64_t seed, uint64_t position, uint32_t token) {
  return -std::log(noise_exponential(seed, position, token));
}

}  // namespace dspark
