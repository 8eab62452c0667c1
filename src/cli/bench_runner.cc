#include "cli/bench_runner.h"

#include <algorithm>
#include <chrono>
#include <span>
#include <string>

#include "engine/engine.h"

namespace dspark::cli {
namespace {

constexpr int32_t kMaxPassRows = 2048;  // ModelOptions::max_rows
constexpr int32_t kPassesPerRepeat = 3;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One sequence that owns the whole cache. What the tokens are does not matter for speed; they only must not
// all be the same, so that the embedding table is read as in real text.
class BenchSequence {
 public:
  BenchSequence(TargetModel& model, KvPool pool) : model_(model), pool_(std::move(pool)) {
    pages_.resize(static_cast<size_t>(pool_.n_pages));
    for (size_t i = 0; i < pages_.size(); ++i) pages_[i] = static_cast<int32_t>(i);
  }

  // Seconds of one pass over `n_rows` rows from position `pos` on.
  double pass(int32_t pos, int32_t n_rows, bool all_logits) {
    batch_.clear();
    for (int32_t i = 0; i < n_rows; ++i) {
      batch_.tokens.push_back(next_token());
      batch_.positions.push_back(pos + i);
      if (all_logits || i + 1 == n_rows) batch_.logit_rows.push_back(i);
    }
    batch_.runs.push_back({0, n_rows, pos, pages_});
    const Clock::time_point start = Clock::now();
    model_.forward(batch_, pool_);
    return seconds_since(start);
  }

  // Seconds of reading `n_tokens` into an empty cache, in passes as the engine makes them.
  double prefill(int32_t n_tokens) {
    double seconds = 0;
    const int32_t most = suitable_prefill_rows(model_.config());
    for (int32_t pos = 0; pos < n_tokens; pos += most) {
      seconds += pass(pos, std::min(most, n_tokens - pos), false);
    }
    return seconds;
  }

 private:
  int32_t next_token() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int32_t>((state_ >> 33) % static_cast<uint64_t>(model_.config().vocab_size));
  }

  TargetModel& model_;
  KvPool pool_;
  std::vector<int32_t> pages_;
  ForwardBatch batch_;
  uint64_t state_ = 1;
};

std::vector<BenchSeries> empty_series(std::span<const int32_t> sizes) {
  std::vector<BenchSeries> series;
  for (int32_t size : sizes) series.push_back({size, 0, {}});
  return series;
}

std::vector<BenchSeries> empty_pass_series(const BenchPlan& plan) {
  std::vector<BenchSeries> series;
  for (int32_t depth : plan.pass_depths) {
    for (int32_t n : plan.rows) series.push_back({n, depth, {}});
  }
  return series;
}

void run_repeat(BenchSequence& sequence, const BenchPlan& plan, BenchResult& result) {
  for (BenchSeries& series : result.prefill) series.seconds.push_back(sequence.prefill(series.size));
  for (int32_t i = 0; i < kPassesPerRepeat; ++i) {
    for (BenchSeries& series : result.pass) {
      series.seconds.push_back(sequence.pass(series.pass_depth, series.size, true));
    }
  }
  for (BenchSeries& series : result.decode) {
    for (int32_t i = 0; i < plan.decode_steps; ++i) {
      series.seconds.push_back(sequence.pass(series.size + i, 1, true));
    }
  }
}

Status check_range(const char* flag, int32_t value, int32_t low, int32_t high) {
  if (value >= low && value <= high) return ok_status();
  return invalid_argument(std::string(flag) + ": expected " + std::to_string(low) + " to " +
                          std::to_string(high) + ", found " + std::to_string(value));
}

}  // namespace

int32_t BenchPlan::positions() const {
  int32_t most = prefill_tokens;
  for (int32_t depth : pass_depths) {
    for (int32_t n : rows) most = std::max(most, depth + n);
  }
  for (int32_t depth : depths) most = std::max(most, depth + decode_steps);
  return most;
}

Status BenchPlan::validate(int32_t context_length) const {
  constexpr int32_t kMost = 1 << 30;
  DSPARK_RETURN_IF_ERROR(check_range("--repeats", repeats, 1, 1000));
  DSPARK_RETURN_IF_ERROR(check_range("--prefill", prefill_tokens, 0, kMost));
  for (int32_t depth : pass_depths) DSPARK_RETURN_IF_ERROR(check_range("--pass-depths", depth, 0, kMost));
  for (int32_t n : rows) DSPARK_RETURN_IF_ERROR(check_range("--rows", n, 1, kMaxPassRows));
  for (int32_t depth : depths) DSPARK_RETURN_IF_ERROR(check_range("--depths", depth, 0, kMost));
  if (positions() > context_length) {
    return invalid_argument("--depths, --pass-depths, --rows and --prefill need " +
                            std::to_string(positions()) + " positions, the model has a context of " +
                            std::to_string(context_length));
  }
  return ok_status();
}

double BenchSeries::median() const {
  std::vector<double> sorted = seconds;
  std::sort(sorted.begin(), sorted.end());
  const size_t middle = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

double BenchSeries::min() const {
  return *std::min_element(seconds.begin(), seconds.end());
}

double BenchSeries::max() const {
  return *std::max_element(seconds.begin(), seconds.end());
}

Result<BenchResult> run_bench_plan(TargetModel& model, const BenchPlan& plan,
                                   const std::function<void(std::string_view)>& on_progress) {
  DSPARK_RETURN_IF_ERROR(plan.validate(model.config().context_length));
  const int32_t n_pages = (plan.positions() + kKvPageSize - 1) / kKvPageSize;
  const int32_t most_rows = plan.rows.empty() ? 1 : *std::max_element(plan.rows.begin(), plan.rows.end());
  DSPARK_RETURN_IF_ERROR(
      model.reserve(std::max(suitable_prefill_rows(model.config()), most_rows), most_rows, plan.positions()));
  DSPARK_ASSIGN_OR_RETURN(KvPool pool, KvPool::create(plan.kv_dtype, model.kv_shapes(), n_pages));
  BenchSequence sequence(model, std::move(pool));

  BenchResult result;
  result.pass = empty_pass_series(plan);
  result.decode = empty_series(plan.depths);
  if (plan.prefill_tokens > 0) result.prefill = empty_series(std::span(&plan.prefill_tokens, 1));

  on_progress("filling the cache");
  sequence.prefill(plan.positions());
  BenchPlan warm_plan = plan;
  warm_plan.decode_steps = std::min(plan.decode_steps, 2);
  BenchResult discarded = result;
  run_repeat(sequence, warm_plan, discarded);
  for (int32_t repeat = 0; repeat < plan.repeats; ++repeat) {
    on_progress("repeat " + std::to_string(repeat + 1) + " of " + std::to_string(plan.repeats));
    run_repeat(sequence, plan, result);
  }
  return result;
}

}  // namespace dspark::cli
