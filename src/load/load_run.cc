#include "load/load_run.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <string>
#include <thread>

namespace dspark {
namespace {

using Clock = std::chrono::steady_clock;

GenerateRequest request_of(const LoadRequest& wanted, const LoadPlan& plan) {
  GenerateRequest request;
  request.prompt = wanted.prompt;
  request.max_tokens = wanted.max_tokens;
  request.sampling = plan.sampling;
  request.sampling.seed = wanted.seed;
  request.ignore_eos = plan.ignore_eos;
  return request;
}

Status refused(int64_t index, const Status& why) {
  return Status(why.code(), "request " + std::to_string(index + 1) + ": " + why.message());
}

Status no_memory() {
  return out_of_memory("forward pass: no memory for its buffers");
}

/// The state of one run. Callbacks write to it from inside Engine::step().
class LoadRun {
 public:
  LoadRun(Engine& engine, std::span<const LoadRequest> workload, const LoadPlan& plan, CostModel* predictor)
      : engine_(engine), workload_(workload), plan_(plan), predictor_(predictor) {}

  LoadRun(const LoadRun&) = delete;
  LoadRun& operator=(const LoadRun&) = delete;
  ~LoadRun() {
    if (!ending_) end();  // callbacks must not outlive the run
  }

  Status start() {
    before_ = engine_.stats();
    resume();
    const Status status = begin();
    pause();
    return status;
  }

  /// Goes on for about `slice_s` of the run's own time, and at least one step.
  Status run_for(double slice_s, const std::atomic<bool>* cancel) {
    resume();
    const double until_s = now() + slice_s;
    Status status = ok_status();
    while (status.ok() && !over()) {
      if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
        status = cancelled("stopped");
      } else if (plan_.max_s > 0.0 && now() > plan_.max_s) {
        result_.cut = true;
      } else {
        status = advance();
      }
      if (now() >= until_s) break;
    }
    pause();
    result_.turn_end_s.push_back(own_s_);
    return status;
  }

  bool over() const { return result_.cut || done(); }
  /// How far the run is, in what runs in turn keep alike: tokens where the work is given, own time where
  /// arrivals or phases follow the clock.
  double progress() const {
    return plan_.kind == LoadPlan::Kind::kClosed ? static_cast<double>(n_tokens_) : now();
  }

  LoadResult finish() {
    end();
    result_.engine = engine_.stats();
    subtract(result_.engine, before_);
    return std::move(result_);
  }

 private:
  /// Seconds of the run's own time: while it is paused none go by.
  double now() const {
    return paused_ ? own_s_ : own_s_ + std::chrono::duration<double>(Clock::now() - resumed_at_).count();
  }

  static void subtract(EngineStats& stats, const EngineStats& before) {
    stats.steps -= before.steps;
    stats.prompt_tokens -= before.prompt_tokens;
    stats.cached_tokens -= before.cached_tokens;
    stats.preemptions -= before.preemptions;
    stats.output_tokens -= before.output_tokens;
    stats.requests_finished -= before.requests_finished;
    stats.draft_s -= before.draft_s;
    stats.forward_s -= before.forward_s;
    stats.commit_s -= before.commit_s;
    stats.step_s -= before.step_s;
  }

  Status begin() {
    if (plan_.kind == LoadPlan::Kind::kOpen) {
      in_window_ = true;
      return ok_status();
    }
    if (plan_.kind == LoadPlan::Kind::kPhases) {
      in_window_ = true;
      return enter_phases();
    }
    // The first wave: all clients at once, then out of step.
    n_waiting_for_first_ = plan_.clients;
    for (int32_t client = 0; client < plan_.clients; ++client) {
      const auto n = static_cast<int64_t>(workload_.size());
      const int64_t index = n - 1 - client % n;
      const int32_t most = workload_[static_cast<size_t>(index)].max_tokens;
      const int32_t tokens =
          plan_.warmup_tokens + static_cast<int32_t>(int64_t{most} * client / plan_.clients);
      DSPARK_RETURN_IF_ERROR(submit(index, false, tokens));
    }
    return ok_status();
  }

  bool done() const {
    switch (plan_.kind) {
      case LoadPlan::Kind::kClosed:
        return n_measured_ended_ >= plan_.n_measured;
      case LoadPlan::Kind::kOpen:
        return n_measured_ended_ >= static_cast<int64_t>(plan_.arrivals.size());
      case LoadPlan::Kind::kPhases:
        return now() > plan_.phase_s * static_cast<double>(plan_.phases.size());
    }
    return true;
  }

