// The part of include/dspark/scheduler.h that keeps no state.

#include <algorithm>
#include <span>
#include <vector>

#include "speculate/abi/abi_error.h"
#include "speculate/batch_scheduler.h"
#include "speculate/confidence.h"
#include "speculate/scheduler.h"

namespace dspark::abi {
namespace {

Status check_confidence(const float* confidence, const int32_t* n_drafts, int32_t n_sequences,
                        int32_t stride) {
  for (int32_t i = 0; i < n_sequences; ++i) {
    for (int32_t j = 0; j < n_drafts[i]; ++j) {
      const double value =
          confidence[static_cast<size_t>(i) * static_cast<size_t>(stride) + static_cast<size_t>(j)];
      if (!(value >= 0.0 && value <= 1.0)) return check_probability("confidence", i, j, value);
    }
  }
  return ok_status();
}

Status check_survivals(const dspark_sched_batch* batch) {
  DSPARK_RETURN_IF_ERROR(check_pointer("batch", batch));
  DSPARK_RETURN_IF_ERROR(check_batch(batch->n_drafts, batch->n_sequences, batch->stride));
  const bool any = batch->n_sequences > 0 && batch->stride > 0;
  DSPARK_RETURN_IF_ERROR(check_pointer("survival", batch->survival, any));
  for (int32_t i = 0; i < batch->n_sequences; ++i) {
    const double* row = batch->survival + static_cast<size_t>(i) * static_cast<size_t>(batch->stride);
    for (int32_t j = 0; j < batch->n_drafts[i]; ++j) {
      if (!(row[j] >= 0.0 && row[j] <= 1.0)) return check_probability("survival", i, j, row[j]);
      if (j == 0 || row[j] <= row[j - 1]) continue;
      return want(("survival[" + std::to_string(i) + "][" + std::to_string(j) + "]").c_str(),
                  "at most the entry before it, " + std::to_string(row[j - 1]), std::to_string(row[j]));
    }
  }
  return ok_status();
}

Status check_costs(const dspark_sched_costs* costs, int32_t n_sequences) {
  DSPARK_RETURN_IF_ERROR(check_pointer("costs", costs));
  DSPARK_RETURN_IF_ERROR(check_range("extra_rows", costs->extra_rows, 0, 1 << 20));
  const int64_t base = int64_t{n_sequences} + costs->extra_rows;
  DSPARK_RETURN_IF_ERROR(check_range("n_seconds", costs->n_seconds, base + 1, 1 << 24));
  DSPARK_RETURN_IF_ERROR(check_pointer("seconds", costs->seconds));
  for (int32_t b = 1; b < costs->n_seconds; ++b) {
    if (costs->seconds[b] > 0.0 && std::isfinite(costs->seconds[b])) continue;
    return want(("seconds[" + std::to_string(b) + "]").c_str(), "a time above 0",
                std::to_string(costs->seconds[b]));
  }
  return ok_status();
}

SurvivalRows rows_of(const dspark_sched_batch& batch) {
  const auto n = static_cast<size_t>(batch.n_sequences);
  return {{batch.survival, n * static_cast<size_t>(batch.stride)}, {batch.n_drafts, n}, batch.stride};
}

PassCosts costs_of(const dspark_sched_costs& costs) {
  return {{costs.seconds, static_cast<size_t>(costs.n_seconds)}, costs.extra_rows};
}

ScheduleScratch scratch_for(const dspark_sched_batch& batch) {
  ScheduleScratch scratch;
  scratch.heads.reserve(static_cast<size_t>(batch.n_sequences));
  return scratch;
}

}  // namespace
}  // namespace dspark::abi

using namespace dspark;
using namespace dspark::abi;

