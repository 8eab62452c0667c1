#include "cli/load_sweep.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <numeric>
#include <utility>

#include "cli/eval_setup.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "kernels/isa.h"

namespace dspark::cli {
namespace {

constexpr int32_t kSyntheticPrompts = 64;  // of each length, before they repeat
constexpr uint64_t kNoiseSeed = 1;         // of --random-drafter
constexpr int64_t kLeastRequests = 12;
constexpr int64_t kRequestsPerClient = 3;
constexpr int64_t kRememberedAnswers = 8;  // of --remember

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::string format_seconds(double s) {
  return s < 90 ? fmt::format("{:.0f} s", s) : fmt::format("{:.0f} min", s / 60);
}

/// At most kCurvePoints of the sorted values, the quantiles between the least and the most.
std::vector<double> thin_out(std::vector<double> values) {
  std::ranges::sort(values);
  if (values.size() <= LoadCell::kCurvePoints) return values;
  std::vector<double> points;
  for (size_t i = 0; i < LoadCell::kCurvePoints; ++i) {
    points.push_back(
        quantile_of_sorted(values, static_cast<double>(i) / static_cast<double>(LoadCell::kCurvePoints - 1)));
  }
  return points;
}

}  // namespace

Result<LoadSweep> LoadSweep::open(const LoadFlags& flags) {
  LoadSweep sweep;
  sweep.flags_ = flags;
  DSPARK_ASSIGN_OR_RETURN(sweep.choice_, check_load_flags(flags));
  DSPARK_ASSIGN_OR_RETURN(sweep.kv_dtype_, parse_kv_type(flags.model.kv_type));
  DSPARK_ASSIGN_OR_RETURN(LoadedModel loaded, load_with_progress(flags.model));
  sweep.loaded_ = std::make_unique<LoadedModel>(std::move(loaded));
  DSPARK_RETURN_IF_ERROR(sweep.read_sources());
  WorkloadOptions options;
  for (double load : sweep.choice_.loads) {
    options.n_requests = std::max(options.n_requests, sweep.n_requests(load));
  }
  options.least_tokens = sweep.choice_.least_tokens;
  options.most_tokens = sweep.choice_.most_tokens;
  options.seed = flags.seed;
  DSPARK_ASSIGN_OR_RETURN(sweep.workload_, make_workload(sweep.sources_, options));
  int64_t longest = 0;
  for (const LoadRequest& request : sweep.workload_) {
    longest = std::max(longest, static_cast<int64_t>(request.prompt.size()) + sweep.choice_.most_tokens);
  }
  const int32_t trained = sweep.loaded_->model->config().context_length;
  if (trained > 0 && longest > trained) {
    return invalid_argument(fmt::format(
        "--max-tokens: the longest prompt and {} more are {} tokens, the model has a context of {}",
        sweep.choice_.most_tokens, longest, trained));
  }
  sweep.context_length_ = static_cast<int32_t>(longest);
  return sweep;
}

Status LoadSweep::read_sources() {
  const LoadedModel& loaded = *loaded_;
  if (!flags_.files.empty() && loaded.tokenizer == nullptr)
    return unsupported(loaded.path + ": has no tokenizer");
  if (!flags_.files.empty() && !flags_.raw && !loaded.chat_template_status.ok()) {
    return Status(loaded.chat_template_status.code(),
                  loaded.path + ": chat template: " + loaded.chat_template_status.message() +
                      "; --raw does without it");
  }
  for (const std::string& path : flags_.files) {
    DSPARK_ASSIGN_OR_RETURN(EvalTask task,
                            read_eval_task(path, loaded, flags_.limit, flags_.raw, flags_.seed));
    PromptSource source;
    source.name = task.name;
    for (EvalPrompt& prompt : task.prompts) source.prompts.push_back(std::move(prompt.tokens));
    sources_.push_back(std::move(source));
  }
  for (int32_t length : flags_.synthetic) {
    sources_.push_back(
        synthetic_source(length, kSyntheticPrompts, loaded.model->config().vocab_size, flags_.seed));
  }
  for (size_t i = 0; i < flags_.weights.size(); ++i) sources_[i].weight = flags_.weights[i];
  return ok_status();
}

int64_t LoadSweep::n_requests(double load) const {
  if (flags_.requests > 0) return flags_.requests;
  const bool closed = choice_.arrivals.kind == ArrivalProcess::Kind::kClosed;
  const double clients = closed ? load : choice_.max_sequences;
  return std::max(kLeastRequests, kRequestsPerClient * static_cast<int64_t>(clients));
}

LoadPlan LoadSweep::plan_of(double load) const {
  LoadPlan plan;
  plan.sampling.temperature = flags_.temperature;
  plan.ignore_eos = flags_.ignore_eos;
  plan.max_s = flags_.seconds;
  plan.n_measured = n_requests(load);
  plan.warmup_tokens = flags_.warmup;
  if (!flags_.burst.empty()) {
    plan.kind = LoadPlan::Kind::kPhases;
    plan.phases = flags_.burst;
    plan.phase_s = flags_.phase_seconds;
    plan.max_s = 0.0;
  } else if (choice_.arrivals.kind == ArrivalProcess::Kind::kClosed) {
    plan.clients = static_cast<int32_t>(load);
  } else {
    plan.kind = LoadPlan::Kind::kOpen;
    plan.arrivals = arrival_times(choice_.arrivals, load, plan.n_measured, flags_.seed);
  }
  return plan;
}

Result<EngineOptions> LoadSweep::engine_options(const std::string& policy) const {
  EngineOptions options;
  options.max_sequences = choice_.max_sequences;
  options.context_length = context_length_;
  options.kv_tokens = flags_.kv_tokens;
  options.kv_dtype = kv_dtype_;
  options.prefill_rows = suitable_prefill_rows(loaded_->model->config());
  options.max_batch_rows = options.prefill_rows + choice_.max_sequences * 17;
  options.accept_rule = choice_.rule;
  options.costs = costs_;
  options.planner_memory = memory_;
  DSPARK_ASSIGN_OR_RETURN(options.policy, VerifyPolicy::parse(policy));
  return options;
}

Result<std::unique_ptr<Engine>> LoadSweep::make_engine(const std::string& policy, bool* recorded_confidence) {
  DSPARK_ASSIGN_OR_RETURN(const EngineOptions options, engine_options(policy));
  std::unique_ptr<Drafter> drafter;
  if (policy != "off") {  // plain decoding does without one
    DrafterOptions wanted;
    wanted.spec = flags_.spec.drafter;
    wanted.hybrid = flags_.spec.hybrid && !flags_.random_drafter;  // lookup would help noise out
    wanted.calibration = flags_.random_drafter ? "none" : flags_.spec.calibration;
    wanted.rule = choice_.rule;
    wanted.temperature = flags_.temperature;
    wanted.shortlist = flags_.spec.shortlist;
    wanted.random_weights = flags_.random_drafter ? kNoiseSeed : 0;
    DSPARK_ASSIGN_OR_RETURN(drafter, load_drafter(*loaded_, options, wanted));
    if (recorded_confidence != nullptr) {
      drafter = make_recording_drafter(std::move(drafter), recorded_confidence);
    }
  }
  return dspark::make_engine(*loaded_, options, std::move(drafter));
}

/// One measurement for all engines, as an engine of the adaptive policy makes it for itself.
Status LoadSweep::measure_costs_once(LoadReport& report) {
  if (!choice_.has_drafter) return ok_status();
  DSPARK_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, make_engine("adaptive"));
  report.kind = engine->drafter()->name();
  costs_ = engine->options().costs;
  if (costs_) report.costs = *costs_;
  return flags_.remember ? remember(*engine, report) : ok_status();
}

