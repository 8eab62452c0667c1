#include "kernels/kv_pages.h"

#include <string>

#include "kernels/kv_cache.h"

namespace dspark {

PageAllocator::PageAllocator(int32_t n_pages) : references_(static_cast<size_t>(n_pages), 0) {
  free_.reserve(static_cast<size_t>(n_pages));
  for (int32_t page = n_pages; page-- > 0;) free_.push_back(page);
}

int32_t PageAllocator::allocate() {
  if (free_.empty()) return -1;
  const int32_t page = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(page)] = 1;
  return page;
}

void PageAllocator::retain(int32_t page) {
  DSPARK_DCHECK(references(page) > 0);
  ++references_[static_cast<size_t>(page)];
}

void PageAllocator::release(int32_t page) {
  DSPARK_DCHECK(references(page) > 0);
  if (--references_[static_cast<size_t>(page)] == 0) free_.push_back(page);
}

int32_t PageAllocator::pages_for(int64_t n_tokens) {
  return static_cast<int32_t>((n_tokens + kKvPageSize - 1) / kKvPageSize);
}

void PageAllocator::shrink(std::vector<int32_t>& table, int64_t n_tokens) {
  const auto n_needed = static_cast<size_t>(pages_for(n_tokens));
  while (table.size() > n_needed) {
    release(table.back());
    table.pop_back();
  }
}

bool PageAllocator::grow(std::vector<int32_t>& table, int64_t n_tokens) {
  const auto n_needed = static_cast<size_t>(pages_for(n_tokens));
  if (n_needed > table.size() + free_.size()) return false;
  while (table.size() < n_needed) table.push_back(allocate());
  return true;
}

Status PageAllocator::check_integrity(std::span<const std::span<const int32_t>> tables) const {
  std::vector<int32_t> owners(references_.size(), 0);
  for (const auto& table : tables) {
    for (int32_t page : table) {
      if (page < 0 || page >= n_pages()) {
        return internal_error("kv pages: a table lists page " + std::to_string(page) + " of " +
                              std::to_string(n_pages()));
      }
      ++owners[static_cast<size_t>(page)];
    }
  }
  std::vector<bool> is_free(references_.size(), false);
  for (int32_t page : free_) {
    const auto at = static_cast<size_t>(page);
    if (is_free[at] || references_[at] != 0) {
      return internal_error("kv pages: page " + std::to_string(page) +
                            (is_free[at] ? " is twice in the free list" : " is free and owned"));
    }
    is_free[at] = true;
  }
  for (size_t at = 0; at < references_.size(); ++at) {
    if (references_[at] != owners[at] || is_free[at] != (owners[at] == 0)) {
      return internal_error("kv pages: page " + std::to_string(at) + " counts " +
                            std::to_string(references_[at]) + " owners, tables list it " +
                            std::to_string(owners[at]) + " times, free " + (is_free[at] ? "yes" : "no"));
    }
  }
  return ok_status();
}

}  // namespace dspark
