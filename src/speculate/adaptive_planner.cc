#include "speculate/adaptive_planner.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "speculate/confidence.h"

namespace dspark {
namespace {

constexpr double kForget = 0.98;          // of acceptance counts, per round
constexpr double kPriorWeight = 4.0;      // rounds that the assumption about a position is worth
constexpr double kFirstAcceptance = 0.6;  // assumed before anything was seen
constexpr double kPriorStep = 0.1;        // weight of the newest step in the running mean of survivals
constexpr double kProspectWeight = 1.0;   // the same where a load is judged before it was seen
constexpr double kKnownTries = 4.0;       // rounds after which acceptance says something about other loads
constexpr double kMostRemembered = 25.0;  // rounds that a memory from an earlier run is worth at most
constexpr double kGoodProspect = 0.03;    // expected gain at which an unseen load is trusted
constexpr int32_t kSampleSteps = 8;       // of drafting steps with budget 0, one verifies a draft each
constexpr double kForgetAsked = 0.99;     // of what became of asked drafts, per round
constexpr int64_t kLookFurther = 16;      // drafting steps between those that ask for one draft more
constexpr double kOpenStep = 1.0 / 16.0;  // weight of the newest step in the share of open ones
constexpr double kGainStep = 0.1;         // weight of the newest drafting step in a load's mean gain
constexpr double kSureGain = 1.0;         // mean gain at which the cost of plain steps is beside the point
constexpr double kCommitStep = 0.02;      // weight of the newest step in the mean of what commits take
constexpr double kPlainLoss = 0.005;      // share of the time that plain steps may lose
constexpr double kShortestPlainGap = 4.0;
constexpr int32_t kLongestPlainGap = 64;  // most drafting steps between two without drafts

}  // namespace

AdaptivePlanner::AdaptivePlanner(CostTable table, const PlannerMemory& memory)
    : costs_(std::move(table)), acceptance_(memory.acceptance) {
  for (AcceptanceCount& seen : acceptance_) {
    if (seen.tries <= kMostRemembered) continue;
    seen.hits *= kMostRemembered / seen.tries;
    seen.tries = kMostRemembered;
  }
}

// A position that was rarely seen is assumed to be like the one before it.
double AdaptivePlanner::acceptance_at(size_t draft_idx, double before) const {
  const AcceptanceCount& seen = acceptance_[draft_idx];
  return (seen.hits + kPriorWeight * before) / (seen.tries + kPriorWeight);
}

bool AdaptivePlanner::knows_acceptance() const {
  return acceptance_[0].tries >= kKnownTries;
}

/// A step of that many sequences without drafts and prompts, beside the neighbours.
StepShape AdaptivePlanner::plain_shape(int32_t n_sequences) const {
  const auto own_context = static_cast<int64_t>(context_per_sequence_ * n_sequences);
  StepShape shape;
  shape.rows = n_sequences + neighbours_.rows;
  shape.context = own_context + neighbours_.context;
  shape.row_context = own_context + neighbours_.row_context;
  shape.draft_sequences = neighbours_.draft_sequences;
  shape.draft_length = neighbours_.draft_length;
  return shape;
}

/// Tokens of neighbours in a step, per sequence that is decided about.
double AdaptivePlanner::tokens_beside(int32_t n_sequences) const {
  return neighbours_.tokens / n_sequences;
}

AdaptivePlanner::Prospect AdaptivePlanner::prospect(int32_t n_sequences, int32_t max_block) const {
  StepShape shape = plain_shape(n_sequences);
  const double plain_s = costs_.step_seconds(shape), beside = tokens_beside(n_sequences);
  const auto row_context = static_cast<int64_t>(context_per_sequence_ * n_sequences);
  Prospect best{0, -1.0};
  double conditional = kFirstAcceptance, product = 1.0, tokens = 1.0;
  shape.draft_sequences += n_sequences;
  for (int32_t length = 1; length <= std::min(max_block, kMaxDraftTokens); ++length) {
    const AcceptanceCount& seen = acceptance_[static_cast<size_t>(length) - 1];
    conditional = (seen.hits + kProspectWeight * conditional) / (seen.tries + kProspectWeight);
    product *= conditional;
    tokens += product;
    shape.draft_length = std::max(length, neighbours_.draft_length);
    shape.rows += n_sequences;
    shape.row_context += row_context;
    const double gain = (tokens + beside) / (1.0 + beside) * plain_s / costs_.step_seconds(shape) - 1.0;
    if (gain > best.gain) best = {length, gain};
  }
  return best;
}

/// What a row of a draft costs at about the number of drafts that are verified at this load.
double AdaptivePlanner::row_seconds(int32_t n_sequences, int32_t prompt_rows) const {
  // Sizes beside prompts are corrected each by what few steps said: a size that came out too dear makes rows
  // behind it look free.
  const double least = prompt_rows > 0 ? row_seconds(n_sequences, 0) : 0.0;
  const double verified = reach_[static_cast<size_t>(load_)].mean_verified;
  const int32_t n_rows = std::max(1, static_cast<int32_t>(verified * n_sequences + 0.5));
  StepShape shape = plain_shape(n_sequences);
  shape.rows += prompt_rows;
  shape.prompt_rows = prompt_rows;
  const double plain_s = costs_.step_seconds(shape);
  shape.rows += n_rows;
  shape.row_context += static_cast<int64_t>(context_per_sequence_ * n_rows);
  return std::max(least, (costs_.step_seconds(shape) - plain_s) / n_rows);
}

/// A position that was rarely asked for at this load is assumed to be verified always, and accepted as
/// elsewhere.
int32_t AdaptivePlanner::wanted_length(int32_t n_sequences, int32_t max_block, int32_t prompt_rows) const {
  const Reach& reach = reach_[static_cast<size_t>(load_)];
  const int32_t longest = std::min(max_block, kMaxDraftTokens);
  const StepShape plain = plain_shape(n_sequences);
  // What a token each is worth: the time that plain steps take for so many.
  const double plain_s = costs_.step_seconds(plain) / (1.0 + tokens_beside(n_sequences));
  const double neighbours_draft_s = costs_.draft_seconds(plain.draft_sequences, plain.draft_length);
  const double rows_s = n_sequences * row_seconds(n_sequences, prompt_rows);
  double conditional = kFirstAcceptance, product = 1.0, value_s = 0.0, best_s = 0.0;
  int32_t best = 0;
  for (int32_t length = 1; length <= longest; ++length) {
    const auto at = static_cast<size_t>(length) - 1;
    conditional = acceptance_at(at, conditional);
    product *= conditional;
    const AskedCount& seen = reach.positions[at];
    const double weight = seen.asked + kProspectWeight;
    value_s += (seen.accepted + kProspectWeight * product) / weight * plain_s -
               (seen.verified + kProspectWeight) / weight * rows_s;
    const double draft_s =
        costs_.draft_seconds(plain.draft_sequences + n_sequences, std::max(length, plain.draft_length));
    const double net_s = value_s - (draft_s - neighbours_draft_s);
    if (best == 0 || net_s > best_s) {
      best = length;
      best_s = net_s;
    }
  }
  if (prompt_rows > 0 && best_s <= 0.0) return 0;
  const bool looks_further = reach.n_steps % kLookFurther == kLookFurther - 1;
  return std::min(looks_further ? best + 1 : best, longest);
}

/// What a drafting step loses when nothing is accepted, in steps without drafts.
double AdaptivePlanner::drafting_risk(int32_t n_sequences, int32_t length) const {
  StepShape shape = plain_shape(n_sequences);
  const double plain_s = costs_.step_seconds(shape);
  const double verified = std::min(reach_[static_cast<size_t>(load_)].mean_verified, double(length));
  const auto more_rows = static_cast<int32_t>(verified * n_sequences + 0.5);
  shape.draft_sequences += n_sequences;
  shape.draft_length = std::max(length, shape.draft_length);
  shape.rows += more_rows;
  shape.row_context += static_cast<int64_t>(context_per_sequence_ * more_rows);
  return costs_.step_seconds(shape) / plain_s - 1.0;
}

int32_t AdaptivePlanner::draft_length(PlanLoad load, int32_t max_block, int32_t prompt_rows) {
  const int32_t n_sequences = load.n_sequences;
  stats_.last_draft_length = 0;
  stats_.last_budget = 0;
  n_planned_ = n_sequences;
  neighbours_ = load.neighbours;
  neighbours_.tokens = tokens_per_neighbour_ * neighbours_.n_sequences;
  plans_ = n_sequences > 0 && max_block > 0;
  if (!plans_) return 0;
  load_ = DraftGate::load_of(n_sequences + neighbours_.n_sequences);
  if (gate_.is_new(load_)) {
    double credit = DraftGate::kStartCredit;
    if (knows_acceptance()) {
      const double gain = prospect(n_sequences, max_block).gain;
      credit = gain > kGoodProspect ? DraftGate::kTrustedCredit : gain > 0.0 ? credit : 0.0;
    }
    gate_.start(load_, credit);
    open_share_[static_cast<size_t>(load_)] = credit > 0.0 ? 1.0 : 0.0;
  }
  const bool is_ready = 2 * load.n_ready >= n_sequences;
  const int32_t length = is_ready ? wanted_length(n_sequences, max_block, prompt_rows) : 0;
  const bool is_open = length > 0 && gate_.open(load_, drafting_risk(n_sequences, length));
  if (length > 0) {
    double& share = open_share_[static_cast<size_t>(load_)];
    share += kOpenStep * ((is_open ? 1.0 : 0.0) - share);
  }
  const bool drafts = is_open && !plain_step_is_due();
  ++stats_.planned_steps;
  ++(drafts ? stats_.drafting_steps : stats_.paused_steps);
  stats_.last_draft_length = drafts ? length : 0;
  return stats_.last_draft_length;
}

bool AdaptivePlanner::drafting_pays(int32_t n_sequences) const {
  const int32_t load = DraftGate::load_of(n_sequences + neighbours_.n_sequences);
  return gate_.is_new(load) || open_share_[static_cast<size_t>(load)] >= 0.5;
}

/// What drafting wins is told by what plain steps take, and who always drafts never sees one: a table that is
/// wrong there would stay wrong. So a step without drafts comes now and then, soon at a new load, rarely
/// later.
bool AdaptivePlanner::plain_step_is_due() {
  if (neighbours_.draft_sequences > 0) return false;  // who draft all the same
  PlainSteps& plain = plain_[static_cast<size_t>(load_)];
  if (plain.mean_gain > kSureGain) return false;  // plain steps would have to cost half of what they seem to
  // Where drafting wins little a plain step loses little, and what it tells decides more.
  const double most = std::clamp(plain.mean_gain / kPlainLoss, kShortestPlainGap, double{kLongestPlainGap});
  if (++plain.drafting_steps <= std::min(plain.gap, static_cast<int32_t>(most))) return false;
  plain.drafting_steps = 0;
  plain.gap = std::min(2 * plain.gap, kLongestPlainGap);
  return true;
}

/// What the drafts of a step cost. Beside prompts rows of drafts are dear where few rows are nearly free, but
/// never cheaper than without: they have logits, most prompt rows do not.
double AdaptivePlanner::drafts_seconds(const StepShape& shape, int32_t n_sequences,
                                       const PlanNeighbours& neighbours) const {
  const int32_t n_drafts = shape.rows - shape.prompt_rows - n_sequences - neighbours.rows;
  const int64_t own_context = shape.context - shape.prompt_context - neighbours.context;
  const int64_t drafts_context = n_drafts * (own_context / n_sequences);
  StepShape without = shape;
  without.rows -= n_drafts;
  without.row_context = std::max<int64_t>(0, shape.row_context - drafts_context);
  without.draft_sequences = neighbours.draft_sequences;
  without.draft_length = neighbours.draft_length;
  const double seconds = costs_.step_seconds(shape) - costs_.step_seconds(without);
  if (shape.prompt_rows == 0) return seconds;
  StepShape alone = shape;
  alone.rows -= shape.prompt_rows;
  alone.prompt_rows = 0;
  alone.context = own_context + neighbours.context;
  alone.prompt_context = 0;
  alone.row_context = own_context + neighbours.row_context + drafts_context;
  return std::max(seconds, drafts_seconds(alone, n_sequences, neighbours));
}

void AdaptivePlanner::observe_gain(const StepShape& shape, int32_t n_sequences, int32_t n_tokens,
                                   const PlanNeighbours& neighbours) {
  if (!plans_ || n_sequences <= 0) return;
  if (neighbours.n_sequences > 0) {
    tokens_per_neighbour_ +=
        kPriorStep * (neighbours.tokens / neighbours.n_sequences - tokens_per_neighbour_);
  }
  const int64_t own_context = shape.context - shape.prompt_context - neighbours.context;
  context_per_sequence_ = static_cast<double>(own_context) / n_sequences;
  // Drafts may come without a pass of a drafter's model. Then a step that verified none of them is a plain
  // one.
  const int32_t plain_rows = n_sequences + neighbours.rows;
  if (shape.draft_sequences <= neighbours.draft_sequences && shape.rows <= plain_rows + shape.prompt_rows) {
    return;
  }
  StepShape plain = shape;
  plain.draft_sequences = neighbours.draft_sequences;
  plain.draft_length = neighbours.draft_length;
  plain.prompt_rows = 0;
  plain.context = own_context + neighbours.context;
  plain.row_context = own_context + neighbours.row_context;
  plain.prompt_context = 0;
  plain.rows = plain_rows;
  // Steps with drafts and those without may come out differently than predicted: medians and corrections that
  // few steps of a size stand behind leave something over, and gains are small.
  const double predicted_s = costs_.step_seconds(plain);
  // Beside neighbours that draft a step without own drafts is a drafting one too.
  const double bias =
      neighbours.draft_sequences > 0 ? 1.0 : bias_[static_cast<size_t>(load_)].plain_over_drafting();
  const double plain_s = predicted_s * bias;
  // Without prompts both kinds of steps were compared; beside prompts they are predicted alike.
  const double bias_s = shape.prompt_rows > 0 ? 0.0 : plain_s - predicted_s;
  // A plain step brings the neighbours' tokens too.
  const double saved_s = plain_s * (n_tokens - n_sequences) / (n_sequences + neighbours.tokens) + bias_s;
  const double gain = (saved_s - drafts_seconds(shape, n_sequences, neighbours) - commit_s_) / plain_s;
  gate_.settle(load_, gain);
  double& mean_gain = plain_[static_cast<size_t>(load_)].mean_gain;
  mean_gain += kGainStep * (gain - mean_gain);
}

void AdaptivePlanner::observe_step(const StepShape& shape, double verify_s, double draft_s, double commit_s) {
  if (plans_ && shape.prompt_rows == 0) {
    // Of what the drafter did for all who draft, the part that was for those who are decided about.
    const double share = n_planned_ / static_cast<double>(n_planned_ + neighbours_.draft_sequences);
    commit_s_ += kCommitStep * (share * commit_s - commit_s_);
  }
  const double overhead_s = costs_.table().overhead_s;
  stats_.last_predicted_s = costs_.step_seconds(shape) - overhead_s;
  stats_.last_measured_s = verify_s + (shape.draft_sequences > 0 ? draft_s : 0.0);
  stats_.predicted_s += stats_.last_predicted_s;
  stats_.measured_s += stats_.last_measured_s;
  StepBias& bias = bias_[static_cast<size_t>(load_)];
  // Beside neighbours that draft there are no plain steps to compare with.
  const bool compares = plans_ && neighbours_.draft_sequences == 0;
  if (compares && shape.prompt_rows == 0 && stats_.last_predicted_s > 0.0) {
    const double at_constant_speed_s = stats_.last_predicted_s / costs_.correction();
    const bool drafts = shape.draft_sequences > 0 || (shape.draft_length > 0 && stats_.last_budget > 0);
    bias.add(drafts, stats_.last_measured_s / at_constant_speed_s);
  } else {
    bias.skip();
  }
  costs_.observe(shape, verify_s, draft_s);
  stats_.verify_correction = costs_.correction();
  stats_.draft_correction = costs_.draft_correction();
  plans_ = false;  // the step is over
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

/// The record of two steps ago, of the last step while there is no older one, the prior behind its end.
void AdaptivePlanner::fill_recorded(const SurvivalRecord& record, std::span<double> out) const {
  const bool has_older = record.n_older > 0;
  const auto n = static_cast<size_t>(has_older ? record.n_older : record.n);
  const auto& values = has_older ? record.older : record.values;
  for (size_t j = 0; j < out.size(); ++j) {
    out[j] = j < n ? values[j] : prior_row_[j];
    if (j > 0) out[j] = std::min(out[j], out[j - 1]);
  }
}

/// Sizes of the plan; false when no sequence has a draft.
bool AdaptivePlanner::measure(std::span<const PlanSequence> sequences) {
  int32_t stride = 1;
  bool has_drafts = false;
  for (const PlanSequence& sequence : sequences) {
    stride = std::max({stride, sequence.n_drafts, sequence.n_asked});
    has_drafts = has_drafts || sequence.n_drafts > 0;
  }
  const auto width = static_cast<size_t>(stride);
  live_.resize(sequences.size() * width);
  recorded_.resize(sequences.size() * width);
  prior_row_.resize(width);
  n_drafts_.resize(sequences.size());
  n_asked_.resize(sequences.size());
  kind_lengths_.resize(sequences.size());
  return has_drafts;
}

/// Lets the drafts of the sequences of one kind take part; the others are there with their anchors. returns:
/// drafts asked for in all, 0 when no sequence of the kind has any.
int32_t AdaptivePlanner::take(bool causal, std::span<const PlanSequence> sequences) {
  int32_t n_asked_total = 0, n_more = 0;
  any_schedule_ = true;
  for (size_t r = 0; r < sequences.size(); ++r) {
    const PlanSequence& sequence = sequences[r];
    const bool takes_part = (kinds_[r] == VerifyPolicy::Kind::kCausal) == causal;
    n_drafts_[r] = takes_part ? sequence.n_drafts : 0;
    n_asked_[r] = takes_part ? std::max(sequence.n_asked, sequence.n_drafts) : 0;
    any_schedule_ = any_schedule_ && (!takes_part || sequence.any_schedule);
    n_asked_total += n_asked_[r];
    n_more += n_drafts_[r];
  }
  return n_more == 0 ? 0 : n_asked_total;
}

/// Makes step_seconds_ that of a step without prompts in which rows of drafts cost as much as beside them,
/// and at least what they cost alone (see drafts_seconds).
void AdaptivePlanner::leave_out_prompts(const StepShape& shape, int32_t n_more, double context) {
  StepShape alone = shape;
  alone.rows -= shape.prompt_rows;
  alone.prompt_rows = 0;
  alone.context = shape.context - shape.prompt_context;
  alone.prompt_context = 0;
  costs_.step_costs(alone, n_more, context, alone_seconds_);
  const double more_s = alone_seconds_.front() - step_seconds_.front();
  for (size_t b = 0; b < step_seconds_.size(); ++b) {
    step_seconds_[b] = std::max(step_seconds_[b] + more_s, alone_seconds_[b]);
  }
}

/// Seconds of the step by anchors and drafts of its sequences. context: positions that a draft looks at.
void AdaptivePlanner::fill_step_seconds(const StepShape& shape, int32_t n_more, double context,
                                        size_t n_sequences) {
  costs_.step_costs(shape, n_more, context, step_seconds_);
  if (shape.prompt_rows > 0) leave_out_prompts(shape, n_more, context);
  step_seconds_.insert(step_seconds_.begin(), n_sequences, step_seconds_.front());
}

/// The budget of the adaptive sequences and who gets it, into kind_lengths_.
void AdaptivePlanner::allot(std::span<const PlanSequence> sequences, double given_tokens) {
  const size_t width = prior_row_.size();
  const auto stride = static_cast<int32_t>(width);
  const SurvivalRows live{live_, n_drafts_, stride};
  SurvivalRows basis = live;
  if (!any_schedule_) {
    // A budget from live confidences anticipates; where that matters, the records decide about it.
    for (size_t r = 0; r < sequences.size(); ++r) {
      if (n_asked_[r] == 0) continue;
      fill_recorded(*sequences[r].record, std::span(recorded_).subspan(r * width, width));
    }
    basis = {recorded_, n_asked_, stride};
  }
  const int32_t budget = history_budget(basis, {step_seconds_, 0, given_tokens}, scratch_);
  allot_budget(live, budget, scratch_, kind_lengths_);
  // Drafts that are never verified never show that they became better.
  if (budget == 0 && ++steps_unverified_ % kSampleSteps == 0) {
    for (size_t r = 0; r < sequences.size(); ++r) kind_lengths_[r] = std::min(1, n_drafts_[r]);
  }
}

void AdaptivePlanner::verify_lengths(VerifyPolicy::Kind kind, const StepShape& shape,
                                     std::span<const PlanSequence> sequences, std::span<int32_t> lengths) {
  kinds_.assign(sequences.size(), kind);
  plan(shape, sequences, lengths, {});
}

void AdaptivePlanner::verify_lengths(const StepShape& shape, std::span<const PlanSequence> sequences,
                                     std::span<int32_t> lengths, const PlanNeighbours& neighbours) {
  kinds_.clear();
  for (const PlanSequence& sequence : sequences) kinds_.push_back(sequence.kind);
  plan(shape, sequences, lengths, neighbours);
}

/// One kind after the other; what was given to the causal ones is there when the adaptive ones are planned.
/// A sequence's drafts take part in one of the two plans only, so both of them anticipate as little as alone.
void AdaptivePlanner::plan(const StepShape& shape, std::span<const PlanSequence> sequences,
                           std::span<int32_t> lengths, const PlanNeighbours& neighbours) {
  std::ranges::fill(lengths, 0);
  if (!measure(sequences)) return;
  const size_t width = prior_row_.size();
  fill_prior(prior_row_);
  for (size_t r = 0; r < sequences.size(); ++r) {
    fill_live(sequences[r], std::span(live_).subspan(r * width, width));
  }
  const auto n = static_cast<double>(sequences.size());
  const double context = static_cast<double>(shape.context - shape.prompt_context - neighbours.context) / n;
  StepShape step = shape;
  double given_tokens = neighbours.tokens;
  for (const bool causal : {true, false}) {
    const int32_t n_asked = take(causal, sequences);
    if (n_asked == 0) continue;
    fill_step_seconds(step, n_asked, context, sequences.size());
    if (!causal) {
      allot(sequences, given_tokens);
    } else {
      const SurvivalRows live{live_, n_drafts_, static_cast<int32_t>(width)};
      schedule_causal(live, {step_seconds_, 0, given_tokens}, scratch_, kind_lengths_);
    }
    for (size_t r = 0; r < sequences.size(); ++r) {
      if (kind_lengths_[r] == 0) continue;
      lengths[r] = kind_lengths_[r];
      if (!causal) continue;
      step.rows += lengths[r];
      step.row_context += static_cast<int64_t>(context * lengths[r]);
      for (size_t j = 0; j < static_cast<size_t>(lengths[r]); ++j) given_tokens += live_[r * width + j];
    }
  }
  remember(sequences);
  stats_.last_budget = std::accumulate(lengths.begin(), lengths.end(), 0);
  stats_.budget_tokens += stats_.last_budget;
  Reach& reach = reach_[static_cast<size_t>(load_)];
  ++reach.n_steps;
  reach.mean_verified += kPriorStep * (stats_.last_budget / n - reach.mean_verified);
}

// This step's survivals become the sequences' records and move the running mean.
void AdaptivePlanner::remember(std::span<const PlanSequence> sequences) {
  const size_t width = prior_row_.size();
  for (size_t r = 0; r < sequences.size(); ++r) {
    if (sequences[r].n_drafts == 0) continue;
    SurvivalRecord& record = *sequences[r].record;
    std::copy_n(record.values.begin(), record.n, record.older.begin());
    record.n_older = record.n;
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
    AcceptanceCount& seen = acceptance_[static_cast<size_t>(j)];
    seen.tries = seen.tries * kForget + 1.0;
    seen.hits = seen.hits * kForget + (j < n_accepted ? 1.0 : 0.0);
  }
  Reach& reach = reach_[static_cast<size_t>(load_)];
  for (int32_t j = 0; j < stats_.last_draft_length; ++j) {
    AskedCount& seen = reach.positions[static_cast<size_t>(j)];
    seen.asked = seen.asked * kForgetAsked + 1.0;
    seen.verified = seen.verified * kForgetAsked + (j < n_verified ? 1.0 : 0.0);
    seen.accepted = seen.accepted * kForgetAsked + (j < n_accepted ? 1.0 : 0.0);
  }
}

}  // namespace dspark
