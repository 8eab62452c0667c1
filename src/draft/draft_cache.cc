#include "draft/draft_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/kv_pages.h"

namespace dspark {

Status DraftCapacity::validate() const {
  if (max_sequences >= 1 && context_length >= 1 && cache_tokens >= 0) return ok_status();
  return invalid_argument(fmt::format(
      "drafter: want at least one sequence of at least one token, found {} of {} with {} tokens in all",
      max_sequences, context_length, cache_tokens));
}

Result<KvPool> make_draft_cache(const DraftCapacity& capacity, const DraftConfig& config,
                                int32_t rows_ahead) {
  DSPARK_RETURN_IF_ERROR(capacity.validate());
  const int64_t n = capacity.max_sequences;
  int64_t n_pages = n * PageAllocator::pages_for(int64_t{capacity.context_length} + rows_ahead);
  if (capacity.cache_tokens > 0) {
    // A sequence wastes at most one page's end, its proposal needs pages_for(rows_ahead) + 1.
    const int64_t shared =
        PageAllocator::pages_for(capacity.cache_tokens) + n * (PageAllocator::pages_for(rows_ahead) + 2);
    n_pages = std::min(n_pages, shared);
  }
  if (n_pages > std::numeric_limits<int32_t>::max()) {
    return invalid_argument("drafter: a cache for that many tokens has too many pages");
  }
  std::vector<KvLayerShape> shapes(static_cast<size_t>(config.n_layers),
                                   KvLayerShape{config.n_kv_heads, config.head_dim});
  return KvPool::create(capacity.kv_dtype, std::move(shapes), static_cast<int32_t>(n_pages));
}

}  // namespace dspark
