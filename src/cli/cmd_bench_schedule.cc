// dspark bench schedule: the scheduler alone, on recorded rounds and any cost curve.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/bench_commands.h"
#include "cli/load_report.h"
#include "cli/report.h"
#include "cli/svg_chart.h"
#include "formats/atomic_file.h"
#include "load/cost_curves.h"
#include "load/schedule_sim.h"

namespace dspark::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr int32_t kMostSequences = 4096;
constexpr int64_t kLeastRequests = 64, kRequestsPerClient = 4;

struct ScheduleFlags {
  std::string trace;
  std::string costs;
  std::string curve = "gpu";
  int32_t probe_rows = 0;
  std::vector<int32_t> concurrency = {1, 4, 16, 64, 256};
  std::vector<std::string> policies = {"off",     "fixed:1", "fixed:3",       "fixed:5",
                                       "fixed:7", "causal",  "threshold:0.5", "adaptive"};
  int32_t requests = 0;
  std::string arrivals = "closed";
  std::vector<double> rates = {1, 4, 16};
  int32_t max_sequences = 256;
  uint64_t seed = 1;
  std::string json;
  std::string plot;
  bool strict = false;
};

struct ScheduleCell {
  double load = 0.0;
  std::string policy;
  int64_t n_requests = 0;
  SimResult result;
};

struct ScheduleReport {
  RoundTrace trace;
  CostTable costs;
  std::string curve;
  bool closed = true;
  std::vector<std::string> policies;
  std::vector<ScheduleCell> cells;
  std::vector<LoadVerdict> verdicts;
};

void add_schedule_flags(CLI::App& command, ScheduleFlags& flags) {
  command.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  command.add_option("--trace", flags.trace, "rounds that 'dspark bench load --record' wrote")->required();
  command.add_option("--costs", flags.costs, "cost table as JSON, or a report of 'dspark bench load --json'");
  command.add_option("--curve", flags.curve, "built-in costs instead: flat, linear, gpu")
      ->capture_default_str();
  command
      .add_option(
          "--probe-rows", flags.probe_rows,
          "the scheduler knows sizes 1, 2, 3, 4, 6, 8, ... up to this many rows only (0: the whole curve)")
      ->check(CLI::Range(0, 1 << 16))
      ->capture_default_str();
  command.add_option("--concurrency", flags.concurrency, "numbers of clients")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check(CLI::Range(1, kMostSequences))
      ->capture_default_str();
  command.add_option("--policies", flags.policies, "verify policies to compare")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->capture_default_str();
  command.add_option("--requests", flags.requests, "requests of a run (0: 4 per client, at least 64)")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  command.add_option("--arrivals", flags.arrivals, "closed, poisson, bursty or bursty:B")
      ->capture_default_str();
  command.add_option("--rates", flags.rates, "requests per second with open arrivals")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--max-sequences", flags.max_sequences, "places of the engine with open arrivals")
      ->check(CLI::Range(1, kMostSequences))
      ->capture_default_str();
  command.add_option("-s,--seed", flags.seed, "seed of open arrivals")->capture_default_str();
  command.add_option("--json", flags.json, "write everything as JSON to this file (-: standard output)");
  command.add_option("--plot", flags.plot, "write schedule.svg into this folder");
  command.add_flag("--strict", flags.strict, "fail when the adaptive policy loses more than it may");
}

int64_t n_requests(const ScheduleFlags& flags, int32_t clients) {
  return flags.requests > 0 ? flags.requests : std::max(kLeastRequests, kRequestsPerClient * clients);
}

/// Costs for steps of as many rows as there can be.
Result<CostTable> choose_costs(const ScheduleFlags& flags, int32_t max_block) {
  if (!flags.costs.empty()) return read_cost_table(flags.costs);
  int32_t most = flags.max_sequences;
  for (int32_t clients : flags.concurrency) most = std::max(most, clients);
  Result<CostTable> costs =
      built_in_costs(flags.curve, std::min(1 << 16, most * (max_block + 1) + 512), most);
  if (!costs.ok()) return Status(costs.status().code(), "--curve: " + costs.status().message());
  return costs;
}

LoadCell as_load_cell(const ScheduleCell& cell) {
  LoadSummary summary;
  summary.tokens_per_s = cell.result.tokens_per_s;
  summary.user_tokens_per_s = cell.result.user_tokens_per_s;
  return {cell.load, cell.policy, cell.n_requests, {summary}, {}};
}

