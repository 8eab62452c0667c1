#include "speculate/calibration.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

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

void calibrated_confidence(std::span<const float> logits, std::span<const double> temperatures,
                           std::span<float> confidence) {
  for (size_t k = 0; k < logits.size(); ++k) {
    const double temperature = k < temperatures.size() ? temperatures[k] : 1.0;
    confidence[k] = static_cast<float>(sigmoid(static_cast<double>(logits[k]) / temperature));
  }
}

}  // namespace dspark
