#include "cli/train_plot.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/svg_chart.h"
#include "formats/atomic_file.h"

namespace dspark::cli {
namespace {

constexpr size_t kMostPoints = 160;  // of a line; more steps are averaged

/// The cells of one line, without quotes or escapes: the files hold names and numbers only.
std::vector<std::string_view> cells_of(std::string_view line) {
  std::vector<std::string_view> cells;
  while (true) {
    const size_t comma = line.find(',');
    cells.push_back(line.substr(0, comma));
    if (comma == std::string_view::npos) return cells;
    line.remove_prefix(comma + 1);
  }
}

/// Columns of a run's file that are drawn.
struct RunCurves {
  std::vector<double> anchors, tau, loss;
};

Result<RunCurves> read_curves(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!file || !std::getline(file, line)) return not_found(path + ": cannot be read");
  const std::vector<std::string_view> names = cells_of(line);
  RunCurves curves;
  const std::pair<std::string_view, std::vector<double>*> wanted[] = {
      {"anchors", &curves.anchors}, {"tau_prob", &curves.tau}, {"loss", &curves.loss}};
  size_t columns[std::size(wanted)];
  for (size_t i = 0; i < std::size(wanted); ++i) {
    const auto found = std::find(names.begin(), names.end(), wanted[i].first);
    if (found == names.end()) return corrupt_data(path + ": has no column " + std::string(wanted[i].first));
    columns[i] = static_cast<size_t>(found - names.begin());
  }
  for (int64_t row = 2; std::getline(file, line); ++row) {
    const std::vector<std::string_view> cells = cells_of(line);
    for (size_t i = 0; i < std::size(wanted); ++i) {
      const std::string_view cell = columns[i] < cells.size() ? cells[columns[i]] : std::string_view();
      double value = 0.0;
      const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
      if (error != std::errc() || end != cell.data() + cell.size()) {
        return corrupt_data(path + ": line " + std::to_string(row) + ": want a number for " +
                            std::string(wanted[i].first) + ", found '" + std::string(cell) + "'");
      }
      wanted[i].second->push_back(value);
    }
  }
  return curves;
}

/// Means of neighbours, so that a line has at most kMostPoints points. Anchors in thousands.
ChartLine line_of(std::string name, const std::vector<double>& anchors, const std::vector<double>& values) {
  ChartLine line;
  line.name = std::move(name);
  const size_t per_point = (values.size() + kMostPoints - 1) / kMostPoints;
  line.markers = per_point == 1 && values.size() <= 40;
  for (size_t begin = 0; begin < values.size(); begin += per_point) {
    const size_t n = std::min(per_point, values.size() - begin);
    double x = 0.0, y = 0.0;
    for (size_t i = begin; i < begin + n; ++i) {
      x += anchors[i] / 1000.0;
      y += values[i];
    }
    line.points.emplace_back(x / static_cast<double>(n), y / static_cast<double>(n));
  }
  return line;
}

Status write_chart(const std::string& path, Chart chart) {
  fit_axes(chart, true);
  const std::string svg = chart_svg(chart);
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  DSPARK_RETURN_IF_ERROR(file.write({reinterpret_cast<const uint8_t*>(svg.data()), svg.size()}));
  return file.commit();
}

}  // namespace

Status write_train_plots(const std::string& folder) {
  DSPARK_ASSIGN_OR_RETURN(const RunCurves steps, read_curves(folder + "/log.csv"));
  RunCurves held_out;
  std::error_code ec;
  if (std::filesystem::exists(folder + "/eval.csv", ec)) {
    DSPARK_ASSIGN_OR_RETURN(held_out, read_curves(folder + "/eval.csv"));
  }
  const auto draw = [&](const char* name, const char* title, const char* y_label,
                        const std::vector<double> RunCurves::*values) -> Status {
    Chart chart;
    chart.title = title;
    chart.x_label = "anchors seen, thousands";
    chart.y_label = y_label;
    chart.lines.push_back(line_of("training", steps.anchors, steps.*values));
    if (!held_out.anchors.empty()) {
      chart.lines.push_back(line_of("held out", held_out.anchors, held_out.*values));
      chart.lines.back().emphasised = true;
    }
    return write_chart(folder + "/" + name, std::move(chart));
  };
  DSPARK_RETURN_IF_ERROR(
      draw("tau.svg", "Expected tokens per round, temperature 1", "tau_prob", &RunCurves::tau));
  return draw("loss.svg", "Loss", "loss", &RunCurves::loss);
}

}  // namespace dspark::cli
