// The step loop: admit, draft, plan, batch, forward, commit, emit, learn. Its part accept is accept_step.cc.

#include <algorithm>
#include <utility>

#include "engine/engine.h"

namespace dspark {
namespace {

double seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

}  // namespace

void Engine::step() {
  admit();
  draft();
  plan();
  batch();
  forward();
  accept();
  commit();
  emit();
  learn();
}

/// Takes new requests and cancellations in; starts waiting requests, first come first served, while slots
/// and pages allow.
void Engine::admit() {
  step_start_ = Clock::now();
  step_stats_ = {};
  take_inbox();
  for (auto& sequence : waiting_) {
    if (sequence->cancel_requested) {
      finish(*sequence, FinishReason::kCancelled);
      ended_.push_back(std::move(sequence));
    }
  }
  std::erase(waiting_, nullptr);
  for (auto& sequence : running_) {
    sequence->step = {};
    sequence->events.clear();
    if (sequence->cancel_requested) finish(*sequence, FinishReason::kCancelled);
  }
  size_t n_started = 0;
  while (n_started < waiting_.size() && try_start(*waiting_[n_started])) {
    running_.push_back(std::move(waiting_[n_started++]));
  }
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(n_started));
}

/// Gives a sequence its slot and sets its worst case of pages aside, so that it never has to wait for a page
/// again. returns: false when it must wait.
bool Engine::try_start(Sequence& sequence) {
  if (free_slots_.empty() || reserved_pages_ + sequence.reserved_pages > pages_.n_pages()) return false;
  sequence.slot = free_slots_.back();
  free_slots_.pop_back();
  reserved_pages_ += sequence.reserved_pages;
  sequence.pages.reserve(static_cast<size_t>(sequence.reserved_pages));
  sequence.tokens.reserve(static_cast<size_t>(sequence.token_limit));
  sequence.tokens = sequence.request.prompt;
  sequence.events.reserve(kMaxDraftTokens + 1);
  if (sequence.request.sampling.has_penalties()) sequence.counts.reset(sequence.tokens);
  sequence.admitted_at = step_start_;
  sequence.stats.queue_s = seconds(sequence.admitted_at - sequence.submitted_at);
  return true;
}

bool Engine::decodes(const Sequence& sequence) const {
  return !sequence.finished() && !sequence.prefilling();
}

/// One drafter pass over all decoding sequences that want drafts. Drafts never reach beyond the end of the
/// text: the last token is always the target's own.
void Engine::draft() {
  draft_requests_.clear();
  int32_t longest = 0;
  const int32_t adaptive_length = adaptive_draft_length();
  for (auto& sequence : running_) {
    if (!decodes(*sequence) || !sequence->drafts) continue;
    const int32_t most = sequence->policy.needs_costs() ? adaptive_length : sequence->policy.draft_tokens();
    const int32_t limit =
        std::min({most, drafter_->max_block(), sequence->token_limit - sequence->n_tokens() - 1});
    if (limit <= 0) continue;
    sequence->step.draft_idx = static_cast<int32_t>(draft_requests_.size());
    draft_requests_.push_back({sequence->slot, sequence->tokens.back(), sequence->n_cached, limit,
                               &sequence->request.sampling, sequence->rule});
    longest = std::max(longest, limit);
  }
  if (draft_requests_.empty()) return;
  const Clock::time_point start = Clock::now();
  draft_block_.reset(draft_requests_.size(), longest);
  const bool drafted = drafter_->propose(draft_requests_, draft_block_).ok();
  step_stats_.draft_s = seconds(Clock::now() - start);
  const int32_t vocab_size = model_.config().vocab_size;
  for (auto& sequence : running_) {
    const int32_t idx = sequence->step.draft_idx;
    if (idx < 0 || !drafted) continue;
    const std::span<const int32_t> row = draft_block_.row(static_cast<size_t>(idx));
    const int32_t limit = std::min(draft_block_.n_tokens[static_cast<size_t>(idx)],
                                   draft_requests_[static_cast<size_t>(idx)].max_tokens);
    // A drafter with another vocabulary must not send ids the target does not have.
    while (sequence->step.n_drafted < limit) {
      const int32_t token = row[static_cast<size_t>(sequence->step.n_drafted)];
      if (token < 0 || token >= vocab_size) break;
      ++sequence->step.n_drafted;
    }
    step_stats_.drafted_tokens += sequence->step.n_drafted;
  }
}

