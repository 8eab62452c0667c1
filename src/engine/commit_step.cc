// The last parts of a step: what was kept becomes final, is told to the drafter and to the page cache, and
// goes out.

#include <algorithm>
#include <cmath>

#include "engine/engine.h"

namespace dspark {
namespace {

double seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

int32_t full_pages(int32_t n_tokens) {
  return n_tokens / kKvPageSize;
}

}  // namespace

/// Makes the kept rows final, gives back what lies behind them, tells the drafter and remembers full pages.
void Engine::commit() {
  for (auto& sequence : running_) {
    sequence->n_cached = std::min(sequence->n_cached + sequence->step.n_kept, sequence->n_tokens());
    pages_.shrink(sequence->pages, sequence->n_cached);
    if (sequence->embedding != nullptr && !sequence->finished()) pool_embedding(*sequence);
  }
  const Clock::time_point start = now();
  if (drafter_ != nullptr) tell_drafter();
  step_stats_.commit_s = seconds(now() - start);
  for (auto& sequence : running_) {
    publish_pages(*sequence);
    if (sequence->finished()) close(*sequence);
  }
}

/// Adds the step's rows to an embedding; the last prompt row completes it.
void Engine::pool_embedding(Sequence& sequence) {
  SequenceEmbedding& embedding = *sequence.embedding;
  const auto dim = static_cast<size_t>(model_.config().dim);
  const SequenceStep& step = sequence.step;
  for (int32_t i = 0; i < step.n_logits; ++i) {
    const size_t row = static_cast<size_t>(step.logit_begin + i) * dim;
    if (row + dim > result_.final_norm.size()) return finish(sequence, FinishReason::kError);
    for (size_t d = 0; d < dim; ++d) embedding.sum[d] += static_cast<double>(result_.final_norm[row + d]);
    ++embedding.n_rows;
  }
  if (step.n_rows == 0 || sequence.prefilling()) return;
  double scale = 1.0 / std::max(embedding.n_rows, 1);
  if (embedding.normalize) {
    double squares = 0.0;
    for (const double value : embedding.sum) squares += value * value;
    scale = squares > 0.0 ? 1.0 / std::sqrt(squares) : 0.0;
  }
  embedding.pooled.resize(dim);
  for (size_t d = 0; d < dim; ++d) embedding.pooled[d] = static_cast<float>(embedding.sum[d] * scale);
  finish(sequence, FinishReason::kStop);
}

/// A sequence that ends here is told about too if that makes a page complete which others may share.
void Engine::tell_drafter() {
  commit_events_.clear();
  const int32_t dim = model_.config().dim;
  const auto n_captured = static_cast<int64_t>(batch_.capture_rows.size());
  for (auto& sequence : running_) {
    const int32_t n_kept = sequence->step.n_kept;
    if (!sequence->drafts || sequence->slot < 0 || n_kept == 0) continue;
    const bool fills_page = full_pages(sequence->n_cached) > full_pages(sequence->n_cached - n_kept);
    const bool gives_rows = sequence->gives_rows;
    if (sequence->finished() && !(fills_page && gives_rows && keeps_draft_rows(*sequence))) continue;
    const int32_t n_known = sequence->prefilling() ? sequence->n_cached : sequence->n_tokens();
    CommitEvent event;
    event.slot = sequence->slot;
    event.token_position = sequence->n_told;
    event.tokens =
        std::span(sequence->tokens)
            .subspan(static_cast<size_t>(sequence->n_told), static_cast<size_t>(n_known - sequence->n_told));
    event.n_features = gives_rows ? n_kept : 0;
    event.feature_position = sequence->n_cached - n_kept;
    if (n_captured > 0 && gives_rows) {
      event.features = result_.captured.data() + int64_t{sequence->step.capture_begin} * dim;
      event.tap_stride = n_captured * dim;
    }
    event.dim = dim;
    event.pages = sequence->pages;
    sequence->n_told = n_known;
    commit_events_.push_back(event);
  }
  if (!commit_events_.empty()) drafter_->commit(commit_events_);
}

/// Hands full pages of final rows to the page cache, so that others can share them from now on.
void Engine::publish_pages(Sequence& sequence) {
  if (!options_.prefix_cache || sequence.slot < 0) return;
  const bool wants_rows = keeps_draft_rows(sequence) && sequence.gives_rows;
  const int32_t lookahead = drafter_reuse_ == PrefixReuse::kFromPages ? drafter_->page_lookahead() : 0;
  const int32_t n_full = full_pages(std::min(sequence.n_cached, sequence.n_tokens() - lookahead));
  if (sequence.n_published >= n_full) return;
  if (wants_rows && sequence.finished() && drafter_->n_rows_waiting(sequence.slot) > 0) {
    drafter_->complete_rows();
  }
  const int32_t n_row_pages = wants_rows ? full_pages(drafter_->n_rows_in_pages(sequence.slot)) : 0;
  const int32_t first_page = wants_rows ? full_pages(drafter_->first_row(sequence.slot)) : 0;
  while (sequence.n_published < n_full) {
    const bool has_rows = sequence.n_published >= first_page && sequence.n_published < n_row_pages;
    // The drafter's last row may wait for its token, which comes with the next commit, or rows for a pass.
    if (wants_rows && !has_rows && sequence.n_published >= first_page && !sequence.finished() &&
        (sequence.n_published + 1 == n_full || drafter_->n_rows_waiting(sequence.slot) > 0)) {
      return;
    }
    pages_.publish(sequence.pages, sequence.n_published++, sequence.tokens, has_rows);
  }
}

/// Gives everything that a sequence holds back to the engine.
void Engine::close(Sequence& sequence) {
  if (sequence.slot < 0) return;
  pages_.shrink(sequence.pages, 0);
  if (sequence.drafts) drafter_->release(sequence.slot);
  free_slots_.push_back(sequence.slot);
  sequence.slot = -1;
}

/// Streams what happened; finished requests leave.
void Engine::emit() {
  for (auto& sequence : ended_) deliver(*sequence);
  ended_.clear();
  for (auto& sequence : running_) {
    // While a preempted text is computed again there is nothing to tell.
    const bool is_prompt = sequence->step.n_rows > 0 && sequence->stats.output_tokens == 0;
    if (is_prompt || !sequence->events.empty() || sequence->finished()) deliver(*sequence);
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
  round.sources = std::span(draft_block_.sources).subspan(first, n);
  if (sequence.request.draft_probabilities) {
    round.probability = std::span(draft_block_.probability).subspan(first, n);
  }
  if (draft_block_.has_confidence) {
    round.confidence = confidences(sequence);
    round.confidence_logits = std::span(draft_block_.confidence_logits).subspan(first, n);
  }
  return round;
}

void Engine::deliver(Sequence& sequence) {
  ++step_stats_.updates;
  const Clock::time_point time = now();
  GenerateStats& stats = sequence.stats;
  if (stats.output_tokens > 0) {
    stats.prompt_s = seconds(sequence.first_token_at - sequence.admitted_at);
    stats.decode_s = seconds(time - sequence.first_token_at);
  }
  if (sequence.embedding != nullptr) return deliver_embedding(sequence);
  const int32_t n_done = stats.output_tokens > 0 ? sequence.n_prompt : sequence.n_cached;
  sequence.prompt_done = std::clamp(n_done, sequence.prompt_done, sequence.n_prompt);
  StreamUpdate update;
  update.id = sequence.id;
  update.prompt_tokens = sequence.n_prompt;
  update.prompt_done = sequence.prompt_done;
  update.tokens = sequence.events;
  update.top_logprobs = sequence.top_logprobs;
  update.text = sequence.text.take();
  update.finish_reason = sequence.finish_reason;
  update.stop_string = sequence.text.hit();
  update.stats = &stats;
  const RoundView round = round_of(sequence);
  if (sequence.step.has_round) update.round = &round;
  stats_.output_tokens += static_cast<int64_t>(sequence.events.size());
  if (sequence.finished()) count_end(sequence);
  if (sequence.on_update) sequence.on_update(update);
}

void Engine::deliver_embedding(Sequence& sequence) {
  if (!sequence.finished()) return;
  EmbedResult result;
  result.id = sequence.id;
  result.finish_reason = sequence.finish_reason;
  result.stats = &sequence.stats;
  if (sequence.finish_reason == FinishReason::kStop) result.embedding = sequence.embedding->pooled;
  count_end(sequence);
  if (sequence.embedding->on_result) sequence.embedding->on_result(result);
}

void Engine::count_end(const Sequence& sequence) {
  ++stats_.requests_finished;
  stats_.speculation.add(sequence.stats.speculation);
  n_open_.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace dspark
