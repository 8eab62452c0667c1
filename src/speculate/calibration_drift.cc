#include "speculate/calibration_drift.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace dspark {

CalibrationDrift::CalibrationDrift() : entries_(size_t{kDriftPositions} * kWindow) {}

void CalibrationDrift::count(Position& position, uint16_t entry, int32_t sign) {
  const int32_t accepted = entry >> 15;
  // 1 is stored one step lower, so that the label has its bit.
  const uint32_t prediction = entry & (kOne - 1);
  const auto bin_idx = static_cast<size_t>(static_cast<uint64_t>(prediction) * kBins / kOne);
  Bin& bin = position.bins[bin_idx];
  bin.count += sign;
  bin.accepted += sign * accepted;
  bin.predicted += sign * static_cast<int64_t>(prediction);
}

void CalibrationDrift::add_one(int32_t position_idx, double prediction, bool accepted) {
  Position& position = positions_[static_cast<size_t>(position_idx)];
  const auto at = static_cast<size_t>(position_idx) * kWindow + static_cast<size_t>(position.seen % kWindow);
  if (position.seen >= kWindow) count(position, entries_[at], -1);
  const double steps = std::clamp(prediction, 0.0, 1.0) * kOne;
  const auto rounded = std::min(static_cast<uint32_t>(std::lround(steps)), kOne - 1);
  entries_[at] = static_cast<uint16_t>(rounded | (accepted ? kOne : 0u));
  count(position, entries_[at], +1);
  ++position.seen;
}

void CalibrationDrift::add(std::span<const float> confidence, int32_t accepted) {
  double survival = 1.0;
  const auto n = std::min<size_t>(confidence.size(), kDriftPositions);
  for (size_t j = 0; j < n; ++j) {
    survival *= std::isnan(confidence[j]) ? 0.0 : static_cast<double>(confidence[j]);
    add_one(static_cast<int32_t>(j), survival, accepted > static_cast<int32_t>(j));
  }
  n_positions_ = std::max(n_positions_, static_cast<int32_t>(n));
}

DriftPosition CalibrationDrift::at(int32_t position_idx) const {
  DriftPosition out;
  int64_t accepted = 0, predicted = 0, gap = 0;
  for (const Bin& bin : positions_[static_cast<size_t>(position_idx)].bins) {
    out.count += bin.count;
    accepted += bin.accepted;
    predicted += bin.predicted;
    gap += std::abs(bin.predicted - int64_t{bin.accepted} * kOne);
  }
  if (out.count == 0) return out;
  const auto n = static_cast<double>(out.count);
  out.observed = static_cast<double>(accepted) / n;
  out.predicted = static_cast<double>(predicted) / (n * kOne);
  out.ece = static_cast<double>(gap) / (n * kOne);
  return out;
}

std::array<CalibrationBin, kCalibrationBins> CalibrationDrift::bins() const {
  std::array<CalibrationBin, kCalibrationBins> out;
  for (size_t b = 0; b < out.size(); ++b) {
    Bin sum;
    for (const Position& position : positions_) {
      sum.count += position.bins[b].count;
      sum.accepted += position.bins[b].accepted;
      sum.predicted += position.bins[b].predicted;
    }
    if (sum.count == 0) continue;
    const auto n = static_cast<double>(sum.count);
    out[b] = {sum.count, static_cast<double>(sum.predicted) / (n * kOne),
              static_cast<double>(sum.accepted) / n};
  }
  return out;
}

}  // namespace dspark
