#include "engine/page_cache.h"

#include <algorithm>
#include <bit>
#include <string>

namespace dspark {
namespace {

uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace

PageCache::PageCache(const PageCacheOptions& options)
    : pages_(options.n_pages),
      shares_(options.shares),
      lookahead_(options.lookahead),
      hash_mask_(options.hash_mask) {
  if (!shares_) return;
  const auto n = static_cast<size_t>(options.n_pages);
  entries_.resize(n);
  buckets_.assign(std::bit_ceil(2 * n), -1);
}

bool PageCache::grow(std::vector<int32_t>& table, int64_t n_tokens) {
  const auto n_needed = static_cast<size_t>(PageAllocator::pages_for(n_tokens));
  if (n_needed > table.size() + static_cast<size_t>(n_available())) return false;
  while (table.size() < n_needed) {
    if (pages_.n_free() == 0) evict_one();
    table.push_back(pages_.allocate());
  }
  return true;
}

// From the end, so that the first pages of a text are the most recently used ones.
void PageCache::shrink(std::vector<int32_t>& table, int64_t n_tokens) {
  const auto n_needed = static_cast<size_t>(PageAllocator::pages_for(n_tokens));
  while (table.size() > n_needed) {
    unuse(table.back());
    table.pop_back();
  }
}

std::span<const int32_t> PageCache::page_tokens(std::span<const int32_t> tokens, int32_t page_idx) const {
  const auto first = static_cast<size_t>(page_idx) * kKvPageSize;
  const auto n = static_cast<size_t>(kKvPageSize + lookahead_);
  return first + n <= tokens.size() ? tokens.subspan(first, n) : std::span<const int32_t>();
}

uint64_t PageCache::hash_of(uint64_t parent_hash, std::span<const int32_t> tokens) const {
  uint64_t hash = mix(parent_hash + 0x9E3779B97F4A7C15u);
  for (const int32_t token : tokens) hash = mix(hash * 31 + static_cast<uint32_t>(token) + 1);
  return hash & hash_mask_;
}

int32_t PageCache::find(uint64_t hash, uint64_t parent_id, std::span<const int32_t> tokens) const {
  for (size_t at = mix(hash) & (buckets_.size() - 1); buckets_[at] >= 0;
       at = (at + 1) & (buckets_.size() - 1)) {
    const Entry& e = entry(buckets_[at]);
    if (e.hash == hash && e.parent_id == parent_id && std::equal(tokens.begin(), tokens.end(), e.tokens)) {
      return buckets_[at];
    }
  }
  return -1;
}

/// The remembered page behind `page` (-1: the first page) that holds page page_idx of `tokens`, or -1.
int32_t PageCache::next_of(int32_t page, std::span<const int32_t> tokens, int32_t page_idx) const {
  const std::span<const int32_t> own = page_tokens(tokens, page_idx);
  if (own.empty()) return -1;
  const uint64_t parent_hash = page < 0 ? 0 : entry(page).hash;
  return find(hash_of(parent_hash, own), page < 0 ? 0 : entry(page).id, own);
}

PageCache::Match PageCache::match(std::span<const int32_t> tokens, int32_t most_pages,
                                  bool needs_draft_rows) const {
  Match found;
  if (!shares_) return found;
  for (int32_t page = -1; found.n_pages < most_pages; ++found.n_pages) {
    page = next_of(page, tokens, found.n_pages);
    if (page < 0 || (needs_draft_rows && !entry(page).has_draft_rows)) break;
    found.n_idle += entry(page).is_idle ? 1 : 0;
    if (!entry(page).has_draft_rows) found.n_without_rows = found.n_pages + 1;
  }
  return found;
}

PageCache::Match PageCache::attach(std::span<const int32_t> tokens, int32_t most_pages, bool needs_draft_rows,
                                   std::vector<int32_t>& table) {
  const Match found = match(tokens, most_pages, needs_draft_rows);
  for (int32_t page_idx = 0; page_idx < found.n_pages; ++page_idx) {
    const int32_t page = next_of(table.empty() ? -1 : table.back(), tokens, page_idx);
    use(page);
    table.push_back(page);
  }
  return found;
}

void PageCache::publish(std::vector<int32_t>& table, int32_t page_idx, std::span<const int32_t> tokens,
                        bool has_draft_rows) {
  if (!shares_) return;
  const auto at = static_cast<size_t>(page_idx);
  const int32_t page = table[at], before = page_idx == 0 ? -1 : table[at - 1];
  const std::span<const int32_t> own = page_tokens(tokens, page_idx);
  const int32_t known = next_of(before, tokens, page_idx);
  if (known == page) {
    entry(page).has_draft_rows |= has_draft_rows;
    return;
  }
  if (known >= 0 && (entry(known).has_draft_rows || !has_draft_rows)) {
    use(known);
    unuse(page);
    table[at] = known;
    return;
  }
  Entry& e = entry(page);
  e.parent_id = before < 0 ? 0 : entry(before).id;
  e.hash = hash_of(before < 0 ? 0 : entry(before).hash, own);
  e.has_draft_rows = has_draft_rows;
  std::copy(own.begin(), own.end(), e.tokens);
  e.id = known >= 0 ? entry(known).id : ++last_id_;
  if (known >= 0) forget(known);  // its users keep it; new ones get this page, which has more
  insert(page);
}

void PageCache::insert(int32_t page) {
  Entry& e = entry(page);
  e.is_remembered = true;
  pages_.retain(page);
  size_t at = mix(e.hash) & (buckets_.size() - 1);
  while (buckets_[at] >= 0) at = (at + 1) & (buckets_.size() - 1);
  buckets_[at] = page;
}

/// Takes a page out of the memory; it becomes free unless somebody uses it.
void PageCache::forget(int32_t page) {
  Entry& e = entry(page);
  if (e.is_idle) unlink_idle(page);
  e.is_remembered = false;
  const size_t mask = buckets_.size() - 1;
  size_t hole = mix(e.hash) & mask;
  while (buckets_[hole] != page) hole = (hole + 1) & mask;
  // Later entries of the run move up where their home allows it.
  for (size_t at = (hole + 1) & mask; buckets_[at] >= 0; at = (at + 1) & mask) {
    const size_t home = mix(entry(buckets_[at]).hash) & mask;
    if (((at - home) & mask) < ((at - hole) & mask)) continue;
    buckets_[hole] = buckets_[at];
    hole = at;
  }
  buckets_[hole] = -1;
  pages_.release(page);
}

bool PageCache::evict_one() {
  if (oldest_idle_ < 0) return false;
  forget(oldest_idle_);
  ++n_evictions_;
  return true;
}

void PageCache::use(int32_t page) {
  if (entry(page).is_idle) unlink_idle(page);
  pages_.retain(page);
}

void PageCache::unuse(int32_t page) {
  pages_.release(page);
  if (shares_ && entry(page).is_remembered && pages_.references(page) == 1) link_idle(page);
}

void PageCache::link_idle(int32_t page) {
  Entry& e = entry(page);
  e.is_idle = true;
  e.older = newest_idle_;
  e.newer = -1;
  (newest_idle_ < 0 ? oldest_idle_ : entry(newest_idle_).newer) = page;
  newest_idle_ = page;
  ++n_idle_;
}

void PageCache::unlink_idle(int32_t page) {
  Entry& e = entry(page);
  e.is_idle = false;
  (e.older < 0 ? oldest_idle_ : entry(e.older).newer) = e.newer;
  (e.newer < 0 ? newest_idle_ : entry(e.newer).older) = e.older;
  --n_idle_;
}

Status PageCache::check_idle_list() const {
  int32_t n = 0, before = -1;
  for (int32_t page = oldest_idle_; page >= 0 && n <= n_idle_; before = page, page = entry(page).newer, ++n) {
    const Entry& e = entry(page);
    if (!e.is_idle || !e.is_remembered || e.older != before || pages_.references(page) != 1) {
      return internal_error("page cache: page " + std::to_string(page) + " is wrongly in the idle list");
    }
  }
  if (n != n_idle_ || before != newest_idle_) {
    return internal_error("page cache: " + std::to_string(n_idle_) + " idle pages, the list has " +
                          std::to_string(n));
  }
  return ok_status();
}

Status PageCache::check_integrity(std::span<const std::span<const int32_t>> tables) const {
  std::vector<std::span<const int32_t>> all(tables.begin(), tables.end());
  std::vector<int32_t> remembered;
  int32_t n_idle = 0;
  for (size_t page = 0; page < entries_.size(); ++page) {
    const Entry& e = entries_[page];
    n_idle += e.is_idle ? 1 : 0;
    if (!e.is_remembered) continue;
    remembered.push_back(static_cast<int32_t>(page));
    const std::span<const int32_t> own(e.tokens, static_cast<size_t>(kKvPageSize + lookahead_));
    if (find(e.hash, e.parent_id, own) != static_cast<int32_t>(page)) {
      return internal_error("page cache: page " + std::to_string(page) + " is not found by its content");
    }
    const bool idle = pages_.references(static_cast<int32_t>(page)) == 1;
    if (idle != e.is_idle) {
      return internal_error("page cache: page " + std::to_string(page) + " is idle and not listed, or used " +
                            "and listed");
    }
  }
  if (n_idle != n_idle_) return internal_error("page cache: idle pages are not all listed");
  const auto n_buckets = std::ranges::count_if(buckets_, [](int32_t page) { return page >= 0; });
  if (n_buckets != std::ssize(remembered)) {
    return internal_error("page cache: " + std::to_string(n_buckets) + " pages in the table, " +
                          std::to_string(remembered.size()) + " remembered");
  }
  all.emplace_back(remembered);
  DSPARK_RETURN_IF_ERROR(check_idle_list());
  return pages_.check_integrity(all);
}

}  // namespace dspark
