#pragma once
// Private to the room: the work on one row of logits that stays in the processor's cache, instead of a dozen
// passes over many rows.

#include <cstdint>

namespace dspark {

/// Turns a row of target logits into its share of the whole distribution, in place: exp(z - log_sum), with
/// log_sum over all ids. Rounding may leave a sum above one: such a row is scaled to one.
void distribution_row(float* z, int64_t width, float log_sum);

/// Turns a row of logits into its softmax, in place.
void whole_distribution_row(float* z, int64_t width);

/// Factors of one row's terms.
struct RowFactors {
  float weight = 0;  // of the slot
  float ce = 0;      // 0 without a label
  float soft_ce = 0;
  float l1 = 0;
};

/// Values of one row, before factors.
struct RowTerms {
  float ce = 0;  // 0 without a label
  float soft_ce = 0;
  float l1 = 0;
};

/// Terms of a row of draft logits z against q, the target's distribution on the draft vocabulary; z becomes
/// the gradient: weight (l1 p (sign(p - q) - sum p sign(p - q)) + soft_ce (mass p - q) + ce (p - onehot))
/// with p the softmax of z and mass the sum of q. `label`: -1 for none.
RowTerms loss_row(float* z, const float* q, int64_t width, int64_t label, const RowFactors& factors);

}  // namespace dspark
