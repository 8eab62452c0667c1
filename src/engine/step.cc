// The step loop: admit, draft, plan, batch, forward, accept, commit, emit, catch up, learn. Here are the
// middle and the end; admit is in admission.cc, accept in accept_step.cc, commit and emit in commit_step.cc,
// and what adaptive policies add to draft, plan and learn in plan_step.cc.

#include <algorithm>
#include <utility>

#include "engine/engine.h"

namespace dspark {
namespace {

double seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

}  // namespace

bool Engine::step() {
  admit();
  draft();
  plan();
  batch();
  forward();
  accept();
  commit();
  emit();
  if (drafter_ != nullptr) catch_up();
  learn();
  return batch_.n_rows() > 0 || step_stats_.updates > 0;
}

/// What the drafter owes for the commit, once nobody waits for it.
void Engine::catch_up() {
  const Clock::time_point start = now();
  drafter_->catch_up();
  step_stats_.commit_s += seconds(now() - start);
}

bool Engine::decodes(const Sequence& sequence) const {
  return sequence.goes_on() && !sequence.prefilling();
}

/// Drafts to ask for of a sequence whose policy wants `most`. They never reach beyond the end of the text:
/// the last token is always the target's own.
int32_t Engine::draft_limit(const Sequence& sequence, int32_t most) const {
  const int32_t limit =
      std::min({most, drafter_->max_block(), sequence.request.max_drafts.value_or(kMaxDraftTokens),
                sequence.token_limit - sequence.n_tokens() - 1});
  return std::max(limit, 0);
}

/// One drafter pass over all decoding sequences that want drafts.
void Engine::draft() {
  draft_requests_.clear();
  int32_t longest = 0;
  const int32_t adaptive_length = adaptive_draft_length();
  begin_draft_rows();
  for (auto& sequence : running_) {
    if (!decodes(*sequence) || !sequence->drafts) continue;
    const int32_t most = sequence->policy.needs_costs() ? adaptive_length : sequence->policy.draft_tokens();
    const int32_t limit = draft_limit(*sequence, most);
    if (limit <= 0) continue;
    sequence->step.draft_idx = static_cast<int32_t>(draft_requests_.size());
    draft_requests_.push_back({sequence->slot, sequence->tokens.back(), sequence->n_cached, limit,
                               &sequence->request.sampling, sequence->rule, sequence->pages,
                               sequence->stop_ids, sequence->request.draft_probabilities,
                               sequence->constraint.get()});
    longest = std::max(longest, limit);
  }
  if (draft_requests_.empty()) return;
  const Clock::time_point start = now();
  draft_block_.reset(draft_requests_.size(), longest);
  const bool drafted = drafter_->propose(draft_requests_, draft_block_).ok();
  step_stats_.draft_s = seconds(now() - start);
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
    sequence->step.n_allowed = sequence->step.n_drafted;
    if (sequence->constraint != nullptr) {
      sequence->step.n_drafted =
          n_drafts_allowed(*sequence, row.first(static_cast<size_t>(sequence->step.n_drafted)));
    }
    step_stats_.drafted_tokens += sequence->step.n_drafted;
  }
  if (drafted) estimate_confidences();
}

/// What the drafter said of the usable drafts of a sequence, or what is estimated; empty without drafts.
std::span<const float> Engine::confidences(const Sequence& sequence) const {
  const SequenceStep& step = sequence.step;
  if (step.n_drafted == 0) return {};
  const auto first = static_cast<size_t>(step.draft_idx) * static_cast<size_t>(draft_block_.stride);
  return std::span(draft_block_.confidence).subspan(first, static_cast<size_t>(step.n_drafted));
}

/// Verify length of every decoding sequence. When prompts wait for rows too, they keep at least a share of
/// the pass.
void Engine::plan() {
  verify_lengths_.clear();
  bool prefills = false;
  for (const auto& sequence : running_) {
    prefills |= sequence->goes_on() && sequence->prefilling();
    if (decodes(*sequence)) {
      verify_lengths_.push_back(
          verify_length(sequence->policy, sequence->step.n_drafted, confidences(*sequence)));
    }
  }
  plan_adaptive();
  const int64_t rows_for_prompts =
      prefills ? std::min(options_.prefill_rows, options_.max_batch_rows / 2) : 0;
  cap_verify_rows(verify_lengths_, std::min(options_.max_batch_rows - rows_for_prompts, max_decode_rows()));
  size_t next = 0;
  for (auto& sequence : running_) {
    if (decodes(*sequence)) sequence->step.n_verify = verify_lengths_[next++];
  }
  trim_drafts_to_pages();
}

