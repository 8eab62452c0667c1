#pragma once
// Pages of the key/value cache with a memory: full pages of committed tokens stay findable by their content,
// so that requests that begin alike share them, while they run and after they ended.

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/kv_layout.h"
#include "kernels/kv_pages.h"

namespace dspark {

struct PageCacheOptions {
  int32_t n_pages = 1;
  bool shares = true;  // false: nothing is remembered
  /// Tokens behind a page that its content depends on, 0 or 1: drafters that pair features of position i with
  /// the token at i + 1 need the token behind the page's last.
  int32_t lookahead = 0;
  uint64_t hash_mask = ~uint64_t{0};  // for tests: fewer bits make hashes collide
};

/// A page is known by a hash of its tokens chained with the hash of the page before it; a hit compares the
/// tokens and the identity of the page before, so a colliding hash costs time, never a wrong text. Everything
/// else that decides what is in a page (model, element type) is the same for all pages of one engine.
///
/// A page is free, used (by one or more sequences) or idle: remembered, but in nobody's use. Idle pages go,
/// least recently used first, when a page is needed and none is free. Whoever uses a page uses all pages
/// before it, so of a chain of idle pages the last goes first. Nothing here allocates memory after the
/// constructor. thread: the engine thread.
class PageCache {
 public:
  explicit PageCache(const PageCacheOptions& options);

  int32_t n_pages() const { return pages_.n_pages(); }
  int32_t n_idle() const { return n_idle_; }
  /// Pages that can be had: free ones and idle ones.
  int32_t n_available() const { return pages_.n_free() + n_idle_; }
  int64_t n_evictions() const { return n_evictions_; }

  /// Grows a page table to hold `n_tokens` positions, dropping idle pages where needed. returns: false (and
  /// nothing changed) when pages are short.
  bool grow(std::vector<int32_t>& table, int64_t n_tokens);
  /// Shortens a page table to what `n_tokens` positions need; its pages become free or idle.
  void shrink(std::vector<int32_t>& table, int64_t n_tokens);

  /// Appends the longest chain of remembered pages that `tokens` begins with to the empty `table`, at most
  /// `most_pages`. needs_draft_rows: only pages that hold the drafter's rows too.
  struct Match {
    int32_t n_pages = 0;         // pages found
    int32_t n_idle = 0;          // of these, before they were taken
    int32_t n_without_rows = 0;  // of these up to the last one without the drafter's rows
  };
  Match attach(std::span<const int32_t> tokens, int32_t most_pages, bool needs_draft_rows,
               std::vector<int32_t>& table);
  /// What attach would find, without taking it.
  Match match(std::span<const int32_t> tokens, int32_t most_pages, bool needs_draft_rows) const;
  /// Remembers page `page_idx` of a table, full of final rows of tokens[page_idx * kKvPageSize ...]. When a
  /// page with the same content is known already, one of the two takes the other's place in `table` or in
  /// the memory: their contents are equal bit for bit.
  /// requires: pages before it were published; tokens reach `lookahead` behind the page.
  void publish(std::vector<int32_t>& table, int32_t page_idx, std::span<const int32_t> tokens,
               bool has_draft_rows);

  /// errors: internal, when counts, lists and tables do not agree.
  Status check_integrity(std::span<const std::span<const int32_t>> tables) const;

 private:
  static constexpr size_t kMaxTokens = kKvPageSize + 1;

  /// What is known about a page's content; by page number.
  struct Entry {
    uint64_t hash = 0;
    uint64_t id = 0;                 // of this chain of tokens; equal contents of one chain share it
    uint64_t parent_id = 0;          // 0: a first page
    int32_t older = -1, newer = -1;  // neighbours among idle pages
    bool is_remembered = false;
    bool is_idle = false;
    bool has_draft_rows = false;
    int32_t tokens[kMaxTokens] = {};
  };

  Entry& entry(int32_t page) { return entries_[static_cast<size_t>(page)]; }
  const Entry& entry(int32_t page) const { return entries_[static_cast<size_t>(page)]; }
  std::span<const int32_t> page_tokens(std::span<const int32_t> tokens, int32_t page_idx) const;
  uint64_t hash_of(uint64_t parent_hash, std::span<const int32_t> tokens) const;
  int32_t find(uint64_t hash, uint64_t parent_id, std::span<const int32_t> tokens) const;
  int32_t next_of(int32_t page, std::span<const int32_t> tokens, int32_t page_idx) const;
  void insert(int32_t page);
  void forget(int32_t page);
  bool evict_one();
  void use(int32_t page);
  void unuse(int32_t page);
  void link_idle(int32_t page);
  void unlink_idle(int32_t page);
  Status check_idle_list() const;

  PageAllocator pages_;
  bool shares_;
  int32_t lookahead_;
  uint64_t hash_mask_;
  std::vector<Entry> entries_;    // (n_pages) or empty
  std::vector<int32_t> buckets_;  // size a power of two, linear probing; -1: empty
  int32_t oldest_idle_ = -1, newest_idle_ = -1, n_idle_ = 0;
  uint64_t last_id_ = 0;
  int64_t n_evictions_ = 0;
};

}  // namespace dspark
