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

/// The median over rounds of what the cost model said of one kind of steps.
double median_prediction(const LoadCell& cell, PredictionSummary LoadSummary::*steps,
                         double PredictionSummary::*value) {
  std::vector<double> values;
  for (const LoadSummary& round : cell.rounds) {
    if ((round.*steps).steps > 0) values.push_back(round.*steps.*value);
  }
  return median_of(std::move(values));
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
      "{:<14}{:>8}{:>9}{:>9}{:>9}{:>7.2f}{:>7.2f}  |{:>7}{:>7.2f}{:>6.0f}%{:>7.2f}{:>6.0f}%  "
      "|{:>6.1f}{:>7.1f}{:>7.1f}{:>6.1f}{:>6.1f}"
      "  |{:>7}{:>5}{}\n",
      cell.policy, s.drafted, s.verified, s.trimmed, s.accepted, s.accept_len(),
      cell.median(&LoadSummary::verified_per_sequence), sum.steps,
      median_prediction(cell, &LoadSummary::decode_steps, &PredictionSummary::ratio),
      100.0 * median_prediction(cell, &LoadSummary::decode_steps, &PredictionSummary::error),
      median_prediction(cell, &LoadSummary::prompt_steps, &PredictionSummary::ratio),
      100.0 * median_prediction(cell, &LoadSummary::prompt_steps, &PredictionSummary::error),
      percent(sum.draft_s), percent(sum.forward_s), percent(sum.commit_s), percent(sum.loop_s),
      percent(sum.outside_s), sum.prefix_tokens, sum.preemptions, sum.cut ? "  cut" : "");
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
        "policy         drafted verified  trimmed accepted  tok/round verified/seq | steps meas/pred err "
        "beside prompts err | % draft forward commit loop outside | prefix preempted\n";
    for (size_t p = 0; p < report.policies.size(); ++p) text += draft_line(report.cells[first + p]);
  }
  return text;
}

std::string steps_text(double steps) {
  return steps < 0.0 ? "never" : fmt::format("after {:g} step(s)", steps);
}

/// "0.985 +- 0.006 (0.981-0.990)": standard error, single rounds; what is not known is left out.
std::string ratio_text(double ratio, const RatioSpread& spread, int32_t rounds) {
  std::string text = fmt::format("{:.3f}", ratio);
  if (spread.error >= 0.0) text += fmt::format(" +- {:.3f}", spread.error);
  if (rounds > 1) text += fmt::format(" ({:.3f}-{:.3f})", spread.least, spread.most);
  return text;
}

std::string burst_text(const LoadReport& report) {
  std::string text = fmt::format("\nclients over time: {}\n", fmt::join(report.burst, ", "));
  for (const BurstCell& cell : report.bursts) {
    const QuantileSummary waits = summarize_quantiles(cell.first_waits_s);
    text += fmt::format(
        "{}: TTFT p50 {:.0f} ms, most {:.0f} ms; longest wait for a token {:.0f} ms; passed over {}\n",
        cell.policy, waits.p50 * 1e3, waits.max * 1e3, cell.longest_wait_s() * 1e3, cell.unanswered);
    for (size_t i = 0; i < report.burst.size(); ++i) {
      text += fmt::format(
          "  {:>4} client(s){:>9.1f} tok/s   verified/seq {:.2f}   steady {}   longest wait {:.0f} ms\n",
          report.burst[i], cell.median(i, &PhaseSummary::tokens_per_s),
          cell.median(i, &PhaseSummary::verified_per_sequence), steps_text(cell.steps_to_follow(i)),
          cell.longest_wait_s(i) * 1e3);
    }
  }
  return text;
}

std::string texts_text(const LoadReport& report) {
  const TextCheck& texts = report.texts;
  if (!report.texts_comparable) {
    return "\ntexts: not compared, this accept rule keeps their distribution only\n";
  }
  if (texts.different() > 0) {
    return fmt::format("\ntexts: {} of {} answers DIFFER; {}\n", texts.different(), texts.compared(),
                       texts.first_difference());
  }
  return fmt::format("\ntexts: {} answers, {} tokens compared with {}: all the same\n", texts.compared(),
                     texts.compared_tokens(),
                     report.single_runs ? "single runs" : "the first run of their request");
}

