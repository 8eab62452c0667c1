#include "speculate/cost_model.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace dspark {
namespace {

Status check_points(std::span<const CostPoint> points, const char* list) {
  for (size_t i = 0; i < points.size(); ++i) {
    const bool ascending = i == 0 ? points[i].n == 1 : points[i].n > points[i - 1].n;
    if (ascending && std::isfinite(points[i].seconds) && points[i].seconds > 0.0) continue;
    return invalid_argument("cost table, " + std::string(list) + "[" + std::to_string(i) +
                            "]: want sizes ascending from 1 with positive seconds, found " +
                            std::to_string(points[i].n) + " and " + std::to_string(points[i].seconds));
  }
  return ok_status();
}

Status check_curve(std::span<const ContextPoint> curve) {
  ContextPoint before;
  for (size_t i = 0; i < curve.size(); ++i) {
    const ContextPoint& point = curve[i];
    if (point.positions <= before.positions || !std::isfinite(point.counted) ||
        point.counted < before.counted) {
      return invalid_argument("cost table, context_curve[" + std::to_string(i) +
                              "]: want ascending positions that count for no less, found " +
                              std::to_string(point.positions) + " and " + std::to_string(point.counted));
    }
    before = point;
  }
  return ok_status();
}

// A larger pass never costs less, and what disturbs a measurement only makes it longer: a size that took more
// than a larger one is believed to take what that took.
void make_monotone(std::vector<CostPoint>& points) {
  for (size_t i = points.size(); i-- > 1;) {
    points[i - 1].seconds = std::min(points[i - 1].seconds, points[i].seconds);
  }
}

double along(const CostPoint& a, const CostPoint& b, int32_t n) {
  const double slope = (b.seconds - a.seconds) / static_cast<double>(b.n - a.n);
  return a.seconds + slope * static_cast<double>(n - a.n);
}

double interpolate(std::span<const CostPoint> points, int32_t n) {
  if (points.empty() || n <= 0) return 0.0;
  if (points.size() == 1 || n <= points.front().n) return points.front().seconds;
  if (n > points.back().n) {
    // Neighbours may be the two edges of one stair; the upper half of what was measured spans several.
    size_t from = points.size() - 1;
    while (from > 0 && 2 * int64_t{points[from].n} > points.back().n) --from;
    return along(points[from], points.back(), n);
  }
  size_t right = 1;
  while (right + 1 < points.size() && points[right].n < n) ++right;
  return along(points[right - 1], points[right], n);
}

}  // namespace

double CostTable::counted_positions(double n_cached) const {
  if (context_curve.empty()) return n_cached;
  ContextPoint left, right = context_curve.front();
  for (size_t i = 1; i < context_curve.size() && right.positions < n_cached; ++i) {
    left = right;
    right = context_curve[i];
  }
  const double slope = (right.counted - left.counted) / (right.positions - left.positions);
  return left.counted + slope * (n_cached - left.positions);
}

Status CostTable::validate() const {
  if (verify.empty()) return invalid_argument("cost table, verify: want at least one size");
  DSPARK_RETURN_IF_ERROR(check_points(verify, "verify"));
  DSPARK_RETURN_IF_ERROR(check_points(draft, "draft"));
  DSPARK_RETURN_IF_ERROR(check_points(draft_short, "draft_short"));
  DSPARK_RETURN_IF_ERROR(check_points(draft_stair, "draft_stair"));
  DSPARK_RETURN_IF_ERROR(check_curve(context_curve));
  if (draft_length < 0) {
    return invalid_argument("cost table, draft_length: want 0 or more, found " +
                            std::to_string(draft_length));
  }
  if (stair_length < 0 || (stair_length == 0) != draft_stair.empty()) {
    return invalid_argument("cost table, stair_length: want 1 or more with draft_stair, 0 without, found " +
                            std::to_string(stair_length));
  }
  for (const auto& [name, seconds] :
       {std::pair{"context_s", context_s}, {"row_context_s", row_context_s}, {"overhead_s", overhead_s}}) {
    if (std::isfinite(seconds) && seconds >= 0.0) continue;
    return invalid_argument("cost table, " + std::string(name) + ": want seconds >= 0, found " +
                            std::to_string(seconds));
  }
  return ok_status();
}

template <size_t kWindow>
void CostModel::RunningMedian<kWindow>::add(double value) {
  values_[n_++ % kWindow] = value;
  const size_t n_known = std::min(n_, kWindow);
  if (n_known < kLeast) return;
  std::array<double, kWindow> sorted = values_;
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(n_known / 2);
  std::nth_element(sorted.begin(), middle, sorted.begin() + static_cast<std::ptrdiff_t>(n_known));
  median_ = *middle;
}

CostModel::CostModel(CostTable table)
    : table_(std::move(table)), by_size_(table_.verify.size()), with_prompts_(table_.verify.size()) {
  make_monotone(table_.verify);
  make_monotone(table_.draft);
  make_monotone(table_.draft_short);
  make_monotone(table_.draft_stair);
}

