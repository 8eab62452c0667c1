#include "cli/svg_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

namespace dspark::cli {
namespace {

constexpr double kWidth = 640, kHeight = 400;
constexpr double kLeft = 60, kRight = 150, kTop = 40, kBottom = 52;
constexpr const char* kColors[] = {"#3b6fb6", "#d1662b", "#3f9658", "#a8409c", "#8a6d1f",
                                   "#2b9aa0", "#c23b4e", "#6b5fc7", "#5f7a2e", "#777777"};

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else {
      out += c;
    }
  }
  return out;
}

/// From units of the axes to pixels.
struct Scale {
  const Chart& chart;
  double x(double value) const {
    const double span = std::max(chart.x_max - chart.x_min, 1e-12);
    return kLeft + (value - chart.x_min) / span * (kWidth - kLeft - kRight);
  }
  double y(double value) const {
    return kHeight - kBottom -
           std::clamp(value / std::max(chart.y_max, 1e-12), 0.0, 1.0) * (kHeight - kTop - kBottom);
  }
};

std::string text_at(double x, double y, const char* anchor, const std::string& text, const char* more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y, anchor, more,
                     escaped(text));
}

std::string tick_label(double value) {
  const double rounded = std::round(value * 1000) / 1000;
  return fmt::format("{:g}", rounded);
}

std::string axes(const Chart& chart, const Scale& at) {
  std::string svg;
  for (double value = 0.0; value <= chart.y_max * (1 + 1e-9); value += std::max(chart.y_step, 1e-9)) {
    svg += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#e2e2e2\"/>\n",
                       kLeft, at.y(value), kWidth - kRight, at.y(value));
    svg += text_at(kLeft - 8, at.y(value) + 4, "end", tick_label(value));
  }
  for (double x = chart.x_min; x <= chart.x_max + 1e-9; x += std::max(chart.x_step, 1e-6)) {
    svg += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#888\"/>\n",
                       at.x(x), at.y(0), at.x(x), at.y(0) + 4);
    svg += text_at(at.x(x), at.y(0) + 18, "middle", tick_label(x));
  }
  svg += fmt::format("<path d=\"M{:.1f} {:.1f}V{:.1f}H{:.1f}\" fill=\"none\" stroke=\"#888\"/>\n", kLeft,
                     at.y(chart.y_max), at.y(0), kWidth - kRight);
  svg += text_at(kLeft, kTop - 16, "start", chart.title, " font-size=\"15\" font-weight=\"600\"");
  svg += text_at((kLeft + kWidth - kRight) / 2, kHeight - 14, "middle", chart.x_label);
  const double middle = (at.y(0) + at.y(chart.y_max)) / 2;
  const std::string turned = fmt::format(" transform=\"rotate(-90 16 {:.1f})\"", middle);
  return svg + text_at(16, middle, "middle", chart.y_label, turned.c_str());
}

std::string bars(const Chart& chart, const Scale& at) {
  double highest = 0.0;
  for (const ChartBar& bar : chart.bars) highest = std::max(highest, bar.value);
  std::string svg;
  for (const ChartBar& bar : chart.bars) {
    if (!(bar.value > 0.0)) continue;
    const double top = at.y(0.2 * chart.y_max * bar.value / highest);
    svg += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"#d8dde6\"/>\n",
        at.x(bar.x), top, std::max(1.0, at.x(bar.x + bar.width) - at.x(bar.x) - 1), at.y(0) - top);
  }
  return svg;
}

std::string line(const ChartLine& data, const std::string& color, const Scale& at) {
  const std::string dash = data.dashed ? " stroke-dasharray=\"6 4\"" : "";
  std::string points, markers;
  for (size_t i = 0; i < data.points.size(); ++i) {
    const auto& [x, y] = data.points[i];
    points += fmt::format("{:.1f},{:.1f} ", at.x(x), at.y(y));
    if (i < data.labels.size()) {
      markers += text_at(at.x(x) + 5, at.y(y) - 5, "start", data.labels[i], " font-size=\"9\"");
    }
    if (!data.markers) continue;
    markers +=
        fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.6\" fill=\"{}\"/>\n", at.x(x), at.y(y), color);
  }
  return fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"{}/>\n", points,
                     color, data.emphasised ? 2.6 : 1.5, dash) +
         markers;
}

}  // namespace

double tick_step(double span, int most) {
  double step = std::pow(10.0, std::floor(std::log10(span / most)));
  for (double factor : {1.0, 2.0, 5.0, 10.0}) {
    if (span / (step * factor) <= most) return step * factor;
  }
  return step * 10.0;
}

void fit_axes(Chart& chart, bool x_too) {
  double highest = 0.0, farthest = 0.0;
  for (const ChartLine& data : chart.lines) {
    for (const auto& [x, y] : data.points) {
      highest = std::max(highest, y);
      farthest = std::max(farthest, x);
    }
  }
  if (highest > 0.0) {
    chart.y_step = tick_step(highest * 1.02, 8);
    chart.y_max = std::ceil(highest * 1.02 / chart.y_step) * chart.y_step;
  }
  if (!x_too || !(farthest > 0.0)) return;
  chart.x_min = 0.0;
  chart.x_step = tick_step(farthest * 1.02, 10);
  chart.x_max = std::ceil(farthest * 1.02 / chart.x_step) * chart.x_step;
}

std::string chart_svg(const Chart& chart) {
  const Scale at{chart};
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" "
      "height=\"{1:.0f}\" font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#333\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
      kWidth, kHeight);
  svg += bars(chart, at) + axes(chart, at);
  if (chart.diagonal) {
    svg += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#aaa\" "
        "stroke-dasharray=\"3 3\"/>\n",
        at.x(0), at.y(0), at.x(1), at.y(1));
  }
  double legend_y = kTop + 8;
  size_t next_color = 0;
  for (const ChartLine& data : chart.lines) {
    const std::string color = data.emphasised ? "#222222" : kColors[next_color++ % std::size(kColors)];
    svg += line(data, color, at);
    svg += fmt::format(
        "<line x1=\"{0:.1f}\" y1=\"{2:.1f}\" x2=\"{1:.1f}\" y2=\"{2:.1f}\" stroke=\"{3}\" "
        "stroke-width=\"2.6\"{4}/>\n",
        kWidth - kRight + 12, kWidth - kRight + 32, legend_y - 4, color,
        data.dashed ? " stroke-dasharray=\"6 4\"" : "");
    svg += text_at(kWidth - kRight + 38, legend_y, "start", data.name);
    legend_y += 18;
  }
  return svg + "</svg>\n";
}

}  // namespace dspark::cli
