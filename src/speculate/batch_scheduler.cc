#include "speculate/batch_scheduler.h"

#include <algorithm>
#include <cstddef>

#include "base/status.h"

namespace dspark {
namespace {

using Head = ScheduleScratch::Head;

/// True when a is admitted after b. A total order over (draft_idx, sequence): no ties are left.
bool later(const Head& a, const Head& b) {
  if (a.survival != b.survival) return a.survival < b.survival;
  if (a.draft_idx != b.draft_idx) return a.draft_idx > b.draft_idx;
  return a.sequence > b.sequence;
}

/// Hands out drafts in admission order. Rows are non-increasing, so only the first draft of each sequence
/// that is not admitted yet can be next: a heap of one head per sequence.
class Admission {
 public:
  Admission(const SurvivalRows& rows, std::vector<Head>& heads) : rows_(rows), heads_(heads) {
    heads_.clear();
    Head head{};
    for (size_t r = 0; r < rows_.n_drafts.size(); ++r) {
      if (draft_of(static_cast<int32_t>(r), 0, head)) heads_.push_back(head);
    }
    std::make_heap(heads_.begin(), heads_.end(), later);
  }
  bool empty() const { return heads_.empty(); }
  const Head& next() const { return heads_.front(); }
  /// The first head gives way to the next draft of its sequence, or to nobody.
  void admit() {
    Head head{};
    if (draft_of(heads_.front().sequence, heads_.front().draft_idx + 1, head)) return sink(head);
    std::pop_heap(heads_.begin(), heads_.end(), later);
    heads_.pop_back();
  }

 private:
  /// False when the draft does not exist or cannot survive.
  bool draft_of(int32_t sequence, int32_t draft_idx, Head& head) const {
    const auto row = static_cast<size_t>(sequence);
    if (draft_idx >= rows_.n_drafts[row]) return false;
    const size_t at = row * static_cast<size_t>(rows_.stride) + static_cast<size_t>(draft_idx);
    head = {rows_.values[at], draft_idx, sequence};
    DSPARK_DCHECK(draft_idx == 0 || head.survival <= rows_.values[at - 1]);
    return head.survival > 0.0;
  }
  /// `head` takes the place of the first and moves down to where it belongs: half the work of pop and push.
  void sink(const Head& head) {
    size_t at = 0;
    for (size_t child = 1; child < heads_.size(); child = 2 * at + 1) {
      if (child + 1 < heads_.size() && later(heads_[child], heads_[child + 1])) ++child;
      if (!later(head, heads_[child])) break;
      heads_[at] = heads_[child];
      at = child;
    }
    heads_[at] = head;
  }

  const SurvivalRows& rows_;
  std::vector<Head>& heads_;
};

/// Expected tokens per second along the admission order.
class Throughput {
 public:
  Throughput(const SurvivalRows& rows, const PassCosts& costs)
      : costs_(costs),
        tokens_(static_cast<double>(rows.n_drafts.size()) + costs.given_tokens),
        rows_(rows.n_drafts.size() + static_cast<size_t>(std::max(costs.extra_rows, 0))) {}
  /// False when the costs do not tell what one more row takes.
  bool can_grow() const { return rows_ + 1 < costs_.seconds.size(); }
  void grow(double survival) {
    ++rows_;
    tokens_ += survival;
  }
  double value() const { return rows_ < costs_.seconds.size() ? tokens_ / costs_.seconds[rows_] : 0.0; }

 private:
  const PassCosts& costs_;
  double tokens_;
  size_t rows_;
};

}  // namespace

double schedule_causal(const SurvivalRows& live, const PassCosts& costs, ScheduleScratch& scratch,
                       std::span<int32_t> lengths) {
  std::fill(lengths.begin(), lengths.end(), 0);
  Throughput throughput(live, costs);
  double best = throughput.value();
  for (Admission order(live, scratch.heads); !order.empty() && throughput.can_grow(); order.admit()) {
    const Head& next = order.next();
    throughput.grow(next.survival);
    if (!(throughput.value() > best)) break;
    best = throughput.value();
    lengths[static_cast<size_t>(next.sequence)] = next.draft_idx + 1;
  }
  return best;
}

int32_t history_budget(const SurvivalRows& recorded, const PassCosts& costs, ScheduleScratch& scratch) {
  Throughput throughput(recorded, costs);
  double best = throughput.value();
  int32_t best_budget = 0, budget = 0;
  for (Admission order(recorded, scratch.heads); !order.empty() && throughput.can_grow(); order.admit()) {
    throughput.grow(order.next().survival);
    ++budget;
    if (throughput.value() > best) {
      best = throughput.value();
      best_budget = budget;
    }
  }
  return best_budget;
}

void allot_budget(const SurvivalRows& live, int32_t budget, ScheduleScratch& scratch,
                  std::span<int32_t> lengths) {
  std::fill(lengths.begin(), lengths.end(), 0);
  for (Admission order(live, scratch.heads); !order.empty() && budget > 0; order.admit(), --budget) {
    lengths[static_cast<size_t>(order.next().sequence)] = order.next().draft_idx + 1;
  }
}

}  // namespace dspark
