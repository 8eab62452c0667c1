#pragma once
// Target cache, version 2 (layout of the DeepSpec reference): what a drafter trains on, one folder.
//   manifest.json    what the cache holds (TargetCacheInfo); written last, so a folder with it is complete
//   samples.idx      one record of 56 bytes per sample: where its arrays are
//   shard-NNNNN.bin  arrays of the samples, back to back, unaligned:
//                    int32 ids [T], u8 attention mask [T], u8 loss mask [T], bf16 features [T, m * d],
//                    bf16 last hidden [T, d]
// An addition of this project, which readers of version 2 do not miss: log_sum_exp.bin, float32 [T] of all
// samples one behind the other, the log-sum-exp of the target's logits at each position (NaN: not computed).
// All numbers are little-endian. No torch here: trainers copy what read() gives.

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "base/status.h"

namespace dspark {

inline constexpr int32_t kTargetCacheVersion = 2;
inline constexpr size_t kTargetCacheRecordBytes = 56;
inline constexpr uint64_t kTargetCacheShardLimit = uint64_t{64} << 30;

/// What the manifest says about the whole cache; counts and shards are the writer's and reader's own.
struct TargetCacheInfo {
  int32_t hidden_size = 0;                // d
  std::vector<int32_t> target_layer_ids;  // m ids, ascending: features are the outputs of these layers
  std::string target_model_name_or_path;  // compared by trainers
  // Told, not used:
  std::vector<std::string> source_jsonl_paths;
  std::string chat_template = "none";
  int32_t max_length = 4096;     // longest sample in tokens
  int32_t min_loss_tokens = 14;  // samples with fewer supervised tokens were dropped
  std::string project_name;
  std::string exp_name;
  std::string git_sha = "unknown";

  /// Features of one token: m * d.
  int64_t feature_size() const { return static_cast<int64_t>(target_layer_ids.size()) * hidden_size; }
  /// errors: invalid_argument naming the field.
  Status validate() const;
};

/// The arrays of one sample of T tokens. Reused from sample to sample, so that it keeps its capacity.
struct TargetCacheSample {
  std::vector<int32_t> input_ids;              // (T)
  std::vector<uint8_t> attention_mask;         // (T) 1 everywhere: samples are stored without padding
  std::vector<uint8_t> loss_mask;              // (T) 1: a supervised token
  std::vector<uint16_t> target_hidden_states;  // (T, m * d) bf16 bits, layers in the order of the ids
  std::vector<uint16_t> target_last_hidden;    // (T, d) bf16 bits, after the final norm
  std::vector<float> log_sum_exp;              // (T), or empty: the cache has none
  size_t n_tokens() const { return input_ids.size(); }
};

/// Use: create, append every sample, finish. A writer that is dropped before leaves a folder without
/// manifest.json; create() on that folder with the same `info` continues behind the last whole sample.
class TargetCacheWriter {
 public:
  struct Options {
    uint64_t shard_limit = kTargetCacheShardLimit;  // bytes; a sample is never split
    bool log_sum_exp = false;                       // samples have it, all or none
  };

  /// Makes the folder if needed. errors: invalid_argument (info; the folder holds a finished cache, or the
  /// beginning of another one), corrupt_data (a beginning that contradicts itself), resource_exhausted.
  static Result<TargetCacheWriter> create(const std::string& folder, const TargetCacheInfo& info,
                                          const Options& options);
  static Result<TargetCacheWriter> create(const std::string& folder, const TargetCacheInfo& info) {
    return create(folder, info, Options());
  }

  /// Samples written so far, those of an earlier run included.
  int64_t n_samples() const { return n_samples_; }
  int64_t n_tokens() const { return n_tokens_; }
  /// errors: invalid_argument (arrays that do not fit each other, longer than max_length),
  /// resource_exhausted (disk full).
  Status append(const TargetCacheSample& sample);
  /// Writes the manifest. Nothing may be appended afterwards.
  Status finish();

 private:
  struct FileCloser {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  using File = std::unique_ptr<std::FILE, FileCloser>;

  Status resume();
  Status open_shard(bool fresh);
  Status put(std::FILE* file, const void* bytes, size_t n_bytes);
  std::string path(const std::string& name) const { return folder_ + "/" + name; }

  std::string folder_;
  TargetCacheInfo info_;
  Options options_;
  int64_t n_samples_ = 0;
  int64_t n_tokens_ = 0;
  uint32_t n_shards_ = 0;    // started
  uint64_t shard_size_ = 0;  // bytes of the newest
  File index_, shard_, log_sum_exp_;
};

/// A finished cache, mapped. thread: const members from any thread.
class TargetCacheReader {
 public:
  /// Checks manifest, index and file lengths, so that read() cannot run out of a file.
  /// errors: not_found, unsupported (another version or element type), corrupt_data naming file and field.
  static Result<TargetCacheReader> open(const std::string& folder);

  const TargetCacheInfo& info() const { return info_; }
  int64_t n_samples() const { return static_cast<int64_t>(records_.size()); }
  int64_t n_tokens() const { return n_tokens_; }
  bool has_log_sum_exp() const { return has_log_sum_exp_; }
  /// Tokens of sample `idx`. requires: idx in [0, n_samples()).
  int32_t seq_len(int64_t idx) const { return records_[static_cast<size_t>(idx)].seq_len; }
  /// Copies sample `idx` into `sample`. requires: idx in [0, n_samples()).
  void read(int64_t idx, TargetCacheSample& sample) const;
  /// The same without the features, which are most of the bytes.
  void read_tokens(int64_t idx, TargetCacheSample& sample) const;

 private:
  struct Record {
    uint32_t shard = 0;
    int32_t seq_len = 0;
    uint64_t offsets[5] = {};  // ids, attention mask, loss mask, features, last hidden
    int64_t first_token = 0;   // of all tokens of the cache
  };

  Status read_manifest(std::vector<std::string>& shard_names, int64_t& n_samples);
  Status read_index(int64_t n_samples);
  Status check_record(const Record& record, size_t idx) const;

  std::string folder_;
  TargetCacheInfo info_;
  std::vector<Record> records_;
  int64_t n_tokens_ = 0;
  bool has_log_sum_exp_ = false;
  std::vector<MappedFile> shards_;
  MappedFile log_sum_exp_;
};

}  // namespace dspark
