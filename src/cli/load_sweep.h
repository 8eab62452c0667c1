#pragma once
// `dspark bench load`: one model under several loads, policies in turn.

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/interrupt.h"
#include "cli/load_flags.h"
#include "cli/progress.h"
#include "engine/loader.h"
#include "load/load_run.h"
#include "load/load_summary.h"
#include "load/load_verdict.h"
#include "load/round_trace.h"

namespace dspark::cli {

/// Everything that was measured.
struct LoadReport {
  std::string model, drafter, kind, isa, arrivals, accept_rule;
  bool random_drafter = false;
  int threads = 0;
  int32_t rounds = 0, max_sequences = 0, context_length = 0, least_tokens = 0, most_tokens = 0;
  double temperature = 0.0;
  uint64_t seed = 0;
  std::vector<std::string> policies;
  std::vector<std::string> sources;
  std::vector<int32_t> burst;
  CostTable costs;                          // measured at the start; empty without a drafter
  std::optional<PlannerMemory> remembered;  // what adaptive policies begin with
  std::vector<LoadCell> cells;
  std::vector<BurstCell> bursts;
  std::vector<LoadVerdict> verdicts;  // empty unless off and adaptive were run
  std::vector<PhaseVerdict> phase_verdicts;
  double margin = 0.98;  // what verdicts ask for
  bool texts_comparable = true;
  bool single_runs = false;  // texts are compared with runs of one request alone
  TextCheck texts;
  double seconds = 0.0;
};

/// A loaded model with its requests.
class LoadSweep {
 public:
  /// errors: flags, model, prompts, a request that does not fit the model's context.
  static Result<LoadSweep> open(const LoadFlags& flags);

  /// Everything --burst or the sweep asks for. errors: an engine that fails, cancelled.
  Result<LoadReport> run();
  /// What the drafter proposes at every token of the first requests.
  Result<RoundTrace> record();

 private:
  Result<EngineOptions> engine_options(const std::string& policy) const;
  Result<std::unique_ptr<Engine>> make_engine(const std::string& policy, bool* recorded_confidence = nullptr);
  Status measure_costs_once(LoadReport& report);
  Status remember(Engine& engine, LoadReport& report);
  Status read_sources();
  LoadPlan plan_of(double load) const;
  int64_t n_requests(double load) const;
  Status run_single(LoadReport& report);
  size_t n_together() const;
  std::vector<size_t> order_of(int32_t round) const;
  Result<std::vector<LoadResult>> run_together(std::span<const std::string> policies, const LoadPlan& plan);
  Status run_cells(LoadReport& report, std::span<LoadCell* const> cells);
  Status run_burst(LoadReport& report, std::span<BurstCell* const> cells);
  Status run_sweep(LoadReport& report);
  Status run_bursts(LoadReport& report);
  double run_cost(double load) const;
  void show_run(int32_t round, const std::string& what, std::span<const size_t> policies);
  LoadReport head() const;

  LoadFlags flags_;
  LoadChoice choice_;
  KvDType kv_dtype_ = KvDType::kBF16;
  std::unique_ptr<LoadedModel> loaded_;
  std::vector<PromptSource> sources_;
  std::vector<LoadRequest> workload_;
  int32_t context_length_ = 0;
  std::optional<CostTable> costs_;
  PlannerMemory memory_;  // empty unless --remember
  std::unique_ptr<InterruptGuard> interrupt_;
  std::unique_ptr<ProgressLine> progress_;
  std::chrono::steady_clock::time_point start_;
  double done_cost_ = 0.0, total_cost_ = 0.0;  // in units of run_cost()
};

}  // namespace dspark::cli