  Status advance() {
    if (plan_.kind == LoadPlan::Kind::kOpen) {
      while (next_ < static_cast<int64_t>(plan_.arrivals.size()) &&
             plan_.arrivals[static_cast<size_t>(next_)] <= now()) {
        const int64_t index = next_++;
        DSPARK_RETURN_IF_ERROR(submit(index, true, 0));
      }
      if (!engine_.has_work()) {
        const double wait_s = plan_.arrivals[static_cast<size_t>(next_)] - now();
        std::this_thread::sleep_for(std::chrono::duration<double>(std::clamp(wait_s, 0.0, 0.05)));
        return ok_status();
      }
    } else {
      if (plan_.kind == LoadPlan::Kind::kPhases) DSPARK_RETURN_IF_ERROR(enter_phases());
      // The first client that is done waits until all prompts of the first wave are read.
      const bool holds_back = plan_.kind == LoadPlan::Kind::kClosed && !in_window_;
      for (; n_answered_ > 0 && !holds_back; --n_answered_) {
        if (plan_.kind == LoadPlan::Kind::kPhases && in_flight_ >= wanted_clients_) continue;
        DSPARK_RETURN_IF_ERROR(submit_next());
      }
    }
    return step();
  }

  /// Clients that belong to the present phase join; leaving happens when an answer ends.
  Status enter_phases() {
    const auto phase = std::min(static_cast<size_t>(now() / plan_.phase_s), plan_.phases.size() - 1);
    while (result_.phase_begin_s.size() <= phase) {
      result_.phase_begin_s.push_back(now());
      result_.phase_longest_wait_s.push_back(0.0);
    }
    wanted_clients_ = plan_.phases[phase];
    while (in_flight_ < wanted_clients_) {
      n_answered_ = std::max(0, n_answered_ - 1);
      DSPARK_RETURN_IF_ERROR(submit_next());
    }
    return ok_status();
  }

  Status submit_next() {
    const int64_t i = next_++;
    const bool measured = plan_.kind == LoadPlan::Kind::kPhases || i < plan_.n_measured;
    return submit(i % static_cast<int64_t>(workload_.size()), measured, 0);
  }

  /// `tokens` > 0: instead of the workload's length.
  Status submit(int64_t index, bool measured, int32_t tokens) {
    const LoadRequest& wanted = workload_[static_cast<size_t>(index)];
    GenerateRequest request = request_of(wanted, plan_);
    if (tokens > 0) request.max_tokens = std::min(tokens, wanted.max_tokens);
    const bool shortened = request.max_tokens != wanted.max_tokens;
    const size_t at = result_.requests.size();
    RequestRecord record;
    record.index = index;
    record.measured = measured;
    record.submitted_s =
        plan_.kind == LoadPlan::Kind::kOpen ? plan_.arrivals[static_cast<size_t>(index)] : now();
    record.tokens.reserve(static_cast<size_t>(request.max_tokens));
    result_.requests.push_back(std::move(record));
    const auto id = engine_.submit(std::move(request), [this, at, shortened](const StreamUpdate& update) {
      take(at, shortened, update);
    });
    if (!id.ok()) return refused(index, id.status());
    ids_.push_back(*id);
    ++in_flight_;
    return ok_status();
  }

  void take(size_t at, bool shortened, const StreamUpdate& update) {
    RequestRecord& record = result_.requests[at];
    if (!update.tokens.empty()) {
      const double time_s = now();
      take_gap(record, time_s, update.tokens.size());
      for (const TokenEvent& event : update.tokens) record.tokens.push_back(event.token);
      n_tokens_ += std::ssize(update.tokens);
      record.last_token_s = time_s;
    }
    if (update.round != nullptr) {
      const RoundRecord& round = update.round->counts;
      step_.verified += round.verified;
      step_.accepted += round.accepted;
      if (in_window_) result_.speculation.add(round);
    }
    if (update.finish_reason == FinishReason::kNone) return;
    --in_flight_;
    failed_ |= update.finish_reason == FinishReason::kError;
    if (ending_) return;
    record.whole = !shortened && update.finish_reason != FinishReason::kError;
    ++n_answered_;
    if (record.measured) ++n_measured_ended_;
  }

  void take_gap(RequestRecord& record, double time_s, size_t n_tokens) {
    note_wait(record, time_s);
    if (record.first_token_s < 0.0) {
      record.first_token_s = time_s;
      if (!record.measured && n_waiting_for_first_ > 0) --n_waiting_for_first_;
      return;
    }
    const double gap_s = time_s - record.last_token_s;
    if (!in_window_) return;
    result_.gap_s.push_back(gap_s);
    result_.inter_token_s.insert(result_.inter_token_s.end(), n_tokens,
                                 gap_s / static_cast<double>(n_tokens));
  }

  /// A request that waited for a token until now.
  void note_wait(const RequestRecord& record, double time_s) {
    if (result_.phase_longest_wait_s.empty()) return;
    const double since_s = record.first_token_s < 0.0 ? record.submitted_s : record.last_token_s;
    double& longest_s = result_.phase_longest_wait_s.back();
    longest_s = std::max(longest_s, time_s - since_s);
  }

  Status step() {
    step_ = {};
    step_.clients = in_flight_;
    engine_.step();
    const StepStats& stats = engine_.last_step();
    if (stats.step_s > 0.0) {
      record_step(stats);
      // The window opens when everybody is being answered and the first measured request is about to come.
      if (!in_window_ && n_waiting_for_first_ == 0 && n_answered_ > 0) {
        in_window_ = true;
        result_.begin_s = now();
      }
    }
    return failed_ ? no_memory() : ok_status();
  }