/// What the step costs at least: anchors, and the prompt rows that batch() will add.
StepShape Engine::shape_without_drafts() const {
  StepShape shape;
  int32_t prompt_rows = 0;
  for (const auto& sequence : running_) {
    if (sequence->finished()) continue;
    shape.context += sequence->n_cached;
    if (sequence->prefilling()) {
      prompt_rows += sequence->n_prompt - sequence->n_cached;
    } else {
      ++shape.rows;
      shape.row_context += sequence->n_cached;
    }
  }
  shape.rows += std::min(prompt_rows, options_.prefill_rows);
  return shape;
}

/// Drafts to ask for per sequence with an adaptive policy; 0 when there is none or drafting does not pay.
int32_t Engine::adaptive_draft_length() {
  if (planner_ == nullptr) return 0;
  int32_t n = 0;
  for (const auto& sequence : running_) {
    n += decodes(*sequence) && sequence->drafts && sequence->policy.needs_costs() ? 1 : 0;
  }
  return planner_->draft_length(n, drafter_->max_block());
}

/// Verify lengths of the sequences with an adaptive policy, planned together; those of others stay.
void Engine::plan_adaptive() {
  if (planner_ == nullptr) return;
  plan_sequences_.clear();
  StepShape shape = shape_without_drafts();
  shape.draft_sequences = static_cast<int32_t>(draft_requests_.size());
  VerifyPolicy::Kind kind = VerifyPolicy::Kind::kCausal;
  size_t next = 0;
  for (auto& sequence : running_) {
    if (!decodes(*sequence)) continue;
    const int32_t length = verify_lengths_[next++];
    if (!sequence->drafts || !sequence->policy.needs_costs()) {
      shape.rows += length;
      continue;
    }
    if (sequence->policy.kind == VerifyPolicy::Kind::kAdaptive) kind = VerifyPolicy::Kind::kAdaptive;
    const int32_t idx = sequence->step.draft_idx;
    const int32_t n_asked = idx < 0 ? 0 : draft_requests_[static_cast<size_t>(idx)].max_tokens;
    plan_sequences_.push_back({sequence->step.n_drafted, n_asked, confidences(*sequence),
                               sequence->rule == AcceptRule::kCoupled, &sequence->survivals});
  }
  if (plan_sequences_.empty()) return;
  plan_lengths_.resize(plan_sequences_.size());
  planner_->verify_lengths(kind, shape, plan_sequences_, plan_lengths_);
  next = 0;
  size_t next_planned = 0;
  for (auto& sequence : running_) {
    if (!decodes(*sequence)) continue;
    if (sequence->drafts && sequence->policy.needs_costs()) {
      verify_lengths_[next] = plan_lengths_[next_planned++];
    }
    ++next;
  }
}

/// What the drafter said of the usable drafts of a sequence; empty when it says nothing.
std::span<const float> Engine::confidences(const Sequence& sequence) const {
  const SequenceStep& step = sequence.step;
  if (step.n_drafted == 0 || !draft_block_.has_confidence) return {};
  const auto first = static_cast<size_t>(step.draft_idx) * static_cast<size_t>(draft_block_.stride);
  return std::span(draft_block_.confidence).subspan(first, static_cast<size_t>(step.n_drafted));
}

/// Verify length of every decoding sequence. When prompts wait for rows too, they keep at least a share of
/// the pass.
void Engine::plan() {
  verify_lengths_.clear();
  bool prefills = false;
  for (const auto& sequence : running_) {
    prefills |= !sequence->finished() && sequence->prefilling();
    if (decodes(*sequence)) {
      verify_lengths_.push_back(
          verify_length(sequence->policy, sequence->step.n_drafted, confidences(*sequence)));
    }
  }
  plan_adaptive();
  const int64_t rows_for_prompts =
      prefills ? std::min(options_.prefill_rows, options_.max_batch_rows / 2) : 0;
  cap_verify_rows(verify_lengths_, options_.max_batch_rows - rows_for_prompts);
  size_t next = 0;
  for (auto& sequence : running_) {
    if (decodes(*sequence)) sequence->step.n_verify = verify_lengths_[next++];
  }
}

