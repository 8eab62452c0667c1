#include "speculate/token_counts.h"

#include <algorithm>
#include <cstddef>

namespace dspark {
namespace {

constexpr size_t kLeastBuckets = 256;

size_t bucket_of(int32_t token, size_t n_buckets) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(token)) * 0x9E3779B97F4A7C15u >> 32) & (n_buckets - 1);
}

}  // namespace

void TokenCounts::reset(std::span<const int32_t> prompt) {
  entries_.clear();
  buckets_.assign(kLeastBuckets, -1);
  for (int32_t token : prompt) find_or_insert(token).in_prompt = true;
}

void TokenCounts::reserve(size_t n_more) {
  const size_t n = entries_.size() + n_more;
  // Doubled, so that reserving a little again and again seldom moves the entries.
  if (n > entries_.capacity()) entries_.reserve(std::max(n, 2 * entries_.capacity()));
  size_t n_buckets = std::max(buckets_.size(), kLeastBuckets);
  while (2 * n > n_buckets) n_buckets *= 2;
  if (n_buckets > buckets_.size()) rehash(n_buckets);
}

TokenCounts::Entry& TokenCounts::find_or_insert(int32_t token) {
  if (2 * (entries_.size() + 1) > buckets_.size())
    rehash(buckets_.empty() ? kLeastBuckets : 2 * buckets_.size());
  size_t at = bucket_of(token, buckets_.size());
  while (buckets_[at] >= 0) {
    Entry& entry = entries_[static_cast<size_t>(buckets_[at])];
    if (entry.token == token) return entry;
    at = (at + 1) & (buckets_.size() - 1);
  }
  buckets_[at] = static_cast<int32_t>(entries_.size());
  return entries_.emplace_back(Entry{token, 0, false});
}

void TokenCounts::rehash(size_t n_buckets) {
  buckets_.assign(n_buckets, -1);
  for (size_t i = 0; i < entries_.size(); ++i) {
    size_t at = bucket_of(entries_[i].token, n_buckets);
    while (buckets_[at] >= 0) at = (at + 1) & (n_buckets - 1);
    buckets_[at] = static_cast<int32_t>(i);
  }
}

}  // namespace dspark
