#include "cli/eval_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "cli/spec_report.h"
#include "train_data/filters.h"

namespace dspark::cli {
namespace {

using Json = nlohmann::ordered_json;

bool loops(const EvalAnswer& answer) {
  return repeated_ngram_share(answer.tokens, kLoopNgram) > kLoopShare;
}

/// A number or a dash.
std::string cell(double value, int width, int digits) {
  return value < 0.0 ? fmt::format("{:>{}}", "-", width) : fmt::format("{:{}.{}f}", value, width, digits);
}

Json number_or_null(double value) {
  return value < 0.0 ? Json() : Json(value);
}

double tau(const SpeculationStats& stats) {
  return stats.rounds > 0 ? stats.accept_len() : -1.0;
}

double baseline_tau(const std::optional<SpeculationStats>& stats) {
  return stats ? tau(*stats) : -1.0;
}

double metric(const EvalGroup& group, double CalibrationMetrics::*member) {
  return group.is_calibrated() ? group.calibration.summary().*member : -1.0;
}

int widest_position(const EvalReport& report) {
  int n = 0;
  for (const EvalTaskReport& task : report.tasks) n = std::max(n, positions_seen(task.all.stats));
  return n;
}

size_t name_width(const EvalReport& report) {
  size_t width = 6;
  for (const EvalTaskReport& task : report.tasks) width = std::max(width, task.name.size());
  return width;
}

std::string task_row(const std::string& name, size_t width, const std::string& counts,
                     const std::vector<double>& numbers, bool has_baseline) {
  std::string row = fmt::format("{:<{}}{}", name, width, counts);
  row += cell(numbers[0], 8, 2) + cell(numbers[1], 10, 2) + cell(numbers[2], 9, 2);
  row += cell(numbers[3], 8, 3) + cell(numbers[4], 8, 3) + cell(numbers[5], 8, 3);
  if (has_baseline) row += cell(numbers[6], 10, 2) + cell(numbers[7], 10, 2);
  return row + "\n";
}

/// tau of all and of fresh answers, verify rate, ECE, AUROC, Brier, the baseline's taus.
std::vector<double> numbers_of(const EvalTaskReport& task) {
  return {tau(task.all.stats),
          tau(task.fresh.stats),
          task.all.stats.rounds > 0 ? task.all.stats.verify_rate() : -1.0,
          metric(task.all, &CalibrationMetrics::ece),
          metric(task.all, &CalibrationMetrics::auroc),
          metric(task.all, &CalibrationMetrics::brier),
          baseline_tau(task.baseline_all),
          baseline_tau(task.baseline_fresh)};
}

std::vector<double> macro_numbers(const EvalReport& report) {
  std::vector<double> numbers(8);
  for (size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = report.macro([i](const EvalTaskReport& task) { return numbers_of(task)[i]; });
  }
  return numbers;
}

std::string task_table(const EvalReport& report) {
  const size_t width = name_width(report) + 2;
  const bool has_baseline = !report.head.baseline.empty();
  std::string text = fmt::format("{:<{}}{:>8}{:>7}{:>8}{:>10}{:>9}{:>8}{:>8}{:>8}", "task", width, "answers",
                                 "loops", "tau", "no loops", "verify", "ECE", "AUROC", "Brier");
  if (has_baseline) text += fmt::format("{:>10}{:>10}", report.head.baseline, "no loops");
  text += "\n";
  for (const EvalTaskReport& task : report.tasks) {
    text += task_row(task.name, width, fmt::format("{:8}{:7}", task.all.answers, task.n_looping()),
                     numbers_of(task), has_baseline);
  }
  return text + task_row("macro", width, std::string(15, ' '), macro_numbers(report), has_baseline);
}

std::string position_table(const char* title, const EvalReport& report,
                           double (SpeculationStats::*rate)(int) const) {
  const size_t width = name_width(report) + 2;
  const int n = widest_position(report);
  std::string text = fmt::format("\n{}\n{:<{}}", title, "position", width);
  for (int j = 0; j < n; ++j) text += fmt::format("{:6}", j + 1);
  text += "\n";
  for (const EvalTaskReport& task : report.tasks) {
    text += fmt::format("{:<{}}", task.name, width);
    for (int j = 0; j < n; ++j) text += cell((task.all.stats.*rate)(j), 6, 2);
    text += "\n";
  }
  text += fmt::format("{:<{}}", "macro", width);
  for (int j = 0; j < n; ++j) {
    text += cell(report.macro([&](const EvalTaskReport& task) { return (task.all.stats.*rate)(j); }), 6, 2);
  }
  return text + "\n";
}

std::string calibration_table(const EvalGroup& group) {
  if (!group.is_calibrated()) return {};
  std::string text =
      "\ncalibration of the survival of prefixes, all tasks\nposition   rounds  predicted  observed     ECE  "
      " AUROC   Brier\n";
  for (int32_t j = 0; j < group.calibration.n_positions(); ++j) {
    const CalibrationMetrics m = group.calibration.at(j);
    text += fmt::format("{:8}{:9}{:11.3f}{:10.3f}{:8.3f}", j + 1, m.count, m.predicted, m.observed, m.ece) +
            cell(m.auroc, 8, 3) + fmt::format("{:8.3f}\n", m.brier);
  }
  return text;
}

Json metrics_json(const CalibrationMetrics& m) {
  return {{"count", m.count},
          {"ece", m.ece},
          {"auroc", number_or_null(m.auroc)},
          {"brier", m.brier},
          {"predicted", m.predicted},
          {"observed", m.observed}};
}

Json group_json(const EvalGroup& group) {
  Json json = {{"answers", group.answers}, {"tokens", group.tokens}};
  json.update(speculation_numbers(group.stats));
  if (!group.is_calibrated()) return json;
  Json positions = Json::array();
  for (int32_t j = 0; j < group.calibration.n_positions(); ++j) {
    positions.push_back(metrics_json(group.calibration.at(j)));
  }
  json["calibration"] = {{"summary", metrics_json(group.calibration.summary())}, {"positions", positions}};
  return json;
}

Json macro_json(const EvalReport& report) {
  static constexpr const char* kNames[] = {
      "tau",          "tau_without_loops",         "verify_rate", "ece", "auroc", "brier",
      "baseline_tau", "baseline_tau_without_loops"};
  const std::vector<double> numbers = macro_numbers(report);
  const size_t n = report.head.baseline.empty() ? 6 : 8;
  Json json;
  for (size_t i = 0; i < n; ++i) json[kNames[i]] = number_or_null(numbers[i]);
  Json survival = Json::array(), conditional = Json::array();
  for (int j = 0; j < widest_position(report); ++j) {
    survival.push_back(number_or_null(
        report.macro([j](const EvalTaskReport& task) { return task.all.stats.accept_rate_at(j); })));
    conditional.push_back(number_or_null(report.macro(
        [j](const EvalTaskReport& task) { return task.all.stats.conditional_acceptance_at(j); })));
  }
  json["accept_rate_by_position"] = survival;
  json["conditional_acceptance_by_position"] = conditional;
  return json;
}

}  // namespace

void EvalGroup::add(const EvalAnswer& answer) {
  ++answers;
  tokens += static_cast<int64_t>(answer.tokens.size());
  add_rounds(answer, stats);
  add_calibration(answer, calibration);
}

EvalGroup EvalReport::total() const {
  EvalGroup sum;
  for (const EvalTaskReport& task : tasks) {
    sum.answers += task.all.answers;
    sum.tokens += task.all.tokens;
    sum.stats.add(task.all.stats);
    sum.calibration.add(task.all.calibration);
  }
  return sum;
}

EvalReport make_report(EvalHead head, const std::vector<TaskAnswers>& answers,
                       const std::vector<TaskAnswers>& baseline) {
  EvalReport report;
  report.head = std::move(head);
  for (size_t t = 0; t < answers.size(); ++t) {
    EvalTaskReport task;
    task.name = answers[t].name;
    for (const EvalAnswer& answer : answers[t].answers) {
      task.all.add(answer);
      if (!loops(answer)) task.fresh.add(answer);
    }
    if (!baseline.empty()) {
      task.baseline_all.emplace();
      task.baseline_fresh.emplace();
      for (const EvalAnswer& answer : baseline[t].answers) {
        add_rounds(answer, *task.baseline_all);
        if (!loops(answer)) add_rounds(answer, *task.baseline_fresh);
      }
    }
    report.tasks.push_back(std::move(task));
  }
  return report;
}

std::string report_text(const EvalReport& report) {
  const EvalHead& head = report.head;
  const EvalGroup total = report.total();
  std::string text = fmt::format(
      "{} with {} ({}), {}, {} rule, temperature {}, at most {} tokens\n"
      "{} answers, {} tokens in {:.1f} s ({:.1f} tok/s, batch {})\n\n",
      head.model, head.drafter, head.kind, head.policy, head.accept_rule, head.temperature, head.max_tokens,
      total.answers, total.tokens, head.seconds,
      head.seconds > 0 ? static_cast<double>(total.tokens) / head.seconds : 0.0, head.batch);
  text += task_table(report);
  text +=
      fmt::format("\ndrafted {}, trimmed {}, verified {}, accepted {} in {} rounds\n", total.stats.drafted,
                  total.stats.trimmed, total.stats.verified, total.stats.accepted, total.stats.rounds);
  if (widest_position(report) == 0) return text;
  text += position_table(
      "survival: of the rounds that verified a position, the share that accepted every draft up to it",
      report, &SpeculationStats::accept_rate_at);
  text += position_table("conditional acceptance: the same among rounds that accepted all drafts before it",
                         report, &SpeculationStats::conditional_acceptance_at);
  return text + calibration_table(total);
}

Json report_json(const EvalReport& report) {
  const EvalHead& head = report.head;
  Json json = {{"model", head.model},
               {"drafter", head.drafter},
               {"kind", head.kind},
               {"policy", head.policy},
               {"accept_rule", head.accept_rule},
               {"temperature", head.temperature},
               {"max_tokens", head.max_tokens},
               {"seed", head.seed},
               {"batch", head.batch},
               {"seconds", head.seconds}};
  if (!head.baseline.empty()) json["baseline"] = head.baseline;
  Json tasks = Json::array();
  for (const EvalTaskReport& task : report.tasks) {
    Json one = {{"task", task.name},
                {"looping", task.n_looping()},
                {"all", group_json(task.all)},
                {"without_loops", group_json(task.fresh)}};
    if (task.baseline_all) {
      one["baseline"] = {{"all", speculation_numbers(*task.baseline_all)},
                         {"without_loops", speculation_numbers(*task.baseline_fresh)}};
    }
    tasks.push_back(std::move(one));
  }
  json["tasks"] = std::move(tasks);
  json["macro"] = macro_json(report);
  json["total"] = group_json(report.total());
  return json;
}

}  // namespace dspark::cli
