#include "load/schedule_sim.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "speculate/adaptive_planner.h"

namespace dspark {
namespace {

/// Between entries linear, behind the last along the last slope; unlike CostModel never made monotone.
double curve_seconds(const std::vector<CostPoint>& points, int32_t n) {
  if (points.empty() || n <= 0) return 0.0;
  if (points.size() == 1 || n <= points.front().n) return points.front().seconds;
  auto right = std::ranges::lower_bound(points, n, {}, &CostPoint::n);
  if (right == points.end()) --right;
  const CostPoint &a = *(right - 1), &b = *right;
  const double seconds = a.seconds + (b.seconds - a.seconds) * (n - a.n) / static_cast<double>(b.n - a.n);
  return std::max(seconds, points.front().seconds * 1e-3);
}

/// One request on its way.
struct SimSequence {
  const TraceAnswer* answer = nullptr;
  double submitted_s = 0.0;
  double first_s = 0.0;
  int32_t n_prompt = 0;  // rows read
  int32_t n_out = 0;     // tokens committed
  SurvivalRecord survivals;
  // The step in hand.
  int32_t n_asked = 0, n_drafted = 0, n_verify = 0, n_prompt_rows = 0;

  bool decodes() const { return n_out > 0; }
  int64_t n_cached() const { return n_out > 0 ? int64_t{answer->prompt_tokens} + n_out - 1 : n_prompt; }
  const TraceAnchor& anchor() const { return answer->anchors[static_cast<size_t>(n_out - 1)]; }
};

class Simulation {
 public:
  Simulation(const RoundTrace& trace, const SimOptions& options) : trace_(trace), options_(options) {
    if (options.policy.needs_costs()) planner_ = std::make_unique<AdaptivePlanner>(options.belief);
    if (options.arrivals.kind != ArrivalProcess::Kind::kClosed) {
      arrivals_ = arrival_times(options.arrivals, options.rate, options.n_requests, options.seed);
    }
  }

  SimResult run() {
    while (n_done_ < options_.n_requests) {
      admit();
      if (running_.empty()) {
        now_ = arrivals_[static_cast<size_t>(next_)];
        continue;
      }
      shape_ = {};
      draft();
      plan();
      read_prompts();
      spend();
      accept();
    }
    finish();
    return std::move(result_);
  }

 private:
  void admit() {
    while (next_ < options_.n_requests && static_cast<int32_t>(running_.size()) < options_.max_sequences &&
           (arrivals_.empty() || arrivals_[static_cast<size_t>(next_)] <= now_)) {
      SimSequence sequence;
      sequence.answer = &trace_.answers[static_cast<size_t>(next_) % trace_.answers.size()];
      sequence.submitted_s = arrivals_.empty() ? now_ : arrivals_[static_cast<size_t>(next_)];
      running_.push_back(sequence);
      ++next_;
    }
  }

  void draft() {
    int32_t n_decoding = 0, prompt_rows = 0;
    for (const SimSequence& sequence : running_) {
      n_decoding += sequence.decodes() ? 1 : 0;
      prompt_rows += sequence.decodes() ? 0 : sequence.answer->prompt_tokens - sequence.n_prompt;
    }
    prompt_rows = std::min(prompt_rows, options_.prefill_rows);
    const int32_t most = planner_ != nullptr
                             ? planner_->draft_length(n_decoding, trace_.max_block, prompt_rows)
                             : std::min(options_.policy.draft_tokens(), trace_.max_block);
    for (SimSequence& sequence : running_) {
      sequence.n_asked = sequence.n_drafted = sequence.n_verify = sequence.n_prompt_rows = 0;
      if (!sequence.decodes()) continue;
      // The last token is always the target's own.
      sequence.n_asked = std::max(0, std::min(most, sequence.answer->output_tokens - sequence.n_out - 1));
      sequence.n_drafted = std::min<int32_t>(sequence.n_asked, sequence.anchor().n_drafts);
      if (sequence.n_asked == 0) continue;
      ++shape_.draft_sequences;
      shape_.draft_length = std::max(shape_.draft_length, sequence.n_asked);
    }
  }

  /// As CostModel::counted_positions.
  int64_t counted_positions(const SimSequence& sequence) const {
    return std::llround(options_.truth.counted_positions(static_cast<double>(sequence.n_cached())));
  }

