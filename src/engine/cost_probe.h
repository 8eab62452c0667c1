#pragma once
// Measures what passes cost on this machine, for the cost model of adaptive verification.

#include <cstdint>

#include "draft/drafter.h"
#include "models/model.h"
#include "speculate/cost_model.h"

namespace dspark {

struct CostProbeOptions {
  int32_t max_rows = 64;        // largest target pass worth knowing
  int32_t max_sequences = 1;    // largest drafter batch; the drafter has at least as many free slots
  int32_t context = 128;        // cached positions of a sequence during the measurements
  int32_t long_context = 2048;  // a second context, to see what positions cost
  double budget_s = 2.0;        // for passes: no new one that would go beyond; at least four are made
};

/// Times target passes of 1, 2, 3, 4, 6, 8, ... rows at two contexts and drafter passes of 1, 2, 3, 4, ...
/// sequences, whole blocks and single drafts: medians of repeats taken in turn, so that a slow moment meets
/// all sizes. Large sizes that the time does not suffice for are left out. The target gets a cache of its own
/// with zeros in it; the drafter gets sequences in slots 0.. that are released again. requires: nobody else
/// uses model and drafter meanwhile; the drafter's slots are free. The capture layers of the model stay as
/// they are. errors: out_of_memory, and what the drafter reports.
Result<CostTable> measure_costs(TargetModel& model, Drafter* drafter, const CostProbeOptions& options);

}  // namespace dspark
