#include "load/load_pairs.h"

#include <algorithm>
#include <cmath>

namespace dspark {
namespace {

constexpr size_t kLeastPieces = 8;  // fewer say nothing about their spread

/// The ends of turns between two moments, and the second of them.
std::vector<double> turn_ends(const LoadResult& result, double begin_s, double end_s) {
  std::vector<double> ends;
  for (const double turn_s : result.turn_end_s) {
    if (turn_s > begin_s && turn_s < end_s) ends.push_back(turn_s);
  }
  ends.push_back(end_s);
  return ends;
}

/// Calls add(end of the turn, tokens of its steps since begin_s) for every turn.
template <typename Add>
void for_turns(const LoadResult& result, double begin_s, double end_s, Add&& add) {
  size_t at = 0;
  while (at < result.steps.size() && result.steps[at].end_s <= begin_s) ++at;
  double tokens = 0.0;
  for (const double turn_s : turn_ends(result, begin_s, end_s)) {
    for (; at < result.steps.size() && result.steps[at].end_s <= turn_s; ++at) {
      tokens += static_cast<double>(result.steps[at].committed);
    }
    add(turn_s, tokens);
  }
}

void add_point(TurnCurve& curve, double along, double amount) {
  const double last = curve.along.empty() ? 0.0 : curve.along.back();
  if (!(along > last)) return;
  curve.along.push_back(along);
  curve.amount.push_back(amount);
}

/// The amount at a place, linear within a turn. requires: 0 <= along <= the curve's last.
double amount_at(const TurnCurve& curve, double along) {
  const auto next = static_cast<size_t>(std::ranges::lower_bound(curve.along, along) - curve.along.begin());
  if (next == curve.along.size()) return curve.amount.back();
  const double along_0 = next > 0 ? curve.along[next - 1] : 0.0;
  const double amount_0 = next > 0 ? curve.amount[next - 1] : 0.0;
  return amount_0 + (along - along_0) / (curve.along[next] - along_0) * (curve.amount[next] - amount_0);
}

/// What a curve grows by in each of n equal pieces of [0, length].
void append_pieces(const TurnCurve& curve, double length, int64_t n, std::vector<double>& pieces) {
  double last = 0.0;
  for (int64_t i = 1; i <= n; ++i) {
    const double now = amount_at(curve, length * static_cast<double>(i) / static_cast<double>(n));
    pieces.push_back(now - last);
    last = now;
  }
}

double sum_of(std::span<const double> values) {
  double sum = 0.0;
  for (const double value : values) sum += value;
  return sum;
}

/// The standard error of the sum of residuals, see compare_turns.
double error_of_sum(std::span<const double> residuals) {
  const size_t n = residuals.size();
  const size_t length = 1 + static_cast<size_t>(std::ceil(std::cbrt(static_cast<double>(n))));
  double squares = 0.0;
  for (size_t i = 0; i < n; ++i) {
    double block = 0.0;
    for (size_t k = 0; k < length; ++k) block += residuals[(i + k) % n];
    squares += block * block;
  }
  const auto n_pieces = static_cast<double>(n);
  const auto n_block = static_cast<double>(length);
  return std::sqrt(squares / n_block * n_pieces / (n_pieces - n_block));
}

}  // namespace

TurnCurve window_curve(const LoadResult& result) {
  TurnCurve curve;
  for_turns(result, result.begin_s, result.end_s,
            [&](double turn_s, double tokens) { add_point(curve, tokens, turn_s - result.begin_s); });
  return curve;
}

TurnCurve phase_curve(const LoadResult& result, double begin_s, double end_s) {
  TurnCurve curve;
  for_turns(result, begin_s, end_s,
            [&](double turn_s, double tokens) { add_point(curve, turn_s - begin_s, tokens); });
  return curve;
}

TurnComparison compare_turns(std::span<const TurnCurve> numerator, std::span<const TurnCurve> denominator) {
  std::vector<double> above, below;
  for (size_t r = 0; r < std::min(numerator.size(), denominator.size()); ++r) {
    const TurnCurve& a = numerator[r];
    const TurnCurve& b = denominator[r];
    if (a.along.empty() || b.along.empty()) continue;
    const double length = std::min(a.along.back(), b.along.back());
    const auto turns_within = [&](const TurnCurve& curve) {
      return std::ranges::count_if(curve.along, [&](double along) { return along <= length; });
    };
    const int64_t n = std::max<int64_t>(1, std::min(turns_within(a), turns_within(b)));
    append_pieces(a, length, n, above);
    append_pieces(b, length, n, below);
  }
  TurnComparison comparison;
  comparison.n_pieces = static_cast<int64_t>(above.size());
  const double total = sum_of(below);
  if (!(total > 0.0)) return comparison;
  comparison.ratio = sum_of(above) / total;
  if (above.size() < kLeastPieces) return comparison;
  for (size_t i = 0; i < above.size(); ++i) above[i] -= comparison.ratio * below[i];
  comparison.error = error_of_sum(above) / total;
  return comparison;
}

}  // namespace dspark
