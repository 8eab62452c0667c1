#pragma once
// Every way to choose verify lengths that the tests of losslessness go through.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "speculate/batch_rows.h"
#include "speculate/batch_scheduler.h"
#include "speculate/scheduler.h"

namespace dspark::test {

enum class Schedule {
  kNone,           // verify nothing
  kAll,            // verify every draft
  kTwo,            // fixed:2
  kThreshold,      // static threshold, then a cap on the rows of the step
  kCausal,         // Algorithm 1
  kHistory,        // a budget from recorded confidences
  kRetrospective,  // a global search on live confidences: biased under rejection and block rules
};
inline constexpr Schedule kSafeSchedules[] = {Schedule::kNone,      Schedule::kAll,    Schedule::kTwo,
                                              Schedule::kThreshold, Schedule::kCausal, Schedule::kHistory};

using Confidences = std::vector<std::vector<double>>;

/// Lengths of one step. recorded: confidences of an earlier step, for kHistory.
inline std::vector<int32_t> verify_lengths(Schedule schedule, const Confidences& live,
                                           const Confidences& recorded, std::span<const double> costs) {
  ScheduleScratch scratch;
  const BatchRows rows(live);
  std::vector<int32_t> lengths(live.size(), 0);
  switch (schedule) {
    case Schedule::kNone:
      break;
    case Schedule::kAll:
    case Schedule::kTwo:
      for (size_t r = 0; r < live.size(); ++r) {
        lengths[r] = verify_length(VerifyPolicy::fixed(schedule == Schedule::kTwo ? 2 : kMaxDraftTokens),
                                   static_cast<int32_t>(live[r].size()));
      }
      break;
    case Schedule::kThreshold:
      for (size_t r = 0; r < live.size(); ++r) {
        const std::vector<float> confidence(live[r].begin(), live[r].end());
        lengths[r] = threshold_length(confidence, 0.4f);
      }
      cap_verify_rows(lengths, static_cast<int64_t>(live.size()) + 4);
      break;
    case Schedule::kCausal:
      schedule_causal(rows.rows(), {costs, 0}, scratch, lengths);
      break;
    case Schedule::kHistory:
      allot_budget(rows.rows(), history_budget(BatchRows(recorded).rows(), {costs, 0}, scratch), scratch,
                   lengths);
      break;
    case Schedule::kRetrospective:
      allot_budget(rows.rows(), history_budget(rows.rows(), {costs, 0}, scratch), scratch, lengths);
      break;
  }
  return lengths;
}

/// A jagged curve on which all schedulers find something to do.
inline const std::vector<double> kJaggedCosts = {1.0,  1.0, 1.15, 1.2,  1.55, 1.5, 1.6, 1.62,
                                                 2.05, 2.0, 2.1,  2.15, 2.2,  2.6, 2.7, 2.8};

}  // namespace dspark::test
