// Reads target caches.

#include <fmt/format.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "formats/json_reader.h"
#include "formats/target_cache_layout.h"

namespace dspark {
namespace {

using nlohmann::json;
using target_cache::IndexRecord;

constexpr uint32_t kMaxShards = 1 << 20;

/// Fields of the manifest; remembers the first that is wrong.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

  int64_t integer(const char* name, int64_t least, int64_t most) {
    const auto it = object_.find(name);
    if (it == object_.end() || !it->is_number_integer() ||
        (it->is_number_unsigned() && it->get<uint64_t>() > static_cast<uint64_t>(most)) ||
        it->get<int64_t>() < least || it->get<int64_t>() > most) {
      fail(name, fmt::format("want a whole number from {} to {}", least, most));
      return least;
    }
    return it->get<int64_t>();
  }
  std::string text(const char* name, bool required) {
    const auto it = object_.find(name);
    if (it != object_.end() && it->is_string()) return it->get<std::string>();
    if (required || (it != object_.end() && !it->is_null())) fail(name, "want a text");
    return {};
  }
  const json* array(const char* name) {
    const auto it = object_.find(name);
    if (it != object_.end() && it->is_array()) return &*it;
    fail(name, "want an array");
    return nullptr;
  }
  void fail(const char* name, const std::string& expected) {
    if (!status_.ok()) return;
    const auto it = object_.find(name);
    std::string found =
        it == object_.end() ? "nothing" : it->dump(-1, ' ', true, json::error_handler_t::replace);
    if (found.size() > 60) found = found.substr(0, 57) + "...";
    status_ = corrupt_data(fmt::format("{}: {}: {}, found {}", where_, name, expected, found));
  }
  const Status& status() const { return status_; }

 private:
  const json& object_;
  std::string where_;
  Status status_;
};

void read_told_fields(Fields& fields, const json& manifest, TargetCacheInfo& info) {
  info.target_model_name_or_path = fields.text("target_model_name_or_path", false);
  info.chat_template = fields.text("chat_template", false);
  info.project_name = fields.text("project_name", false);
  info.exp_name = fields.text("exp_name", false);
  info.git_sha = fields.text("git_sha", false);
  if (manifest.contains("max_length")) {
    info.max_length = static_cast<int32_t>(fields.integer("max_length", 1, INT32_MAX));
  } else {
    info.max_length = INT32_MAX;
  }
  if (manifest.contains("min_loss_tokens")) {
    info.min_loss_tokens = static_cast<int32_t>(fields.integer("min_loss_tokens", 0, INT32_MAX));
  }
  if (!manifest.contains("source_jsonl_paths")) return;
  const json* sources = fields.array("source_jsonl_paths");
  for (size_t i = 0; sources != nullptr && i < sources->size(); ++i) {
    if (!(*sources)[i].is_string()) return fields.fail("source_jsonl_paths", "want texts");
    info.source_jsonl_paths.push_back((*sources)[i].get<std::string>());
  }
}

void read_layer_ids(Fields& fields, TargetCacheInfo& info) {
  const json* ids = fields.array("target_layer_ids");
  for (size_t i = 0; ids != nullptr && i < ids->size(); ++i) {
    const json& id = (*ids)[i];
    if (!id.is_number_integer() || id.get<int64_t>() < -1 || id.get<int64_t>() > INT32_MAX) {
      return fields.fail("target_layer_ids", "want layer numbers");
    }
    info.target_layer_ids.push_back(static_cast<int32_t>(id.get<int64_t>()));
  }
}

/// Names by id; ids must be 0, 1, ... in any order, names plain file names.
void read_shards(Fields& fields, uint32_t n_shards, std::vector<std::string>& names) {
  const json* shards = fields.array("shards");
  if (shards == nullptr) return;
  if (shards->size() != n_shards) return fields.fail("shards", fmt::format("want {} entries", n_shards));
  names.assign(n_shards, "");
  for (const json& shard : *shards) {
    const bool whole = shard.is_object() && shard.contains("shard_id") && shard.contains("file_name") &&
                       shard["shard_id"].is_number_unsigned() && shard["file_name"].is_string() &&
                       shard["shard_id"].get<uint64_t>() < n_shards;
    if (!whole) return fields.fail("shards", "want objects with shard_id and file_name");
    std::string& name = names[shard["shard_id"].get<size_t>()];
    if (!name.empty()) return fields.fail("shards", "want each shard_id once");
    name = shard["file_name"].get<std::string>();
    if (name.empty() || name.find('/') != std::string::npos) {
      return fields.fail("shards", "want file names without a folder");
    }
  }
}

template <typename T>
void copy_array(std::vector<T>& to, const uint8_t* from, size_t n) {
  to.resize(n);
  if (n > 0) std::memcpy(to.data(), from, n * sizeof(T));
}

}  // namespace

