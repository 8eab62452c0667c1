#include "engine/adaptive_planner.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "speculate/confidence.h"

namespace dspark {
namespace {

constexpr double kMinGain = 1.01;         // drafting must bring this much more than not drafting
constexpr int32_t kFirstPause = 8;        // steps without drafting before the next look
constexpr int32_t kLongestPause = 256;    // looks then cost less than 1 % of the time
constexpr int32_t kFirstLook = 12;        // drafting steps before the first judgement at a load
constexpr int32_t kNextLook = 4;          // drafting steps after a pause
constexpr double kForgetStep = 0.95;      // of the comparison, per drafting step
constexpr int32_t kReachMemory = 24;      // steps after which the drafted length may shrink by one
constexpr double kForget = 0.98;          // of acceptance counts, per round
constexpr double kPriorWeight = 4.0;      // rounds that the assumption about a position is worth
constexpr double kFirstAcceptance = 0.6;  // assumed before anything was seen
constexpr double kPriorStep = 0.1;        // weight of the newest step in the running mean of survivals

}  // namespace

AdaptivePlanner::AdaptivePlanner(CostTable table) : costs_(std::move(table)), reach_(kMaxDraftTokens) {}

// A position that was rarely seen is assumed to be like the one before it.
double AdaptivePlanner::acceptance_at(size_t draft_idx, double before) const {
  const Acceptance& seen = acceptance_[draft_idx];
  return (seen.hits + kPriorWeight * before) / (seen.tries + kPriorWeight);
}

void AdaptivePlanner::fill_prior(std::span<double> out) const {
  double conditional = kFirstAcceptance, survival = 1.0;
  for (size_t j = 0; j < out.size(); ++j) {
    conditional = acceptance_at(j, conditional);
    survival *= conditional;
    out[j] = j < static_cast<size_t>(prior_.n) ? prior_.values[j] : survival;
    if (j > 0) out[j] = std::min(out[j], out[j - 1]);
  }
}

void AdaptivePlanner::fill_live(const PlanSequence& sequence, std::span<double> out) const {
  const auto n = static_cast<size_t>(sequence.n_drafts);
  if (!sequence.confidence.empty()) return survival(sequence.confidence, out.first(n));
  double conditional = kFirstAcceptance, product = 1.0;
  for (size_t j = 0; j < n; ++j) {
    conditional = acceptance_at(j, conditional);
    product *= conditional;
    out[j] = product;
  }
}

int32_t AdaptivePlanner::draft_length(int32_t n_sequences, int32_t max_block) {
  if (n_sequences <= 0 || max_block <= 0) return 0;
  if (n_sequences != last_sequences_) {  // another load: what was seen says nothing about it
    last_sequences_ = n_sequences;
    drafting_seconds_ = plain_seconds_ = 0.0;
    steps_to_judge_ = kFirstLook;
    skips_left_ = skip_length_ = 0;
  }
  if (skips_left_ > 0) {
    --skips_left_;
    return 0;
  }
  const int32_t length = std::clamp(reach_ + 1, 1, max_block);
  if (steps_to_judge_ > 0) return length;
  if (plain_seconds_ >= drafting_seconds_ * kMinGain) {
    skip_length_ = 0;
    return length;
  }
  skip_length_ = std::clamp(skip_length_ * 2, kFirstPause, kLongestPause);
  skips_left_ = skip_length_ - 1;  // this step is one of them
  drafting_seconds_ = plain_seconds_ = 0.0;
  steps_to_judge_ = kNextLook;
  return 0;
}

void AdaptivePlanner::observe_gain(const StepShape& shape, int32_t n_sequences, int32_t n_tokens) {
  if (shape.draft_sequences == 0 || n_sequences != last_sequences_) return;
  StepShape plain = shape;
  plain.draft_sequences = 0;
  plain.rows = n_sequences;
  plain.row_context = shape.context;
  drafting_seconds_ = drafting_seconds_ * kForgetStep + costs_.step_seconds(shape);
  plain_seconds_ = plain_seconds_ * kForgetStep + costs_.step_seconds(plain) * n_tokens / n_sequences;
  steps_to_judge_ = std::max(0, steps_to_judge_ - 1);
}

void AdaptivePlanner::verify_lengths(VerifyPolicy::Kind kind, const StepShape& shape,
                                     std::span<const PlanSequence> sequences, std::span<int32_t> lengths) {
  int32_t stride = 1, n_more = 0, n_asked_total = 0;
  bool any_schedule = true;
  n_drafts_.clear();
  n_asked_.clear();
  for (const PlanSequence& sequence : sequences) {
    stride = std::max({stride, sequence.n_drafts, sequence.n_asked});
    n_asked_.push_back(std::max(sequence.n_asked, sequence.n_drafts));
    n_asked_total += n_asked_.back();
    n_more += sequence.n_drafts;
    any_schedule = any_schedule && sequence.any_schedule;
    n_drafts_.push_back(sequence.n_drafts);
  }
  if (n_more == 0) {
    std::ranges::fill(lengths, 0);
    return;
  }
  const size_t width = static_cast<size_t>(stride);
  live_.resize(sequences.size() * width);
  recorded_.resize(sequences.size() * width);
  for (size_t r = 0; r < sequences.size(); ++r) {
    fill_live(sequences[r], std::span(live_).subspan(r * width, width));
    const std::span<double> row = std::span(recorded_).subspan(r * width, width);
    const SurvivalRecord& record = *sequences[r].record;
    fill_prior(row);
    for (size_t j = 0; j < std::min(width, static_cast<size_t>(record.n)); ++j) row[j] = record.values[j];
    for (size_t j = 1; j < width; ++j) row[j] = std::min(row[j], row[j - 1]);
  }
  const auto n = static_cast<double>(sequences.size());
  costs_.step_costs(shape, n_asked_total, static_cast<double>(shape.context) / n, step_seconds_);
  step_seconds_.insert(step_seconds_.begin(), sequences.size(), step_seconds_.front());
  const SurvivalRows live{live_, n_drafts_, stride};
  if (kind == VerifyPolicy::Kind::kCausal) {
    schedule_causal(live, {step_seconds_, 0}, scratch_, lengths);
  } else {
    // A budget from live confidences anticipates; where that matters, the records decide about it.
    const SurvivalRows basis = any_schedule ? live : SurvivalRows{recorded_, n_asked_, stride};
    allot_budget(live, history_budget(basis, {step_seconds_, 0}, scratch_), scratch_, lengths);
  }
  remember(sequences);
  const int32_t longest = *std::ranges::max_element(lengths);
  if (longest >= reach_ || ++steps_since_reach_ > kReachMemory) {
    reach_ = longest >= reach_ ? longest : std::min(reach_ - 1, stride);
    steps_since_reach_ = 0;
  }
}

// This step's survivals become the sequences' records and move the running mean.
void AdaptivePlanner::remember(std::span<const PlanSequence> sequences) {
  const size_t width = live_.size() / sequences.size();
  for (size_t r = 0; r < sequences.size(); ++r) {
    if (sequences[r].n_drafts == 0) continue;
    SurvivalRecord& record = *sequences[r].record;
    record.n = sequences[r].n_drafts;
    for (int32_t j = 0; j < record.n; ++j) {
      const auto at = static_cast<size_t>(j);
      record.values[at] = live_[r * width + at];
      double& mean = prior_.values[at];
      mean = j < prior_.n ? mean + kPriorStep * (record.values[at] - mean) : record.values[at];
    }
    prior_.n = std::max(prior_.n, record.n);
  }
}

void AdaptivePlanner::observe_round(int32_t n_verified, int32_t n_accepted) {
  for (int32_t j = 0; j < n_verified && j <= n_accepted; ++j) {
    Acceptance& seen = acceptance_[static_cast<size_t>(j)];
    seen.tries = seen.tries * kForget + 1.0;
    seen.hits = seen.hits * kForget + (j < n_accepted ? 1.0 : 0.0);
  }
}

}  // namespace dspark
