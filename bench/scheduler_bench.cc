// What a decision costs: all that the scheduler does in one step, from the draft length to learning from what
// came out, at up to 256 sequences of 16 drafts; and that time as a share of the step it decides about.
//
//   scheduler_bench [--cost-table=FILE | --curve=flat|linear|gpu] [flags of Google Benchmark]
//
// FILE: what `dspark profile -o` or `bench load --json` wrote; without one the built-in curve "flat" (a small
// CPU). Names tell where confidences come from: head (given), logit and lookup (estimated from evidence, and
// the estimator learns); /careful: rules that must not anticipate, so that history is read too; /all: every
// draft is verified and accepted, which is the most there can be to learn from.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "load/cost_curves.h"
#include "speculate/acceptance_estimator.h"
#include "speculate/adaptive_planner.h"
#include "speculate/calibration_drift.h"

namespace {

using namespace dspark;

constexpr int64_t kContext = 512;  // of every sequence
constexpr int32_t kMostSequences = 256, kMostDrafts = 16;

struct Case {
  const char* name;
  bool has_head = true;
  DraftEvidence evidence = DraftEvidence::kNone;
  bool careful = false;
  bool all_verified = false;
};

constexpr Case kCases[] = {
    {"head"},
    {"head/careful", true, DraftEvidence::kNone, true},
    {"head/all", true, DraftEvidence::kNone, false, true},
    {"logit", false, DraftEvidence::kPeakLogit},
    {"logit/careful", false, DraftEvidence::kPeakLogit, true},
    {"logit/all", false, DraftEvidence::kPeakLogit, false, true},
    {"lookup/all", false, DraftEvidence::kMatchLength, false, true},
};

/// The part of an engine that decides, over and over about the same drafts.
class Decision {
 public:
  Decision(const CostTable& table, const Case& what, int32_t n_sequences, int32_t n_drafts)
      : what_(what), n_sequences_(n_sequences), n_drafts_(n_drafts), planner_(table) {
    const auto n = static_cast<size_t>(n_sequences), width = static_cast<size_t>(n_drafts);
    std::mt19937 rng(1);
    std::uniform_real_distribution<float> uniform(0.5f, 1.0f);
    confidence_.resize(n * width);
    evidence_.resize(n * width);
    records_.resize(n);
    lengths_.resize(n);
    for (float& c : confidence_) c = uniform(rng);
    const bool is_logit = what.evidence == DraftEvidence::kPeakLogit;
    for (float& e : evidence_) e = is_logit ? 8.0f * (uniform(rng) - 0.6f) : 32.0f * (uniform(rng) - 0.47f);
    for (size_t r = 0; r < n; ++r) {
      const std::span row = std::span<const float>(confidence_).subspan(r * width, width);
      sequences_.push_back({n_drafts, n_drafts, row, !what.careful, &records_[r]});
    }
  }

  /// returns: what the step takes by the cost table.
  double step() {
    benchmark::DoNotOptimize(planner_.draft_length(n_sequences_, n_drafts_));
    if (!what_.has_head) estimate();
    const int64_t context = kContext * n_sequences_;
    StepShape shape{n_sequences_, n_sequences_, context, context, n_drafts_};
    planner_.verify_lengths(VerifyPolicy::Kind::kAdaptive, shape, sequences_, lengths_);
    int32_t n_tokens = 0;
    for (size_t r = 0; r < lengths_.size(); ++r) {
      const int32_t n_verified = what_.all_verified ? n_drafts_ : lengths_[r];
      const int32_t n_accepted = what_.all_verified ? n_drafts_ : n_verified / 2;
      learn_round(r, n_verified, n_accepted);
      shape.rows += n_verified;
      shape.row_context += kContext * n_verified;
      n_tokens += 1 + n_accepted;
    }
    estimator_.end_step();
    const double step_s = planner_.costs().step_seconds(shape);
    planner_.observe_gain(shape, n_sequences_, n_tokens);
    planner_.observe_step(shape, planner_.costs().verify_seconds(shape), 0.1 * step_s);
    tell();
    return step_s;
  }

 private:
  void estimate() {
    for (size_t at = 0; at < confidence_.size(); ++at) {
      const auto draft_idx = static_cast<int32_t>(at % static_cast<size_t>(n_drafts_));
      confidence_[at] = static_cast<float>(estimator_.confidence(what_.evidence, draft_idx, evidence_[at]));
    }
  }

  void learn_round(size_t r, int32_t n_verified, int32_t n_accepted) {
    const size_t first = r * static_cast<size_t>(n_drafts_);
    drift_.add(sequences_[r].confidence.first(static_cast<size_t>(n_verified)), n_accepted);
    planner_.observe_round(n_verified, n_accepted);
    if (what_.has_head) return;
    for (int32_t k = 0; k < std::min(n_verified, n_accepted + 1); ++k) {
      estimator_.observe(what_.evidence, k, evidence_[first + static_cast<size_t>(k)], k < n_accepted);
    }
  }

  /// What metrics get after every step.
  void tell() {
    stats_ = planner_.stats();
    stats_.n_positions = drift_.n_positions();
    stats_.bins = drift_.bins();
    for (int32_t j = 0; j < stats_.n_positions; ++j) stats_.drift[static_cast<size_t>(j)] = drift_.at(j);
    benchmark::DoNotOptimize(stats_);
  }

  const Case what_;
  const int32_t n_sequences_, n_drafts_;
  AdaptivePlanner planner_;
  AcceptanceEstimator estimator_;
  CalibrationDrift drift_;
  SchedulerStats stats_;
  std::vector<float> confidence_, evidence_;  // (n_sequences, n_drafts)
  std::vector<SurvivalRecord> records_;
  std::vector<PlanSequence> sequences_;
  std::vector<int32_t> lengths_;
};

void decide(benchmark::State& state, const CostTable& table, const Case& what) {
  Decision decision(table, what, static_cast<int32_t>(state.range(0)), static_cast<int32_t>(state.range(1)));
  double steps_s = 0.0;
  for (auto _ : state) steps_s += decision.step();
  using benchmark::Counter;
  state.counters["step_ms"] = Counter(1e3 * steps_s, Counter::kAvgIterations);
  state.counters["share_%"] = Counter(steps_s / 100.0, Counter::kIsRate | Counter::kInvert);
}

/// The table that the flag names; takes the flag out of the arguments.
Result<CostTable> take_table(int& argc, char** argv) {
  std::string curve = "flat", file;
  int n = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag.starts_with("--cost-table=")) {
      file = flag.substr(13);
    } else if (flag.starts_with("--curve=")) {
      curve = flag.substr(8);
    } else {
      argv[n++] = argv[i];
    }
  }
  argc = n;
  if (!file.empty()) return read_cost_table(file);
  constexpr int32_t kMostRows = kMostSequences * (1 + kMostDrafts);
  DSPARK_ASSIGN_OR_RETURN(const CostTable table, built_in_costs(curve, kMostRows, kMostSequences));
  return sample_costs(table, kMostRows, kMostSequences);
}

}  // namespace

int main(int argc, char** argv) {
  const auto table = take_table(argc, argv);
  if (!table.ok()) {
    std::fprintf(stderr, "scheduler_bench: %s\n", table.status().message().c_str());
    return 1;
  }
  for (const Case& what : kCases) {
    benchmark::RegisterBenchmark(what.name, [&](benchmark::State& state) { decide(state, *table, what); })
        ->Args({1, 7})
        ->Args({16, 7})
        ->Args({64, kMostDrafts})
        ->Args({kMostSequences, kMostDrafts})
        ->Unit(benchmark::kMicrosecond);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