Result<TargetCacheReader> TargetCacheReader::open(const std::string& folder) {
  TargetCacheReader reader;
  reader.folder_ = folder;
  std::vector<std::string> shard_names;
  int64_t n_samples = 0;
  DSPARK_RETURN_IF_ERROR(reader.read_manifest(shard_names, n_samples));
  for (const std::string& name : shard_names) {
    DSPARK_ASSIGN_OR_RETURN(MappedFile shard, MappedFile::open(folder + "/" + name));
    reader.shards_.push_back(std::move(shard));
  }
  DSPARK_RETURN_IF_ERROR(reader.read_index(n_samples));
  const std::string side_file = folder + "/" + target_cache::kLogSumExpName;
  std::error_code ec;
  if (std::filesystem::exists(side_file, ec)) {
    DSPARK_ASSIGN_OR_RETURN(reader.log_sum_exp_, MappedFile::open(side_file));
    const uint64_t expected = static_cast<uint64_t>(reader.n_tokens_) * sizeof(float);
    if (reader.log_sum_exp_.bytes().size() != expected) {
      return corrupt_data(
          fmt::format("{}: {} bytes, expected {}", side_file, reader.log_sum_exp_.bytes().size(), expected));
    }
    reader.has_log_sum_exp_ = true;
  }
  return reader;
}

Status TargetCacheReader::read_manifest(std::vector<std::string>& shard_names, int64_t& n_samples) {
  const std::string path = folder_ + "/" + target_cache::kManifestName;
  DSPARK_ASSIGN_OR_RETURN(const json manifest, read_json_file(path));
  if (!manifest.is_object()) return corrupt_data(path + ": want a JSON object");
  Fields fields(manifest, path);
  if (fields.integer("version", 0, INT32_MAX) != kTargetCacheVersion && fields.status().ok()) {
    return unsupported(fmt::format("{}: version: want {}", path, kTargetCacheVersion));
  }
  if (fields.text("hidden_dtype", true) != target_cache::kHiddenDtype ||
      fields.text("token_dtype", true) != target_cache::kTokenDtype ||
      fields.text("mask_dtype", true) != target_cache::kMaskDtype) {
    DSPARK_RETURN_IF_ERROR(fields.status());
    return unsupported(path + ": want hidden_dtype bfloat16, token_dtype int32, mask_dtype uint8");
  }
  fields.integer("index_record_size", kTargetCacheRecordBytes, kTargetCacheRecordBytes);
  n_samples = fields.integer("num_samples", 0, INT64_MAX / static_cast<int64_t>(kTargetCacheRecordBytes));
  const auto n_shards = static_cast<uint32_t>(fields.integer("num_shards", 0, kMaxShards));
  info_.hidden_size = static_cast<int32_t>(fields.integer("hidden_size", 1, INT32_MAX));
  read_layer_ids(fields, info_);
  if (fields.status().ok()) read_shards(fields, n_shards, shard_names);
  read_told_fields(fields, manifest, info_);
  DSPARK_RETURN_IF_ERROR(fields.status());
  if (Status status = info_.validate(); !status.ok()) return corrupt_data(path + ": " + status.message());
  return ok_status();
}

