#include "draft/row_pages.h"

#include <algorithm>
#include <string>
#include <utility>

namespace dspark {

Status RowPages::share(int32_t n_pages, int32_t n_slots, int32_t n_ahead, KvPool& cache) {
  // The page under the first row ahead is the sequence's own; only what sticks out of it needs more.
  const int32_t n_ahead_pages = PageAllocator::pages_for(n_ahead);
  const int64_t n_all = int64_t{n_pages} + int64_t{n_slots} * n_ahead_pages;
  if (n_all > INT32_MAX) {
    return invalid_argument("drafter: a cache of " + std::to_string(n_all) + " pages has too many");
  }
  DSPARK_ASSIGN_OR_RETURN(KvPool shared,
                          KvPool::create(cache.dtype, cache.layers, static_cast<int32_t>(n_all)));
  cache = std::move(shared);
  n_shared_ = n_pages;
  n_ahead_ = n_ahead_pages;
  return ok_status();
}

bool RowPages::cover(std::vector<int32_t>& table, std::span<const int32_t> given, int64_t n_rows) {
  if (n_shared_ == 0) return allocator_.grow(table, n_rows);
  const auto n = static_cast<size_t>(PageAllocator::pages_for(n_rows));
  if (n > given.size()) return false;
  table.assign(given.begin(), given.begin() + static_cast<std::ptrdiff_t>(n));
  return true;
}

bool RowPages::reach_ahead(std::vector<int32_t>& table, int32_t slot, std::span<const int32_t> given,
                           int64_t n_rows) {
  if (n_shared_ == 0) return allocator_.grow(table, n_rows);
  const auto n = static_cast<size_t>(PageAllocator::pages_for(n_rows));
  if (n > given.size() + static_cast<size_t>(n_ahead_)) return false;
  table.assign(given.begin(), given.begin() + static_cast<std::ptrdiff_t>(std::min(n, given.size())));
  for (int32_t page = n_shared_ + slot * n_ahead_; table.size() < n; ++page) table.push_back(page);
  return true;
}

void RowPages::drop(std::vector<int32_t>& table, int64_t n_rows) {
  if (n_shared_ == 0) return allocator_.shrink(table, n_rows);
  table.resize(std::min(table.size(), static_cast<size_t>(PageAllocator::pages_for(n_rows))));
}

}  // namespace dspark