  /// The step without its drafts, as Engine::shape_without_drafts.
  StepShape shape_without_drafts() const {
    StepShape shape = shape_;
    int32_t prompt_rows = 0;
    for (const SimSequence& sequence : running_) {
      const int64_t context = counted_positions(sequence);
      shape.context += context;
      if (sequence.decodes()) {
        ++shape.rows;
        shape.row_context += context;
      } else {
        prompt_rows += sequence.answer->prompt_tokens - sequence.n_prompt;
        shape.prompt_context += context;
      }
    }
    shape.prompt_rows = std::min(prompt_rows, options_.prefill_rows);
    shape.rows += shape.prompt_rows;
    return shape;
  }

  void plan() {
    lengths_.clear();
    plan_.clear();
    bool prefills = false;
    for (SimSequence& sequence : running_) {
      prefills |= !sequence.decodes();
      if (!sequence.decodes()) continue;
      const auto n = static_cast<size_t>(sequence.n_drafted);
      std::span<const float> confidence = trace_.confidence_of(sequence.anchor());
      confidence = confidence.first(std::min(n, confidence.size()));
      lengths_.push_back(verify_length(options_.policy, sequence.n_drafted, confidence));
      plan_.push_back({sequence.n_drafted, sequence.n_asked, confidence, true, &sequence.survivals});
    }
    if (planner_ != nullptr && !plan_.empty()) {
      planner_->verify_lengths(options_.policy.kind, shape_without_drafts(), plan_, lengths_);
    }
    const int64_t for_prompts = prefills ? std::min(options_.prefill_rows, options_.max_batch_rows / 2) : 0;
    cap_verify_rows(lengths_, options_.max_batch_rows - for_prompts);
    size_t next = 0;
    for (SimSequence& sequence : running_) {
      if (!sequence.decodes()) continue;
      sequence.n_verify = lengths_[next++];
      add_rows(sequence, 1 + sequence.n_verify);
    }
  }

  void add_rows(const SimSequence& sequence, int32_t n) {
    shape_.rows += n;
    shape_.context += counted_positions(sequence);
    shape_.row_context += n * counted_positions(sequence);
  }

  void read_prompts() {
    int32_t budget = std::min(options_.prefill_rows, options_.max_batch_rows - shape_.rows);
    for (SimSequence& sequence : running_) {
      if (sequence.decodes() || budget <= 0) continue;
      sequence.n_prompt_rows = std::min(budget, sequence.answer->prompt_tokens - sequence.n_prompt);
      add_rows(sequence, sequence.n_prompt_rows);
      shape_.prompt_rows += sequence.n_prompt_rows;
      shape_.prompt_context += counted_positions(sequence);
      budget -= sequence.n_prompt_rows;
    }
    result_.prompt_tokens += shape_.prompt_rows;
  }

  double draft_seconds() const {
    const CostTable& truth = options_.truth;
    const double whole = curve_seconds(truth.draft, shape_.draft_sequences);
    if (truth.draft_short.empty() || truth.draft_length <= 1) return whole;
    const double one = curve_seconds(truth.draft_short, shape_.draft_sequences);
    const double share =
        (std::min(shape_.draft_length, truth.draft_length) - 1.0) / (truth.draft_length - 1.0);
    return one + (whole - one) * share;
  }

  void spend() {
    const CostTable& truth = options_.truth;
    verify_s_ = curve_seconds(truth.verify, shape_.rows) +
                truth.context_s * static_cast<double>(shape_.context) +
                truth.row_context_s * static_cast<double>(shape_.row_context);
    draft_s_ = shape_.draft_sequences > 0 ? draft_seconds() : 0.0;
    step_s_ = verify_s_ + draft_s_ + truth.overhead_s;
    now_ += step_s_;
    ++result_.steps;
    result_.verify_s += verify_s_;
    result_.draft_s += draft_s_;
    result_.overhead_s += truth.overhead_s;
  }

