#include "draft/ngram.h"

#include <algorithm>
#include <bit>
#include <string>

namespace dspark {
namespace {

constexpr size_t kLeastBuckets = 1024;

uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/// Hash of the n tokens that end before `end`, extended by the token in front of them. Longer suffixes reuse
/// the hash of shorter ones; n is part of it because every extension mixes again.
uint64_t extend(uint64_t hash, int32_t token) {
  return mix(hash * 0x9E3779B97F4A7C15u + static_cast<uint32_t>(token) + 1);
}

}  // namespace

void NgramIndex::reserve(int32_t n_tokens) {
  const auto n = static_cast<size_t>(std::clamp(n_tokens, 0, kMostReserved));
  tokens_.reserve(n);
  const size_t n_ngrams = n * static_cast<size_t>(max_n_ - min_n_ + 1);
  const size_t n_buckets = std::bit_ceil(std::max(kLeastBuckets, 2 * (n_ngrams + 1)));
  if (n_buckets > buckets_.size()) rehash(n_buckets);
}

void NgramIndex::clear() {
  // A short text leaves most buckets of a long one empty. Every n-gram is somewhere in the run of full
  // buckets that begins where it belongs; a run is emptied to its end, so what was emptied before hides
  // nothing.
  for (int32_t next = 1; next < static_cast<int32_t>(tokens_.size()); ++next) {
    uint64_t hash = 0;
    for (int32_t n = 1; n <= std::min(max_n_, next); ++n) {
      hash = extend(hash, tokens_[static_cast<size_t>(next - n)]);
      if (n < min_n_) continue;
      size_t at = hash & (buckets_.size() - 1);
      for (; buckets_[at].next != 0; at = (at + 1) & (buckets_.size() - 1)) buckets_[at] = Bucket{};
    }
  }
  tokens_.clear();
  n_used_ = 0;
}

void NgramIndex::append(std::span<const int32_t> tokens) {
  for (int32_t token : tokens) {
    tokens_.push_back(token);
    index_follower(static_cast<int32_t>(tokens_.size()) - 1);
  }
}

void NgramIndex::index_follower(int32_t next) {
  uint64_t hash = 0;
  for (int32_t n = 1; n <= std::min(max_n_, next); ++n) {
    hash = extend(hash, tokens_[static_cast<size_t>(next - n)]);
    if (n >= min_n_) insert(hash, next);
  }
}

void NgramIndex::insert(uint64_t hash, int32_t next) {
  if (2 * (n_used_ + 1) > buckets_.size()) rehash(std::max(kLeastBuckets, 2 * buckets_.size()));
  size_t at = hash & (buckets_.size() - 1);
  while (buckets_[at].next != 0 && buckets_[at].hash != hash) at = (at + 1) & (buckets_.size() - 1);
  if (buckets_[at].next == 0) ++n_used_;
  buckets_[at] = {hash, next};
}

void NgramIndex::rehash(size_t n_buckets) {
  std::vector<Bucket> old(n_buckets);
  old.swap(buckets_);
  for (const Bucket& bucket : old) {
    if (bucket.next == 0) continue;
    size_t at = bucket.hash & (buckets_.size() - 1);
    while (buckets_[at].next != 0) at = (at + 1) & (buckets_.size() - 1);
    buckets_[at] = bucket;
  }
}

int32_t NgramIndex::find(uint64_t hash) const {
  if (buckets_.empty()) return 0;
  size_t at = hash & (buckets_.size() - 1);
  while (buckets_[at].next != 0 && buckets_[at].hash != hash) at = (at + 1) & (buckets_.size() - 1);
  return buckets_[at].next;
}

std::span<const int32_t> NgramIndex::lookup(int32_t max_tokens) const {
  const auto n_tokens = static_cast<int32_t>(tokens_.size());
  uint64_t hash = 0;
  int32_t next = 0;
  // An earlier occurrence of n tokens contains one of n-1: the first length without a match ends the search.
  for (int32_t n = 1; n <= std::min(max_n_, n_tokens - 1); ++n) {
    hash = extend(hash, tokens_[static_cast<size_t>(n_tokens - n)]);
    if (n < min_n_) continue;
    const int32_t found = find(hash);
    // The hash decides only where to look: a colliding n-gram must not make two runs differ.
    if (found == 0 || !std::equal(tokens_.end() - n, tokens_.end(), tokens_.begin() + (found - n))) break;
    next = found;
  }
  if (next == 0) return {};
  return std::span(tokens_).subspan(static_cast<size_t>(next),
                                    static_cast<size_t>(std::min(max_tokens, n_tokens - next)));
}

NgramIndex::Match NgramIndex::match(std::span<const int32_t> ahead) const {
  const auto end = static_cast<int32_t>(tokens_.size() + ahead.size());
  uint64_t hash = 0;
  Match best;
  for (int32_t n = 1; n <= std::min(max_n_, end - 1); ++n) {
    hash = extend(hash, token_at(end - n, ahead));
    if (n < min_n_) continue;
    const int32_t found = find(hash);
    int32_t agree = 0;
    while (found != 0 && agree < n && token_at(found - 1 - agree, ahead) == token_at(end - 1 - agree, ahead))
      ++agree;
    if (agree < n) break;
    best = {found, n};
  }
  while (best.length > 0 && best.length < std::min(kMaxMatch, best.next) &&
         token_at(best.next - 1 - best.length, ahead) == token_at(end - 1 - best.length, ahead)) {
    ++best.length;
  }
  return best;
}

void NgramIndex::follow(const Match& match, std::span<const int32_t> ahead, std::span<int32_t> out) const {
  const size_t n_known = tokens_.size() + ahead.size();
  for (size_t i = 0; i < out.size(); ++i) {
    const size_t from = static_cast<size_t>(match.next) + i;
    out[i] = from < n_known ? token_at(static_cast<int32_t>(from), ahead) : out[from - n_known];
  }
}

Status NgramOptions::validate() const {
  if (min_n < 1 || min_n > max_n || max_n > 16) {
    return invalid_argument("ngram drafter: want 1 <= min <= max <= 16, found min " + std::to_string(min_n) +
                            ", max " + std::to_string(max_n));
  }
  if (max_block < 1 || max_block > kMaxBlock) {
    return invalid_argument("ngram drafter: want a block from 1 to " + std::to_string(kMaxBlock) +
                            " tokens, found " + std::to_string(max_block));
  }
  return ok_status();
}

NgramIndex& NgramDrafter::index_of(int32_t slot) {
  const auto at = static_cast<size_t>(slot);
  if (at >= indices_.size()) indices_.resize(at + 1);
  if (indices_[at] == nullptr) {
    indices_[at] = std::make_unique<NgramIndex>(options_.min_n, options_.max_n);
    if (options_.reserve > 0) indices_[at]->reserve(options_.reserve);
  }
  return *indices_[at];
}

Status NgramDrafter::propose(std::span<const DraftRequest> requests, DraftBlock& out) {
  out.evidence_kind = DraftEvidence::kMatchLength;
  for (size_t i = 0; i < requests.size(); ++i) {
    const int32_t limit = std::min(requests[i].max_tokens, options_.max_block);
    const NgramIndex& index = index_of(requests[i].slot);
    const std::span<const int32_t> found = index.lookup(limit);
    const auto length = static_cast<float>(found.empty() ? 0 : index.match().length);
    std::fill_n(out.evidence.begin() + static_cast<std::ptrdiff_t>(out.at(i, 0)), found.size(), length);
    std::copy(found.begin(), found.end(), out.row(i).begin());
    out.n_tokens[i] = static_cast<int32_t>(found.size());
    std::fill_n(out.sources.begin() + static_cast<std::ptrdiff_t>(out.at(i, 0)), found.size(),
                ProposalSource::kLookup);
  }
  return ok_status();
}

void NgramDrafter::commit(std::span<const CommitEvent> events) {
  for (const CommitEvent& event : events) index_of(event.slot).append(event.tokens);
}

void NgramDrafter::release(int32_t slot) {
  index_of(slot).clear();
}

}  // namespace dspark
