#include "cli/load_report.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace dspark::cli {
namespace {

using Json = nlohmann::ordered_json;

double per(double value, double n) {
  return n > 0.0 ? value / n : 0.0;
}

/// Sums over the rounds of a cell.
LoadSummary sum_rounds(const LoadCell& cell) {
  LoadSummary sum;
  for (const LoadSummary& round : cell.rounds) {
    sum.seconds += round.seconds;
    sum.steps += round.steps;
    sum.tokens += round.tokens;
    sum.speculation.add(round.speculation);
    sum.draft_s += round.draft_s;
    sum.forward_s += round.forward_s;
    sum.commit_s += round.commit_s;
    sum.loop_s += round.loop_s;
    sum.outside_s += round.outside_s;
    sum.prefix_tokens += round.prefix_tokens;
    sum.prompt_tokens += round.prompt_tokens;
    sum.preemptions += round.preemptions;
    sum.cut |= round.cut;
  }
  return sum;
}

double median_quantile(const LoadCell& cell, QuantileSummary LoadSummary::*times,
                       double QuantileSummary::*q) {
  std::vector<double> values;
  for (const LoadSummary& round : cell.rounds) values.push_back(round.*times.*q);
  return median_of(std::move(values));
}

std::string speed_line(const LoadCell& cell) {
  const auto ms = [&](QuantileSummary LoadSummary::*times, double QuantileSummary::*q) {
    return median_quantile(cell, times, q) * 1e3;
  };
  return fmt::format(
      "{:<14}{:>9.1f} ({:.1f}-{:.1f}){:>9.1f}  |{:>8.0f}{:>8.0f}  |{:>7.2f}{:>8.2f}{:>8.2f}  "
      "|{:>7.2f}{:>8.2f}\n",
      cell.policy, cell.median(&LoadSummary::tokens_per_s), cell.least(&LoadSummary::tokens_per_s),
      cell.most(&LoadSummary::tokens_per_s), cell.median(&LoadSummary::user_tokens_per_s),
      ms(&LoadSummary::ttft_s, &QuantileSummary::p50), ms(&LoadSummary::ttft_s, &QuantileSummary::p95),
      ms(&LoadSummary::inter_token_s, &QuantileSummary::p50),
      ms(&LoadSummary::inter_token_s, &QuantileSummary::p95),
      ms(&LoadSummary::inter_token_s, &QuantileSummary::p99), ms(&LoadSummary::gap_s, &QuantileSummary::p50),
      ms(&LoadSummary::gap_s, &QuantileSummary::p99));
}

std::string draft_line(const LoadCell& cell) {
  const LoadSummary sum = sum_rounds(cell);
  const SpeculationStats& s = sum.speculation;
  const auto percent = [&](double seconds) { return 100.0 * per(seconds, sum.seconds); };
  return fmt::format(
      "{:<14}{:>8}{:>9}{:>9}{:>9}{:>7.2f}{:>7.2f}  |{:>7}{:>7.2f}{:>6.0f}%  "
      "|{:>6.1f}{:>7.1f}{:>7.1f}{:>6.1f}{:>6.1f}"
      "  |{:>7}{:>5}{}\n",
      cell.policy, s.drafted, s.verified, s.trimmed, s.accepted, s.accept_len(),
      cell.median(&LoadSummary::verified_per_sequence), sum.steps, cell.median(&LoadSummary::predicted_ratio),
      100.0 * cell.median(&LoadSummary::prediction_error), percent(sum.draft_s), percent(sum.forward_s),
      percent(sum.commit_s), percent(sum.loop_s), percent(sum.outside_s), sum.prefix_tokens, sum.preemptions,
      sum.cut ? "  cut" : "");
}

std::string sweep_text(const LoadReport& report) {
  const bool closed = report.arrivals == "closed";
  std::string text;
  for (size_t first = 0; first < report.cells.size(); first += report.policies.size()) {
    const LoadCell& head = report.cells[first];
    text += closed ? fmt::format("\n{:g} client(s), {} requests\n", head.load, head.n_requests)
                   : fmt::format("\n{:g} requests/s, {} requests\n", head.load, head.n_requests);
    text +=
        "policy          total tok/s (least-most)  /user  | TTFT ms p50   p95  | token ms p50   p95   p99  "
        "| update ms p50  p99\n";
    for (size_t p = 0; p < report.policies.size(); ++p) text += speed_line(report.cells[first + p]);
    text +=
        "policy         drafted verified  trimmed accepted  tok/round verified/seq | steps meas/pred err | % "
        "draft forward commit loop outside | prefix preempted\n";
    for (size_t p = 0; p < report.policies.size(); ++p) text += draft_line(report.cells[first + p]);
  }
  return text;
}

std::string burst_text(const LoadReport& report) {
  std::string text = fmt::format("\nclients over time: {}\n", fmt::join(report.burst, ", "));
  for (const BurstCell& cell : report.bursts) {
    const QuantileSummary waits = summarize_quantiles(cell.first_waits_s);
    text += fmt::format(
        "{}: TTFT p50 {:.0f} ms, most {:.0f} ms; longest wait for a token {:.0f} ms; passed over {}\n",
        cell.policy, waits.p50 * 1e3, waits.max * 1e3, cell.longest_wait_s * 1e3, cell.unanswered);
    for (size_t i = 0; !cell.rounds.empty() && i < cell.rounds.back().size(); ++i) {
      std::vector<double> speeds, verified, follow;
      for (const std::vector<PhaseSummary>& round : cell.rounds) {
        if (i >= round.size()) continue;
        speeds.push_back(round[i].tokens_per_s);
        verified.push_back(round[i].verified_per_sequence);
        follow.push_back(round[i].steps_to_follow);
      }
      text += fmt::format(
          "  {:>4} client(s){:>9.1f} tok/s   verified/seq {:.2f}   steady after {:g} step(s)\n",
          cell.rounds.back()[i].clients, median_of(speeds), median_of(verified), median_of(follow));
    }
  }
  return text;
}

std::string verdict_text(const LoadReport& report) {
  std::string text;
  if (!report.texts_comparable) {
    text += "\ntexts: not compared, this accept rule keeps their distribution only\n";
  } else if (report.texts.different() == 0) {
    text += fmt::format(
        "\ntexts: {} answers, {} tokens compared with the first run of their request: all the same\n",
        report.texts.compared(), report.texts.compared_tokens());
  } else {
    text += fmt::format("\ntexts: {} of {} answers DIFFER; {}\n", report.texts.different(),
                        report.texts.compared(), report.texts.first_difference());
  }
  for (const LoadVerdict& verdict : report.verdicts) {
    text +=
        fmt::format("load {:g}: adaptive / {} (best fixed) {:.3f}, adaptive / off {:.3f}: {}\n", verdict.load,
                    verdict.best_fixed, verdict.vs_best_fixed, verdict.vs_off,
                    verdict.pass ? "ok"
                                 : fmt::format("BELOW {:.2f}{}", report.margin,
                                               verdict.some_fixed_wins ? " or off although drafts pay" : ""));
  }
  return text;
}

Json quantiles_json(const QuantileSummary& times) {
  return {{"n", times.n},     {"mean", times.mean}, {"p50", times.p50},
          {"p95", times.p95}, {"p99", times.p99},   {"max", times.max}};
}

Json speculation_json(const SpeculationStats& stats) {
  return {{"rounds", stats.rounds},   {"drafted", stats.drafted},   {"verified", stats.verified},
          {"trimmed", stats.trimmed}, {"accepted", stats.accepted}, {"tokens_per_round", stats.accept_len()}};
}

Json summary_json(const LoadSummary& s) {
  return {{"seconds", s.seconds},
          {"cut", s.cut},
          {"tokens", s.tokens},
          {"tokens_per_s", s.tokens_per_s},
          {"user_tokens_per_s", s.user_tokens_per_s},
          {"answers", s.answers},
          {"answers_per_s", s.answers_per_s},
          {"ttft_s", quantiles_json(s.ttft_s)},
          {"inter_token_s", quantiles_json(s.inter_token_s)},
          {"update_gap_s", quantiles_json(s.gap_s)},
          {"speculation", speculation_json(s.speculation)},
          {"steps", s.steps},
          {"prompt_tokens", s.prompt_tokens},
          {"prefix_tokens", s.prefix_tokens},
          {"preemptions", s.preemptions},
          {"mean_decode_sequences", s.mean_decode_sequences},
          {"verified_per_sequence", s.verified_per_sequence},
          {"measured_over_predicted", s.predicted_ratio},
          {"prediction_error", s.prediction_error},
          {"draft_s", s.draft_s},
          {"forward_s", s.forward_s},
          {"commit_s", s.commit_s},
          {"loop_s", s.loop_s},
          {"outside_s", s.outside_s}};
}

Json cell_json(const LoadCell& cell, bool closed) {
  Json json = {{closed ? "concurrency" : "rate", cell.load},
               {"policy", cell.policy},
               {"requests", cell.n_requests},
               {"tokens_per_s",
                {{"median", cell.median(&LoadSummary::tokens_per_s)},
                 {"min", cell.least(&LoadSummary::tokens_per_s)},
                 {"max", cell.most(&LoadSummary::tokens_per_s)}}},
               {"user_tokens_per_s", cell.median(&LoadSummary::user_tokens_per_s)}};
  for (const LoadSummary& round : cell.rounds) json["rounds"].push_back(summary_json(round));
  return json;
}

Json burst_json(const BurstCell& cell) {
  Json json = {{"policy", cell.policy},
               {"ttft_s", quantiles_json(summarize_quantiles(cell.first_waits_s))},
               {"longest_wait_s", cell.longest_wait_s},
               {"passed_over", cell.unanswered}};
  for (const std::vector<PhaseSummary>& round : cell.rounds) {
    Json phases = Json::array();
    for (const PhaseSummary& phase : round) {
      phases.push_back({{"clients", phase.clients},
                        {"seconds", phase.seconds},
                        {"tokens_per_s", phase.tokens_per_s},
                        {"verified_per_sequence", phase.verified_per_sequence},
                        {"steps_to_follow", phase.steps_to_follow}});
    }
    json["rounds"].push_back(phases);
  }
  json["steps"] = Json::array();  // of the last round
  for (const LoadStep& step : cell.steps) {
    json["steps"].push_back({{"end_s", step.end_s},
                             {"step_s", step.step_s},
                             {"predicted_s", step.predicted_s},
                             {"clients", step.clients},
                             {"decode_sequences", step.decode_sequences},
                             {"prefill_rows", step.prefill_rows},
                             {"drafted", step.drafted},
                             {"verified", step.verified},
                             {"accepted", step.accepted},
                             {"committed", step.committed}});
  }
  return json;
}

}  // namespace

