// The first part of a step: who comes in, who has waited too long, who starts.

#include <algorithm>
#include <iterator>
#include <utility>

#include "engine/engine.h"
#include "engine/noise_seed.h"

namespace dspark {
namespace {

constexpr int64_t kStartsPerSample = 8;  // of sequences that start while drafting does not pay
constexpr int32_t kMostPagesAgain = 2;   // computed again for the sake of the drafter's rows
constexpr int64_t kFewSequences = 4;     // that give rows always, see starts_with_draft_rows

}  // namespace

/// Takes new requests and cancellations in, makes sure that running sequences can go on, and starts waiting
/// ones, the senior first, while slots and pages allow.
void Engine::admit() {
  step_start_ = now();
  step_stats_ = {};
  take_inbox();
  end_waiting();
  const Clock::time_point time = running_.empty() ? Clock::time_point::min() : now();
  for (auto& sequence : running_) {
    sequence->step = {};
    sequence->events.clear();
    sequence->top_logprobs.clear();
    if (sequence->cancel_requested) finish(*sequence, FinishReason::kCancelled);
    if (time >= sequence->deadline) finish(*sequence, FinishReason::kDeadline);
    if (sequence->finished()) close(*sequence);
  }
  secure_pages();
  start_waiting();
}

void Engine::take_inbox() {
  const std::lock_guard lock(inbox_mutex_);
  for (auto& sequence : submitted_) {
    const QueueParams& params = sequence->request.queue;
    const FairQueue::Ticket ticket = queue_.enqueue(params.client, params.priority, sequence->id);
    sequence->rank = ticket.rank;
    sequence->turn = ticket.turn;
    next_expiry_ = std::min({next_expiry_, sequence->queue_end, sequence->deadline});
    insert_by_rank(waiting_, std::move(sequence));
  }
  submitted_.clear();
  for (const RequestId id : cancelled_) {
    for (const auto* list : {&waiting_, &running_}) {
      for (const auto& sequence : *list) {
        if (sequence->id != id) continue;
        sequence->cancel_requested = true;
        if (list == &waiting_) next_expiry_ = Clock::time_point::min();
      }
    }
  }
  cancelled_.clear();
  for (const auto& [id, held] : holds_) {
    for (const auto* list : {&waiting_, &running_}) {
      for (const auto& sequence : *list) {
        if (sequence->id == id) sequence->held = held;
      }
    }
  }
  holds_.clear();
}

/// waiting_ has the most senior sequence at its end, running_ at its front.
void Engine::insert_by_rank(SequenceList& list, std::unique_ptr<Sequence> sequence) {
  const bool senior_last = &list == &waiting_;
  const auto before = [senior_last](const std::unique_ptr<Sequence>& a, const std::unique_ptr<Sequence>& b) {
    return senior_last ? b->rank < a->rank : a->rank < b->rank;
  };
  list.insert(std::upper_bound(list.begin(), list.end(), sequence, before), std::move(sequence));
}

/// Waiting requests that were cancelled or whose time is over.
void Engine::end_waiting() {
  if (waiting_.empty() || next_expiry_ == Clock::time_point::max()) return;
  const Clock::time_point time = now();
  if (time < next_expiry_) return;
  next_expiry_ = Clock::time_point::max();
  for (auto& sequence : waiting_) {
    FinishReason reason = FinishReason::kNone;
    if (!sequence->has_run && time >= sequence->queue_end) reason = FinishReason::kQueueTimeout;
    if (time >= sequence->deadline) reason = FinishReason::kDeadline;
    if (sequence->cancel_requested) reason = FinishReason::kCancelled;
    if (reason == FinishReason::kNone) {
      next_expiry_ = std::min(next_expiry_, sequence->deadline);
      if (!sequence->has_run) next_expiry_ = std::min(next_expiry_, sequence->queue_end);
      continue;
    }
    if (!sequence->has_run) {
      queue_.left(sequence->request.queue.client);
      n_waiting_.fetch_sub(1, std::memory_order_relaxed);
    }
    sequence->step = {};
    sequence->events.clear();
    sequence->top_logprobs.clear();
    finish(*sequence, reason);
    ended_.push_back(std::move(sequence));
  }
  std::erase(waiting_, nullptr);
}

/// Strictly in order: a request that does not fit yet is not passed by smaller ones, but one that is held by
/// all.
void Engine::start_waiting() {
  for (;;) {
    const auto next =
        std::find_if(waiting_.rbegin(), waiting_.rend(), [](const auto& s) { return !s->held; });
    if (next == waiting_.rend()) return;
    if (free_slots_.empty()) {
      if (!preempt_held()) return;
      continue;
    }
    if (!has_room_for(**next)) {
      if (!preempt_for_start()) return;
      continue;
    }
    std::unique_ptr<Sequence> sequence = std::move(*next);
    waiting_.erase(std::next(next).base());
    start(*sequence);
    insert_by_rank(running_, std::move(sequence));
  }
}

bool Engine::keeps_draft_rows(const Sequence& sequence) const {
  return sequence.drafts && drafter_reuse_ == PrefixReuse::kFromPages;
}

/// Whether one sequence more, this one, runs at a load where drafts are worth what they need beforehand.
bool Engine::starts_where_drafting_pays(const Sequence& sequence) const {
  if (planner_ == nullptr || !sequence.policy.needs_costs()) return true;
  const auto n_others = std::ranges::count_if(running_, [](const auto& other) {
    return other->drafts && other->policy.needs_costs() && !other->finished();
  });
  return planner_->drafting_pays(static_cast<int32_t>(n_others) + 1);
}

/// Whether remembered pages without the drafter's rows are left alone. Where drafting pays a few of them are
/// rather computed again, which gives them rows for all that begin alike (the instructions of a chat, say);
/// not many, the first token would wait for them.
bool Engine::shares_only_draft_rows(const Sequence& sequence, std::span<const int32_t> tokens) const {
  if (!keeps_draft_rows(sequence)) return false;
  if (!drafter_->works_without_rows()) return true;
  if (!starts_where_drafting_pays(sequence)) return false;
  const int32_t most = most_shared_pages(sequence);
  return pages_.match(tokens, most, false).n_pages - pages_.match(tokens, most, true).n_pages <=
         kMostPagesAgain;
}

/// Rows for the drafter cost time whether they are read or not. A sequence that starts where drafting does
/// not pay goes without, but not where few run: there drafting pays as a rule, a verdict hangs on the luck of
/// few rounds, and only sequences with rows can show that it was wrong. Elsewhere some do not go without: now
/// and then as many in a row as run at a time, since only drafts of all tell what drafting would bring. A
/// sequence never stops giving rows once it began: pages wait for those on their way.
bool Engine::starts_with_draft_rows(const Sequence& sequence) {
  if (!options_.rows_on_demand || !sequence.drafts || !drafter_->works_without_rows()) return true;
  if (starts_where_drafting_pays(sequence)) return true;
  const int64_t n = std::ssize(running_) + 1;
  if (n <= kFewSequences) return true;
  return n_starts_without_pay_++ % (kStartsPerSample * n) < n;
}

/// Pages of a text that may come from the page cache. The last token is always computed: its logits are
/// needed.
int32_t Engine::most_shared_pages(const Sequence& sequence) const {
  if (sequence.drafts && drafter_reuse_ == PrefixReuse::kNever) return 0;
  if (sequence.embedding != nullptr && sequence.embedding->pooling == Pooling::kMean) return 0;
  const size_t n = sequence.has_run ? sequence.tokens.size() : sequence.request.prompt.size();
  return static_cast<int32_t>((n - 1) / kKvPageSize);
}

/// Pages for the whole text so far and one token more, for what the prompts of running sequences still need,
/// and one page of growth for every running sequence. A sequence alone always fits.
bool Engine::has_room_for(const Sequence& sequence) const {
  if (running_.empty()) return true;
  int64_t n_needed = 0;
  for (const auto& other : running_) {
    if (other->finished()) continue;
    const int64_t n_more =
        other->prefilling() ? PageAllocator::pages_for(other->n_prefill) - std::ssize(other->pages) : 0;
    n_needed += 1 + std::max<int64_t>(n_more, 0);
  }
  const std::vector<int32_t>& tokens = sequence.has_run ? sequence.tokens : sequence.request.prompt;
  const PageCache::Match match =
      pages_.match(tokens, most_shared_pages(sequence), shares_only_draft_rows(sequence, tokens));
  n_needed += PageAllocator::pages_for(std::ssize(tokens) + 1) - match.n_pages;
  return n_needed <= pages_.n_available() - match.n_idle;
}

/// Gives a sequence its slot and the pages that are remembered of its text.
void Engine::start(Sequence& sequence) {
  sequence.slot = free_slots_.back();
  free_slots_.pop_back();
  sequence.request.sampling.seed = unshared_seed(sequence, running_);
  if (!sequence.has_run) {
    sequence.tokens.reserve(static_cast<size_t>(sequence.token_limit));
    sequence.tokens = sequence.request.prompt;
    sequence.pages.reserve(static_cast<size_t>(PageAllocator::pages_for(sequence.token_limit)));
    sequence.events.reserve(kMaxDraftTokens + 1);
    sequence.picks.reserve(kMaxDraftTokens + 1);
    if (sequence.request.sampling.has_penalties()) sequence.counts.reset(sequence.tokens);
    sequence.admitted_at = now();
    sequence.stats.queue_s =
        std::chrono::duration<double>(sequence.admitted_at - sequence.submitted_at).count();
    queue_.started(sequence.request.queue.client, sequence.turn);
    n_waiting_.fetch_sub(1, std::memory_order_relaxed);
  }
  sequence.step = {};
  sequence.n_prefill = sequence.n_tokens();
  const PageCache::Match shared =
      pages_.attach(sequence.tokens, most_shared_pages(sequence),
                    shares_only_draft_rows(sequence, sequence.tokens), sequence.pages);
  sequence.n_published = shared.n_pages;
  sequence.gives_rows = starts_with_draft_rows(sequence);
  sequence.n_cached = sequence.n_published * kKvPageSize;
  stats_.cached_tokens += sequence.n_cached;
  if (sequence.has_run) {
    stats_.recomputed_tokens += sequence.n_tokens() - sequence.n_cached;
  } else {
    sequence.stats.cached_tokens = sequence.n_cached;
  }
  sequence.has_run = true;
  if (!sequence.drafts || sequence.n_cached == 0) return;
  sequence.n_told = sequence.n_cached;
  AttachEvent event;
  event.slot = sequence.slot;
  event.tokens = std::span(sequence.tokens).first(static_cast<size_t>(sequence.n_cached));
  if (keeps_draft_rows(sequence)) {
    event.pages = sequence.pages;
    event.n_pages_without_rows = shared.n_without_rows;
  }
  drafter_->attach(event);
}

}  // namespace dspark
