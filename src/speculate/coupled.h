#pragma once
// Coupled sampling: the token at a position is a function of its distribution and of noise keyed by
// (seed, position, token), so the text does not depend on what was drafted.
// (Gumbel-max couplings without communication: Daliri, Musco, Suresh, arXiv 2408.07978.)

#include <cstdint>
#include <span>

namespace dspark {

/// A token that may be chosen; weights are probabilities up to one common factor.
struct Candidate {
  int32_t id = 0;
  float logit = 0.0f;
  double weight = 0.0;
};

/// argmin of -log(u(seed, position, id)) / weight over candidates with weight > 0, the lowest id on ties:
/// each id wins with probability weight / sum. requires: ids ascending. returns: -1 without such candidates.
int32_t coupled_pick(std::span<const Candidate> candidates, uint64_t seed, uint64_t position);

/// The same over a whole row with weights exp((logit - max) / temperature): exactly the pick of coupled_pick
/// over all ids, but logarithms are taken only for the few ids that noise and weight let near the minimum.
/// requires: not empty, temperature >= kGreedyTemperature.
int32_t coupled_pick_row(std::span<const float> logits, float temperature, uint64_t seed, uint64_t position);

/// The same over listed tokens, ids ascending: the pick of coupled_pick over (ids[i], logits[i]).
/// requires: as many logits as ids, temperature >= kGreedyTemperature. returns: -1 when no logit is finite.
int32_t coupled_pick_listed(std::span<const int32_t> ids, std::span<const float> logits, float temperature,
                            uint64_t seed, uint64_t position);

/// The weight all use for a logit, with the row's largest logit. 0 for -infinity and NaN.
double coupled_weight(float logit, float max_logit, float temperature);

}  // namespace dspark
