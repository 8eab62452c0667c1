#include "engine/cost_probe.h"

#include <algorithm>
#include <chrono>
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
  static Result<TargetProbe> create(TargetModel& model, const CostProbeOptions& options) {
    TargetProbe probe(model, options);
    const int32_t n_tokens = options.long_context + options.max_rows;
    const int32_t n_pages = PageAllocator::pages_for(n_tokens);
    DSPARK_ASSIGN_OR_RETURN(probe.cache_, KvPool::create(KvDType::kBF16, model.kv_shapes(), n_pages));
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

constexpr int kMostRuns = 10;  // of one trial, the first to warm up
constexpr int kMostLargeRuns = 2;

// What a run will take: as long as the last one, or in proportion to the largest smaller one of its kind.
double expected_seconds(std::span<const Trial> trials, size_t i) {
  if (!trials[i].seconds.empty()) return trials[i].seconds.back();
  for (size_t j = i; j-- > 0;) {
    const Trial& smaller = trials[j];
    if (smaller.context != trials[i].context || smaller.length != trials[i].length) continue;
    if (!smaller.seconds.empty()) return smaller.seconds.back() * trials[i].n / smaller.n;
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
      if (trial.n_runs > runs) continue;
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

// Reading n positions costs n * context_s; every row scores them for row_context_s more.
void fit_context(std::span<const Trial> trials, int32_t many_rows, const CostProbeOptions& options,
                 CostTable& table) {
  const double positions = options.long_context - options.context;
  const auto per_position = [&](int32_t n) {
    const double near = seconds_of(trials, n, options.context);
    const double far = seconds_of(trials, n, options.long_context);
    return near > 0.0 && far > 0.0 ? std::max(0.0, (far - near) / positions) : -1.0;
  };
  const double one = per_position(1), many = per_position(many_rows);
  if (one < 0.0) return;
  if (many >= 0.0 && many_rows > 1) table.row_context_s = std::max(0.0, (many - one) / (many_rows - 1));
  table.context_s = std::max(0.0, one - table.row_context_s);
}

// The target's part of the table.
Status measure_target(TargetModel& model, const CostProbeOptions& options, const Stopwatch& watch,
                      double end_s, CostTable& table) {
  DSPARK_ASSIGN_OR_RETURN(TargetProbe probe, TargetProbe::create(model, options));
  const std::vector<int32_t> sizes = probe_rows(options.max_rows);
  const int32_t many_rows = sizes[std::min<size_t>(5, sizes.size() - 1)];
  std::vector<Trial> trials;
  for (const int32_t n : sizes) {
    trials.push_back({n, options.context, 0});
    if (n == 1 || n == many_rows) trials.push_back({n, options.long_context, 0});
  }
  DSPARK_RETURN_IF_ERROR(run_trials(probe, trials, kSmallProbeRows, watch, end_s));
  fit_context(trials, many_rows, options, table);
  for (const Trial& trial : trials) {
    if (trial.context != options.context) continue;
    // The table is for no context at all; the passes above had some, and each row the rows before it.
    const double seconds = median(trial.seconds);
    const double row_context = trial.n * (options.context + (trial.n - 1) / 2.0);
    const double context_s = options.context * table.context_s + row_context * table.row_context_s;
    table.verify.push_back({trial.n, std::max(seconds * 0.5, seconds - context_s)});
  }
  return ok_status();
}

// The drafter's part: whole blocks, and single drafts where the length can make a difference.
Status measure_drafter(const TargetModel& model, Drafter& drafter, const CostProbeOptions& options,
                       const Stopwatch& watch, double end_s, CostTable& table) {
  DraftProbe probe(drafter, options, model.config().dim);
  std::vector<Trial> trials;
  for (const int32_t n : probe_sequences(options.max_sequences)) {
    trials.push_back({n, options.context, 0});
    if (drafter.model_block() > 1) trials.push_back({n, options.context, 1});
  }
  DSPARK_RETURN_IF_ERROR(run_trials(probe, trials, kSmallSequences, watch, end_s));
  table.draft_length = drafter.model_block();
  for (const Trial& trial : trials) {
    std::vector<CostPoint>& points = trial.length == 0 ? table.draft : table.draft_short;
    points.push_back({trial.n, std::max(median(trial.seconds), 1e-9)});
  }
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
