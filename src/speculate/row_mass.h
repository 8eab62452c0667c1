#pragma once
// Sum of the weights of a whole row, for top-p.

#include <span>

namespace dspark {

/// Sum over the row of exp((logit - max_logit) / temperature), relative error below 1e-6; NaN and -infinity
/// count nothing. The same bits on every instruction set. requires: max_logit is the row's finite maximum.
double row_mass(std::span<const float> logits, float max_logit, float temperature);

}  // namespace dspark
