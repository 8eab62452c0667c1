#pragma once
// What predictions get wrong about steps without drafts, against those with: a few percent decide whether
// drafting pays, and corrections that follow the machine's speed are always a little late.

#include <array>
#include <cstddef>
#include <cstdint>

namespace dspark {

/// Compares steps of the two kinds that lie close together in time, so that both ran on a machine of the same
/// speed. thread: one.
class StepBias {
 public:
  /// A step is over that took `ratio` times what was predicted for a machine of constant speed.
  void add(bool drafts, double ratio);
  /// A step that is not compared: only time passes.
  void skip() { ++step_; }
  /// Measured over predicted of plain steps, divided by that of drafting steps; 1 before anything was seen.
  double plain_over_drafting() const { return value_; }

 private:
  static constexpr int64_t kNear = 16;       // steps that may lie between those that are compared
  static constexpr size_t kMostRecent = 8;   // steps of a kind that are kept
  static constexpr double kFirstWeight = 4;  // comparisons that the first value, 1, counts for
  static constexpr double kLeastStep = 0.08;
  static constexpr double kMostRatio = 2.0;  // a single comparison says no more than that

  struct Recent {
    std::array<double, kMostRecent> ratios{};
    std::array<int64_t, kMostRecent> steps{};
    int64_t n = 0;
  };
  struct Nearby {
    double mean_ratio = 0.0;
    double share = 0.0;  // steps nearby, of kMostRecent
  };
  Nearby nearby(const Recent& recent) const;

  std::array<Recent, 2> recent_{};  // plain, drafting
  int64_t step_ = 0;
  int32_t last_ = -1;  // kind of the last step that was added
  double log_value_ = 0.0, value_ = 1.0;
  double n_comparisons_ = 0.0;
};

}  // namespace dspark
