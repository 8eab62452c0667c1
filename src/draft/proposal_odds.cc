#include "draft/proposal_odds.h"

#include <algorithm>
#include <cmath>

namespace dspark {
namespace {

constexpr double kForget = 0.995;    // of every count, per observation of its own
constexpr double kWeight = 6.0;      // observations that an assumption is worth
constexpr double kTailStep = 0.05;   // weight of the newest block in the mean of tails
constexpr double kFirstTail = 0.9;   // that mean before anything was seen
constexpr double kLeastRate = 0.01;  // nothing is impossible or certain

// Acceptance of a looked-up token by the length of its match, measured on greedy answers of SmolLM2-135M; a
// start only, the counts soon say more.
constexpr std::array kFirstLookup = {0.22, 0.36, 0.48, 0.58, 0.68, 0.76, 0.84, 0.93, 0.98};

double bounded(double p) {
  return std::clamp(p, kLeastRate, 1.0 - kLeastRate);
}

}  // namespace

void Odds::add(bool hit, double forget) {
  hits = hits * forget + (hit ? 1.0 : 0.0);
  tries = tries * forget + 1.0;
}

ProposalOdds::ProposalOdds() {
  std::copy(kFirstLookup.begin(), kFirstLookup.end(), lookup_rates_.begin());
  tails_.fill(kFirstTail);
}

// 1, 2, 3, 4, 5-6, 7-9, 10-15, 16-31, 32.
size_t ProposalOdds::length_class(int32_t match_length) {
  constexpr std::array kFirst = {2, 3, 4, 5, 7, 10, 16, 32};
  return static_cast<size_t>(std::upper_bound(kFirst.begin(), kFirst.end(), match_length) - kFirst.begin());
}

size_t ProposalOdds::confidence_class(double confidence) {
  const double at = std::clamp(confidence, 0.0, 1.0) * static_cast<double>(kConfidences);
  return std::min(static_cast<size_t>(at), kConfidences - 1);
}

double ProposalOdds::lookup_value(int32_t match_length, int32_t n_tokens) const {
  double value = 0.0, survival = 1.0;
  for (int32_t i = 0; i < n_tokens; ++i) {
    survival *= lookup(match_length + i);
    value += survival;
  }
  return value;
}

// Assumed: two witnesses that know nothing of each other.
double ProposalOdds::agreement(double confidence, int32_t match_length) const {
  const double c = bounded(confidence), l = bounded(lookup(match_length));
  const double assumed = c * l / (c * l + (1.0 - c) * (1.0 - l));
  return agreement_[length_class(match_length)][confidence_class(confidence)].rate(assumed, kWeight);
}

ContestOdds ProposalOdds::contest(double confidence, int32_t match_length) const {
  const double c = bounded(confidence), l = bounded(lookup(match_length));
  const double model = c * (1.0 - l), looked_up = l * (1.0 - c), neither = (1.0 - c) * (1.0 - l);
  const double sum = model + looked_up + neither;
  const Contest& seen = contest_[length_class(match_length)][confidence_class(confidence)];
  return {(seen.model + kWeight * model / sum) / (seen.tries + kWeight),
          (seen.lookup + kWeight * looked_up / sum) / (seen.tries + kWeight)};
}

double ProposalOdds::model_tail(int32_t draft_idx) const {
  return tails_[static_cast<size_t>(draft_idx)];
}

void ProposalOdds::observe_lookup(int32_t match_length, bool hit) {
  const size_t at = length_class(match_length);
  lookup_[at].add(hit, kForget);
  lookup_rates_[at] = lookup_[at].rate(kFirstLookup[at], kWeight);
}

void ProposalOdds::observe_agreement(double confidence, int32_t match_length, bool hit) {
  agreement_[length_class(match_length)][confidence_class(confidence)].add(hit, kForget);
}

void ProposalOdds::observe_contest(double confidence, int32_t match_length, bool model_hit, bool lookup_hit) {
  Contest& seen = contest_[length_class(match_length)][confidence_class(confidence)];
  seen.model = seen.model * kForget + (model_hit ? 1.0 : 0.0);
  seen.lookup = seen.lookup * kForget + (lookup_hit ? 1.0 : 0.0);
  seen.tries = seen.tries * kForget + 1.0;
}

void ProposalOdds::observe_block(std::span<const float> confidence) {
  double tail = 0.0;
  for (size_t k = confidence.size(); k-- > 0;) {
    tails_[k] += kTailStep * (tail - tails_[k]);
    tail = static_cast<double>(confidence[k]) * (1.0 + tail);
  }
}

}  // namespace dspark