std::string load_report_text(const LoadReport& report) {
  std::string text = fmt::format(
      "{}, drafter {}{}, {} kernels, {} thread(s), {} arrivals, {} round(s), answers of {}-{} tokens, seed "
      "{}\n",
      report.model, report.drafter, report.random_drafter ? " (random weights)" : "", report.isa,
      report.threads, report.arrivals, report.rounds, report.least_tokens, report.most_tokens, report.seed);
  text += report.burst.empty() ? sweep_text(report) : burst_text(report);
  return text + verdict_text(report);
}

Json cost_table_json(const CostTable& table) {
  Json json = {{"verify", Json::array()}, {"draft", Json::array()}};
  for (const CostPoint& point : table.verify)
    json["verify"].push_back({{"n", point.n}, {"seconds", point.seconds}});
  for (const CostPoint& point : table.draft)
    json["draft"].push_back({{"n", point.n}, {"seconds", point.seconds}});
  if (!table.draft_short.empty()) {
    json["draft_length"] = table.draft_length;
    for (const CostPoint& point : table.draft_short) {
      json["draft_short"].push_back({{"n", point.n}, {"seconds", point.seconds}});
    }
  }
  json["context_s"] = table.context_s;
  json["row_context_s"] = table.row_context_s;
  json["overhead_s"] = table.overhead_s;
  return json;
}

