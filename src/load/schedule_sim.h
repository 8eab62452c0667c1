#pragma once
// The scheduler alone, on recorded rounds: the engine's decisions (draft length, verify lengths, admission in
// order of arrival, prompt pieces beside decoding rows) with the scheduler's own functions, against the time
// that a cost table says. No model, no clock: a pure function of its input.

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "load/arrivals.h"
#include "load/quantiles.h"
#include "load/round_trace.h"
#include "speculate/cost_model.h"
#include "speculate/scheduler.h"
#include "speculate/stats.h"

namespace dspark {

struct SimOptions {
  VerifyPolicy policy;
  int32_t max_sequences = 1;   // decoded at the same time
  int64_t n_requests = 0;      // taken from the trace in turn
  ArrivalProcess arrivals;     // closed: as many clients as max_sequences
  double rate = 1.0;           // requests per second, open arrivals
  uint64_t seed = 1;           // of arrivals
  int32_t prefill_rows = 512;  // prompt rows per step
  int32_t max_batch_rows = 8192;
  CostTable truth;   // what passes take: linear between entries, also where they fall
  CostTable belief;  // what the adaptive policies are told at the start
  bool keep_steps = false;

  /// errors: invalid_argument naming the field.
  Status validate() const;
};

struct SimStep {
  double end_s = 0.0;
  int32_t decode_sequences = 0;
  int32_t drafted = 0, verified = 0;
};

struct SimResult {
  double seconds = 0.0;
  int64_t tokens = 0;         // of finished answers: all of them
  int64_t prompt_tokens = 0;  // rows read
  int64_t steps = 0;
  double tokens_per_s = 0.0;
  double user_tokens_per_s = 0.0;  // median over answers of tokens behind the first / their time
  double mean_decode_sequences = 0.0;
  double draft_s = 0.0, verify_s = 0.0, overhead_s = 0.0;  // sums to seconds less waiting for arrivals
  QuantileSummary ttft_s;
  QuantileSummary inter_token_s;  // per token: a round's time / its tokens
  SpeculationStats speculation;
  std::vector<SimStep> step_log;  // with keep_steps
};

/// errors: invalid_argument (options; costs that do not reach as far as the steps may: beyond the last entry
/// they go on along the last slope).
Result<SimResult> simulate_schedule(const RoundTrace& trace, const SimOptions& options);

}  // namespace dspark
