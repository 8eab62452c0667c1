#pragma once
// Who owns which page of the cache. Storage and layout are kernels/kv_cache.h.

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"

namespace dspark {

/// Reference-counted page numbers 0..n_pages-1. A page may have several owners once prefixes are shared; a
/// page is written only while it has one. Lowest free pages first after a start, so that untouched memory of
/// a large cache stays untouched. thread: the engine thread.
class PageAllocator {
 public:
  explicit PageAllocator(int32_t n_pages);

  int32_t n_pages() const { return static_cast<int32_t>(references_.size()); }
  int32_t n_free() const { return static_cast<int32_t>(free_.size()); }
  int32_t references(int32_t page) const { return references_[static_cast<size_t>(page)]; }

  /// A page with one owner, or -1 when none is free.
  int32_t allocate();
  /// One more owner. requires: the page has one.
  void retain(int32_t page);
  /// One owner less; the page becomes free with the last.
  void release(int32_t page);

  /// Pages that hold `n_tokens` positions.
  static int32_t pages_for(int64_t n_tokens);
  /// Shortens a page table to what `n_tokens` positions need, releasing the rest from its end.
  void shrink(std::vector<int32_t>& table, int64_t n_tokens);
  /// Grows a page table to hold `n_tokens` positions. returns: false (and nothing changed) when pages are
  /// short.
  bool grow(std::vector<int32_t>& table, int64_t n_tokens);

  /// errors: internal, when the free list and the counts disagree, or a count is not the number of `tables`
  /// that list the page.
  Status check_integrity(std::span<const std::span<const int32_t>> tables) const;

 private:
  std::vector<int32_t> references_;  // (n_pages) owners; 0: free
  std::vector<int32_t> free_;        // stack
};

}  // namespace dspark
