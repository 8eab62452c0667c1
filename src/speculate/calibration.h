#pragma once
// How far a confidence head can be believed, and its correction: calibration metrics of the DSpark evaluation
// and sequential temperature scaling (STS; DSpark section 3.3).
//
// Positions count from 0. The prediction at position j is the survival of the prefix 0..j, the label is
// whether drafts 0..j were all accepted; after a rejection later positions count with label 0. Rounds are to
// be collected without a threshold and without calibration, cut to the effective proposal length
// (RoundRecord::proposal_length).

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "speculate/accept.h"

namespace dspark {

/// Metrics of one position, or of all weighted by their counts.
struct CalibrationMetrics {
  int64_t count = 0;     // predictions
  double ece = 0.0;      // expected calibration error over 20 equal bins
  double auroc = -1.0;   // from 1000 bins, ties within a bin count one half; negative: one class is empty
  double brier = 0.0;    // mean squared difference
  double predicted = 0;  // mean prediction
  double observed = 0;   // mean label
};

/// Collects predictions and labels in bins; nothing grows with the number of rounds.
class CalibrationStats {
 public:
  /// One round: `survival` of its proposed drafts (speculate/confidence.h), of which `accepted` were
  /// accepted.
  void add(std::span<const double> survival, int32_t accepted);
  void add(const CalibrationStats& other);

  /// Positions that any round reached.
  int32_t n_positions() const { return static_cast<int32_t>(positions_.size()); }
  /// requires: 0 <= position < n_positions().
  CalibrationMetrics at(int32_t position) const;
  /// Means over positions weighted by their counts, the AUROC over those where it is defined.
  CalibrationMetrics summary() const;

 private:
  struct Bin {
    int64_t count = 0;
    int64_t accepted = 0;
    double predicted = 0.0;
  };
  struct FineBin {
    int64_t accepted = 0;
    int64_t rejected = 0;
  };
  struct Position {
    std::array<Bin, 20> bins;
    std::array<FineBin, 1000> fine_bins;
    double squared_error = 0.0;
  };

  std::vector<Position> positions_;
};

/// Rounds kept for a fit.
class CalibrationData {
 public:
  /// What the confidence head said about the proposed drafts, in logits, and how many were accepted.
  template <typename Real>
  void add(std::span<const Real> logits, int32_t accepted) {
    logits_.insert(logits_.end(), logits.begin(), logits.end());
    rounds_.push_back({logits_.size() - logits.size(), static_cast<int32_t>(logits.size()), accepted});
  }
  int64_t n_rounds() const { return static_cast<int64_t>(rounds_.size()); }
  std::span<const double> logits(int64_t round) const {
    const Round& r = rounds_[static_cast<size_t>(round)];
    return {logits_.data() + r.begin, static_cast<size_t>(r.n_logits)};
  }
  int32_t accepted(int64_t round) const { return rounds_[static_cast<size_t>(round)].accepted; }

 private:
  struct Round {
    size_t begin;
    int32_t n_logits;
    int32_t accepted;
  };
  std::vector<double> logits_;
  std::vector<Round> rounds_;
};

/// Fitted temperatures of one drafter and the way of serving they were fitted for: the labels mean something
/// else under another accept rule or sampling temperature.
struct Calibration {
  std::vector<double> temperatures;  // T_k: confidence k is sigmoid(logit / T_k + b_k)
  std::vector<double> biases;        // b_k; empty: all 0, which is DSpark's own scaling
  std::string dataset;               // where the rounds came from
  int64_t num_samples = 0;           // rounds
  std::vector<double> ece_before;    // per position, with all temperatures 1
  std::vector<double> ece_after;
  AcceptRule accept_rule = AcceptRule::kCoupled;
  double temperature = 0.0;  // of sampling; 0: greedy
  std::string target;        // file name of the model that judged; empty: not known
};

/// Temperatures STS chooses from: 10^(-1 + g / 20) for g = 0 .. 40.
inline constexpr int kTemperatureGrid = 41;
/// The g-th of them; exactly 1 for g = 20.
double grid_temperature(int g);

/// Sequential temperature scaling: position by position the grid temperature with the least ECE of the
/// survival, those before it fixed. Errors within 1e-12 of the least count as equal; of those the
/// temperature nearest to 1 wins on the logarithmic grid, the larger of a pair T, 1/T.
/// Fills temperatures, ece_before, ece_after and num_samples; without rounds they stay empty.
Calibration fit_calibration(const CalibrationData& data);

/// The same with a bias per position: logistic regression of "draft k was accepted" on its logit over the
/// rounds that accepted all drafts before it, by Newton's method with a weak pull towards (1, 0). A head that
/// is too sure everywhere, as one trained at temperature 1 is for greedy serving, needs the bias; a
/// temperature alone cannot move confidences around one half. Slopes stay positive: the order of drafts is
/// kept.
Calibration fit_affine_calibration(const CalibrationData& data);

/// confidence[k] = sigmoid(logits[k] / T_k + b_k), T_k = 1 and b_k = 0 behind the ends. requires: same sizes
/// of logits and confidence.
void calibrated_confidence(std::span<const float> logits, std::span<const double> temperatures,
                           std::span<float> confidence, std::span<const double> biases = {});

/// What a calibration was made for that this run is not, in words for a warning; empty: nothing. rule: of the
/// run, any for greedy; target: file name of the model.
std::string calibration_mismatch(const Calibration& calibration, AcceptRule rule, double temperature,
                                 const std::string& target);

/// Which of several tables fits a run best: one for its target before others; of these one for its mode
/// (greedy, or sampled under its accept rule) before sampled ones under another rule; of these the nearest
/// temperature, the first of equals. temperature: of the run, nothing when requests bring their own; then the
/// first table for the target. requires: tables not empty.
size_t best_calibration(std::span<const Calibration> tables, AcceptRule rule,
                        std::optional<double> temperature, const std::string& target);

/// Replaces the table for the same target, mode and temperature, or adds one behind the others.
void put_calibration(std::vector<Calibration>& tables, Calibration table);

}  // namespace dspark