Result<ScheduleReport> simulate(const ScheduleFlags& flags) {
  ScheduleReport report;
  const Result<ArrivalProcess> arrivals = ArrivalProcess::parse(flags.arrivals);
  if (!arrivals.ok()) return Status(arrivals.status().code(), "--arrivals: " + arrivals.status().message());
  report.closed = arrivals->kind == ArrivalProcess::Kind::kClosed;
  std::vector<VerifyPolicy> policies;
  for (const std::string& text : flags.policies) {
    const Result<VerifyPolicy> policy = VerifyPolicy::parse(text);
    if (!policy.ok()) return Status(policy.status().code(), "--policies: " + policy.status().message());
    policies.push_back(*policy);
    report.policies.push_back(policy->to_string());
  }
  DSPARK_ASSIGN_OR_RETURN(report.trace, read_round_trace(flags.trace));
  DSPARK_ASSIGN_OR_RETURN(report.costs, choose_costs(flags, report.trace.max_block));
  report.curve = flags.costs.empty() ? flags.curve : flags.costs;
  SimOptions options;
  options.arrivals = *arrivals;
  options.seed = flags.seed;
  options.truth = options.belief = report.costs;
  if (flags.probe_rows > 0) {
    options.belief = sample_costs(report.costs, flags.probe_rows, std::min(flags.probe_rows, 8));
  }
  const std::vector<double> loads =
      report.closed ? std::vector<double>(flags.concurrency.begin(), flags.concurrency.end()) : flags.rates;
  std::vector<LoadCell> cells;
  for (double load : loads) {
    options.max_sequences = report.closed ? static_cast<int32_t>(load) : flags.max_sequences;
    options.rate = report.closed ? 1.0 : load;
    options.n_requests = n_requests(flags, options.max_sequences);
    options.max_batch_rows = options.max_sequences * (report.trace.max_block + 1) + options.prefill_rows + 2;
    for (size_t p = 0; p < policies.size(); ++p) {
      options.policy = policies[p];
      ScheduleCell cell{load, report.policies[p], options.n_requests, {}};
      DSPARK_ASSIGN_OR_RETURN(cell.result, simulate_schedule(report.trace, options));
      cells.push_back(as_load_cell(cell));
      report.cells.push_back(std::move(cell));
    }
  }
  report.verdicts = judge_cells(cells, report.closed, 0.98);
  return report;
}

std::string report_text(const ScheduleReport& report) {
  std::string text = fmt::format("simulated: {} answers of {} with {}, {} tokens recorded, costs {}\n",
                                 report.trace.answers.size(), report.trace.model, report.trace.drafter,
                                 report.trace.n_tokens(), report.curve);
  const size_t n = report.policies.size();
  for (size_t i = 0; i < report.cells.size(); ++i) {
    const ScheduleCell& cell = report.cells[i];
    const SimResult& r = cell.result;
    if (i % n == 0) {
      text += fmt::format("\n{:g} {}, {} requests\n", cell.load, report.closed ? "client(s)" : "requests/s",
                          cell.n_requests);
      text +=
          "policy         total tok/s   /user  | TTFT ms p50   p95 | token ms p50   p99 | drafted verified "
          "accepted tok/round | steps\n";
    }
    text += fmt::format(
        "{:<14}{:>12.1f}{:>8.1f}  |{:>12.1f}{:>6.1f} |{:>13.2f}{:>6.2f} |{:>8}{:>9}{:>9}{:>10.2f} |{:>6}\n",
        cell.policy, r.tokens_per_s, r.user_tokens_per_s, r.ttft_s.p50 * 1e3, r.ttft_s.p95 * 1e3,
        r.inter_token_s.p50 * 1e3, r.inter_token_s.p99 * 1e3, r.speculation.drafted, r.speculation.verified,
        r.speculation.accepted, r.speculation.accept_len(), r.steps);
  }
  text += "\n";
  for (const LoadVerdict& v : report.verdicts) {
    text += fmt::format("load {:g}: adaptive / {} (best fixed) {:.3f}, adaptive / off {:.3f}: {}\n", v.load,
                        v.best_fixed, v.vs_best_fixed, v.vs_off, v.pass ? "ok" : "BELOW 0.98");
  }
  return text;
}

