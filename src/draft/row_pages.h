#pragma once
// Where a learned drafter keeps the rows of its sequences: in pages of its own, or in pages numbered like the
// target's, so that rows are shared with the prefixes they belong to.

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/kv_cache.h"
#include "kernels/kv_pages.h"

namespace dspark {

/// Makes the page tables of a drafter's slots. thread: the engine thread.
class RowPages {
 public:
  /// Pages 0 .. n_pages - 1 are given out here.
  explicit RowPages(int32_t n_pages) : allocator_(n_pages) {}

  /// From now on pages 0 .. n_pages - 1 are given out by somebody else; behind them every slot has its own
  /// for up to `n_ahead` rows. `cache` is replaced by one of that size. errors: out_of_memory,
  /// invalid_argument (more pages than numbers); nothing changed then.
  Status share(int32_t n_pages, int32_t n_slots, int32_t n_ahead, KvPool& cache);

  /// Makes `table` hold rows 0 .. n_rows - 1. `given`: the sequence's table when pages are shared.
  /// returns: false (and nothing useful in the table) when pages are short.
  bool cover(std::vector<int32_t>& table, std::span<const int32_t> given, int64_t n_rows);
  /// The same with rows behind the committed ones in it, which go with the next call.
  bool reach_ahead(std::vector<int32_t>& table, int32_t slot, std::span<const int32_t> given, int64_t n_rows);
  /// Gives back what lies behind row n_rows - 1.
  void drop(std::vector<int32_t>& table, int64_t n_rows);

  const PageAllocator& allocator() const { return allocator_; }

 private:
  PageAllocator allocator_;  // unused when pages are shared
  int32_t n_shared_ = 0;     // 0: nothing is shared
  int32_t n_ahead_ = 0;      // pages of its own per slot
};

}  // namespace dspark