Json load_report_json(const LoadReport& report) {
  const bool closed = report.arrivals == "closed";
  Json json = {{"bench", "load"},
               {"model", report.model},
               {"drafter", report.drafter},
               {"kind", report.kind},
               {"random_drafter", report.random_drafter},
               {"isa", report.isa},
               {"threads", report.threads},
               {"arrivals", report.arrivals},
               {"accept_rule", report.accept_rule},
               {"temperature", report.temperature},
               {"seed", report.seed},
               {"rounds", report.rounds},
               {"max_sequences", report.max_sequences},
               {"context_length", report.context_length},
               {"answer_tokens", {report.least_tokens, report.most_tokens}},
               {"sources", report.sources},
               {"policies", report.policies},
               {"seconds", report.seconds},
               {"costs", cost_table_json(report.costs)}};
  json["texts"] = {{"comparable", report.texts_comparable},
                   {"compared", report.texts.compared()},
                   {"compared_tokens", report.texts.compared_tokens()},
                   {"different", report.texts.different()}};
  json["cells"] = Json::array();
  for (const LoadCell& cell : report.cells) json["cells"].push_back(cell_json(cell, closed));
  json["verdicts"] = Json::array();
  for (const LoadVerdict& verdict : report.verdicts) {
    json["verdicts"].push_back({{closed ? "concurrency" : "rate", verdict.load},
                                {"best_fixed", verdict.best_fixed},
                                {"adaptive_over_best_fixed", verdict.vs_best_fixed},
                                {"adaptive_over_off", verdict.vs_off},
                                {"some_fixed_wins", verdict.some_fixed_wins},
                                {"margin", report.margin},
                                {"pass", verdict.pass}});
  }
  if (report.burst.empty()) return json;
  json["burst"] = report.burst;
  json["bursts"] = Json::array();
  for (const BurstCell& cell : report.bursts) json["bursts"].push_back(burst_json(cell));
  return json;
}

}  // namespace dspark::cli
