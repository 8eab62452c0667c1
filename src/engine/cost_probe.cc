#include "engine/cost_probe.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "kernels/kv_pages.h"

namespace dspark {
namespace {

using Time = std::chrono::steady_clock::time_point;

constexpr int32_t kSmallSequences = 8;
constexpr int kMostRuns = 10;  // of one trial, the first to warm up
constexpr int kMostLargeRuns = 2;
constexpr int kMostContextRuns = 4;

// Reads the clock that the options name.
class Stopwatch {
 public:
  explicit Stopwatch(const CostProbeOptions& options) : clock_(options.clock), start_(now()) {}
  /// Since it was made.
  double seconds() const { return std::chrono::duration<double>(now() - start_).count(); }

 private:
  Time now() const { return clock_ ? clock_() : std::chrono::steady_clock::now(); }

  std::function<Time()> clock_;
  Time start_;
};

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// One size to be timed, and what it took so far.
struct Trial {
  int32_t n = 0;
  int32_t context = 0;
  int32_t length = 0;  // drafts per sequence; 0: the whole block
  int most_runs = kMostRuns;
  std::vector<double> seconds = {};
  int n_runs = 0;

  // The first run warms up and does not count, unless it stays the only one.
  void add(double run_seconds) {
    if (n_runs++ == 1) seconds.clear();
    seconds.push_back(run_seconds);
  }
};

class TargetProbe {
 public:
  // context: the longest one.
  static Result<TargetProbe> create(TargetModel& model, const CostProbeOptions& options, int32_t context) {
    TargetProbe probe(model, options);
    const int32_t n_pages = PageAllocator::pages_for(int64_t{context} + options.max_rows);
    DSPARK_ASSIGN_OR_RETURN(probe.cache_, KvPool::create(options.kv_dtype, model.kv_shapes(), n_pages));
    // Fresh memory is one page of zeros that stays in the caches: reading it would be too cheap. In every
    // type of the cache such bytes are small finite numbers.
    std::memset(probe.cache_.data.data(), 0x3c, probe.cache_.data.size());
    probe.pages_.resize(static_cast<size_t>(n_pages));
    std::iota(probe.pages_.begin(), probe.pages_.end(), 0);
    return probe;
  }

  // One sequence with `n` rows behind `context` positions, logits for all: what a verification is.
  Status run(Trial& trial) {
    batch_.clear();
    for (int32_t i = 0; i < trial.n; ++i) {
      batch_.tokens.push_back(i % model_->config().vocab_size);
      batch_.positions.push_back(trial.context + i);
      batch_.logit_rows.push_back(i);
      batch_.capture_rows.push_back(i);
    }
    batch_.runs.push_back({0, trial.n, trial.context, pages_});
    const Stopwatch watch(*options_);
    if (model_->forward(batch_, cache_).out_of_memory) {
      return out_of_memory("no memory for a pass of " + std::to_string(trial.n) + " rows");
    }
    trial.add(watch.seconds());
    return ok_status();
  }
  double preparation_seconds(const Trial&) const { return 0.0; }

 private:
  TargetProbe(TargetModel& model, const CostProbeOptions& options) : model_(&model), options_(&options) {}

  TargetModel* model_;
  const CostProbeOptions* options_;
  KvPool cache_;
  std::vector<int32_t> pages_;
  ForwardBatch batch_;
};

// Sequences with `context` committed tokens and features of zeros in the drafter's slots 0..n-1, made when a
// trial needs them.
class DraftProbe {
 public:
  DraftProbe(Drafter& drafter, const CostProbeOptions& options, int32_t dim)
      : drafter_(drafter), options_(options), dim_(dim) {
    tokens_.assign(static_cast<size_t>(options.context) + 1, 0);
    std::iota(tokens_.begin(), tokens_.end(), 0);
    for (int32_t& token : tokens_) token %= 16;
    features_.assign(
        drafter.tap_layers().size() * static_cast<size_t>(options.context) * static_cast<size_t>(dim), 0.01f);
  }
  ~DraftProbe() {
    for (int32_t slot = 0; slot < n_sequences_; ++slot) drafter_.release(slot);
  }
  DraftProbe(const DraftProbe&) = delete;
  DraftProbe& operator=(const DraftProbe&) = delete;

  Status run(Trial& trial) {
    add_sequences(trial.n);
    requests_.clear();
    const int32_t length = trial.length > 0 ? trial.length : drafter_.max_block();
    for (int32_t slot = 0; slot < trial.n; ++slot) {
      requests_.push_back({slot, tokens_.back(), options_.context, length, &sampling_});
    }
    block_.reset(requests_.size(), length);
    const Stopwatch watch(options_);
    DSPARK_RETURN_IF_ERROR(drafter_.propose(requests_, block_));
    trial.add(watch.seconds());
    return ok_status();
  }
  // What the sequences that a trial lacks will take, by those made before.
  double preparation_seconds(const Trial& trial) const {
    if (n_sequences_ == 0) return 0.0;
    return preparation_s_ / n_sequences_ * std::max(0, trial.n - n_sequences_);
  }

