#pragma once
// Measures forward passes of a target.

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "kernels/kv_cache.h"
#include "models/model.h"

namespace dspark::cli {

/// What to measure.
struct BenchPlan {
  std::vector<int32_t> rows = {1, 2, 4, 8, 16, 32};  // sizes of the measured passes
  std::vector<int32_t> pass_depths = {128};          // tokens in the cache before such a pass
  int32_t prefill_tokens = 512;                      // 0: no prefill test
  std::vector<int32_t> depths = {0, 128, 4096};      // tokens in the cache before the decode test
  int32_t decode_steps = 16;                         // tokens decoded per repeat
  int32_t repeats = 5;
  KvDType kv_dtype = KvDType::kBF16;

  /// Positions that the longest test touches.
  int32_t positions() const;
  /// errors: invalid_argument naming the flag.
  Status validate(int32_t context_length) const;
};

/// Seconds of each repetition of one test.
struct BenchSeries {
  int32_t size = 0;        // rows, tokens, or depth
  int32_t pass_depth = 0;  // of a pass of `size` rows: tokens in the cache before it
  std::vector<double> seconds;
  double median() const;
  double min() const;
  double max() const;
};

struct BenchResult {
  std::vector<BenchSeries> pass;     // one forward pass of `size` rows, logits for all; depth after depth
  std::vector<BenchSeries> prefill;  // `size` tokens into an empty cache, logits for the last
  std::vector<BenchSeries> decode;   // one token with `size` tokens in the cache
};

/// Runs the plan. Every repeat visits every test once, so that a slow moment of the machine touches all of
/// them. on_progress gets a short text before each part. errors: invalid plan, cache out of memory.
Result<BenchResult> run_bench_plan(TargetModel& model, const BenchPlan& plan,
                                   const std::function<void(std::string_view)>& on_progress);

}  // namespace dspark::cli
