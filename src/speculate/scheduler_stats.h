#pragma once
// What the scheduler knows about itself, for metrics: plans, costs, and whether confidences still hold.

#include <array>
#include <cstdint>

namespace dspark {

/// Draft positions whose calibration is watched.
inline constexpr int32_t kDriftPositions = 16;

/// Predicted against observed survival of one draft position over the newest verifications that reached it.
struct DriftPosition {
  int64_t count = 0;       // verifications in the window
  double predicted = 0.0;  // mean predicted survival of the prefix that ends here
  double observed = 0.0;   // share of them in which that prefix was accepted
  double ece = 0.0;        // expected calibration error over kCalibrationBins equal bins
};

/// Equal bins of predicted survival.
inline constexpr int32_t kCalibrationBins = 20;

/// One bin of a reliability diagram, over the newest verifications of all watched positions.
struct CalibrationBin {
  int64_t count = 0;       // drafts whose predicted survival lies in the bin
  double predicted = 0.0;  // its mean
  double observed = 0.0;   // share of them that were accepted
};

/// Sums and newest values since the engine was made. All zero (corrections 1) without a cost model.
struct SchedulerStats {
  int64_t planned_steps = 0;      // steps planned for sequences with an adaptive or causal policy
  int64_t drafting_steps = 0;     // of these, steps that drafted
  int64_t paused_steps = 0;       // of these, steps without drafts because drafting did not pay of late
  int64_t budget_tokens = 0;      // sum of planned budgets: drafts to verify, all sequences together
  int32_t last_budget = 0;        // of the newest planned step
  int32_t last_draft_length = 0;  // drafts asked for per sequence in it
  double predicted_s = 0.0;       // sums over steps of what the cost model said before it saw them ...
  double measured_s = 0.0;        // ... and of what they took: the drafter's and the target's passes
  double last_predicted_s = 0.0;
  double last_measured_s = 0.0;
  double verify_correction = 1.0;  // measured / table, median of recent steps: the target's pass
  double draft_correction = 1.0;   // the drafter's pass
  int32_t n_positions = 0;         // entries of `drift` that any verification reached
  std::array<DriftPosition, kDriftPositions> drift{};
  std::array<CalibrationBin, kCalibrationBins> bins{};
};

}  // namespace dspark
