#pragma once
// What a step costs: measured passes in, predicted seconds out. No clock in here; whoever measures calls
// CostModel::observe.

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"

namespace dspark {

/// One measured size: seconds of a pass with `n` rows (target) or `n` sequences (drafter).
struct CostPoint {
  int32_t n = 0;
  double seconds = 0.0;
};

/// The first `positions` of a sequence's context cost as much as `counted` positions of the table's slopes.
struct ContextPoint {
  int32_t positions = 0;
  double counted = 0.0;
};

/// Measurements of one model on one machine with one thread count.
struct CostTable {
  std::vector<CostPoint> verify;  // target pass by rows at a short context, n ascending
  std::vector<CostPoint> draft;   // drafter pass by sequences, n ascending; empty: no drafter
  double context_s = 0.0;         // more for every position of context of a sequence (reading its cache)
  double row_context_s = 0.0;     // more for every row times position of context (scoring it)
  double overhead_s = 0.0;        // of a step beside its passes
  /// Drafts per sequence behind `draft`, and longer ones cost no more; 0: not known, and then the length does
  /// not matter.
  int32_t draft_length = 0;
  std::vector<CostPoint> draft_short;  // drafter pass by sequences with one draft each; may be empty
  /// Where positions do not all cost the same: layers with a sliding window look no further back than that.
  /// Linear from (0, 0) to the first point and between points, beyond the last along the last two. Empty:
  /// every position counts as one.
  std::vector<ContextPoint> context_curve;
  /// Where few drafts come from a smaller pass (Drafter::short_block): how many at most, and the drafter's
  /// pass by sequences with that many each. 0 and empty: cost is linear in the length.
  int32_t stair_length = 0;
  std::vector<CostPoint> draft_stair = {};

  /// What the first n_cached positions count as, by context_curve. requires: validate().ok().
  double counted_positions(double n_cached) const;
  /// errors: invalid_argument: not ascending from n = 1, or not positive and finite, or a curve that falls;
  /// names the list.
  Status validate() const;
};

/// The shape of one step. Cached positions of a sequence are what CostModel::counted_positions says of them.
struct StepShape {
  int32_t rows = 0;             // of the target pass: anchors, drafts, prompt
  int32_t draft_sequences = 0;  // sequences drafted for, 0: no drafter pass
  int64_t context = 0;          // sum over sequences of their cached positions
  int64_t row_context = 0;      // sum over sequences of rows * cached positions
  int32_t draft_length = 0;     // drafts asked for per sequence; 0: as many as the table was measured with
  int32_t prompt_rows = 0;      // of `rows`
  int64_t prompt_context = 0;   // of `context`: positions of prompts that are being read
};

/// Predicts steps from a table and corrects itself by what steps really took. Corrections are medians of
/// recent ratios, so that a single outlier (the operating system took a core away) changes nothing.
class CostModel {
 public:
  /// requires: table.validate().ok().
  explicit CostModel(CostTable table);

  const CostTable& table() const { return table_; }
  /// The table with what steps without prompts taught about its sizes: seconds times the median of a size, as
  /// far as a full window of steps stands behind it, and by a quarter at most, so that one run in a bad
  /// moment cannot spoil the next ones. How fast the machine is now is no part of it.
  CostTable corrected_table() const;
  /// What a sequence with so many cached positions adds to StepShape::context, and with every row to
  /// row_context.
  int64_t counted_positions(int64_t n_cached) const;
  /// Seconds of the target pass: between measured sizes linear, never falling with n; beyond the largest
  /// along the slope of the upper half of the sizes.
  double verify_seconds(const StepShape& shape) const;
  /// Seconds of the drafter's pass; linear in the length between 1 and that of the table, then level. With a
  /// stair linear up to it, and behind it with the same seconds per draft down from the table's length.
  /// length 0: the table's.
  double draft_seconds(int32_t n_sequences, int32_t length = 0) const;
  double step_seconds(const StepShape& shape) const;
  /// Seconds of a whole step with b rows more than `shape`, for b = 0..n_more; never falling. Every added row
  /// looks at `row_context` positions. `out` keeps its capacity.
  void step_costs(const StepShape& shape, int32_t n_more, double row_context, std::vector<double>& out) const;
  /// What the passes of a step really took. draft_s is ignored when nothing was drafted.
  void observe(const StepShape& shape, double verify_s, double draft_s);
  /// Median of measured / predicted over the recent steps, before the correction by it but behind those of
  /// single sizes; 1 without any.
  double correction() const { return all_.median(); }
  /// Whether so many steps stand behind correction() that it says something about the table.
  bool correction_is_settled() const { return all_.is_full(); }
  /// correction() of the drafter's pass.
  double draft_correction() const { return draft_.median(); }

 private:
  /// Median of the last kWindow values; 1 while there are fewer than kLeast.
  template <size_t kWindow>
  class RunningMedian {
   public:
    static constexpr size_t kLeast = 5;
    void add(double value);
    double median() const { return median_; }
    bool is_known() const { return n_ >= kLeast; }
    bool is_full() const { return n_ >= kWindow; }

   private:
    std::array<double, kWindow> values_{};
    size_t n_ = 0;
    double median_ = 1.0;
  };

  using SizeCorrection = RunningMedian<31>;

  /// Of the size of so many rows. Most prompt rows have no logits and cost less than rows of drafts, so steps
  /// with prompts say nothing of those without.
  double size_correction(int32_t rows, bool has_prompts) const;
  double raw_verify_seconds(const StepShape& shape) const;
  double raw_draft_seconds(int32_t n_sequences, int32_t length) const;
  size_t bucket(int32_t rows) const;

  CostTable table_;
  // Each is judged with the other's correction taken out, else steps of one size would pass for the machine's
  // speed. The machine's speed changes faster than what is wrong with the table, so its memory is shorter.
  RunningMedian<15> all_;                     // of steps without prompts: how fast the machine is now
  std::vector<SizeCorrection> by_size_;       // per verify point: what the table got wrong there
  std::vector<SizeCorrection> with_prompts_;  // the same of steps with prompts
  RunningMedian<15> draft_;
};

}  // namespace dspark
