#pragma once
// From one row of target logits to one token, in this order (that of vLLM's sampler; the additive penalties
// follow the OpenAI API reference):
//   1 logits   2 + logit_bias   3 repetition penalty over ids of prompt and output: l > 0 ? l / r : l * r
//   4 - frequency_penalty * count in output   5 - presence_penalty if in output
//   6 temperature (below kGreedyTemperature: greedy, the rest does not apply)
//   7 min_p   8 top_k, ties with the k-th kept   9 top_p over what is left, at least one stays
//   10 softmax over what is left, then the coupled pick (speculate/coupled.h)

#include <cstdint>
#include <span>
#include <vector>

#include "speculate/coupled.h"
#include "speculate/sampling_params.h"
#include "speculate/token_counts.h"

namespace dspark {

/// Buffers reused from call to call.
struct SamplerScratch {
  std::vector<float> row;             // (vocab) logits after steps 2-5
  std::vector<Candidate> candidates;  // survivors of steps 7-9
  std::vector<float> heads;           // large logits, for top_k
};

/// Steps 2-5 in place. counts may be null when params has no penalties.
/// requires: bias and counted ids inside the row.
void apply_bias_and_penalties(std::span<float> logits, const SamplingParams& params,
                              const TokenCounts* counts);

/// Steps 6-9 on a row after step 5. scratch.candidates: the tokens that are left with weight > 0, ids
/// ascending, weights exp((logit - max) / temperature). requires: !params.greedy(), at least one logit above
/// -infinity.
void filter_candidates(std::span<const float> logits, const SamplingParams& params, SamplerScratch& scratch);

/// Index of the largest value, the lowest on ties; NaN never wins. requires: not empty.
int32_t argmax(std::span<const float> logits);

/// Steps 1-10 and the pick for the token at absolute index `position`. A pure function of its arguments.
/// counts: prompt and output before `position`; may be null when params has no penalties.
int32_t choose_token(std::span<const float> logits, const SamplingParams& params, const TokenCounts* counts,
                     int64_t position, SamplerScratch& scratch);

/// The row after steps 1-9 as probabilities over the whole vocabulary, for the accept rules that compare
/// distributions: what choose_token's pick is distributed as. Greedy: 1 at the argmax. out may be `logits`.
/// requires: out.size() == logits.size(); counts as for choose_token.
void target_probabilities(std::span<const float> logits, const SamplingParams& params,
                          const TokenCounts* counts, SamplerScratch& scratch, std::span<float> out);

}  // namespace dspark
