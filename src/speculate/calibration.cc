#include "speculate/calibration.h"

#include <algorithm>
#include <cmath>
#include <compare>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "speculate/confidence.h"

namespace dspark {
namespace {

constexpr double kTieTolerance = 1e-12;

/// Keeps predictions off 0 and 1; NaN becomes the least.
double clamp_prediction(double p) {
  constexpr double kLeast = 1e-8;
  return p > kLeast ? std::min(p, 1.0 - kLeast) : kLeast;
}

size_t bin_of(double prediction, size_t n_bins) {
  return std::min(static_cast<size_t>(prediction * static_cast<double>(n_bins)), n_bins - 1);
}

/// One position of a round that reached it, while its temperature is chosen.
struct Sample {
  size_t round;
  double logit;
  bool accepted;
};

/// ECE over 20 bins of predictions prefix * sigmoid(logit / temperature).
double calibration_error(std::span<const Sample> samples, std::span<const double> prefix,
                         double temperature) {
  constexpr size_t kBins = 20;
  std::array<double, kBins> predicted{};
  std::array<int64_t, kBins> accepted{};
  for (const Sample& s : samples) {
    const double p = clamp_prediction(prefix[s.round] * sigmoid(s.logit / temperature));
    const size_t bin = bin_of(p, kBins);
    predicted[bin] += p;
    accepted[bin] += s.accepted ? 1 : 0;
  }
  double error = 0.0;
  for (size_t b = 0; b < kBins; ++b) error += std::abs(predicted[b] - static_cast<double>(accepted[b]));
  return error / static_cast<double>(samples.size());
}

struct GridChoice {
  double temperature = 1.0;
  double error = 0.0;
};

GridChoice best_temperature(std::span<const Sample> samples, std::span<const double> prefix) {
  std::array<double, kTemperatureGrid> errors;
  for (int g = 0; g < kTemperatureGrid; ++g) {
    errors[static_cast<size_t>(g)] = calibration_error(samples, prefix, grid_temperature(g));
  }
  const double least = *std::min_element(errors.begin(), errors.end());
  constexpr int kMiddle = kTemperatureGrid / 2;
  for (int distance = 0; distance <= kMiddle; ++distance) {
    for (const int g : {kMiddle + distance, kMiddle - distance}) {
      const double error = errors[static_cast<size_t>(g)];
      if (error <= least + kTieTolerance) return {grid_temperature(g), error};
    }
  }
  return {};  // errors are never NaN, so one of them was the least
}

}  // namespace

void CalibrationStats::add(std::span<const double> survival, int32_t accepted) {
  if (survival.size() > positions_.size()) positions_.resize(survival.size());
  for (size_t j = 0; j < survival.size(); ++j) {
    Position& position = positions_[j];
    const double p = clamp_prediction(survival[j]);
    const bool label = accepted > static_cast<int32_t>(j);
    Bin& bin = position.bins[bin_of(p, position.bins.size())];
    ++bin.count;
    bin.accepted += label ? 1 : 0;
    bin.predicted += p;
    FineBin& fine = position.fine_bins[bin_of(p, position.fine_bins.size())];
    ++(label ? fine.accepted : fine.rejected);
    const double difference = p - (label ? 1.0 : 0.0);
    position.squared_error += difference * difference;
  }
}

void CalibrationStats::add(const CalibrationStats& other) {
  if (other.positions_.size() > positions_.size()) positions_.resize(other.positions_.size());
  for (size_t j = 0; j < other.positions_.size(); ++j) {
    const Position& from = other.positions_[j];
    Position& to = positions_[j];
    for (size_t b = 0; b < to.bins.size(); ++b) {
      to.bins[b].count += from.bins[b].count;
      to.bins[b].accepted += from.bins[b].accepted;
      to.bins[b].predicted += from.bins[b].predicted;
    }
    for (size_t b = 0; b < to.fine_bins.size(); ++b) {
      to.fine_bins[b].accepted += from.fine_bins[b].accepted;
      to.fine_bins[b].rejected += from.fine_bins[b].rejected;
    }
    to.squared_error += from.squared_error;
  }
}

CalibrationMetrics CalibrationStats::at(int32_t position) const {
  const Position& p = positions_[static_cast<size_t>(position)];
  CalibrationMetrics metrics;
  double gap = 0.0, predicted = 0.0;
  int64_t accepted = 0;
  for (const Bin& bin : p.bins) {
    metrics.count += bin.count;
    accepted += bin.accepted;
    predicted += bin.predicted;
    gap += std::abs(bin.predicted - static_cast<double>(bin.accepted));
  }
  if (metrics.count == 0) return metrics;
  const auto count = static_cast<double>(metrics.count);
  metrics.ece = gap / count;
  metrics.brier = p.squared_error / count;
  metrics.predicted = predicted / count;
  metrics.observed = static_cast<double>(accepted) / count;
  const int64_t rejected = metrics.count - accepted;
  if (accepted > 0 && rejected > 0) {
    double ordered = 0.0;  // pairs in which the accepted one was predicted higher
    double rejected_below = 0.0;
    for (const FineBin& bin : p.fine_bins) {
      ordered +=
          static_cast<double>(bin.accepted) * (rejected_below + 0.5 * static_cast<double>(bin.rejected));
      rejected_below += static_cast<double>(bin.rejected);
    }
    metrics.auroc = ordered / (static_cast<double>(accepted) * static_cast<double>(rejected));
  }
  return metrics;
}

CalibrationMetrics CalibrationStats::summary() const {
  CalibrationMetrics total;
  double auroc = 0.0, auroc_count = 0.0;
  for (int32_t j = 0; j < n_positions(); ++j) {
    const CalibrationMetrics one = at(j);
    const auto count = static_cast<double>(one.count);
    total.count += one.count;
    total.ece += one.ece * count;
    total.brier += one.brier * count;
    total.predicted += one.predicted * count;
    total.observed += one.observed * count;
    if (one.auroc >= 0.0) {
      auroc += one.auroc * count;
      auroc_count += count;
    }
  }
  if (total.count == 0) return total;
  for (double* mean : {&total.ece, &total.brier, &total.predicted, &total.observed}) {
    *mean /= static_cast<double>(total.count);
  }
  if (auroc_count > 0.0) total.auroc = auroc / auroc_count;
  return total;
}

double grid_temperature(int g) {
  return g == kTemperatureGrid / 2 ? 1.0 : std::pow(10.0, -1.0 + g / 20.0);
}

Calibration fit_calibration(const CalibrationData& data) {
  Calibration fit;
  fit.num_samples = data.n_rounds();
  const auto n_rounds = static_cast<size_t>(data.n_rounds());
  std::vector<double> prefix(n_rounds, 1.0), raw_prefix(n_rounds, 1.0);
  std::vector<Sample> samples;
  for (size_t k = 0;; ++k) {
    samples.clear();
    for (size_t i = 0; i < n_rounds; ++i) {
      const auto logits = data.logits(static_cast<int64_t>(i));
      const bool accepted = data.accepted(static_cast<int64_t>(i)) > static_cast<int32_t>(k);
      if (logits.size() > k) samples.push_back({i, logits[k], accepted});
    }
    if (samples.empty()) return fit;
    fit.ece_before.push_back(calibration_error(samples, raw_prefix, 1.0));
    const GridChoice best = best_temperature(samples, prefix);
    fit.temperatures.push_back(best.temperature);
    fit.ece_after.push_back(best.error);
    for (const Sample& s : samples) {
      raw_prefix[s.round] *= sigmoid(s.logit);
      prefix[s.round] *= sigmoid(s.logit / best.temperature);
    }
  }
}

namespace {

/// Slope and bias of sigmoid(slope * logit + bias), fitted to the labels.
struct Line {
  double slope = 1.0;
  double bias = 0.0;
};

Line fit_line(std::span<const Sample> samples) {
  constexpr double kRidge = 2.0;  // observations that the pull towards (1, 0) is worth
  constexpr double kLeastSlope = 0.1, kMostSlope = 10.0, kMostBias = 8.0;
  Line line;
  for (int step = 0; step < 30; ++step) {
    double g_slope = kRidge * (1.0 - line.slope), g_bias = kRidge * (0.0 - line.bias);
    double h_ss = kRidge, h_sb = 0.0, h_bb = kRidge;
    for (const Sample& s : samples) {
      const double z = std::clamp(s.logit, -30.0, 30.0);
      const double p = sigmoid(line.slope * z + line.bias);
      const double error = (s.accepted ? 1.0 : 0.0) - p, weight = p * (1.0 - p);
      g_slope += error * z;
      g_bias += error;
      h_ss += weight * z * z;
      h_sb += weight * z;
      h_bb += weight;
    }
    const double det = h_ss * h_bb - h_sb * h_sb;  // positive: the ridge keeps it definite
    const double d_slope = (g_slope * h_bb - g_bias * h_sb) / det;
    const double d_bias = (g_bias * h_ss - g_slope * h_sb) / det;
    line.slope = std::clamp(line.slope + std::clamp(d_slope, -1.0, 1.0), kLeastSlope, kMostSlope);
    line.bias = std::clamp(line.bias + std::clamp(d_bias, -1.0, 1.0), -kMostBias, kMostBias);
    if (std::abs(d_slope) + std::abs(d_bias) < 1e-10) break;
  }
  return line;
}

}  // namespace

Calibration fit_affine_calibration(const CalibrationData& data) {
  Calibration fit;
  fit.num_samples = data.n_rounds();
  const auto n_rounds = static_cast<size_t>(data.n_rounds());
  std::vector<double> prefix(n_rounds, 1.0), raw_prefix(n_rounds, 1.0);
  std::vector<Sample> all, judged;
  for (size_t k = 0;; ++k) {
    all.clear();
    judged.clear();
    for (size_t i = 0; i < n_rounds; ++i) {
      const auto logits = data.logits(static_cast<int64_t>(i));
      if (logits.size() <= k || std::isnan(logits[k])) continue;
      const int32_t accepted = data.accepted(static_cast<int64_t>(i));
      all.push_back({i, logits[k], accepted > static_cast<int32_t>(k)});
      if (accepted >= static_cast<int32_t>(k)) judged.push_back(all.back());
    }
    if (all.empty()) return fit;
    const Line line = fit_line(judged);
    fit.temperatures.push_back(1.0 / line.slope);
    fit.biases.push_back(line.bias);
    fit.ece_before.push_back(calibration_error(all, raw_prefix, 1.0));
    // calibration_error knows temperatures only: the calibrated logit at temperature 1 is the same.
    std::vector<Sample> moved = all;
    for (Sample& s : moved) s.logit = line.slope * s.logit + line.bias;
    fit.ece_after.push_back(calibration_error(moved, prefix, 1.0));
    for (size_t i = 0; i < all.size(); ++i) {
      raw_prefix[all[i].round] *= sigmoid(all[i].logit);
      prefix[all[i].round] *= sigmoid(moved[i].logit);
    }
  }
}

void calibrated_confidence(std::span<const float> logits, std::span<const double> temperatures,
                           std::span<float> confidence, std::span<const double> biases) {
  for (size_t k = 0; k < logits.size(); ++k) {
    const double temperature = k < temperatures.size() ? temperatures[k] : 1.0;
    const double bias = k < biases.size() ? biases[k] : 0.0;
    confidence[k] = static_cast<float>(sigmoid(static_cast<double>(logits[k]) / temperature + bias));
  }
}

namespace {

bool is_greedy_at(double temperature) {
  return temperature < 1e-5;
}

/// What a table lacks, the worst first.
struct Misfit {
  bool target = false;
  int mode = 0;  // 1: another accept rule, 2: greedy for sampled or the reverse
  double temperature = 0.0;
  auto operator<=>(const Misfit&) const = default;
};

Misfit misfit(const Calibration& table, AcceptRule rule, std::optional<double> temperature,
              const std::string& target) {
  Misfit found;
  found.target = !table.target.empty() && !target.empty() && table.target != target;
  if (!temperature) return found;
  const bool was_greedy = is_greedy_at(table.temperature), is_greedy = is_greedy_at(*temperature);
  if (was_greedy != is_greedy) {
    found.mode = 2;
  } else if (!is_greedy && table.accept_rule != rule) {
    found.mode = 1;
  }
  found.temperature = std::abs(table.temperature - *temperature);
  return found;
}

}  // namespace

std::string calibration_mismatch(const Calibration& calibration, AcceptRule rule, double temperature,
                                 const std::string& target) {
  const bool was_greedy = is_greedy_at(calibration.temperature), is_greedy = is_greedy_at(temperature);
  std::string text;
  const auto differ = [&](const std::string& what) { text += (text.empty() ? "" : "; ") + what; };
  if (!calibration.target.empty() && !target.empty() && calibration.target != target) {
    differ("made for the target " + calibration.target + ", used with " + target);
  }
  if (was_greedy != is_greedy || std::abs(calibration.temperature - temperature) > 0.25) {
    char numbers[80];
    std::snprintf(numbers, sizeof(numbers), "made for temperature %g, used with %g", calibration.temperature,
                  temperature);
    differ(numbers);
  }
  if (!was_greedy && !is_greedy && calibration.accept_rule != rule) {
    differ("made for the accept rule " + std::string(accept_rule_name(calibration.accept_rule)) +
           ", used with " + std::string(accept_rule_name(rule)));
  }
  return text;
}

size_t best_calibration(std::span<const Calibration> tables, AcceptRule rule,
                        std::optional<double> temperature, const std::string& target) {
  size_t best = 0;
  for (size_t i = 1; i < tables.size(); ++i) {
    if (misfit(tables[i], rule, temperature, target) < misfit(tables[best], rule, temperature, target))
      best = i;
  }
  return best;
}

void put_calibration(std::vector<Calibration>& tables, Calibration table) {
  for (Calibration& old : tables) {
    if (old.target != table.target || old.temperature != table.temperature) continue;
    if (!is_greedy_at(old.temperature) && old.accept_rule != table.accept_rule) continue;
    old = std::move(table);
    return;
  }
  tables.push_back(std::move(table));
}

}  // namespace dspark
