#pragma once
// What learned drafters are made for, and the cache of rows that follows from it.

#include <cstdint>

#include "base/status.h"
#include "draft/draft_config.h"
#include "kernels/kv_cache.h"

namespace dspark {

/// How much a drafter must hold, and how it computes.
struct DraftCapacity {
  int32_t max_sequences = 1;
  int32_t context_length = 4096;  // most tokens of one sequence
  int64_t cache_tokens = 0;       // most tokens of all sequences; 0: every sequence may be full
  KvDType kv_dtype = KvDType::kBF16;
  bool float_activations = false;  // exact fp32 path, for tests

  /// errors: invalid_argument with the numbers found.
  Status validate() const;
};

/// A cache for the rows of committed tokens in every layer of `config` and, per sequence, `rows_ahead` rows
/// of a proposal behind them. errors: invalid_argument (validate(), more pages than numbers), out_of_memory.
Result<KvPool> make_draft_cache(const DraftCapacity& capacity, const DraftConfig& config, int32_t rows_ahead);

}  // namespace dspark