CostTable CostModel::corrected_table() const {
  constexpr double kMost = 1.25;
  CostTable table = table_;
  for (size_t i = 0; i < table.verify.size(); ++i) {
    if (!by_size_[i].is_full()) continue;
    table.verify[i].seconds *= std::clamp(by_size_[i].median(), 1.0 / kMost, kMost);
  }
  return table;
}

int64_t CostModel::counted_positions(int64_t n_cached) const {
  if (table_.context_curve.empty()) return n_cached;
  constexpr double kMost = 1e11;  // sums over the rows of a step stay far from the end of int64_t
  return std::llround(std::clamp(table_.counted_positions(static_cast<double>(n_cached)), 0.0, kMost));
}

double CostModel::raw_verify_seconds(const StepShape& shape) const {
  return interpolate(table_.verify, shape.rows) + table_.context_s * static_cast<double>(shape.context) +
         table_.row_context_s * static_cast<double>(shape.row_context);
}

size_t CostModel::bucket(int32_t rows) const {
  size_t i = 0;
  while (i + 1 < table_.verify.size() && table_.verify[i].n < rows) ++i;
  return i;
}

double CostModel::size_correction(int32_t rows, bool has_prompts) const {
  const size_t at = bucket(rows);
  return has_prompts && with_prompts_[at].is_known() ? with_prompts_[at].median() : by_size_[at].median();
}

double CostModel::verify_seconds(const StepShape& shape) const {
  if (shape.rows <= 0) return 0.0;
  return raw_verify_seconds(shape) * all_.median() * size_correction(shape.rows, shape.prompt_rows > 0);
}

double CostModel::raw_draft_seconds(int32_t n_sequences, int32_t length) const {
  const double full = interpolate(table_.draft, n_sequences);
  if (length <= 0 || table_.draft_short.empty() || table_.draft_length <= 1) return full;
  // Measured apart, a short pass may come out dearer than a long one; that is noise.
  const double one = std::min(full, interpolate(table_.draft_short, n_sequences));
  const int32_t n_drafts = std::min(length, table_.draft_length), stair = table_.stair_length;
  if (stair <= 0) return one + (full - one) * (n_drafts - 1) / (table_.draft_length - 1);
  // Drafts of a longer block take what those of a short one do.
  const double few = std::clamp(interpolate(table_.draft_stair, n_sequences), one, full);
  const double per_draft = stair > 1 ? (few - one) / (stair - 1) : 0.0;
  if (n_drafts <= stair) return one + per_draft * (n_drafts - 1);
  return std::max(few, full - per_draft * (table_.draft_length - n_drafts));
}

double CostModel::draft_seconds(int32_t n_sequences, int32_t length) const {
  return raw_draft_seconds(n_sequences, length) * draft_.median();
}

double CostModel::step_seconds(const StepShape& shape) const {
  return verify_seconds(shape) + draft_seconds(shape.draft_sequences, shape.draft_length) + table_.overhead_s;
}

// The same as step_seconds for every size, but the places in the lists are kept from size to size.
void CostModel::step_costs(const StepShape& shape, int32_t n_more, double row_context,
                           std::vector<double>& out) const {
  out.clear();
  const std::span<const CostPoint> points = table_.verify;
  const double fixed = draft_seconds(shape.draft_sequences, shape.draft_length) + table_.overhead_s;
  const double context = table_.context_s * static_cast<double>(shape.context);
  double largest = 0.0;
  size_t at = 0;  // the first point with at least as many rows, or the last
  for (int32_t b = 0; b <= n_more; ++b) {
    const int32_t rows = shape.rows + b;
    while (at + 1 < points.size() && points[at].n < rows) ++at;
    double seconds = 0.0;
    if (rows > 0) {
      const size_t left = at > 0 ? at - 1 : 0;
      const double row_seconds =
          rows > points.back().n
              ? interpolate(points, rows)
              : interpolate(points.subspan(left, std::min<size_t>(2, points.size())), rows);
      const double looked_at =
          static_cast<double>(shape.row_context) + std::floor(row_context * static_cast<double>(b));
      seconds = (row_seconds + context + table_.row_context_s * looked_at) * all_.median() *
                size_correction(rows, shape.prompt_rows > 0);
    }
    largest = std::max(largest, seconds + fixed);  // corrections by size must not make a dip either
    out.push_back(largest);
  }
}

void CostModel::observe(const StepShape& shape, double verify_s, double draft_s) {
  if (shape.rows > 0 && verify_s > 0.0) {
    const double ratio = verify_s / raw_verify_seconds(shape);
    auto& of_size = (shape.prompt_rows > 0 ? with_prompts_ : by_size_)[bucket(shape.rows)];
    // Large passes are measured once at the start and may be far off; that is no word about the machine.
    if (shape.prompt_rows == 0) all_.add(ratio / of_size.median());
    // Before the machine's speed is known, it would be counted as the size's error and then once more.
    if (all_.is_known()) of_size.add(ratio / all_.median());
  }
  if (shape.draft_sequences > 0 && draft_s > 0.0 && !table_.draft.empty()) {
    draft_.add(draft_s / raw_draft_seconds(shape.draft_sequences, shape.draft_length));
  }
}

}  // namespace dspark