Json cell_json(const ScheduleCell& cell, bool closed) {
  const SimResult& r = cell.result;
  const auto quantiles = [](const QuantileSummary& q) {
    return Json{{"n", q.n}, {"mean", q.mean}, {"p50", q.p50}, {"p95", q.p95}, {"p99", q.p99}, {"max", q.max}};
  };
  return {{closed ? "concurrency" : "rate", cell.load},
          {"policy", cell.policy},
          {"requests", cell.n_requests},
          {"seconds", r.seconds},
          {"tokens", r.tokens},
          {"prompt_tokens", r.prompt_tokens},
          {"steps", r.steps},
          {"tokens_per_s", r.tokens_per_s},
          {"user_tokens_per_s", r.user_tokens_per_s},
          {"mean_decode_sequences", r.mean_decode_sequences},
          {"draft_s", r.draft_s},
          {"verify_s", r.verify_s},
          {"overhead_s", r.overhead_s},
          {"ttft_s", quantiles(r.ttft_s)},
          {"inter_token_s", quantiles(r.inter_token_s)},
          {"rounds", r.speculation.rounds},
          {"drafted", r.speculation.drafted},
          {"verified", r.speculation.verified},
          {"trimmed", r.speculation.trimmed},
          {"accepted", r.speculation.accepted},
          {"tokens_per_round", r.speculation.accept_len()}};
}

Json report_json(const ScheduleReport& report) {
  Json json = {{"bench", "schedule"},
               {"model", report.trace.model},
               {"drafter", report.trace.drafter},
               {"answers", report.trace.answers.size()},
               {"recorded_tokens", report.trace.n_tokens()},
               {"costs", report.curve},
               {"policies", report.policies},
               {"cells", Json::array()},
               {"verdicts", Json::array()}};
  for (const ScheduleCell& cell : report.cells) json["cells"].push_back(cell_json(cell, report.closed));
  for (const LoadVerdict& v : report.verdicts) {
    json["verdicts"].push_back({{report.closed ? "concurrency" : "rate", v.load},
                                {"best_fixed", v.best_fixed},
                                {"adaptive_over_best_fixed", v.vs_best_fixed},
                                {"adaptive_over_off", v.vs_off},
                                {"pass", v.pass}});
  }
  return json;
}

Status write_text(const std::string& path, const std::string& text) {
  if (path == "-") {
    std::fputs(text.c_str(), stdout);
    return ok_status();
  }
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  DSPARK_RETURN_IF_ERROR(file.write({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  return file.commit();
}

Status write_plot(const std::string& folder, const ScheduleReport& report) {
  std::error_code ec;
  std::filesystem::create_directories(folder, ec);
  if (ec) return invalid_argument("--plot: " + folder + ": " + ec.message());
  Chart chart;
  chart.title = "Simulated throughput against speed, " + std::filesystem::path(report.curve).stem().string();
  chart.x_label = "tokens/s of one user";
  chart.y_label = "tokens/s of all";
  for (const std::string& policy : report.policies) {
    ChartLine line;
    line.name = policy;
    line.emphasised = policy == "adaptive";
    line.dashed = policy == "off";
    for (const ScheduleCell& cell : report.cells) {
      if (cell.policy != policy) continue;
      line.points.emplace_back(cell.result.user_tokens_per_s, cell.result.tokens_per_s);
      line.labels.push_back(fmt::format("{:g}", cell.load));
    }
    chart.lines.push_back(std::move(line));
  }
  fit_axes(chart, true);
  return write_text((std::filesystem::path(folder) / "schedule.svg").string(), chart_svg(chart));
}

Status run_schedule(const ScheduleFlags& flags) {
  DSPARK_ASSIGN_OR_RETURN(const ScheduleReport report, simulate(flags));
  if (!flags.json.empty()) {
    const std::string text = report_json(report).dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
    DSPARK_RETURN_IF_ERROR(write_text(flags.json, text));
  }
  if (!flags.plot.empty()) DSPARK_RETURN_IF_ERROR(write_plot(flags.plot, report));
  if (flags.json != "-") std::fputs(report_text(report).c_str(), stdout);
  for (const LoadVerdict& verdict : report.verdicts) {
    if (flags.strict && !verdict.pass) return internal_error("the adaptive policy lost more than it may");
  }
  return ok_status();
}

}  // namespace

void register_bench_schedule(CLI::App& bench, int& exit_code) {
  auto flags = std::make_shared<ScheduleFlags>();
  CLI::App* command = bench.add_subcommand(
      "schedule", "simulate verify policies on recorded rounds, for other machines and hundreds of clients");
  add_schedule_flags(*command, *flags);
  command->callback([flags, &exit_code] {
    const Status status = run_schedule(*flags);
    if (!status.ok()) exit_code = report_failure(status);
  });
}

}  // namespace dspark::cli
