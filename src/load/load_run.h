#pragma once
// Puts an engine under load, in process and in one thread, and writes down what happened.

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "load/workload.h"

namespace dspark {

/// One way to load an engine.
struct LoadPlan {
  /// Closed: `clients` clients, each asks again as soon as it was answered. A first wave of answers of
  /// different lengths warms up and brings the clients out of step; then `n_measured` requests are measured,
  /// and more requests follow to keep all clients busy until the last of those is answered. Open: request i
  /// comes at arrivals[i], whatever the engine does; all are measured. Phases: as closed, but the number of
  /// clients changes: phases[i] for phase_s seconds each. Clients that are too many leave after their answer.
  enum class Kind : uint8_t { kClosed, kOpen, kPhases };
  Kind kind = Kind::kClosed;
  int32_t clients = 1;
  int64_t n_measured = 0;
  int32_t warmup_tokens = 32;  // least tokens of an answer of the first wave
  std::vector<double> arrivals;
  std::vector<int32_t> phases;
  double phase_s = 0.0;

  SamplingParams sampling;  // the seed is each request's own
  bool ignore_eos = false;
  double max_s = 0.0;  // the run is cut after so many seconds; 0: never
};

/// What became of one request. Seconds since the start of the run.
struct RequestRecord {
  int64_t index = 0;  // into the workload
  bool measured = false;
  bool whole = false;  // ended by itself and not shortened: its text may be compared in full
  double submitted_s = 0.0;
  double first_token_s = -1.0;  // negative: none came
  double last_token_s = 0.0;
  std::vector<int32_t> tokens;
};

/// One step that computed something.
struct LoadStep {
  double end_s = 0.0;  // since the start of the run
  double step_s = 0.0, draft_s = 0.0, forward_s = 0.0, commit_s = 0.0;
  double predicted_s = 0.0;  // 0: nobody predicted
  int32_t clients = 0;       // requests in flight
  int32_t decode_sequences = 0, prefill_rows = 0;
  int32_t drafted = 0, verified = 0, accepted = 0, committed = 0;
};

/// What happened in one run.
struct LoadResult {
  std::vector<RequestRecord> requests;  // in the order of submission
  std::vector<LoadStep> steps;
  std::vector<double> inter_token_s;  // of every token behind a first one: its update's gap / its tokens
  std::vector<double> gap_s;          // between updates of one request
  double begin_s = 0.0, end_s = 0.0;  // the measured window
  std::vector<double> phase_begin_s;  // kPhases
  /// kPhases: the longest wait of any request for a token, its first one or another, in the phase where it
  /// ended; waits that the end of the run cut short included.
  std::vector<double> phase_longest_wait_s;
  std::vector<double> turn_end_s;  // see run_loads_in_turn; else the end
  SpeculationStats speculation;    // of rounds in the window
  bool cut = false;                // by max_s
  // Engine counters over the whole run.
  EngineStats engine;
};

/// Runs `plan` on an idle engine. `predictor` predicts steps for engines without a cost model of their own
/// and learns from them; may be null. Afterwards the engine is idle again. requires: workload not empty;
/// kOpen: no more arrivals than requests. errors: those of Engine::submit, cancelled (`cancel` became true),
/// out_of_memory.
Result<LoadResult> run_load(Engine& engine, std::span<const LoadRequest> workload, const LoadPlan& plan,
                            CostModel* predictor = nullptr, const std::atomic<bool>* cancel = nullptr);

/// One engine of several; predictor as in run_load.
struct LoadTurn {
  Engine* engine = nullptr;
  CostModel* predictor = nullptr;
};

/// The same plan on several engines, which may share one model, in one interleaved run: slices of about
/// `slice_s` seconds go to the engine that is least far, by tokens in closed loops and by its own time with
/// open arrivals and phases. So all are as far at any moment, and what a machine does to one in a slow minute
/// it does to all. Each run has a clock of its own that stands still while others have their turn. returns:
/// one result per turn. errors: those of run_load.
Result<std::vector<LoadResult>> run_loads_in_turn(std::span<const LoadTurn> turns,
                                                  std::span<const LoadRequest> workload, const LoadPlan& plan,
                                                  double slice_s, const std::atomic<bool>* cancel = nullptr);

/// Every request of the workload by itself on an idle engine, one after the other: the texts that all others
/// are compared with. Only sampling and ignore_eos of `plan` count. `show`, when given, is told how many are
/// done. returns: requests in the order of the workload with their tokens, all whole; no times. errors: those
/// of run_load.
Result<LoadResult> run_alone(Engine& engine, std::span<const LoadRequest> workload, const LoadPlan& plan,
                             const std::function<void(int64_t)>& show = {},
                             const std::atomic<bool>* cancel = nullptr);

}  // namespace dspark
