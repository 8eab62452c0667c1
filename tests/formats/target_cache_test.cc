// Target caches: bytes of the reference's writer, cut-off runs, damaged files.

#include "formats/target_cache.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "formats/temp_folder.h"
#include "support/test_paths.h"

namespace dspark::test {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> golden_caches() {
  std::vector<fs::path> folders = {data_dir() / "target_cache" / "qwen3_mini"};
  if (!golden_dir().empty()) {
    for (const char* name : {"cache", "cache_gemma4", "cache_eagle3"}) {
      folders.push_back(golden_dir() / "draft" / "train" / name);
    }
  }
  return folders;
}

std::vector<std::string> file_names(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

void expect_same_files(const fs::path& found, const fs::path& expected) {
  EXPECT_EQ(file_names(found), file_names(expected));
  for (const std::string& name : file_names(expected)) {
    EXPECT_TRUE(read_file(found / name) == read_file(expected / name)) << name << " differs";
  }
}

TargetCacheInfo small_info() {
  TargetCacheInfo info;
  info.hidden_size = 4;
  info.target_layer_ids = {-1, 2};
  info.target_model_name_or_path =
      "m\xC3\xB6"
      "del";
  info.max_length = 50;
  return info;
}

TargetCacheSample small_sample(size_t n_tokens, int32_t first_id, bool log_sum_exp = false) {
  TargetCacheSample sample;
  for (size_t i = 0; i < n_tokens; ++i) {
    sample.input_ids.push_back(first_id + static_cast<int32_t>(i));
    sample.attention_mask.push_back(1);
    sample.loss_mask.push_back(i % 2 == 1);
    for (int j = 0; j < 8; ++j)
      sample.target_hidden_states.push_back(static_cast<uint16_t>(first_id * 8 + j));
    for (int j = 0; j < 4; ++j) sample.target_last_hidden.push_back(static_cast<uint16_t>(first_id * 4 + j));
    if (log_sum_exp) sample.log_sum_exp.push_back(static_cast<float>(first_id) + 0.5f);
  }
  return sample;
}

TargetCacheWriter writer_for(const std::string& folder, TargetCacheWriter::Options options = {}) {
  auto writer = TargetCacheWriter::create(folder, small_info(), options);
  EXPECT_TRUE(writer.ok()) << writer.status().to_string();
  return std::move(writer).value();
}

TEST(TargetCache, BytesOfTheReference) {
  for (const fs::path& folder : golden_caches()) {
    SCOPED_TRACE(folder.string());
    auto reader = TargetCacheReader::open(folder.string());
    ASSERT_TRUE(reader.ok()) << reader.status().to_string();
    ASSERT_EQ(reader->n_samples(), 4);
    EXPECT_EQ(reader->n_tokens(), 40 + 29 + 33 + 24);
    EXPECT_FALSE(reader->has_log_sum_exp());
    TempFolder out;
    // The reference was made to change shards after two samples.
    const uint64_t limit = fs::file_size(folder / "shard-00000.bin");
    auto writer = TargetCacheWriter::create(out.file("cache"), reader->info(), {limit, false});
    ASSERT_TRUE(writer.ok()) << writer.status().to_string();
    TargetCacheSample sample;
    for (int64_t i = 0; i < 4; ++i) {
      reader->read(i, sample);
      EXPECT_EQ(static_cast<int32_t>(sample.n_tokens()), reader->seq_len(i));
      ASSERT_TRUE(writer->append(sample).ok());
    }
    ASSERT_TRUE(writer->finish().ok());
    expect_same_files(out.path() / "cache", folder);
  }
}

TEST(TargetCache, ReadsBackWhatWasWritten) {
  TempFolder out;
  auto writer = writer_for(out.file("c"), {.shard_limit = 300, .log_sum_exp = true});
  const size_t lengths[] = {3, 9, 1, 50};  // the last one is larger than the limit by itself
  for (int32_t i = 0; i < 4; ++i) ASSERT_TRUE(writer.append(small_sample(lengths[i], 100 * i, true)).ok());
  ASSERT_TRUE(writer.finish().ok());
  auto reader = TargetCacheReader::open(out.file("c"));
  ASSERT_TRUE(reader.ok()) << reader.status().to_string();
  EXPECT_EQ(reader->info().target_layer_ids, (std::vector<int32_t>{-1, 2}));
  EXPECT_EQ(reader->info().target_model_name_or_path, small_info().target_model_name_or_path);
  TargetCacheSample found;
  for (int32_t i = 3; i >= 0; --i) {
    const TargetCacheSample expected = small_sample(lengths[i], 100 * i, true);
    reader->read(i, found);
    EXPECT_EQ(found.input_ids, expected.input_ids);
    EXPECT_EQ(found.loss_mask, expected.loss_mask);
    EXPECT_EQ(found.target_hidden_states, expected.target_hidden_states);
    EXPECT_EQ(found.target_last_hidden, expected.target_last_hidden);
    EXPECT_EQ(found.log_sum_exp, expected.log_sum_exp);
  }
}

TEST(TargetCache, ContinuesACutOffRun) {
  TempFolder out;
  const TargetCacheWriter::Options options = {.shard_limit = 700, .log_sum_exp = true};
  auto whole = writer_for(out.file("whole"), options);
  for (int32_t i = 0; i < 6; ++i) ASSERT_TRUE(whole.append(small_sample(8, i, true)).ok());
  ASSERT_TRUE(whole.finish().ok());
  for (int32_t n_before = 0; n_before <= 6; ++n_before) {
    SCOPED_TRACE(n_before);
    const std::string folder = out.file("cut" + std::to_string(n_before));
    {
      auto writer = writer_for(folder, options);
      for (int32_t i = 0; i < n_before; ++i) ASSERT_TRUE(writer.append(small_sample(8, i, true)).ok());
    }
    EXPECT_FALSE(TargetCacheReader::open(folder).ok());
    // What a killed process may leave behind the last whole sample.
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::string name = entry.path().filename();
      const std::string newest_shard = "shard-0000" + std::to_string((n_before - 1) / 2) + ".bin";
      if (name.ends_with(".partial") || (name.starts_with("shard") && name != newest_shard)) continue;
      std::ofstream(entry.path(), std::ios::binary | std::ios::app) << "torn";
    }
    auto writer = writer_for(folder, options);
    EXPECT_EQ(writer.n_samples(), n_before);
    EXPECT_EQ(writer.n_tokens(), n_before * 8);
    for (int32_t i = n_before; i < 6; ++i) ASSERT_TRUE(writer.append(small_sample(8, i, true)).ok());
    ASSERT_TRUE(writer.finish().ok());
    expect_same_files(folder, out.path() / "whole");
  }
}

TEST(TargetCache, DoesNotMixTwoCaches) {
  TempFolder out;
  { auto writer = writer_for(out.file("c")); }
  TargetCacheInfo other = small_info();
  other.target_layer_ids = {0, 2};
  const auto mixed = TargetCacheWriter::create(out.file("c"), other);
  ASSERT_FALSE(mixed.ok());
  EXPECT_NE(mixed.status().message().find("other settings"), std::string::npos);
  auto writer = writer_for(out.file("c"));
  ASSERT_TRUE(writer.append(small_sample(2, 0)).ok());
  ASSERT_TRUE(writer.finish().ok());
  EXPECT_FALSE(TargetCacheWriter::create(out.file("c"), small_info()).ok());
}

TEST(TargetCache, RefusesArraysThatDoNotFit) {
  TempFolder out;
  auto writer = writer_for(out.file("c"));
  TargetCacheSample sample = small_sample(3, 0);
  sample.target_last_hidden.pop_back();
  EXPECT_FALSE(writer.append(sample).ok());
  EXPECT_FALSE(writer.append(small_sample(51, 0)).ok());
  EXPECT_FALSE(writer.append(small_sample(3, 0, true)).ok());
  EXPECT_FALSE(writer.append(small_sample(0, 0)).ok());
  EXPECT_TRUE(writer.append(small_sample(50, 0)).ok());
  TargetCacheInfo info = small_info();
  info.target_layer_ids = {3, 1};
  EXPECT_FALSE(TargetCacheWriter::create(out.file("d"), info).ok());
}

class DamagedTargetCache : public ::testing::Test {
 protected:
  void SetUp() override {
    auto writer = writer_for(folder_);
    ASSERT_TRUE(writer.append(small_sample(5, 0)).ok());
    ASSERT_TRUE(writer.append(small_sample(7, 50)).ok());
    ASSERT_TRUE(writer.finish().ok());
  }
  /// Replaces text of the manifest. returns: the message of the reader.
  std::string with_manifest(const std::string& from, const std::string& to) {
    std::string text = read_file(folder_ + "/manifest.json");
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    std::ofstream(folder_ + "/manifest.json", std::ios::binary) << text;
    return message();
  }
  std::string message() {
    const auto reader = TargetCacheReader::open(folder_);
    EXPECT_FALSE(reader.ok());
    return reader.status().message();
  }
  /// Overwrites one 8-byte number of the index.
  std::string with_index(size_t offset, uint64_t value) {
    std::string index = read_file(folder_ + "/samples.idx");
    index.replace(offset, sizeof(value), reinterpret_cast<const char*>(&value), sizeof(value));
    std::ofstream(folder_ + "/samples.idx", std::ios::binary) << index;
    return message();
  }
  TempFolder out_;
  std::string folder_ = out_.file("c");
};

#define EXPECT_TELLS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(DamagedTargetCache, Version) {
  EXPECT_TELLS(with_manifest("\"version\": 2", "\"version\": 3"), "version");
}
TEST_F(DamagedTargetCache, Dtype) {
  EXPECT_TELLS(with_manifest("bfloat16", "float16"), "bfloat16");
}
TEST_F(DamagedTargetCache, Samples) {
  EXPECT_TELLS(with_manifest("\"num_samples\": 2", "\"num_samples\": 3"), "samples.idx");
}
TEST_F(DamagedTargetCache, HugeSamples) {
  EXPECT_TELLS(with_manifest("\"num_samples\": 2", "\"num_samples\": 18446744073709551615"), "num_samples");
}
TEST_F(DamagedTargetCache, Hidden) {
  EXPECT_TELLS(with_manifest("\"hidden_size\": 4", "\"hidden_size\": 9"), "record");
}
TEST_F(DamagedTargetCache, Escape) {
  EXPECT_TELLS(with_manifest("shard-00000.bin", "../shard-00000.bin"), "without a folder");
}
TEST_F(DamagedTargetCache, ShardIds) {
  EXPECT_TELLS(with_manifest("\"shard_id\": 0", "\"shard_id\": 1"), "shards");
}
TEST_F(DamagedTargetCache, NoShard) {
  fs::remove(folder_ + "/shard-00000.bin");
  EXPECT_TELLS(message(), "shard-00000.bin");
}
TEST_F(DamagedTargetCache, ShortShard) {
  fs::resize_file(folder_ + "/shard-00000.bin", 300);
  EXPECT_TELLS(message(), "record 1");
}
TEST_F(DamagedTargetCache, SampleId) {
  EXPECT_TELLS(with_index(56, 0), "record 1");
}
TEST_F(DamagedTargetCache, ShardOfRecord) {
  EXPECT_TELLS(with_index(8, uint64_t{5} << 32 | 7), "record 0");
}
TEST_F(DamagedTargetCache, LengthOfRecord) {
  EXPECT_TELLS(with_index(8, uint64_t{0xFFFFFFFF} << 32), "record 0");
}
TEST_F(DamagedTargetCache, Offset) {
  EXPECT_TELLS(with_index(16 + 56, UINT64_MAX - 8), "record 1");
}
TEST_F(DamagedTargetCache, LogSumExp) {
  std::ofstream(folder_ + "/log_sum_exp.bin", std::ios::binary) << "abc";
  EXPECT_TELLS(message(), "log_sum_exp.bin");
}

}  // namespace
}  // namespace dspark::test
