#pragma once
// What the user may ask of the sampler. All fields are neutral by default: plain sampling at temperature 1.

#include <cstdint>
#include <utility>
#include <vector>

#include "base/status.h"

namespace dspark {

/// Below this temperature a choice is greedy: the largest logit, the lowest id on ties.
inline constexpr float kGreedyTemperature = 1e-5f;

/// Sampling options of one request. The order in which they act is that of speculate/logits_processor.h.
struct SamplingParams {
  float temperature = 1.0f;         // 0: greedy; filters do not apply then
  int32_t top_k = 0;                // keep the k largest (ties with the k-th are kept); 0 or -1: off
  float top_p = 1.0f;               // keep the smallest head of the distribution with this mass; 1: off
  float min_p = 0.0f;               // drop tokens below min_p * largest probability; 0: off
  float repetition_penalty = 1.0f;  // > 0; over ids of prompt and output; 1: off
  float presence_penalty = 0.0f;    // once per id that occurs in the output
  float frequency_penalty = 0.0f;   // per occurrence in the output
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // (token id, added to its logit), each id once
  uint64_t seed = 0;  // noise is a pure function of (seed, position, token)

  /// errors: invalid_argument naming the field, its allowed range and the value found.
  Status validate(int32_t vocab_size) const;

  bool greedy() const { return temperature < kGreedyTemperature; }
  bool has_penalties() const {
    return repetition_penalty != 1.0f || presence_penalty != 0.0f || frequency_penalty != 0.0f;
  }
  /// True when step 7, 8 or 9 can drop a token.
  bool has_filters() const { return min_p > 0.0f || top_k > 0 || top_p < 1.0f; }
};

}  // namespace dspark
