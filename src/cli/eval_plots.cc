#include "cli/eval_plots.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <span>

#include "cli/svg_chart.h"
#include "formats/atomic_file.h"
#include "speculate/confidence.h"

namespace dspark::cli {
namespace {

constexpr int kBins = 20;

Status write_file(const std::filesystem::path& path, const std::string& text) {
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path.string()));
  DSPARK_RETURN_IF_ERROR(file.write({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  return file.commit();
}

/// A rate by position of one set of rounds.
template <typename Rate>
ChartLine position_line(const std::string& name, Rate&& rate) {
  ChartLine line;
  line.name = name;
  for (int j = 0; j < kMaxDraftTokens; ++j) {
    const double value = rate(j);
    if (value >= 0.0) line.points.emplace_back(j + 1, value);
  }
  return line;
}

Chart position_chart(const EvalReport& report, const std::string& title,
                     double (SpeculationStats::*rate)(int) const) {
  Chart chart;
  chart.title = title;
  chart.x_label = "draft position";
  chart.y_label = "share of rounds";
  chart.x_min = 1;
  for (const EvalTaskReport& task : report.tasks) {
    chart.lines.push_back(position_line(task.name, [&](int j) { return (task.all.stats.*rate)(j); }));
  }
  ChartLine macro = position_line("mean of tasks", [&](int j) {
    return report.macro([&](const EvalTaskReport& task) { return (task.all.stats.*rate)(j); });
  });
  macro.emphasised = true;
  for (const ChartLine& line : chart.lines) {
    if (!line.points.empty()) chart.x_max = std::max(chart.x_max, line.points.back().first);
  }
  chart.x_max = std::max(chart.x_max, 2.0);
  chart.x_step = chart.x_max <= 16 ? 1 : 8;
  chart.lines.push_back(std::move(macro));
  if (!report.head.baseline.empty()) {
    ChartLine baseline = position_line(report.head.baseline + " (mean)", [&](int j) {
      return report.macro([&](const EvalTaskReport& task) { return (*task.baseline_all.*rate)(j); });
    });
    baseline.dashed = true;
    std::erase_if(baseline.points, [&](const auto& point) { return point.first > chart.x_max; });
    chart.lines.push_back(std::move(baseline));
  }
  return chart;
}

struct Bin {
  int64_t count = 0;
  double predicted = 0.0;
  double observed = 0.0;
};

/// Predictions of all positions and rounds in equal bins.
std::array<Bin, kBins> reliability_bins(const std::vector<TaskAnswers>& tasks) {
  std::array<Bin, kBins> bins;
  std::vector<double> products;
  for (const TaskAnswers& task : tasks) {
    for (const EvalAnswer& answer : task.answers) {
      if (!answer.has_confidence()) continue;
      size_t begin = 0;
      for (const RoundRecord& round : answer.rounds) {
        products.resize(static_cast<size_t>(round.proposal_length));
        survival(std::span(answer.confidence).subspan(begin, products.size()), std::span(products));
        begin += products.size();
        for (size_t j = 0; j < products.size(); ++j) {
          Bin& bin = bins[std::min<size_t>(kBins - 1, static_cast<size_t>(products[j] * kBins))];
          ++bin.count;
          bin.predicted += products[j];
          bin.observed += round.accepted > static_cast<int32_t>(j) ? 1.0 : 0.0;
        }
      }
    }
  }
  return bins;
}

Chart reliability_chart(const std::vector<TaskAnswers>& answers) {
  Chart chart;
  chart.title = "Reliability of predicted survival";
  chart.x_label = "predicted; bars: number of predictions";
  chart.y_label = "observed";
  chart.x_step = 0.2;
  chart.diagonal = true;
  ChartLine line;
  line.name = "all positions";
  line.emphasised = true;
  const std::array<Bin, kBins> bins = reliability_bins(answers);
  for (size_t b = 0; b < bins.size(); ++b) {
    const auto n = static_cast<double>(bins[b].count);
    chart.bars.push_back({static_cast<double>(b) / kBins, 1.0 / kBins, n});
    if (bins[b].count > 0) line.points.emplace_back(bins[b].predicted / n, bins[b].observed / n);
  }
  chart.lines.push_back(std::move(line));
  return chart;
}

}  // namespace

Status write_plots(const std::string& folder, const EvalReport& report,
                   const std::vector<TaskAnswers>& answers) {
  const std::filesystem::path path(folder);
  std::error_code ec;
  std::filesystem::create_directories(path, ec);
  if (ec) return invalid_argument("--plots: " + folder + ": " + ec.message());
  DSPARK_RETURN_IF_ERROR(
      write_file(path / "survival.svg", chart_svg(position_chart(report, "Survival of drafts by position",
                                                                 &SpeculationStats::accept_rate_at))));
  DSPARK_RETURN_IF_ERROR(
      write_file(path / "conditional.svg",
                 chart_svg(position_chart(report, "Acceptance given that all drafts before were accepted",
                                          &SpeculationStats::conditional_acceptance_at))));
  if (!report.total().is_calibrated()) return ok_status();
  return write_file(path / "reliability.svg", chart_svg(reliability_chart(answers)));
}

}  // namespace dspark::cli
