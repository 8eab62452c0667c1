// What happens when pages run out: drafts go first, then sequences that are held, then the most junior one;
// they are computed again later. The most senior sequence that is not held always goes on.

#include <algorithm>
#include <optional>
#include <utility>

#include "engine/engine.h"

namespace dspark {

/// Pages for the next token of every decoding sequence, and for at least one row of the most senior one
/// whatever it does, held ones left out. Prompts of the others take what is left later.
void Engine::secure_pages() {
  bool is_first = true;
  for (size_t i = 0; i < running_.size(); ++i) {
    const Sequence* sequence = running_[i].get();
    if (!sequence->goes_on()) continue;
    const bool must_go_on = is_first || !sequence->prefilling();
    is_first = false;
    while (must_go_on && !pages_.grow(running_[i]->pages, int64_t{sequence->n_cached} + 1)) {
      const std::optional<size_t> gone = preempt_one();
      if (gone && *gone < i) --i;  // a held one that stood in front
      // The most junior one may be this sequence itself; then the loop ends with it.
      if (!gone || i >= running_.size() || running_[i].get() != sequence) break;
    }
  }
}

/// Sends running_[index] back to the queue. It keeps its tokens, the state of its sampler, its constraint and
/// its text; its full pages stay in the page cache until somebody needs them. requires: it is not finished.
void Engine::preempt(size_t index) {
  std::unique_ptr<Sequence> sequence = std::move(running_[index]);
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(index));
  if (!sequence->pages.empty() && keeps_draft_rows(*sequence) &&
      drafter_->n_rows_waiting(sequence->slot) > 0) {
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
}

/// Takes the pages of one sequence: of the most junior one that is held, else of the most junior one.
/// returns: where in running_ it was; none when nobody has any.
std::optional<size_t> Engine::preempt_one() {
  for (const bool held : {true, false}) {
    for (size_t i = running_.size(); i-- > 0;) {
      const Sequence& sequence = *running_[i];
      if (sequence.held != held || sequence.finished() || sequence.pages.empty()) continue;
      preempt(i);
      return i;
    }
  }
  return std::nullopt;
}

/// Takes the place of the most junior sequence that is held: who waits for the model goes before who waits
/// for a reader. returns: false when none is held.
bool Engine::preempt_held() {
  for (size_t i = running_.size(); i-- > 0;) {
    if (!running_[i]->held || running_[i]->finished()) continue;
    preempt(i);
    return true;
  }
  return false;
}

/// Makes room where nobody goes on: a request must not wait for pages of those who wait for their readers.
/// returns: false when there is nothing to take, or somebody goes on and will end.
bool Engine::preempt_for_start() {
  if (std::ranges::any_of(running_, [](const auto& s) { return s->goes_on(); })) return false;
  for (size_t i = running_.size(); i-- > 0;) {
    if (running_[i]->finished()) continue;
    preempt(i);
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
