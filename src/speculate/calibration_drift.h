#pragma once
// Whether confidences still hold while requests are served: predicted against observed survival, draft
// position by draft position, over a sliding window.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "speculate/scheduler_stats.h"

namespace dspark {

/// Expected calibration error over the newest kWindow verifications of every draft position. Only verified
/// drafts count, so positions that a scheduler trims are seen less often and in better company; a prediction
/// that holds must hold there too. Sums are whole numbers: what leaves the window leaves no trace.
/// thread: one. No allocation after the constructor.
class CalibrationDrift {
 public:
  static constexpr int32_t kWindow = 1024;
  static constexpr int32_t kBins = kCalibrationBins;

  CalibrationDrift();

  /// One round. confidence: of its verified drafts, given their predecessors; `accepted` of them were kept.
  void add(std::span<const float> confidence, int32_t accepted);

  /// Positions that any round reached, at most kDriftPositions.
  int32_t n_positions() const { return n_positions_; }
  /// requires: 0 <= position < kDriftPositions.
  DriftPosition at(int32_t position) const;
  /// All positions together, bin by bin.
  std::array<CalibrationBin, kCalibrationBins> bins() const;

 private:
  static constexpr uint32_t kOne = 1u << 15;  // predictions are kept in steps of 2^-15
  struct Bin {
    int32_t count = 0;
    int32_t accepted = 0;
    int64_t predicted = 0;
  };
  struct Position {
    std::array<Bin, kBins> bins{};
    int64_t seen = 0;
  };

  void add_one(int32_t position, double prediction, bool accepted);
  static void count(Position& position, uint16_t entry, int32_t sign);

  std::array<Position, kDriftPositions> positions_{};
  std::vector<uint16_t> entries_;  // (kDriftPositions, kWindow) prediction, and the label in the top bit
  int32_t n_positions_ = 0;
};

}  // namespace dspark