/// A server keeps beside its costs how drafts fared, and begins with that the next time. Here a few answers,
/// one after the other, take the place of its earlier runs.
Status LoadSweep::remember(Engine& engine, LoadReport& report) {
  progress_->show("learning how drafts fare");
  LoadPlan plan;
  plan.sampling.temperature = flags_.temperature;
  plan.ignore_eos = flags_.ignore_eos;
  plan.max_s = flags_.seconds;
  plan.n_measured = std::min(kRememberedAnswers, std::ssize(workload_));
  plan.warmup_tokens = flags_.warmup;
  DSPARK_RETURN_IF_ERROR(run_load(engine, workload_, plan, nullptr, &interrupt_->flag()).status());
  if (engine.planner() != nullptr) memory_ = engine.planner()->memory();
  report.remembered = memory_;
  return ok_status();
}

LoadReport LoadSweep::head() const {
  LoadReport report;
  report.model = loaded_->path;
  report.drafter = choice_.has_drafter ? flags_.spec.drafter : "none";
  report.kind = "none";
  report.isa = isa_name(active_isa());
  report.arrivals = choice_.arrivals.to_string();
  report.accept_rule = accept_rule_name(choice_.rule);
  report.random_drafter = flags_.random_drafter;
  report.threads = loaded_->pool->n_threads();
  report.rounds = flags_.rounds;
  report.max_sequences = choice_.max_sequences;
  report.context_length = context_length_;
  report.least_tokens = choice_.least_tokens;
  report.most_tokens = choice_.most_tokens;
  report.temperature = static_cast<double>(flags_.temperature);
  report.seed = flags_.seed;
  report.policies = choice_.policies;
  for (const PromptSource& source : sources_) report.sources.push_back(source.name);
  report.burst = flags_.burst;
  report.margin = flags_.random_drafter ? 0.97 : 0.98;
  // The other rules keep the distribution of texts only.
  report.texts_comparable = choice_.rule == AcceptRule::kCoupled || flags_.temperature == 0.0f;
  return report;
}

