#pragma once
// Small line charts as SVG files that need nothing else.

#include <string>
#include <utility>
#include <vector>

namespace dspark::cli {

/// One line with markers. Points in the units of the axes, x ascending.
struct ChartLine {
  std::string name;
  std::vector<std::pair<double, double>> points;
  bool dashed = false;
  bool emphasised = false;  // thicker, in black
};

/// A bar below a line, from the x axis up; for counts, scaled so that the highest fills a fifth of the chart.
struct ChartBar {
  double x = 0.0;
  double width = 0.0;
  double value = 0.0;
};

/// Lines over linear axes. y runs from 0 to 1.
struct Chart {
  std::string title;
  std::string x_label;
  std::string y_label;
  double x_min = 0.0;
  double x_max = 1.0;
  double x_step = 0.1;  // between tick marks
  std::vector<ChartLine> lines;
  std::vector<ChartBar> bars;
  bool diagonal = false;  // a grey line y = x
};

/// The chart as one SVG document.
std::string chart_svg(const Chart& chart);

}  // namespace dspark::cli