/// One ragged batch: anchors with their drafts, then prompt chunks in order of admission.
void Engine::batch() {
  batch_.clear();
  for (auto& sequence : running_) {
    if (!decodes(*sequence)) continue;
    const SequenceStep& step = sequence->step;
    const int32_t anchor = sequence->tokens.back();
    append_rows(*sequence, {&anchor, 1}, 1);
    if (step.n_verify > 0) {
      append_rows(
          *sequence,
          draft_block_.row(static_cast<size_t>(step.draft_idx)).first(static_cast<size_t>(step.n_verify)),
          step.n_verify);
    }
    ++step_stats_.decode_sequences;
    step_stats_.decode_rows += step.n_rows;
  }
  int32_t budget =
      std::min(options_.prefill_rows, options_.max_batch_rows - static_cast<int32_t>(batch_.n_rows()));
  for (auto& sequence : running_) {
    if (budget <= 0) break;
    if (sequence->finished() || !sequence->prefilling()) continue;
    const int32_t n = std::min(budget, sequence->n_prompt - sequence->n_cached);
    const bool completes = sequence->n_cached + n == sequence->n_prompt;
    append_rows(
        *sequence,
        std::span(sequence->tokens).subspan(static_cast<size_t>(sequence->n_cached), static_cast<size_t>(n)),
        completes ? 1 : 0);
    budget -= n;
    step_stats_.prefill_rows += n;
  }
}

/// Rows of one sequence behind those it already has in this batch; logits for the last n_logits of them.
void Engine::append_rows(Sequence& sequence, std::span<const int32_t> tokens, int32_t n_logits) {
  SequenceStep& step = sequence.step;
  const auto n_new = static_cast<int32_t>(tokens.size());
  const auto row_begin = static_cast<int32_t>(batch_.n_rows());
  const int32_t pos_begin = sequence.n_cached + step.n_rows;
  [[maybe_unused]] const bool grown = pages_.grow(sequence.pages, pos_begin + n_new);
  DSPARK_DCHECK(grown && "pages were reserved at admission");
  if (step.n_rows == 0) {
    step.row_begin = row_begin;
    step.logit_begin = static_cast<int32_t>(batch_.logit_rows.size());
    step.capture_begin = static_cast<int32_t>(batch_.capture_rows.size());
    batch_.runs.push_back({row_begin, 0, pos_begin, {}});
  }
  const bool captures = sequence.drafts && !drafter_->tap_layers().empty();
  for (int32_t i = 0; i < n_new; ++i) {
    batch_.tokens.push_back(tokens[static_cast<size_t>(i)]);
    batch_.positions.push_back(pos_begin + i);
    if (i >= n_new - n_logits) batch_.logit_rows.push_back(row_begin + i);
    if (captures) batch_.capture_rows.push_back(row_begin + i);
  }
  step.n_rows += n_new;
  step.n_logits += n_logits;
  batch_.runs.back().n_rows = step.n_rows;
  batch_.runs.back().pages = sequence.pages;
}

void Engine::forward() {
  if (batch_.n_rows() == 0) return;
  const Clock::time_point start = Clock::now();
  result_ = model_.forward(batch_, pool_);
  step_stats_.forward_s = seconds(Clock::now() - start);
  if (!result_.out_of_memory) return;
  for (auto& sequence : running_) {
    if (sequence->step.n_rows > 0) finish(*sequence, FinishReason::kError);
  }
}

/// Makes the kept rows final, gives back what lies behind them, and tells the drafter.
void Engine::commit() {
  for (auto& sequence : running_) {
    sequence->n_cached = std::min(sequence->n_cached + sequence->step.n_kept, sequence->n_tokens());
    pages_.shrink(sequence->pages, sequence->n_cached);
  }
  const Clock::time_point start = Clock::now();
  if (drafter_ != nullptr) tell_drafter();
  step_stats_.commit_s = seconds(Clock::now() - start);
  for (auto& sequence : running_) {
    if (sequence->finished()) close(*sequence);
  }
}

void Engine::tell_drafter() {
  commit_events_.clear();
  const int32_t dim = model_.config().dim;
  const auto n_captured = static_cast<int64_t>(batch_.capture_rows.size());
  for (auto& sequence : running_) {
    if (!sequence->drafts || sequence->finished() || sequence->step.n_kept == 0) continue;
    const int32_t n_known = sequence->prefilling() ? sequence->n_cached : sequence->n_tokens();
    CommitEvent event;
    event.slot = sequence->slot;
    event.token_position = sequence->n_told;
    event.tokens =
        std::span(sequence->tokens)
            .subspan(static_cast<size_t>(sequence->n_told), static_cast<size_t>(n_known - sequence->n_told));
    event.n_features = sequence->step.n_kept;
    event.feature_position = sequence->n_cached - sequence->step.n_kept;
    if (n_captured > 0) {
      event.features = result_.captured.data() + int64_t{sequence->step.capture_begin} * dim;
      event.tap_stride = n_captured * dim;
    }
    event.dim = dim;
    sequence->n_told = n_known;
    commit_events_.push_back(event);
  }
  if (!commit_events_.empty()) drafter_->commit(commit_events_);
}

