#pragma once
// What writer and reader of a target cache both know: names, element types, sizes. Private to this room.

#include <array>
#include <cstdint>
#include <string>

#include "formats/target_cache.h"

namespace dspark::target_cache {

inline constexpr char kManifestName[] = "manifest.json";
inline constexpr char kIndexName[] = "samples.idx";
inline constexpr char kLogSumExpName[] = "log_sum_exp.bin";
/// The manifest of a cache that is still being written.
inline constexpr char kPartialName[] = "manifest.json.partial";
inline constexpr char kHiddenDtype[] = "bfloat16";
inline constexpr char kTokenDtype[] = "int32";
inline constexpr char kMaskDtype[] = "uint8";

/// One record of samples.idx, as it stands in the file.
struct IndexRecord {
  uint64_t sample_id = 0;
  uint32_t shard_id = 0;
  uint32_t seq_len = 0;
  std::array<uint64_t, 5> offsets = {};  // ids, attention mask, loss mask, features, last hidden
};
static_assert(sizeof(IndexRecord) == kTargetCacheRecordBytes);

/// Bytes of the five arrays of a sample.
inline std::array<uint64_t, 5> array_bytes(const TargetCacheInfo& info, uint64_t n_tokens) {
  return {n_tokens * sizeof(int32_t), n_tokens, n_tokens,
          n_tokens * static_cast<uint64_t>(info.feature_size()) * sizeof(uint16_t),
          n_tokens * static_cast<uint64_t>(info.hidden_size) * sizeof(uint16_t)};
}

/// "shard-00003.bin".
std::string shard_name(uint32_t shard_id);
/// The manifest as the reference writes it: sorted keys, two spaces, no line break at the end.
std::string manifest_text(const TargetCacheInfo& info, int64_t n_samples, uint32_t n_shards);

}  // namespace dspark::target_cache
