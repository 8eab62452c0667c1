#pragma once
// A drafter that keeps a row per token in pages numbered like the target's, and looks them all up again
// before every proposal: a page that was shared wrongly, given away too early or written by two shows.

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <vector>

#include "draft/drafter.h"
#include "kernels/kv_layout.h"

namespace dspark::test {

class PageDrafter final : public Drafter {
 public:
  using ProposeRow = std::function<int32_t(const std::vector<int32_t>& tokens, std::span<int32_t> out)>;

  /// lookahead 1: the row of a token depends on the token behind it too. most_waiting: rows of all sequences
  /// that may wait before they are written. has_gaps: works without rows.
  PageDrafter(ProposeRow propose_row, int32_t lookahead, std::vector<int32_t> taps = {0},
              int32_t most_waiting = 0, bool has_gaps = false)
      : propose_row_(std::move(propose_row)),
        lookahead_(lookahead),
        taps_(std::move(taps)),
        most_waiting_(most_waiting),
        has_gaps_(has_gaps) {}

  std::string_view name() const override { return "pages"; }
  int32_t max_block() const override { return 8; }
  std::span<const int32_t> tap_layers() const override { return taps_; }
  PrefixReuse prefix_reuse() const override { return PrefixReuse::kFromPages; }
  int32_t page_lookahead() const override { return lookahead_; }
  int32_t n_rows_in_pages(int32_t slot) const override {
    const auto found = slots_.find(slot);
    return found == slots_.end() ? 0 : found->second.n_rows;
  }
  int32_t n_rows_waiting(int32_t slot) const override {
    const auto found = slots_.find(slot);
    return found == slots_.end() ? 0 : n_complete(found->second) - found->second.n_rows;
  }
  void complete_rows() override {
    for (auto& [id, slot] : slots_) {
      for (; slot.n_rows < n_complete(slot); ++slot.n_rows) {
        if (slot.n_rows >= slot.first_row) row(slot.pages, slot.n_rows) = row_of(slot, slot.n_rows);
      }
    }
  }
  bool works_without_rows() const override { return has_gaps_; }
  int32_t first_row(int32_t slot) const override {
    const auto found = slots_.find(slot);
    return found == slots_.end() ? 0 : found->second.first_row;
  }
  Status use_pages(int32_t n_pages) override {
    rows_.assign(static_cast<size_t>(n_pages) * kKvPageSize, Row{});
    return ok_status();
  }

  void attach(const AttachEvent& event) override {
    EXPECT_EQ(slots_.count(event.slot), 0u) << "attached to a slot in use";
    EXPECT_EQ(event.tokens.size(), event.pages.size() * kKvPageSize);
    Slot& slot = slots_[event.slot];
    slot.tokens.assign(event.tokens.begin(), event.tokens.end());
    slot.n_features = slot.n_rows = static_cast<int32_t>(event.tokens.size());
    slot.first_row = event.n_pages_without_rows * kKvPageSize;
    EXPECT_TRUE(has_gaps_ || slot.first_row == 0);
    n_attached_without_rows += slot.first_row > 0 ? 1 : 0;
    ++n_attached;
  }

  void commit(std::span<const CommitEvent> events) override {
    for (const CommitEvent& event : events) {
      Slot& slot = slots_[event.slot];
      EXPECT_EQ(std::ssize(slot.tokens), event.token_position);
      slot.tokens.insert(slot.tokens.end(), event.tokens.begin(), event.tokens.end());
      if (has_gaps_ && event.n_features == 0) continue;
      if (has_gaps_ && event.feature_position > slot.n_features) {
        slot.n_features = slot.n_rows = event.feature_position;
        slot.first_row = (event.feature_position + kKvPageSize - 1) / kKvPageSize * kKvPageSize;
        ++n_gaps;
      }
      EXPECT_EQ(slot.n_features, event.feature_position);
      slot.n_features += event.n_features;
      n_feature_rows += event.n_features;
      if (rows_.empty()) {  // pages are not shared
        slot.n_rows = slot.n_features;
        continue;
      }
      EXPECT_GE(std::ssize(event.pages) * kKvPageSize, slot.n_features);
      slot.pages.assign(event.pages.begin(), event.pages.end());
    }
    if (rows_.empty()) return;
    int32_t n_waiting = 0;
    for (const auto& [id, slot] : slots_) n_waiting += n_complete(slot) - slot.n_rows;
    if (n_waiting > most_waiting_) complete_rows();
    was_waiting |= n_waiting > 0 && n_waiting <= most_waiting_;
  }

  Status propose(std::span<const DraftRequest> requests, DraftBlock& out) override {
    if (!rows_.empty()) complete_rows();
    for (size_t i = 0; i < requests.size(); ++i) {
      const DraftRequest& request = requests[i];
      const Slot& slot = slots_[request.slot];
      if (has_gaps_ && (slot.n_rows < request.position || slot.n_rows <= slot.first_row)) continue;
      n_drafts_behind_gaps += slot.first_row > 0 ? 1 : 0;
      EXPECT_EQ(slot.n_rows, request.position);
      EXPECT_EQ(slot.tokens.back(), request.anchor);
      EXPECT_GT(std::ssize(request.pages) * kKvPageSize, request.position);
      for (int32_t p = slot.first_row; !rows_.empty() && p < request.position; ++p) {
        const Row want = row_of(slot, p);
        EXPECT_TRUE(row(request.pages, p) == want) << "row " << p << " of slot " << request.slot;
      }
      out.n_tokens[i] = propose_row_(slot.tokens, out.row(i).first(static_cast<size_t>(request.max_tokens)));
    }
    return ok_status();
  }

  void release(int32_t slot) override { slots_.erase(slot); }

  size_t n_live_slots() const { return slots_.size(); }
  int64_t n_attached = 0;
  int64_t n_feature_rows = 0;
  int64_t n_attached_without_rows = 0, n_gaps = 0, n_drafts_behind_gaps = 0;
  bool was_waiting = false;  // rows waited from one step to the next

 private:
  struct Row {
    int32_t token = -1, next = -1;
    friend bool operator==(const Row&, const Row&) = default;
  };
  struct Slot {
    std::vector<int32_t> tokens;
    std::vector<int32_t> pages;  // of the last commit
    int32_t n_features = 0, n_rows = 0, first_row = 0;
  };

  int32_t n_complete(const Slot& slot) const {
    return std::max(slot.n_rows,
                    std::min(slot.n_features, static_cast<int32_t>(slot.tokens.size()) - lookahead_));
  }

  Row row_of(const Slot& slot, int32_t p) const {
    const auto at = static_cast<size_t>(p);
    return {slot.tokens[at], lookahead_ > 0 ? slot.tokens[at + 1] : -1};
  }
  Row& row(std::span<const int32_t> pages, int32_t p) {
    const auto page = static_cast<size_t>(pages[static_cast<size_t>(p / kKvPageSize)]);
    return rows_.at(page * kKvPageSize + static_cast<size_t>(p % kKvPageSize));
  }

  ProposeRow propose_row_;
  int32_t lookahead_;
  std::vector<int32_t> taps_;
  int32_t most_waiting_;
  bool has_gaps_;
  std::vector<Row> rows_;
  std::map<int32_t, Slot> slots_;
};

}  // namespace dspark::test
