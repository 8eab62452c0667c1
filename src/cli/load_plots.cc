#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "cli/load_report.h"
#include "cli/svg_chart.h"
#include "formats/atomic_file.h"

namespace dspark::cli {
namespace {

Status write_svg(const std::filesystem::path& path, const Chart& chart) {
  const std::string text = chart_svg(chart);
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path.string()));
  DSPARK_RETURN_IF_ERROR(file.write({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  return file.commit();
}

Chart pareto_chart(const LoadReport& report) {
  Chart chart;
  chart.title = "Throughput against speed";
  chart.x_label = "tokens/s of one user";
  chart.y_label = "tokens/s of all";
  for (const std::string& policy : report.policies) {
    ChartLine line;
    line.name = policy;
    line.emphasised = policy == "adaptive";
    line.dashed = policy == "off";
    for (const LoadCell& cell : report.cells) {
      if (cell.policy != policy) continue;
      line.points.emplace_back(cell.median(&LoadSummary::user_tokens_per_s),
                               cell.median(&LoadSummary::tokens_per_s));
      line.labels.push_back(fmt::format("{:g}", cell.load));
    }
    chart.lines.push_back(std::move(line));
  }
  fit_axes(chart, true);
  return chart;
}

Chart latency_chart(const LoadReport& report) {
  double highest = 0.0;
  for (const LoadCell& cell : report.cells) highest = std::max(highest, cell.load);
  Chart chart;
  chart.title = fmt::format("Time per token at load {:g}", highest);
  chart.x_label = "ms, up to the slowest policy's 99th percentile";
  chart.y_label = "share of tokens";
  double farthest_ms = 0.0;
  for (const LoadCell& cell : report.cells) {
    if (cell.load != highest || cell.inter_token_s.empty()) continue;
    farthest_ms = std::max(farthest_ms, quantile_of_sorted(cell.inter_token_s, 0.99) * 1e3);
  }
  for (const LoadCell& cell : report.cells) {
    if (cell.load != highest) continue;
    ChartLine line;
    line.name = cell.policy;
    line.markers = false;
    line.emphasised = cell.policy == "adaptive";
    line.dashed = cell.policy == "off";
    for (size_t i = 0; i < cell.inter_token_s.size(); ++i) {
      const double ms = cell.inter_token_s[i] * 1e3;
      const double share =
          static_cast<double>(i) / static_cast<double>(cell.inter_token_s.size() - 1 + (i == 0));
      if (ms <= farthest_ms) line.points.emplace_back(ms, std::min(1.0, share));
    }
    chart.lines.push_back(std::move(line));
  }
  if (farthest_ms > 0.0) {
    chart.x_step = tick_step(farthest_ms, 8);
    chart.x_max = farthest_ms;
  }
  return chart;
}

/// Clients and the budget, the drafts that a step verifies for all of them together, over time: both are
/// numbers per step, so one axis serves both.
Chart burst_chart(const BurstCell& cell) {
  Chart chart;
  chart.title = "Load and verified drafts, " + cell.policy;
  chart.x_label = "seconds";
  chart.y_label = "clients; drafts per step";
  ChartLine clients, budget;
  for (const LoadStep& step : cell.steps) {
    clients.points.emplace_back(step.end_s, step.clients);
    if (step.decode_sequences == 0) continue;
    // A running mean over some steps: single steps jump.
    const double now = step.verified;
    const double last = budget.points.empty() ? now : budget.points.back().second;
    budget.points.emplace_back(step.end_s, last + 0.3 * (now - last));
  }
  clients.name = "clients";
  clients.markers = budget.markers = false;
  clients.dashed = true;
  budget.name = "drafts per step";
  budget.emphasised = true;
  chart.lines = {std::move(clients), std::move(budget)};
  fit_axes(chart, true);
  return chart;
}

}  // namespace

Status write_load_plots(const std::string& folder, const LoadReport& report) {
  const std::filesystem::path path(folder);
  std::error_code ec;
  std::filesystem::create_directories(path, ec);
  if (ec) return invalid_argument("--plot: " + folder + ": " + ec.message());
  for (const BurstCell& cell : report.bursts) {
    std::string name = cell.policy;
    std::ranges::replace(name, ':', '-');
    DSPARK_RETURN_IF_ERROR(write_svg(path / ("burst-" + name + ".svg"), burst_chart(cell)));
  }
  if (report.cells.empty()) return ok_status();
  DSPARK_RETURN_IF_ERROR(write_svg(path / "pareto.svg", pareto_chart(report)));
  return write_svg(path / "latency.svg", latency_chart(report));
}

}  // namespace dspark::cli
