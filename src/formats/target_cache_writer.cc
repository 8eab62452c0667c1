// Writes target caches, and continues one that was cut off.

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/atomic_file.h"
#include "formats/target_cache_layout.h"

namespace dspark {
namespace {

namespace fs = std::filesystem;
using target_cache::IndexRecord;

constexpr int32_t kMaxLayers = 1024;
constexpr int32_t kMaxHidden = 1 << 20;

Status write_text(const std::string& path, const std::string& text) {
  DSPARK_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(path));
  DSPARK_RETURN_IF_ERROR(file.write({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  return file.commit();
}

Status cut_file(const std::string& path, uint64_t size) {
  std::error_code ec;
  const uint64_t found = fs::file_size(path, ec);
  if (ec) return corrupt_data(path + ": missing, but samples were written to it");
  if (found < size) return corrupt_data(fmt::format("{}: {} bytes, expected at least {}", path, found, size));
  fs::resize_file(path, size, ec);
  if (ec) return resource_exhausted(path + ": cannot cut: " + ec.message());
  return ok_status();
}

}  // namespace

namespace target_cache {

std::string shard_name(uint32_t shard_id) {
  return fmt::format("shard-{:05}.bin", shard_id);
}

std::string manifest_text(const TargetCacheInfo& info, int64_t n_samples, uint32_t n_shards) {
  nlohmann::json shards = nlohmann::json::array();
  for (uint32_t i = 0; i < n_shards; ++i) shards.push_back({{"shard_id", i}, {"file_name", shard_name(i)}});
  const nlohmann::json manifest = {
      {"version", kTargetCacheVersion},
      {"num_samples", n_samples},
      {"num_shards", n_shards},
      {"shards", shards},
      {"target_layer_ids", info.target_layer_ids},
      {"hidden_size", info.hidden_size},
      {"hidden_dtype", kHiddenDtype},
      {"token_dtype", kTokenDtype},
      {"mask_dtype", kMaskDtype},
      {"index_record_size", kTargetCacheRecordBytes},
      {"target_model_name_or_path", info.target_model_name_or_path},
      {"source_jsonl_paths", info.source_jsonl_paths},
      {"chat_template", info.chat_template},
      {"max_length", info.max_length},
      {"min_loss_tokens", info.min_loss_tokens},
      {"project_name", info.project_name},
      {"exp_name", info.exp_name},
      {"git_sha", info.git_sha},
  };
  return manifest.dump(2, ' ', true, nlohmann::json::error_handler_t::replace);
}

}  // namespace target_cache

Status TargetCacheInfo::validate() const {
  if (hidden_size < 1 || hidden_size > kMaxHidden) {
    return invalid_argument(fmt::format("hidden_size: want 1 to {}, found {}", kMaxHidden, hidden_size));
  }
  const auto n_layers = static_cast<int32_t>(target_layer_ids.size());
  if (n_layers < 1 || n_layers > kMaxLayers) {
    return invalid_argument(fmt::format("target_layer_ids: want 1 to {}, found {}", kMaxLayers, n_layers));
  }
  if (target_layer_ids.front() < -1 ||
      !std::is_sorted(target_layer_ids.begin(), target_layer_ids.end(), std::less_equal<>())) {
    return invalid_argument("target_layer_ids: want ascending ids from -1 (the embedding) on");
  }
  if (max_length < 1) return invalid_argument(fmt::format("max_length: {} is not positive", max_length));
  return ok_status();
}

Result<TargetCacheWriter> TargetCacheWriter::create(const std::string& folder, const TargetCacheInfo& info,
                                                    const Options& options) {
  DSPARK_RETURN_IF_ERROR(info.validate());
  TargetCacheWriter writer;
  writer.folder_ = folder;
  writer.info_ = info;
  writer.options_ = options;
  std::error_code ec;
  fs::create_directories(folder, ec);
  if (ec) return invalid_argument(folder + ": cannot make the folder: " + ec.message());
  if (fs::exists(writer.path(target_cache::kManifestName), ec)) {
    return invalid_argument(folder + ": holds a finished cache; remove it or choose another folder");
  }
  DSPARK_RETURN_IF_ERROR(writer.resume());
  writer.index_.reset(std::fopen(writer.path(target_cache::kIndexName).c_str(), "abe"));
  if (writer.index_ == nullptr) return invalid_argument(folder + ": cannot be written");
  if (options.log_sum_exp) {
    writer.log_sum_exp_.reset(std::fopen(writer.path(target_cache::kLogSumExpName).c_str(), "abe"));
    if (writer.log_sum_exp_ == nullptr) return invalid_argument(folder + ": cannot be written");
  }
  if (writer.n_shards_ > 0) DSPARK_RETURN_IF_ERROR(writer.open_shard(false));
  return writer;
}

/// Finds the end of what an earlier run completed and cuts the files there; a fresh folder is left with empty
/// files. The index is written after the arrays it points to, so a record vouches for them.
Status TargetCacheWriter::resume() {
  using namespace target_cache;
  const std::string identity = manifest_text(info_, options_.log_sum_exp ? -1 : 0, 0);
  std::error_code ec;
  std::vector<IndexRecord> records;
  if (fs::exists(path(kPartialName), ec)) {
    DSPARK_ASSIGN_OR_RETURN(const MappedFile partial, MappedFile::open(path(kPartialName)));
    const auto bytes = partial.bytes();
    if (std::string(bytes.begin(), bytes.end()) != identity) {
      return invalid_argument(folder_ + ": holds the beginning of a cache with other settings (" +
                              kPartialName + ")");
    }
    if (fs::exists(path(kIndexName), ec)) {
      DSPARK_ASSIGN_OR_RETURN(const MappedFile index, MappedFile::open(path(kIndexName)));
      records.resize(index.bytes().size() / sizeof(IndexRecord));
      if (!records.empty()) {
        std::memcpy(records.data(), index.bytes().data(), records.size() * sizeof(IndexRecord));
      }
    }
  } else {
    DSPARK_RETURN_IF_ERROR(write_text(path(kPartialName), identity));
  }
  for (const IndexRecord& record : records) {
    const bool next_shard = record.shard_id == n_shards_;
    const uint64_t begin = next_shard ? 0 : shard_size_;
    if (record.sample_id != static_cast<uint64_t>(n_samples_) || record.offsets[0] != begin ||
        (!next_shard && record.shard_id + 1 != n_shards_) ||
        record.seq_len > static_cast<uint32_t>(info_.max_length)) {
      return corrupt_data(
          fmt::format("{}: record {} does not follow the one before it", path(kIndexName), n_samples_));
    }
    if (next_shard) ++n_shards_;
    shard_size_ = begin;
    for (const uint64_t n : array_bytes(info_, record.seq_len)) shard_size_ += n;
    ++n_samples_;
    n_tokens_ += record.seq_len;
  }
  if (n_shards_ > 0) {
    DSPARK_RETURN_IF_ERROR(cut_file(path(shard_name(n_shards_ - 1)), shard_size_));
    DSPARK_RETURN_IF_ERROR(cut_file(path(kIndexName), records.size() * sizeof(IndexRecord)));
    if (options_.log_sum_exp) {
      DSPARK_RETURN_IF_ERROR(
          cut_file(path(kLogSumExpName), static_cast<uint64_t>(n_tokens_) * sizeof(float)));
    }
  } else {
    fs::remove(path(kIndexName), ec);
    fs::remove(path(kLogSumExpName), ec);
  }
  return ok_status();
}

Status TargetCacheWriter::open_shard(bool fresh) {
  if (fresh) {
    ++n_shards_;
    shard_size_ = 0;
  }
  const std::string name = path(target_cache::shard_name(n_shards_ - 1));
  shard_.reset(std::fopen(name.c_str(), fresh ? "wbe" : "abe"));
  if (shard_ == nullptr) return resource_exhausted(name + ": cannot open: " + std::strerror(errno));
  return ok_status();
}

Status TargetCacheWriter::put(std::FILE* file, const void* bytes, size_t n_bytes) {
  if (n_bytes == 0 || std::fwrite(bytes, 1, n_bytes, file) == n_bytes) return ok_status();
  return resource_exhausted(folder_ + ": cannot write: " + std::strerror(errno));
}

Status TargetCacheWriter::append(const TargetCacheSample& sample) {
  if (index_ == nullptr) return internal_error(folder_ + ": appended to after finish");
  const size_t n = sample.n_tokens();
  const bool fits = sample.attention_mask.size() == n && sample.loss_mask.size() == n &&
                    sample.target_hidden_states.size() == n * static_cast<size_t>(info_.feature_size()) &&
                    sample.target_last_hidden.size() == n * static_cast<size_t>(info_.hidden_size) &&
                    sample.log_sum_exp.size() == (options_.log_sum_exp ? n : 0);
  if (!fits || n == 0 || n > static_cast<size_t>(info_.max_length)) {
    return invalid_argument(fmt::format("{}: sample {}: arrays do not fit {} tokens (at most {})", folder_,
                                        n_samples_, n, info_.max_length));
  }
  const std::array<uint64_t, 5> sizes = target_cache::array_bytes(info_, n);
  uint64_t total = 0;
  for (const uint64_t size : sizes) total += size;
  if (n_shards_ == 0 || (shard_size_ > 0 && shard_size_ + total > options_.shard_limit)) {
    DSPARK_RETURN_IF_ERROR(open_shard(true));
  }
  const void* arrays[] = {sample.input_ids.data(), sample.attention_mask.data(), sample.loss_mask.data(),
                          sample.target_hidden_states.data(), sample.target_last_hidden.data()};
  IndexRecord record;
  record.sample_id = static_cast<uint64_t>(n_samples_);
  record.shard_id = n_shards_ - 1;
  record.seq_len = static_cast<uint32_t>(n);
  for (size_t i = 0; i < sizes.size(); ++i) {
    record.offsets[i] = shard_size_;
    DSPARK_RETURN_IF_ERROR(put(shard_.get(), arrays[i], sizes[i]));
    shard_size_ += sizes[i];
  }
  if (options_.log_sum_exp) {
    DSPARK_RETURN_IF_ERROR(put(log_sum_exp_.get(), sample.log_sum_exp.data(), n * sizeof(float)));
    if (std::fflush(log_sum_exp_.get()) != 0) return resource_exhausted(folder_ + ": cannot write");
  }
  if (std::fflush(shard_.get()) != 0) return resource_exhausted(folder_ + ": cannot write");
  DSPARK_RETURN_IF_ERROR(put(index_.get(), &record, sizeof(record)));
  if (std::fflush(index_.get()) != 0) return resource_exhausted(folder_ + ": cannot write");
  ++n_samples_;
  n_tokens_ += static_cast<int64_t>(n);
  return ok_status();
}

Status TargetCacheWriter::finish() {
  if (index_ == nullptr) return internal_error(folder_ + ": finished twice");
  index_.reset();
  shard_.reset();
  log_sum_exp_.reset();
  DSPARK_RETURN_IF_ERROR(write_text(path(target_cache::kManifestName),
                                    target_cache::manifest_text(info_, n_samples_, n_shards_)));
  std::error_code ec;
  fs::remove(path(target_cache::kPartialName), ec);
  return ok_status();
}

}  // namespace dspark