  void record_step(const StepStats& stats) {
    step_.end_s = now();
    step_.step_s = stats.step_s;
    step_.draft_s = stats.draft_s;
    step_.forward_s = stats.forward_s;
    step_.commit_s = stats.commit_s;
    step_.predicted_s = stats.predicted_s;
    step_.decode_sequences = stats.decode_sequences;
    step_.prefill_rows = stats.prefill_rows;
    step_.drafted = stats.drafted_tokens;
    step_.committed = stats.committed_tokens;
    if (engine_.costs() == nullptr && predictor_ != nullptr) {
      step_.predicted_s = predictor_->step_seconds(stats.shape);
      predictor_->observe(stats.shape, stats.forward_s, stats.draft_s + stats.commit_s);
    }
    result_.steps.push_back(step_);
  }

  void resume() {
    resumed_at_ = Clock::now();
    paused_ = false;
  }
  void pause() {
    own_s_ = now();
    paused_ = true;
  }

  void end() {
    result_.end_s = now();
    // Who waits still has waited as well.
    for (const RequestRecord& record : result_.requests) {
      if (!record.whole) note_wait(record, result_.end_s);
    }
    ending_ = true;
    for (const RequestId id : ids_) engine_.cancel(id);
    while (engine_.has_work()) engine_.step();
  }

  Engine& engine_;
  std::span<const LoadRequest> workload_;
  const LoadPlan& plan_;
  CostModel* predictor_;
  Clock::time_point resumed_at_;
  double own_s_ = 0.0;  // up to then
  bool paused_ = false;
  EngineStats before_;
  LoadResult result_;
  int64_t n_tokens_ = 0;  // of all answers
  LoadStep step_;         // the one that is running
  std::vector<RequestId> ids_;
  int64_t next_ = 0;  // request of the workload
  int64_t n_measured_ended_ = 0;
  int32_t in_flight_ = 0;
  int32_t n_answered_ = 0;  // clients that may ask again
  int32_t wanted_clients_ = 0;
  int32_t n_waiting_for_first_ = 0;
  bool in_window_ = false;
  bool ending_ = false;
  bool failed_ = false;
};

}  // namespace

Result<LoadResult> run_load(Engine& engine, std::span<const LoadRequest> workload, const LoadPlan& plan,
                            CostModel* predictor, const std::atomic<bool>* cancel) {
  LoadRun run(engine, workload, plan, predictor);
  DSPARK_RETURN_IF_ERROR(run.start());
  DSPARK_RETURN_IF_ERROR(run.run_for(std::numeric_limits<double>::infinity(), cancel));
  return run.finish();
}

Result<std::vector<LoadResult>> run_loads_in_turn(std::span<const LoadTurn> turns,
                                                  std::span<const LoadRequest> workload, const LoadPlan& plan,
                                                  double slice_s, const std::atomic<bool>* cancel) {
  std::vector<std::unique_ptr<LoadRun>> runs;
  for (const LoadTurn& turn : turns) {
    runs.push_back(std::make_unique<LoadRun>(*turn.engine, workload, plan, turn.predictor));
    DSPARK_RETURN_IF_ERROR(runs.back()->start());
  }
  for (;;) {
    LoadRun* next = nullptr;
    for (const auto& run : runs) {
      if (!run->over() && (next == nullptr || run->progress() < next->progress())) next = run.get();
    }
    if (next == nullptr) break;
    DSPARK_RETURN_IF_ERROR(next->run_for(slice_s, cancel));
  }
  std::vector<LoadResult> results;
  for (const auto& run : runs) results.push_back(run->finish());
  return results;
}

Result<LoadResult> run_alone(Engine& engine, std::span<const LoadRequest> workload, const LoadPlan& plan,
                             const std::function<void(int64_t)>& show, const std::atomic<bool>* cancel) {
  LoadResult result;
  for (const LoadRequest& wanted : workload) {
    const auto index = std::ssize(result.requests);
    RequestRecord record;
    record.index = index;
    bool failed = false;
    const auto id = engine.submit(request_of(wanted, plan), [&](const StreamUpdate& update) {
      for (const TokenEvent& event : update.tokens) record.tokens.push_back(event.token);
      failed |= update.finish_reason == FinishReason::kError;
    });
    if (!id.ok()) return refused(index, id.status());
    bool stopped = false;
    while (engine.has_work()) {
      if (!stopped && cancel != nullptr && cancel->load(std::memory_order_relaxed)) {
        stopped = true;
        engine.cancel(*id);
      }
      engine.step();
    }
    if (stopped) return cancelled("stopped");
    if (failed) return no_memory();
    record.whole = true;
    result.requests.push_back(std::move(record));
    if (show) show(index + 1);
  }
  return result;
}

}  // namespace dspark