std::string verdict_text(const LoadReport& report) {
  std::string text;
  for (const LoadVerdict& v : report.verdicts) {
    text += fmt::format("load {:g}: adaptive / {} (best fixed) {}, adaptive / off {}: {}\n", v.load,
                        v.best_fixed, ratio_text(v.vs_best_fixed, v.vs_best_fixed_spread, report.rounds),
                        ratio_text(v.vs_off, v.vs_off_spread, report.rounds),
                        v.pass ? "ok"
                               : fmt::format("BELOW {:.2f}{}", report.margin,
                                             v.some_fixed_wins ? " or off although drafts pay" : ""));
  }
  for (size_t i = 0; i < report.phase_verdicts.size(); ++i) {
    const PhaseVerdict& v = report.phase_verdicts[i];
    text += fmt::format(
        "phase {}, {} client(s): adaptive / {} (best fixed) {}, adaptive / off {}; budget steady {}, longest "
        "wait {:.0f} ms\n",
        i + 1, v.clients, v.best_fixed, ratio_text(v.vs_best_fixed, v.vs_best_fixed_spread, report.rounds),
        ratio_text(v.vs_off, v.vs_off_spread, report.rounds), steps_text(v.steps_to_follow),
        v.longest_wait_s * 1e3);
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

Json prediction_json(const PredictionSummary& steps) {
  return {
      {"steps", steps.steps}, {"measured_over_predicted", steps.ratio}, {"prediction_error", steps.error}};
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
          {"measured_over_predicted", s.decode_steps.ratio},
          {"prediction_error", s.decode_steps.error},
          {"steps_without_prompts", prediction_json(s.decode_steps)},
          {"steps_with_prompts", prediction_json(s.prompt_steps)},
          {"draft_s", s.draft_s},
          {"forward_s", s.forward_s},
          {"commit_s", s.commit_s},
          {"loop_s", s.loop_s},
          {"outside_s", s.outside_s}};
}

/// NAME, NAME_error (null: unknown), NAME_rounds: the ratios of single rounds.
void add_ratio(Json& json, const std::string& name, double ratio, const RatioSpread& spread) {
  json[name] = ratio;
  json[name + "_error"] = spread.error < 0.0 ? Json() : Json(spread.error);
  json[name + "_rounds"] = {
      {"median", spread.median}, {"min", spread.least}, {"max", spread.most}, {"turns", spread.n_pieces}};
}

Json verdict_json(const LoadVerdict& verdict, bool closed, double margin) {
  Json json = {{closed ? "concurrency" : "rate", verdict.load}, {"best_fixed", verdict.best_fixed}};
  add_ratio(json, "adaptive_over_best_fixed", verdict.vs_best_fixed, verdict.vs_best_fixed_spread);
  add_ratio(json, "adaptive_over_off", verdict.vs_off, verdict.vs_off_spread);
  json["some_fixed_wins"] = verdict.some_fixed_wins;
  json["margin"] = margin;
  json["pass"] = verdict.pass;
  return json;
}

Json phase_verdict_json(const PhaseVerdict& verdict) {
  Json json = {{"clients", verdict.clients}, {"best_fixed", verdict.best_fixed}};
  add_ratio(json, "adaptive_over_best_fixed", verdict.vs_best_fixed, verdict.vs_best_fixed_spread);
  add_ratio(json, "adaptive_over_off", verdict.vs_off, verdict.vs_off_spread);
  json["steps_to_follow"] = verdict.steps_to_follow;
  json["longest_wait_s"] = verdict.longest_wait_s;
  return json;
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
               {"longest_wait_s", cell.longest_wait_s()},
               {"passed_over", cell.unanswered}};
  for (const std::vector<PhaseSummary>& round : cell.rounds) {
    Json phases = Json::array();
    for (const PhaseSummary& phase : round) {
      phases.push_back({{"clients", phase.clients},
                        {"seconds", phase.seconds},
                        {"tokens_per_s", phase.tokens_per_s},
                        {"verified_per_sequence", phase.verified_per_sequence},
                        {"steps_to_follow", phase.steps_to_follow},
                        {"longest_wait_s", phase.longest_wait_s}});
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
  return text + texts_text(report) + verdict_text(report);
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
  for (const ContextPoint& point : table.context_curve) {
    json["context_curve"].push_back({point.positions, point.counted});
  }
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
  if (report.remembered) {
    json["remembered"] = Json::array();
    for (const AcceptanceCount& seen : report.remembered->acceptance) {
      if (seen.tries > 0.0) json["remembered"].push_back({{"tries", seen.tries}, {"hits", seen.hits}});
    }
  }
  json["texts"] = {{"comparable", report.texts_comparable},
                   {"reference", report.single_runs ? "single runs" : "first runs"},
                   {"compared", report.texts.compared()},
                   {"compared_tokens", report.texts.compared_tokens()},
                   {"different", report.texts.different()}};
  json["cells"] = Json::array();
  for (const LoadCell& cell : report.cells) json["cells"].push_back(cell_json(cell, closed));
  json["verdicts"] = Json::array();
  for (const LoadVerdict& verdict : report.verdicts) {
    json["verdicts"].push_back(verdict_json(verdict, closed, report.margin));
  }
  if (report.burst.empty()) return json;
  json["burst"] = report.burst;
  json["bursts"] = Json::array();
  for (const BurstCell& cell : report.bursts) json["bursts"].push_back(burst_json(cell));
  json["phase_verdicts"] = Json::array();
  for (const PhaseVerdict& verdict : report.phase_verdicts) {
    json["phase_verdicts"].push_back(phase_verdict_json(verdict));
  }
  return json;
}

}  // namespace dspark::cli