  void accept() {
    int32_t n_rounds = 0, round_tokens = 0;
    SimStep log{now_, 0, 0, 0};
    for (SimSequence& sequence : running_) {
      if (sequence.decodes()) {
        const int32_t n_new = accept_round(sequence);
        ++n_rounds;
        round_tokens += n_new;
        log.drafted += sequence.n_drafted;
        log.verified += sequence.n_verify;
        inter_token_s_.insert(inter_token_s_.end(), static_cast<size_t>(n_new), step_s_ / n_new);
      } else {
        sequence.n_prompt += sequence.n_prompt_rows;
        if (sequence.n_prompt_rows > 0 && sequence.n_prompt == sequence.answer->prompt_tokens) {
          sequence.n_out = 1;  // the token behind the prompt
          sequence.first_s = now_;
          ttft_s_.push_back(now_ - sequence.submitted_s);
        }
      }
      if (sequence.n_out == sequence.answer->output_tokens) end(sequence);
    }
    log.decode_sequences = n_rounds;
    decode_sequences_ += n_rounds;
    if (options_.keep_steps) result_.step_log.push_back(log);
    if (planner_ != nullptr) {
      planner_->observe_gain(shape_, n_rounds, round_tokens);
      planner_->observe_step(shape_, verify_s_, draft_s_);
    }
    std::erase_if(running_, [](const SimSequence& s) { return s.n_out == s.answer->output_tokens; });
  }

  /// returns: tokens the round adds.
  int32_t accept_round(SimSequence& sequence) {
    const int32_t left = sequence.answer->output_tokens - sequence.n_out;
    const int32_t accepted = std::min<int32_t>(sequence.n_verify, sequence.anchor().accepted);
    // A stop token among the accepted drafts ends the round with it.
    const bool stopped = accepted >= left;
    const RoundRecord round =
        make_round_record(sequence.n_drafted, sequence.n_verify, accepted, stopped ? left - 1 : -1);
    result_.speculation.add(round);
    if (planner_ != nullptr) planner_->observe_round(round.proposal_length, round.accepted);
    sequence.n_out += round.acceptance_length;
    return round.acceptance_length;
  }

  void end(const SimSequence& sequence) {
    ++n_done_;
    result_.tokens += sequence.n_out;
    if (sequence.n_out > 1) speeds_.push_back((sequence.n_out - 1) / (now_ - sequence.first_s));
  }

  void finish() {
    result_.seconds = now_;
    result_.tokens_per_s = static_cast<double>(result_.tokens) / now_;
    result_.user_tokens_per_s = median_of(std::move(speeds_));
    result_.mean_decode_sequences =
        static_cast<double>(decode_sequences_) / static_cast<double>(result_.steps);
    result_.ttft_s = summarize_quantiles(std::move(ttft_s_));
    result_.inter_token_s = summarize_quantiles(std::move(inter_token_s_));
  }

  const RoundTrace& trace_;
  const SimOptions& options_;
  std::unique_ptr<AdaptivePlanner> planner_;
  std::vector<double> arrivals_;
  std::vector<SimSequence> running_;  // in order of admission
  int64_t next_ = 0, n_done_ = 0;
  double now_ = 0.0, step_s_ = 0.0, verify_s_ = 0.0, draft_s_ = 0.0;
  StepShape shape_;
  std::vector<int32_t> lengths_;
  std::vector<PlanSequence> plan_;
  int64_t decode_sequences_ = 0;
  std::vector<double> ttft_s_, inter_token_s_, speeds_;
  SimResult result_;
};

Status want(bool ok, const char* message) {
  return ok ? ok_status() : invalid_argument(message);
}

}  // namespace

Status SimOptions::validate() const {
  DSPARK_RETURN_IF_ERROR(policy.validate());
  DSPARK_RETURN_IF_ERROR(want(max_sequences >= 1, "max_sequences: want at least 1"));
  DSPARK_RETURN_IF_ERROR(want(n_requests >= 1, "n_requests: want at least 1"));
  DSPARK_RETURN_IF_ERROR(want(prefill_rows >= 1, "prefill_rows: want at least 1"));
  DSPARK_RETURN_IF_ERROR(want(rate > 0.0, "rate: want more than 0"));
  DSPARK_RETURN_IF_ERROR(want(max_batch_rows > int64_t{2} * max_sequences + 1,
                              "max_batch_rows: want more than twice max_sequences"));
  DSPARK_RETURN_IF_ERROR(truth.validate());
  return policy.needs_costs() ? belief.validate() : ok_status();
}

Result<SimResult> simulate_schedule(const RoundTrace& trace, const SimOptions& options) {
  DSPARK_RETURN_IF_ERROR(options.validate());
  if (trace.answers.empty()) return invalid_argument("trace: has no answers");
  return Simulation(trace, options).run();
}

}  // namespace dspark