/// Texts of every request alone, before anything is measured and on an engine that then goes: one place, no
/// drafter, nothing shared.
Status LoadSweep::run_single(LoadReport& report) {
  DSPARK_ASSIGN_OR_RETURN(EngineOptions options, engine_options("off"));
  options.max_sequences = 1;
  options.kv_tokens = 0;
  options.prefix_cache = false;
  DSPARK_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                          dspark::make_engine(*loaded_, options, nullptr));
  const auto show = [&](int64_t n) {
    progress_->show(fmt::format("single runs: {} of {}", n, workload_.size()));
  };
  const double any_load = choice_.loads.front();
  DSPARK_ASSIGN_OR_RETURN(const LoadResult texts,
                          run_alone(*engine, workload_, plan_of(any_load), show, &interrupt_->flag()));
  report.texts.add(texts, "its single run");
  report.single_runs = true;
  return ok_status();
}

/// Policies that take turns in one run.
size_t LoadSweep::n_together() const {
  return flags_.slice_s > 0.0 ? choice_.policies.size() : 1;
}

/// Every other round runs backwards, so that a machine that slows down or speeds up favours nobody.
std::vector<size_t> LoadSweep::order_of(int32_t round) const {
  std::vector<size_t> order(choice_.policies.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (round % 2 != 0) std::ranges::reverse(order);
  return order;
}

/// One plan under some policies, in one interleaved run.
Result<std::vector<LoadResult>> LoadSweep::run_together(std::span<const std::string> policies,
                                                        const LoadPlan& plan) {
  std::vector<std::unique_ptr<Engine>> engines(policies.size());
  std::vector<std::unique_ptr<CostModel>> predictors(policies.size());
  std::vector<LoadTurn> turns(policies.size());
  // Engines tell their model what it has to capture: those that need it come last.
  for (const bool drafts : {false, true}) {
    for (size_t i = 0; i < policies.size(); ++i) {
      if (drafts != (policies[i] != "off")) continue;
      DSPARK_ASSIGN_OR_RETURN(engines[i], make_engine(policies[i]));
      if (costs_) predictors[i] = std::make_unique<CostModel>(*costs_);
      turns[i] = {engines[i].get(), predictors[i].get()};
    }
  }
  const double slice_s = policies.size() > 1 ? flags_.slice_s : std::numeric_limits<double>::infinity();
  return run_loads_in_turn(turns, workload_, plan, slice_s, &interrupt_->flag());
}

/// The cells, which have the same load, in one interleaved run.
Status LoadSweep::run_cells(LoadReport& report, std::span<LoadCell* const> cells) {
  std::vector<std::string> policies;
  for (const LoadCell* cell : cells) policies.push_back(cell->policy);
  const LoadPlan plan = plan_of(cells.front()->load);
  DSPARK_ASSIGN_OR_RETURN(const std::vector<LoadResult> results, run_together(policies, plan));
  for (size_t i = 0; i < cells.size(); ++i) {
    LoadCell& cell = *cells[i];
    cell.n_requests = plan.n_measured;
    cell.rounds.push_back(summarize_load(results[i]));
    report.texts.add(results[i], fmt::format("{} at {:g}", cell.policy, cell.load));
    std::vector<double>& times = cell.inter_token_s;
    times.insert(times.end(), results[i].inter_token_s.begin(), results[i].inter_token_s.end());
    if (static_cast<int32_t>(cell.rounds.size()) == flags_.rounds) times = thin_out(std::move(times));
  }
  return ok_status();
}

/// One round of the burst, interleaved likewise: all policies are in the same phase at any moment.
Status LoadSweep::run_burst(LoadReport& report, std::span<BurstCell* const> cells) {
  std::vector<std::string> policies;
  for (const BurstCell* cell : cells) policies.push_back(cell->policy);
  const LoadPlan plan = plan_of(0);
  DSPARK_ASSIGN_OR_RETURN(const std::vector<LoadResult> results, run_together(policies, plan));
  for (size_t i = 0; i < cells.size(); ++i) {
    cells[i]->add(results[i], plan.phases, plan.phase_s);
    report.texts.add(results[i], cells[i]->policy);
  }
  return ok_status();
}

void LoadSweep::show_run(int32_t round, const std::string& what, std::span<const size_t> policies) {
  const std::string who = policies.size() > 1 ? "all policies in turn" : choice_.policies[policies.front()];
  const double elapsed_s = seconds_since(start_);
  const double left_s = done_cost_ > 0.0 ? elapsed_s / done_cost_ * (total_cost_ - done_cost_) : 0.0;
  const std::string text =
      fmt::format("round {} of {}, {}, {}{}", round + 1, flags_.rounds, what, who,
                  left_s > 0.0 ? ", about " + format_seconds(left_s) + " left" : std::string());
  if (flags_.verbose) {
    std::fprintf(stderr, "%s\n", text.c_str());
  } else {
    progress_->show(text);
  }
}

/// What a run costs in comparison with others: its tokens over how many come at once.
double LoadSweep::run_cost(double load) const {
  if (!flags_.burst.empty()) return 1.0;
  if (choice_.arrivals.kind != ArrivalProcess::Kind::kClosed)
    return static_cast<double>(n_requests(load)) / load;
  const double step = costs_ ? CostModel(*costs_).step_seconds({.rows = static_cast<int32_t>(load)}) : 1.0;
  return (static_cast<double>(n_requests(load)) / load + 1.0) * step;
}

Status LoadSweep::run_sweep(LoadReport& report) {
  for (double load : choice_.loads) {
    for (const std::string& policy : choice_.policies) report.cells.push_back({load, policy, 0, {}, {}});
    total_cost_ += run_cost(load) * static_cast<double>(choice_.policies.size()) * flags_.rounds;
  }
  const size_t n_policies = choice_.policies.size();
  for (int32_t round = 0; round < flags_.rounds; ++round) {
    const std::vector<size_t> order = order_of(round);
    for (size_t l = 0; l < choice_.loads.size(); ++l) {
      for (size_t first = 0; first < n_policies; first += n_together()) {
        const std::span<const size_t> together = std::span(order).subspan(first, n_together());
        show_run(round, fmt::format("load {:g}", choice_.loads[l]), together);
        std::vector<LoadCell*> cells;
        for (const size_t p : together) cells.push_back(&report.cells[l * n_policies + p]);
        DSPARK_RETURN_IF_ERROR(run_cells(report, cells));
        done_cost_ += run_cost(choice_.loads[l]) * static_cast<double>(together.size());
      }
    }
  }
  const bool closed = choice_.arrivals.kind == ArrivalProcess::Kind::kClosed;
  report.verdicts = judge_cells(report.cells, closed, report.margin);
  return ok_status();
}

Status LoadSweep::run_bursts(LoadReport& report) {
  for (const std::string& policy : choice_.policies) report.bursts.emplace_back().policy = policy;
  total_cost_ = static_cast<double>(choice_.policies.size()) * flags_.rounds;
  for (int32_t round = 0; round < flags_.rounds; ++round) {
    const std::vector<size_t> order = order_of(round);
    for (size_t first = 0; first < order.size(); first += n_together()) {
      const std::span<const size_t> together = std::span(order).subspan(first, n_together());
      show_run(round, "burst", together);
      std::vector<BurstCell*> cells;
      for (const size_t p : together) cells.push_back(&report.bursts[p]);
      DSPARK_RETURN_IF_ERROR(run_burst(report, cells));
      done_cost_ += static_cast<double>(together.size());
    }
  }
  report.phase_verdicts = judge_phases(report.bursts);
  return ok_status();
}

Result<LoadReport> LoadSweep::run() {
  LoadReport report = head();
  interrupt_ = std::make_unique<InterruptGuard>();
  progress_ = std::make_unique<ProgressLine>();
  if (flags_.reference) DSPARK_RETURN_IF_ERROR(run_single(report));
  progress_->show("measuring costs");
  DSPARK_RETURN_IF_ERROR(measure_costs_once(report));
  start_ = std::chrono::steady_clock::now();
  DSPARK_RETURN_IF_ERROR(flags_.burst.empty() ? run_sweep(report) : run_bursts(report));
  report.seconds = seconds_since(start_);
  progress_->clear();
  return report;
}

Result<RoundTrace> LoadSweep::record() {
  interrupt_ = std::make_unique<InterruptGuard>();
  progress_ = std::make_unique<ProgressLine>();
  bool has_confidence = false;
  DSPARK_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, make_engine("threshold:1", &has_confidence));
  SamplingParams sampling;
  sampling.temperature = flags_.temperature;
  const auto show = [&](int64_t n) {
    progress_->show(fmt::format("recording: {} of {} answers", n, workload_.size()));
  };
  DSPARK_ASSIGN_OR_RETURN(RoundTrace trace, record_rounds(*engine, workload_, sampling, has_confidence, show,
                                                          &interrupt_->flag()));
  trace.model = std::filesystem::path(loaded_->path).filename().string();
  trace.drafter = engine->drafter()->name();
  progress_->clear();
  return trace;
}

}  // namespace dspark::cli
