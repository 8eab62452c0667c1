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
    for (int32_t slot = 0; slot < trial.n; ++slot) {
      requests_.push_back({slot, tokens_.back(), context_, drafter_.max_block(), &sampling_});
    }
    block_.reset(requests_.size(), drafter_.max_block());
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
std::vector<Trial> sizes_up_to(int32_t largest, int32_t context) {
  std::vector<Trial> trials;
  for (int32_t n = 1; n <= largest; n = n < 4 ? n + 1 : (n & (n - 1)) == 0 ? n + n / 2 : n / 3 * 4) {
    trials.push_back({n, context, {}});
  }
  if (trials.empty() || trials.back().n != largest) trials.push_back({largest, context, {}});
  return trials;
}

// Times every trial in turn: one round to warm up, then rounds until the time is used or there are enough.
template <typename Probe>
Status run_rounds(Probe& probe, std::vector<Trial>& trials, double budget_s) {
  constexpr int kMostRounds = 9, kLeastRounds = 3;
  const Clock::time_point start = Clock::now();
  for (int round = 0; round <= kMostRounds; ++round) {
    for (Trial& trial : trials) DSPARK_RETURN_IF_ERROR(probe.run(trial));
    if (round == 0) {
      for (Trial& trial : trials) trial.seconds.clear();
    }
    const double used_s = seconds_since(start);
    if (round >= kLeastRounds && used_s + used_s / (round + 1) > budget_s) break;
  }
  return ok_status();
}

// Reading n positions costs n * context_s; every row scores them for row_context_s more.
void fit_context(const Trial& one_row, const Trial& many_rows, CostTable& table,
                 std::span<const Trial> at_short) {
  const auto short_of = [&](int32_t n) {
    const auto found = std::ranges::find(at_short, n, &Trial::n);
    return median(found->seconds);
  };
  const double positions = one_row.context - at_short.front().context;
  const double per_position_one = std::max(0.0, (median(one_row.seconds) - short_of(1)) / positions);
  const double per_position_many =
      std::max(0.0, (median(many_rows.seconds) - short_of(many_rows.n)) / positions);
  const double more_rows = std::max(1, many_rows.n - 1);
  table.row_context_s = std::max(0.0, (per_position_many - per_position_one) / more_rows);
  table.context_s = std::max(0.0, per_position_one - table.row_context_s);
}

}  // namespace

Result<CostTable> measure_costs(TargetModel& model, Drafter* drafter, const CostProbeOptions& options) {
  CostTable table;
  const double target_budget_s = drafter != nullptr ? options.budget_s * 0.75 : options.budget_s;
  {
    DSPARK_ASSIGN_OR_RETURN(TargetProbe probe, TargetProbe::create(model, options));
    std::vector<Trial> trials = sizes_up_to(options.max_rows, options.context);
    const size_t n_short = trials.size();
    const int32_t some_rows = trials[std::min<size_t>(5, n_short - 1)].n;
    trials.push_back({1, options.long_context, {}});
    trials.push_back({some_rows, options.long_context, {}});
    DSPARK_RETURN_IF_ERROR(run_rounds(probe, trials, target_budget_s));
    for (size_t i = 0; i < n_short; ++i) table.verify.push_back({trials[i].n, median(trials[i].seconds)});
    fit_context(trials[n_short], trials[n_short + 1], table, std::span(trials).first(n_short));
    // The table is for no context at all; the passes above had some.
    for (CostPoint& point : table.verify) {
      const double context_s = options.context * (table.context_s + table.row_context_s * point.n);
      point.seconds = std::max(point.seconds * 0.5, point.seconds - context_s);
    }
  }
  if (drafter == nullptr) return table;
  DraftProbe probe(*drafter, options.max_sequences, options.context, model.config().dim);
  std::vector<Trial> trials = sizes_up_to(options.max_sequences, options.context);
  DSPARK_RETURN_IF_ERROR(run_rounds(probe, trials, options.budget_s - target_budget_s));
  for (const Trial& trial : trials) {
    table.draft.push_back({trial.n, std::max(median(trial.seconds), 1e-9)});
  }
  return table;
}

}  // namespace dspark
