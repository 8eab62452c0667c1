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
  bool markers = true;
  std::vector<std::string> labels;  // beside the points; may be shorter than points
};

/// A bar below a line, from the x axis up; for counts, scaled so that the highest fills a fifth of the chart.
struct ChartBar {
  double x = 0.0;
  double width = 0.0;
  double value = 0.0;
};

/// Lines over linear axes. y runs from 0 to y_max.
struct Chart {
  std::string title;
  std::string x_label;
  std::string y_label;
  double x_min = 0.0;
  double x_max = 1.0;
  double x_step = 0.1;  // between tick marks
  double y_max = 1.0;
  double y_step = 0.2;
  std::vector<ChartLine> lines;
  std::vector<ChartBar> bars;
  bool diagonal = false;  // a grey line y = x
};

/// A step of 1, 2 or 5 times a power of ten that cuts `span` into at most `most` pieces. requires: span > 0.
double tick_step(double span, int most);
/// Sets y_max and y_step so that all points fit; x_max too when `x_too` (x then starts at 0).
void fit_axes(Chart& chart, bool x_too);

/// The chart as one SVG document.
std::string chart_svg(const Chart& chart);

}  // namespace dspark::cli