/// One ragged batch: anchors with their drafts, then shares of prompts.
void Engine::batch() {
  batch_.clear();
  for (auto& sequence : running_) {
    if (!decodes(*sequence)) continue;
    const SequenceStep& step = sequence->step;
    const int32_t anchor = sequence->tokens.back();
    append_rows(*sequence, {&anchor, 1}, 1);
    const int32_t n_draft_rows = std::min(step.n_verify, step.n_allowed);
    if (n_draft_rows > 0) {
      append_rows(
          *sequence,
          draft_block_.row(static_cast<size_t>(step.draft_idx)).first(static_cast<size_t>(n_draft_rows)),
          n_draft_rows);
    }
    ++step_stats_.decode_sequences;
    step_stats_.decode_rows += step.n_rows;
  }
  share_prompt_rows(
      std::min(options_.prefill_rows, options_.max_batch_rows - static_cast<int32_t>(batch_.n_rows())));
  for (auto& sequence : running_) append_prompt_rows(*sequence);
}

/// Who gets how many of the step's prompt rows: half of them go to the most senior sequence, the others to
/// the prompts that are soonest done, so that short ones do not wait behind a long one and the long one goes
/// on all the same.
void Engine::share_prompt_rows(int32_t budget) {
  prefills_.clear();
  for (auto& sequence : running_) {
    if (sequence->goes_on() && sequence->prefilling()) prefills_.push_back(sequence.get());
  }
  if (prefills_.empty() || budget <= 0) return;
  const auto rows_left = [](const Sequence* s) { return s->n_prefill - s->n_cached - s->step.n_prompt_rows; };
  Sequence* most_senior = prefills_.front();
  most_senior->step.n_prompt_rows = std::min((budget + 1) / 2, rows_left(most_senior));
  budget -= most_senior->step.n_prompt_rows;
  std::sort(prefills_.begin(), prefills_.end(), [&](const Sequence* a, const Sequence* b) {
    return rows_left(a) != rows_left(b) ? rows_left(a) < rows_left(b) : a->rank < b->rank;
  });
  for (Sequence* sequence : prefills_) {
    const int32_t n = std::min(budget, rows_left(sequence));
    sequence->step.n_prompt_rows += n;
    budget -= n;
  }
}

/// A sequence's share of the prompt rows, as far as there are pages for them.
void Engine::append_prompt_rows(Sequence& sequence) {
  // All rows of an embedding that is a mean go through the head: fewer at a time.
  constexpr int32_t kMostMeanRows = 32;
  const bool is_mean = sequence.embedding != nullptr && sequence.embedding->pooling == Pooling::kMean;
  int32_t n = sequence.step.n_prompt_rows;
  if (is_mean) n = std::min(n, kMostMeanRows);
  const int64_t n_places = (std::ssize(sequence.pages) + pages_.n_available()) * kKvPageSize;
  n = static_cast<int32_t>(std::min<int64_t>(n, n_places - sequence.n_cached));
  if (n <= 0) return;
  const bool completes = sequence.n_cached + n == sequence.n_prefill;
  append_rows(
      sequence,
      std::span(sequence.tokens).subspan(static_cast<size_t>(sequence.n_cached), static_cast<size_t>(n)),
      is_mean     ? n
      : completes ? 1
                  : 0);
  step_stats_.prefill_rows += n;
  step_stats_.shape.prompt_context += counted_positions(sequence.n_cached);
}

/// Rows of one sequence behind those it already has in this batch; logits for the last n_logits of them.
void Engine::append_rows(Sequence& sequence, std::span<const int32_t> tokens, int32_t n_logits) {
  SequenceStep& step = sequence.step;
  const auto n_new = static_cast<int32_t>(tokens.size());
  const auto row_begin = static_cast<int32_t>(batch_.n_rows());
  const int32_t pos_begin = sequence.n_cached + step.n_rows;
  [[maybe_unused]] const bool grown = pages_.grow(sequence.pages, pos_begin + n_new);
  DSPARK_DCHECK(grown && "pages were secured before");
  if (step.n_rows == 0) {
    step.row_begin = row_begin;
    step.logit_begin = static_cast<int32_t>(batch_.logit_rows.size());
    step.capture_begin = static_cast<int32_t>(batch_.capture_rows.size());
    batch_.runs.push_back({row_begin, 0, pos_begin, {}});
  }
  const bool captures = sequence.drafts && sequence.gives_rows && !drafter_->tap_layers().empty();
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
  const Clock::time_point start = now();
  result_ = model_.forward(batch_, pool_);
  step_stats_.forward_s = seconds(now() - start);
  if (!result_.out_of_memory) return;
  for (auto& sequence : running_) {
    if (sequence->step.n_rows > 0) finish(*sequence, FinishReason::kError);
  }
}

/// Measurements of the step into the engine's sums.
void Engine::learn() {
  if (batch_.n_rows() == 0) return;
  step_stats_.step_s = seconds(now() - step_start_);
  ++stats_.steps;
  stats_.prompt_tokens += step_stats_.prefill_rows;
  stats_.evicted_pages = pages_.n_evictions();
  stats_.draft_s += step_stats_.draft_s;
  stats_.forward_s += step_stats_.forward_s;
  stats_.commit_s += step_stats_.commit_s;
  stats_.step_s += step_stats_.step_s;
  learn_costs();
}

}  // namespace dspark
