#pragma once
// Which tokens of a block can win a coupled pick: noise of many tokens at once, compared with a bound.

#include <array>
#include <cstdint>
#include <vector>

namespace dspark {

/// What the noise and the weights of one row depend on. A token's key is E / w, its exponential noise over
/// its weight exp((logit - max_logit) / temperature); the smallest key wins.
struct NoiseRow {
  uint64_t seed = 0;
  uint64_t position = 0;
  float max_logit = 0.0f;   // finite
  float log2_scale = 0.0f;  // log2(e) / temperature
};

inline constexpr int kNoiseBlock = 1024;
/// Bit i of word j stands for place 64 j + i of the block.
using NoiseMask = std::array<uint64_t, kNoiseBlock / 64>;

/// Finds the places whose key may be at most 2^log2_limit: all such places, and others only where a lower
/// bound of log2(key) is within the limit. The bound misses by up to log2(E / (1 - exp(-E))) + 0.09: by less
/// than 0.1 for noise E well below 1 (the few smallest of all, below 2^-26, by up to 1.6 more), by more for
/// large E. Instruction sets may differ in the others. NaN and -infinity have no key.
/// requires: kNoiseBlock logits, none +infinity.
struct NoiseScan {
  /// Tokens block_begin .. block_begin + kNoiseBlock - 1. requires: block_begin a multiple of four.
  NoiseMask (*block)(const NoiseRow& row, uint32_t block_begin, const float* logits, float log2_limit);
  /// Tokens in any order.
  NoiseMask (*listed)(const NoiseRow& row, const int32_t* ids, const float* logits, float log2_limit);
};

/// The scan for this CPU.
NoiseScan noise_scan();
/// All that this CPU can run, the one of noise_scan() first; for tests.
std::vector<NoiseScan> runnable_noise_scans();

}  // namespace dspark
