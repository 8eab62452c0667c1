// What happens when pages run out: drafts go first, then the most junior sequence, which is computed again
// later. The most senior sequence always goes on, so every request ends.

#include <algorithm>
#include <utility>

#include "engine/engine.h"

namespace dspark {

/// Pages for the next token of every decoding sequence, and for at least one row of the most senior one
/// whatever it does. Prompts of the others take what is left later.
void Engine::secure_pages() {
  bool is_first = true;
  for (size_t i = 0; i < running_.size(); ++i) {
    const Sequence* sequence = running_[i].get();
    if (sequence->finished()) continue;
    const bool must_go_on = is_first || !sequence->prefilling();
    is_first = false;
    while (must_go_on && !pages_.grow(running_[i]->pages, int64_t{sequence->n_cached} + 1)) {
      // The most junior one may be this sequence itself; then the loop ends with it.
      if (!preempt_most_junior() || i >= running_.size() || running_[i].get() != sequence) break;
    }
  }
}

/// Sends the most junior sequence that holds pages back to the queue. It keeps its tokens, the state of its
/// sampler, its constraint and its text; its full pages stay in the page cache until somebody needs them.
/// returns: false when nobody holds any.
bool Engine::preempt_most_junior() {
  for (size_t i = running_.size(); i-- > 0;) {
    if (running_[i]->finished() || running_[i]->pages.empty()) continue;
    std::unique_ptr<Sequence> sequence = std::move(running_[i]);
    running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(i));
    if (keeps_draft_rows(*sequence) && drafter_->n_rows_waiting(sequence->slot) > 0) {
      drafter_->complete_rows();
      publish_pages(*sequence);
    }
    close(*sequence);
    sequence->n_cached = sequence->n_told = sequence->n_published = 0;
    if (sequence->embedding != nullptr) {
      std::ranges::fill(sequence->embedding->sum, 0.0);
      sequence->embedding->n_rows = 0;
    }
    ++sequence->stats.preemptions;
    ++stats_.preemptions;
    next_expiry_ = std::min(next_expiry_, sequence->deadline);
    insert_by_rank(waiting_, std::move(sequence));
    return true;
  }
  return false;
}

/// Drafts get pages only when there are some left; nobody is preempted for a draft.
void Engine::trim_drafts_to_pages() {
  for (auto& sequence : running_) {
    if (!decodes(*sequence)) continue;
    SequenceStep& step = sequence->step;
    const int32_t n_rows = 1 + std::min(step.n_verify, step.n_allowed);
    if (n_rows == 1 || pages_.grow(sequence->pages, int64_t{sequence->n_cached} + n_rows)) continue;
    const auto n_places = static_cast<int32_t>(std::ssize(sequence->pages) * kKvPageSize);
    step.n_verify = std::min(step.n_verify, n_places - sequence->n_cached - 1);
  }
}

}  // namespace dspark
