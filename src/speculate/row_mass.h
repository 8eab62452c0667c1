#pragma once
// Exponentials of a whole row: the sum for top-p, the softmax for accept rules and drafts.

#include <span>

namespace dspark {

/// Sum over the row of exp((logit - max_logit) / temperature), relative error below 1e-6; NaN and -infinity
/// count nothing. The same bits on every instruction set. requires: max_logit is the row's finite maximum.
double row_mass(std::span<const float> logits, float max_logit, float temperature);

/// out = softmax(logits / temperature) in fp32, relative error below 2e-6 where it matters (logits within
/// 20 temperatures of the maximum), sum 1 within 1e-6; NaN and -infinity get 0. The same bits on every
/// instruction set. out may be logits.
/// requires: same sizes, not empty, temperature >= kGreedyTemperature. returns: false, out unset, when the
/// row has no finite maximum.
bool row_probabilities(std::span<const float> logits, float temperature, std::span<float> out);

}  // namespace dspark