 private:
  void add_sequences(int32_t n) {
    const Stopwatch watch(options_);
    for (; n_sequences_ < n; ++n_sequences_) {
      CommitEvent event;
      event.slot = n_sequences_;
      event.tokens = tokens_;
      event.n_features = options_.context;
      event.features = features_.empty() ? nullptr : features_.data();
      event.tap_stride = int64_t{options_.context} * dim_;
      event.dim = dim_;
      drafter_.commit({&event, 1});
    }
    preparation_s_ += watch.seconds();
  }

  Drafter& drafter_;
  const CostProbeOptions& options_;
  int32_t dim_;
  int32_t n_sequences_ = 0;
  double preparation_s_ = 0.0;
  SamplingParams sampling_;
  std::vector<int32_t> tokens_;
  std::vector<float> features_;
  std::vector<DraftRequest> requests_;
  DraftBlock block_;
};

// What a run will take: as long as the last one, or in proportion to the largest smaller one of its kind. As
// many rows at another context take no more than in proportion to it either.
double expected_seconds(std::span<const Trial> trials, size_t i) {
  const Trial& trial = trials[i];
  if (!trial.seconds.empty()) return trial.seconds.back();
  double by_size = 0.0, by_context = 0.0;
  for (size_t j = i; j-- > 0;) {
    const Trial& other = trials[j];
    if (other.length != trial.length || other.seconds.empty()) continue;
    const double seconds = other.seconds.back();
    if (other.context == trial.context) {
      if (by_size <= 0.0) by_size = seconds * trial.n / other.n;
    } else if (other.n == trial.n) {
      const double most = seconds * std::max(1.0, static_cast<double>(trial.context) / other.context);
      by_context = by_context > 0.0 ? std::min(by_context, most) : most;
    }
  }
  if (by_size > 0.0 && by_context > 0.0) return std::min(by_size, by_context);
  if (by_size > 0.0 || by_context > 0.0) return std::max(by_size, by_context);
  // Fewer drafts take no more than a whole block of as many sequences.
  for (size_t j = i; j-- > 0;) {
    const Trial& whole = trials[j];
    const bool is_longer = trial.length > 0 && whole.length == 0 && whole.n == trial.n;
    if (is_longer && !whole.seconds.empty()) return whole.seconds.back();
  }
  return 0.0;
}

// Runs trials first .. last - 1 in turn, those with the fewest runs first, until each was run `most_runs`
// times, but none that is not expected to end by `end_s` on the watch. The first two of all are run once in
// any case.
template <typename Probe>
Status run_rounds(Probe& probe, std::span<Trial> trials, size_t first, size_t last, int most_runs,
                  const Stopwatch& watch, double end_s) {
  for (int runs = 0; runs < most_runs; ++runs) {
    for (size_t i = first; i < last; ++i) {
      Trial& trial = trials[i];
      if (trial.n_runs > runs || trial.n_runs >= trial.most_runs) continue;
      const bool must = i < 2 && trial.n_runs == 0;
      const double run_s = expected_seconds(trials, i) + probe.preparation_seconds(trial);
      if (!must && watch.seconds() + run_s > end_s) continue;
      DSPARK_RETURN_IF_ERROR(probe.run(trial));
    }
  }
  return ok_status();
}

// Small sizes, where most decisions are made, come first and get the larger part of the time when there are
// large ones too, then what these leave. Trials that no time was left for go. requires: sizes ascend.
template <typename Probe>
Status run_trials(Probe& probe, std::vector<Trial>& trials, int32_t largest_small, const Stopwatch& watch,
                  double end_s) {
  constexpr double kSmallShare = 0.6;
  const auto large = std::ranges::find_if(trials, [&](const Trial& t) { return t.n > largest_small; });
  const auto n_small = static_cast<size_t>(large - trials.begin());
  const double start_s = watch.seconds();
  const double small_end_s = start_s + kSmallShare * (end_s - start_s);
  DSPARK_RETURN_IF_ERROR(run_rounds(probe, trials, 0, n_small, kMostRuns, watch, small_end_s));
  DSPARK_RETURN_IF_ERROR(run_rounds(probe, trials, n_small, trials.size(), kMostLargeRuns, watch, end_s));
  DSPARK_RETURN_IF_ERROR(run_rounds(probe, trials, 0, n_small, kMostRuns, watch, end_s));
  std::erase_if(trials, [](const Trial& trial) { return trial.seconds.empty(); });
  return ok_status();
}

// Seconds of the trial of that size, 0 when there was no time for it.
double seconds_of(std::span<const Trial> trials, int32_t n, int32_t context) {
  for (const Trial& trial : trials) {
    if (trial.n == n && trial.context == context) return median(trial.seconds);
  }
  return 0.0;
}

// Target passes of the probe: one row and `many_rows` at every context, other sizes at the first one.
struct TargetTrials {
  std::vector<int32_t> contexts;  // beside the first, ascending
  int32_t many_rows = 1;
  std::vector<Trial> trials;
};

// The slopes need the second context, so that it comes with the sizes. The others come behind the small
// sizes: where passes are slow they are what time is missing for.
TargetTrials target_trials(const CostProbeOptions& options, std::vector<int32_t> contexts) {
  const std::vector<int32_t> sizes = probe_rows(options.max_rows);
  TargetTrials out;
  out.contexts = std::move(contexts);
  out.many_rows = sizes[std::min<size_t>(5, sizes.size() - 1)];
  for (size_t i = 0; i < sizes.size(); ++i) {
    const int32_t n = sizes[i];
    const bool at_all = n == 1 || n == out.many_rows;
    out.trials.push_back({n, options.context, 0});
    if (at_all) out.trials.push_back({n, options.long_context, 0});
    const bool is_last_small =
        n <= kSmallProbeRows && (i + 1 == sizes.size() || sizes[i + 1] > kSmallProbeRows);
    if (!is_last_small) continue;
    for (const int32_t context : out.contexts) {
      if (context == options.long_context) continue;
      out.trials.push_back({1, context, 0, kMostContextRuns});
      if (out.many_rows > 1) out.trials.push_back({out.many_rows, context, 0, kMostContextRuns});
    }
  }
  return out;
}

// What passes with more context than the first one take longer; < 0: not known.
double longer_seconds(const TargetTrials& target, int32_t n, int32_t near_context, int32_t context) {
  const double near = seconds_of(target.trials, n, near_context);
  const double far = seconds_of(target.trials, n, context);
  return near > 0.0 && far > 0.0 ? std::max(0.0, far - near) : -1.0;
}

// Positions do not all cost the same where layers have windows. `unit`: what one costs in the mean up to the
// second context, in as many passes as are looked at here.
std::vector<ContextPoint> fit_curve(const TargetTrials& target, bool with_many, double unit,
                                    int32_t near_context) {
  std::vector<ContextPoint> curve;
  for (const int32_t context : target.contexts) {
    const double one = longer_seconds(target, 1, near_context, context);
    const double many = with_many ? longer_seconds(target, target.many_rows, near_context, context) : 0.0;
    if (one >= 0.0 && many >= 0.0) curve.push_back({context, (one + many) / unit});
  }
  if (curve.size() < 2) return {};  // the slopes say it all
  // What disturbs a measurement makes it longer.
  for (size_t i = curve.size(); i-- > 1;) {
    curve[i - 1].counted = std::min(curve[i - 1].counted, curve[i].counted);
  }
  // Counted from the first context so far; what lies before it costs what lies behind it does.
  const double slope = curve.front().counted / (curve.front().positions - near_context);
  for (ContextPoint& point : curve) point.counted += slope * near_context;
  return curve;
}

// Reading n positions costs n * context_s; every row scores them for row_context_s more.
void fit_context(const TargetTrials& target, const CostProbeOptions& options, CostTable& table) {
  const int32_t near = options.context, many_rows = target.many_rows;
  const double positions = options.long_context - near;
  const double one = longer_seconds(target, 1, near, options.long_context) / positions;
  const double many = longer_seconds(target, many_rows, near, options.long_context) / positions;
  if (one < 0.0) return;
  const bool with_many = many >= 0.0 && many_rows > 1;
  if (with_many) table.row_context_s = std::max(0.0, (many - one) / (many_rows - 1));
  table.context_s = std::max(0.0, one - table.row_context_s);
  const double unit = one + (with_many ? many : 0.0);
  if (unit > 0.0) table.context_curve = fit_curve(target, with_many, unit, near);
}

// Contexts to measure: without those whose cache would be too large.
Result<std::vector<int32_t>> affordable_contexts(const TargetModel& model, const CostProbeOptions& options) {
  constexpr int64_t kMostCacheBytes = int64_t{256} << 20;
  std::vector<int32_t> contexts = probe_contexts(options.context, options.long_context, options.most_context);
  if (contexts.back() <= options.long_context) return contexts;
  DSPARK_ASSIGN_OR_RETURN(const KvPool page, KvPool::create(options.kv_dtype, model.kv_shapes(), 1));
  const int64_t n_pages = PageAllocator::pages_for(int64_t{contexts.back()} + options.max_rows);
  if (n_pages * static_cast<int64_t>(page.page_bytes) > kMostCacheBytes) contexts.pop_back();
  return contexts;
}

// The target's part of the table.
Status measure_target(TargetModel& model, const CostProbeOptions& options, const Stopwatch& watch,
                      double end_s, CostTable& table) {
  DSPARK_ASSIGN_OR_RETURN(std::vector<int32_t> contexts, affordable_contexts(model, options));
  DSPARK_ASSIGN_OR_RETURN(TargetProbe probe, TargetProbe::create(model, options, contexts.back()));
  TargetTrials target = target_trials(options, std::move(contexts));
  DSPARK_RETURN_IF_ERROR(run_trials(probe, target.trials, kSmallProbeRows, watch, end_s));
  fit_context(target, options, table);
  for (const Trial& trial : target.trials) {
    if (trial.context != options.context) continue;
    // The table is for no context at all; the passes above had some, and each row the rows before it.
    const double seconds = median(trial.seconds);
    const double row_context = trial.n * table.counted_positions(options.context + (trial.n - 1) / 2.0);
    const double context_s =
        table.counted_positions(options.context) * table.context_s + row_context * table.row_context_s;
    table.verify.push_back({trial.n, std::max(seconds * 0.5, seconds - context_s)});
  }
  return ok_status();
}

// The drafter's part: whole blocks, single drafts where the length can make a difference, and the most drafts
// of a short block where there is one.
Status measure_drafter(const TargetModel& model, Drafter& drafter, const CostProbeOptions& options,
                       const Stopwatch& watch, double end_s, CostTable& table) {
  DraftProbe probe(drafter, options, model.config().dim);
  std::vector<Trial> trials;
  const int32_t stair = drafter.short_block() < drafter.model_block() ? drafter.short_block() : 0;
  for (const int32_t n : probe_sequences(options.max_sequences)) {
    trials.push_back({n, options.context, 0});
    if (drafter.model_block() > 1) trials.push_back({n, options.context, 1});
    if (stair > 1) trials.push_back({n, options.context, stair});
  }
  DSPARK_RETURN_IF_ERROR(run_trials(probe, trials, kSmallSequences, watch, end_s));
  table.draft_length = drafter.model_block();
  for (const Trial& trial : trials) {
    std::vector<CostPoint>& points = trial.length == 0   ? table.draft
                                     : trial.length == 1 ? table.draft_short
                                                         : table.draft_stair;
    points.push_back({trial.n, std::max(median(trial.seconds), 1e-9)});
  }
  if (stair == 1) table.draft_stair = table.draft_short;
  if (!table.draft_stair.empty()) table.stair_length = stair;
  return ok_status();
}

}  // namespace

std::vector<int32_t> probe_rows(int32_t most) {
  std::vector<int32_t> sizes;
  for (const int32_t n : {1, 2, 3, 4, 6, 8, 9, 12, 16, 17, 24, 25, 32, 33, 48, 64}) {
    if (n < most) sizes.push_back(n);
  }
  for (int64_t n = int64_t{2} * kSmallProbeRows; 3 * n <= 2 * int64_t{most}; n *= 2)
    sizes.push_back(static_cast<int32_t>(n));
  sizes.push_back(most);
  return sizes;
}

std::vector<int32_t> probe_contexts(int32_t context, int32_t long_context, int32_t most_context) {
  constexpr int32_t kMiddle = 512;
  std::vector<int32_t> contexts;
  if (2 * context <= kMiddle && 2 * kMiddle <= long_context) contexts.push_back(kMiddle);
  contexts.push_back(long_context);
  if (most_context / 2 >= long_context) contexts.push_back(most_context);
  return contexts;
}

std::vector<int32_t> probe_sequences(int32_t most) {
  std::vector<int32_t> sizes;
  for (int64_t n = 1; n < most; n = n < 4 ? n + 1 : (n & (n - 1)) == 0 ? n + n / 2 : n / 3 * 4) {
    sizes.push_back(static_cast<int32_t>(n));
  }
  sizes.push_back(most);
  return sizes;
}

Result<CostTable> measure_costs(TargetModel& model, Drafter* drafter, const CostProbeOptions& options) {
  const Stopwatch watch(options);
  CostTable table;
  const double target_end_s = drafter != nullptr ? options.budget_s * 0.75 : options.budget_s;
  DSPARK_RETURN_IF_ERROR(measure_target(model, options, watch, target_end_s, table));
  if (drafter == nullptr) return table;
  DSPARK_RETURN_IF_ERROR(measure_drafter(model, *drafter, options, watch, options.budget_s, table));
  return table;
}

}  // namespace dspark