Status TargetCacheReader::read_index(int64_t n_samples) {
  const std::string path = folder_ + "/" + target_cache::kIndexName;
  DSPARK_ASSIGN_OR_RETURN(const MappedFile index, MappedFile::open(path));
  const uint64_t expected = static_cast<uint64_t>(n_samples) * kTargetCacheRecordBytes;
  if (index.bytes().size() != expected) {
    return corrupt_data(fmt::format("{}: {} bytes, expected {} for {} samples", path, index.bytes().size(),
                                    expected, n_samples));
  }
  records_.resize(static_cast<size_t>(n_samples));
  for (size_t i = 0; i < records_.size(); ++i) {
    IndexRecord stored;
    std::memcpy(&stored, index.bytes().data() + i * kTargetCacheRecordBytes, sizeof(stored));
    if (stored.sample_id != i || stored.seq_len > static_cast<uint32_t>(info_.max_length)) {
      return corrupt_data(
          fmt::format("{}: record {}: sample id {}, {} tokens", path, i, stored.sample_id, stored.seq_len));
    }
    Record& record = records_[i];
    record.shard = stored.shard_id;
    record.seq_len = static_cast<int32_t>(stored.seq_len);
    record.first_token = n_tokens_;
    std::copy(stored.offsets.begin(), stored.offsets.end(), record.offsets);
    DSPARK_RETURN_IF_ERROR(check_record(record, i));
    n_tokens_ += record.seq_len;
  }
  return ok_status();
}

Status TargetCacheReader::check_record(const Record& record, size_t idx) const {
  const std::string path = folder_ + "/" + target_cache::kIndexName;
  if (record.shard >= shards_.size()) {
    return corrupt_data(
        fmt::format("{}: record {}: shard {} of {}", path, idx, record.shard, shards_.size()));
  }
  const uint64_t size = shards_[record.shard].bytes().size();
  const auto sizes = target_cache::array_bytes(info_, static_cast<uint64_t>(record.seq_len));
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] > size || record.offsets[i] > size - sizes[i]) {
      return corrupt_data(fmt::format("{}: record {}: {} bytes from {} on do not fit {} of {} bytes", path,
                                      idx, sizes[i], record.offsets[i], shards_[record.shard].path(), size));
    }
  }
  return ok_status();
}

void TargetCacheReader::read_tokens(int64_t idx, TargetCacheSample& sample) const {
  const Record& record = records_[static_cast<size_t>(idx)];
  const uint8_t* shard = shards_[record.shard].bytes().data();
  const auto n = static_cast<size_t>(record.seq_len);
  copy_array(sample.input_ids, shard + record.offsets[0], n);
  copy_array(sample.attention_mask, shard + record.offsets[1], n);
  copy_array(sample.loss_mask, shard + record.offsets[2], n);
  sample.log_sum_exp.clear();
  if (has_log_sum_exp_) {
    copy_array(sample.log_sum_exp,
               log_sum_exp_.bytes().data() + static_cast<size_t>(record.first_token) * sizeof(float), n);
  }
}

void TargetCacheReader::read(int64_t idx, TargetCacheSample& sample) const {
  read_tokens(idx, sample);
  const Record& record = records_[static_cast<size_t>(idx)];
  const uint8_t* shard = shards_[record.shard].bytes().data();
  const auto n = static_cast<size_t>(record.seq_len);
  copy_array(sample.target_hidden_states, shard + record.offsets[3],
             n * static_cast<size_t>(info_.feature_size()));
  copy_array(sample.target_last_hidden, shard + record.offsets[4],
             n * static_cast<size_t>(info_.hidden_size));
}

}  // namespace dspark
