#include "engine/cost_probe.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/kv_pages.h"

namespace dspark {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

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
  std::vector<double> seconds;
};

class TargetProbe {
 public:
  static Result<TargetProbe> create(TargetModel& model, const CostProbeOptions& options) {
    TargetProbe probe(model);
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
    const Clock::time_point start = Clock::now();
    if (model_->forward(batch_, cache_).out_of_memory) {
      return out_of_memory("no memory for a pass of " + std::to_string(trial.n) + " rows");
    }
    trial.seconds.push_back(seconds_since(start));
    return ok_status();
  }

 private:
  explicit TargetProbe(TargetModel& model) : model_(&model) {}

  TargetModel* model_;
  KvPool cache_;
  std::vector<int32_t> pages_;
  ForwardBatch batch_;
};

// Sequences with `context` committed tokens and features of zeros in the drafter's slots 0..n-1.
class DraftProbe {
 public:
  DraftProbe(Drafter& drafter, int32_t n_sequences, int32_t context, int32_t dim)
      : drafter_(drafter), n_sequences_(n_sequences), context_(context) {
    tokens_.assign(static_cast<size_t>(context) + 1, 0);
    std::iota(tokens_.begin(), tokens_.end(), 0);
    for (int32_t& token : tokens_) token %= 16;
    features_.assign(drafter.tap_layers().size() * static_cast<size_t>(context) * static_cast<size_t>(dim),
                     0.01f);
    for (int32_t slot = 0; slot < n_sequences; ++slot) {
      CommitEvent event;
      event.slot = slot;
      event.tokens = tokens_;
      event.n_features = context;
      event.features = features_.empty() ? nullptr : features_.data();
      event.tap_stride = int64_t{context} * dim;
      event.dim = dim;
      drafter.commit({&event, 1});
    }
  }
  ~DraftProbe() {
    for (int32_t slot = 0; slot < n_sequences_; ++slot) drafter_.release(slot);
  }
  DraftProbe(const DraftProbe&) = delete;
  DraftProbe& operator=(const DraftProbe&) = delete;

  Status run(Trial& trial) {
    requests_.clear();
    const int32_t length = trial.length > 0 ? trial.length : drafter_.max_block();
    for (int32_t slot = 0; slot < trial.n; ++slot) {
      requests_.push_back({slot, tokens_.back(), context_, length, &sampling_});
    }
    block_.reset(requests_.size(), length);
    const Clock::time_point start = Clock::now();
    DSPARK_RETURN_IF_ERROR(drafter_.propose(requests_, block_));
    trial.seconds.push_back(seconds_since(start));
    return ok_status();
  }

 private:
  Drafter& drafter_;
  int32_t n_sequences_;
  int32_t context_;
  SamplingParams sampling_;
  std::vector<int32_t> tokens_;
  std::vector<float> features_;
  std::vector<DraftRequest> requests_;
  DraftBlock block_;
};

// 1, 2, 3, 4, 6, 8, 12, 16, ...: where kernels change their tile and where speculation decides.
std::vector<int32_t> sizes_up_to(int32_t largest) {
  std::vector<int32_t> sizes;
  for (int32_t n = 1; n <= largest; n = n < 4 ? n + 1 : (n & (n - 1)) == 0 ? n + n / 2 : n / 3 * 4) {
    sizes.push_back(n);
  }
  if (sizes.empty() || sizes.back() != largest) sizes.push_back(largest);
  return sizes;
}

// Times every trial in turn, cheap ones first, until the time is used or there is enough. The first round
// warms up and does not count, unless it was all there was time for; trials that no time was left for have no
// seconds and go.
template <typename Probe>
Status run_rounds(Probe& probe, std::vector<Trial>& trials, double budget_s) {
  constexpr int kMostRounds = 9;
  const Clock::time_point start = Clock::now();
  double longest_s = 0.0;
  for (int round = 0; round <= kMostRounds; ++round) {
    for (size_t i = 0; i < trials.size(); ++i) {
      const bool needed = round == 0 && i < 2;
      if (!needed && seconds_since(start) + longest_s > budget_s) {
        std::erase_if(trials, [](const Trial& trial) { return trial.seconds.empty(); });
        return ok_status();
      }
      DSPARK_RETURN_IF_ERROR(probe.run(trials[i]));
      longest_s = std::max(longest_s, trials[i].seconds.back());
    }
    if (round == 0 && seconds_since(start) < 0.4 * budget_s) {
      longest_s = 0.0;
      for (Trial& trial : trials) trial.seconds.clear();
    }
  }
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
Status measure_target(TargetModel& model, const CostProbeOptions& options, double budget_s,
                      CostTable& table) {
  DSPARK_ASSIGN_OR_RETURN(TargetProbe probe, TargetProbe::create(model, options));
  const std::vector<int32_t> sizes = sizes_up_to(options.max_rows);
  const int32_t many_rows = sizes[std::min<size_t>(5, sizes.size() - 1)];
  std::vector<Trial> trials;
  for (const int32_t n : sizes) {
    trials.push_back({n, options.context, 0, {}});
    if (n == 1 || n == many_rows) trials.push_back({n, options.long_context, 0, {}});
  }
  DSPARK_RETURN_IF_ERROR(run_rounds(probe, trials, budget_s));
  fit_context(trials, many_rows, options, table);
  for (const Trial& trial : trials) {
    if (trial.context != options.context) continue;
    // The table is for no context at all; the passes above had some.
    const double seconds = median(trial.seconds);
    const double context_s = options.context * (table.context_s + table.row_context_s * trial.n);
    table.verify.push_back({trial.n, std::max(seconds * 0.5, seconds - context_s)});
  }
  return ok_status();
}

// The drafter's part: whole blocks, and single drafts where the length can make a difference.
Status measure_drafter(const TargetModel& model, Drafter& drafter, const CostProbeOptions& options,
                       double budget_s, CostTable& table) {
  DraftProbe probe(drafter, options.max_sequences, options.context, model.config().dim);
  std::vector<Trial> trials;
  for (const int32_t n : sizes_up_to(options.max_sequences)) {
    trials.push_back({n, options.context, 0, {}});
    if (drafter.max_block() > 1) trials.push_back({n, options.context, 1, {}});
  }
  DSPARK_RETURN_IF_ERROR(run_rounds(probe, trials, budget_s));
  table.draft_length = drafter.max_block();
  for (const Trial& trial : trials) {
    std::vector<CostPoint>& points = trial.length == 0 ? table.draft : table.draft_short;
    points.push_back({trial.n, std::max(median(trial.seconds), 1e-9)});
  }
  return ok_status();
}

}  // namespace

Result<CostTable> measure_costs(TargetModel& model, Drafter* drafter, const CostProbeOptions& options) {
  CostTable table;
  const double target_budget_s = drafter != nullptr ? options.budget_s * 0.75 : options.budget_s;
  DSPARK_RETURN_IF_ERROR(measure_target(model, options, target_budget_s, table));
  if (drafter == nullptr) return table;
  DSPARK_RETURN_IF_ERROR(
      measure_drafter(model, *drafter, options, options.budget_s - target_budget_s, table));
  return table;
}

}  // namespace dspark