extern "C" {

uint32_t dspark_sched_abi_version(void) {
  return DSPARK_SCHED_ABI_VERSION;
}

dspark_sched_status dspark_sched_survival(const float* confidence, const int32_t* n_drafts,
                                          int32_t n_sequences, int32_t stride, double* survivals,
                                          dspark_sched_error* error) {
  return guarded(error, [&]() -> Status {
    DSPARK_RETURN_IF_ERROR(check_batch(n_drafts, n_sequences, stride));
    const bool any = n_sequences > 0 && stride > 0;
    DSPARK_RETURN_IF_ERROR(check_pointer("confidence", confidence, any));
    DSPARK_RETURN_IF_ERROR(check_pointer("survival", survivals, any));
    DSPARK_RETURN_IF_ERROR(check_confidence(confidence, n_drafts, n_sequences, stride));
    const auto width = static_cast<size_t>(stride);
    for (size_t i = 0; i < static_cast<size_t>(n_sequences); ++i) {
      const auto n = static_cast<size_t>(n_drafts[i]);
      std::fill_n(survivals + i * width, width, 0.0);
      survival(std::span(confidence + i * width, n), std::span(survivals + i * width, n));
    }
    return ok_status();
  });
}

dspark_sched_status dspark_sched_static_lengths(const char* policy, const float* confidence,
                                                const int32_t* n_drafts, int32_t n_sequences, int32_t stride,
                                                int32_t* lengths, dspark_sched_error* error) {
  return guarded(error, [&]() -> Status {
    DSPARK_RETURN_IF_ERROR(check_pointer("policy", policy));
    DSPARK_ASSIGN_OR_RETURN(const VerifyPolicy parsed, VerifyPolicy::parse(policy));
    if (parsed.needs_costs()) return want("policy", "off, fixed:K or threshold:T", parsed.to_string());
    DSPARK_RETURN_IF_ERROR(check_batch(n_drafts, n_sequences, stride));
    DSPARK_RETURN_IF_ERROR(check_pointer("lengths", lengths, n_sequences > 0));
    if (confidence != nullptr) {
      DSPARK_RETURN_IF_ERROR(check_confidence(confidence, n_drafts, n_sequences, stride));
    }
    for (size_t i = 0; i < static_cast<size_t>(n_sequences); ++i) {
      std::span<const float> row;
      if (confidence != nullptr) {
        row = {confidence + i * static_cast<size_t>(stride), static_cast<size_t>(n_drafts[i])};
      }
      lengths[i] = verify_length(parsed, n_drafts[i], row);
    }
    return ok_status();
  });
}

dspark_sched_status dspark_sched_causal(const dspark_sched_batch* live, const dspark_sched_costs* costs,
                                        int32_t* lengths, double* tokens_per_second,
                                        dspark_sched_error* error) {
  return guarded(error, [&]() -> Status {
    DSPARK_RETURN_IF_ERROR(check_survivals(live));
    DSPARK_RETURN_IF_ERROR(check_costs(costs, live->n_sequences));
    DSPARK_RETURN_IF_ERROR(check_pointer("lengths", lengths, live->n_sequences > 0));
    ScheduleScratch scratch = scratch_for(*live);
    const double rate = schedule_causal(rows_of(*live), costs_of(*costs), scratch,
                                        {lengths, static_cast<size_t>(live->n_sequences)});
    if (tokens_per_second != nullptr) *tokens_per_second = rate;
    return ok_status();
  });
}

dspark_sched_status dspark_sched_budget(const dspark_sched_batch* recorded, const dspark_sched_costs* costs,
                                        int32_t* budget, dspark_sched_error* error) {
  return guarded(error, [&]() -> Status {
    DSPARK_RETURN_IF_ERROR(check_survivals(recorded));
    DSPARK_RETURN_IF_ERROR(check_costs(costs, recorded->n_sequences));
    DSPARK_RETURN_IF_ERROR(check_pointer("budget", budget));
    ScheduleScratch scratch = scratch_for(*recorded);
    *budget = history_budget(rows_of(*recorded), costs_of(*costs), scratch);
    return ok_status();
  });
}

dspark_sched_status dspark_sched_allot(const dspark_sched_batch* live, int32_t budget, int32_t* lengths,
                                       dspark_sched_error* error) {
  return guarded(error, [&]() -> Status {
    DSPARK_RETURN_IF_ERROR(check_survivals(live));
    DSPARK_RETURN_IF_ERROR(check_range("budget", budget, 0, INT32_MAX));
    DSPARK_RETURN_IF_ERROR(check_pointer("lengths", lengths, live->n_sequences > 0));
    ScheduleScratch scratch = scratch_for(*live);
    allot_budget(rows_of(*live), budget, scratch, {lengths, static_cast<size_t>(live->n_sequences)});
    return ok_status();
  });
}

}  // extern "C"