/// Gives everything a finished sequence holds back to the engine.
void Engine::close(Sequence& sequence) {
  pages_.shrink(sequence.pages, 0);
  reserved_pages_ -= sequence.reserved_pages;
  sequence.reserved_pages = 0;
  if (sequence.drafts) drafter_->release(sequence.slot);
  free_slots_.push_back(sequence.slot);
  sequence.slot = -1;
}

/// Streams what happened; finished requests leave.
void Engine::emit() {
  for (auto& sequence : ended_) deliver(*sequence);
  ended_.clear();
  for (auto& sequence : running_) {
    if (sequence->step.n_rows > 0 || sequence->finished()) deliver(*sequence);
  }
  std::erase_if(running_, [](const auto& sequence) { return sequence->finished(); });
}

/// What the step's round did; the drafts are still in the block.
RoundView Engine::round_of(const Sequence& sequence) const {
  RoundView round;
  const SequenceStep& step = sequence.step;
  if (!step.has_round) return round;
  round.anchor_position = step.anchor_position;
  round.counts = step.round;
  if (step.n_drafted == 0) return round;
  const auto first = static_cast<size_t>(step.draft_idx) * static_cast<size_t>(draft_block_.stride);
  const auto n = static_cast<size_t>(step.n_drafted);
  round.drafts = std::span(draft_block_.tokens).subspan(first, n);
  if (draft_block_.has_confidence) {
    round.confidence = confidences(sequence);
    round.confidence_logits = std::span(draft_block_.confidence_logits).subspan(first, n);
  }
  return round;
}

void Engine::deliver(Sequence& sequence) {
  const Clock::time_point now = Clock::now();
  GenerateStats& stats = sequence.stats;
  if (stats.output_tokens > 0) {
    stats.prompt_s = seconds(sequence.first_token_at - sequence.admitted_at);
    stats.decode_s = seconds(now - sequence.first_token_at);
  }
  StreamUpdate update;
  update.id = sequence.id;
  update.prompt_tokens = sequence.n_prompt;
  update.prompt_done =
      stats.output_tokens > 0 ? sequence.n_prompt : std::min(sequence.n_cached, sequence.n_prompt);
  update.tokens = sequence.events;
  update.text = sequence.text.take();
  update.finish_reason = sequence.finish_reason;
  update.stats = &stats;
  const RoundView round = round_of(sequence);
  if (sequence.step.has_round) update.round = &round;
  stats_.output_tokens += static_cast<int64_t>(sequence.events.size());
  if (sequence.finished()) {
    ++stats_.requests_finished;
    stats_.speculation.add(stats.speculation);
    n_open_.fetch_sub(1, std::memory_order_relaxed);
  }
  if (sequence.on_update) sequence.on_update(update);
}

/// Measurements of the step into the engine's sums.
void Engine::learn() {
  if (batch_.n_rows() == 0) return;
  step_stats_.step_s = seconds(Clock::now() - step_start_);
  ++stats_.steps;
  stats_.prompt_tokens += step_stats_.prefill_rows;
  stats_.draft_s += step_stats_.draft_s;
  stats_.forward_s += step_stats_.forward_s;
  stats_.commit_s += step_stats_.commit_s;
  stats_.step_s += step_stats_.step_s;
  StepShape& shape = step_stats_.shape;
  shape.rows = static_cast<int32_t>(batch_.n_rows());
  shape.draft_sequences = static_cast<int32_t>(draft_requests_.size());
  for (const KvRun& run : batch_.runs) {
    shape.context += run.pos_begin;
    shape.row_context += int64_t{run.n_rows} * run.pos_begin;
  }
  if (planner_ == nullptr) return;
  step_stats_.predicted_s = planner_->costs().step_seconds(shape);
  planner_->observe_step(shape, step_stats_.forward_s, step_stats_.draft_s + step_stats_.commit_s);
  // Only steps in which everybody drafts under the planner say whether drafting pays.
  if (step_stats_.prefill_rows > 0 || shape.draft_sequences != step_stats_.decode_sequences) return;
  planner_->observe_gain(shape, step_stats_.decode_sequences, step_stats_.committed_tokens);
}

}  // namespace dspark
