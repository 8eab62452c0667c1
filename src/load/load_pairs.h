#pragma once
// How two engines that took turns in one run compare, and how far that figure is to be trusted.

#include <cstdint>
#include <span>
#include <vector>

#include "load/load_run.h"

namespace dspark {

/// Two sums of one engine at the ends of its turns, both 0 before the first. `along` is what engines in turn
/// have alike, `amount` what is compared: tokens and seconds where the work is given (closed loops), seconds
/// and tokens where the time is (phases). Same lengths; along strictly ascending.
struct TurnCurve {
  std::vector<double> along;
  std::vector<double> amount;
};

/// Seconds over tokens, in the measured window.
TurnCurve window_curve(const LoadResult& result);
/// Tokens over seconds, between two moments of the run's own time.
TurnCurve phase_curve(const LoadResult& result, double begin_s, double end_s);

/// One ratio of two engines over all rounds.
struct TurnComparison {
  double ratio = 0.0;    // 0: nothing to compare
  double error = -1.0;   // one standard error; negative: too few turns to tell
  int64_t n_pieces = 0;  // pairs of neighbouring turns
};

/// The amounts of `numerator` over those of `denominator`, one curve per round each, over the stretch that
/// both have: with curves of window_curve the time of one engine over the time of the other for the same
/// tokens.
///
/// Every round is cut into as many equal pieces as the engine with fewer turns had, so that a piece of one
/// engine and the same piece of the other were computed in neighbouring turns: a machine that is slow for
/// longer than that slows both, and the ratio keeps only what differs between neighbours. The standard error
/// is that of the circular block bootstrap (Politis and Romano 1992) for a ratio of sums, in its closed
/// form: with residuals d = numerator - ratio * denominator of N pieces and blocks of L = 1 + N^(1/3), the
/// sum of d has the variance sum of (sum of L neighbours)^2 / L. Times N / (N - L), since the residuals of
/// all pieces add up to 0. Neighbours that share a turn, or a stretch of text that drafts suit, count as
/// dependent this way. requires: as many numerators as denominators.
TurnComparison compare_turns(std::span<const TurnCurve> numerator, std::span<const TurnCurve> denominator);

}  // namespace dspark
