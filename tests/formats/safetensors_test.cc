#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/safetensors_reader.h"
#include "formats/safetensors_writer.h"
#include "support/test_paths.h"
#include "temp_folder.h"

namespace dspark {
namespace {

using test::exact_bytes;
using test::read_file;
using test::TempFolder;

std::string fixture(const char* name) {
  return read_file(test::data_dir() / "malformed" / name);
}

std::span<const uint8_t> bytes_of(const std::vector<float>& values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)};
}

/// One file with one F32 tensor per name, holding its index.
void write_shard(const std::string& path, const std::vector<std::string>& names) {
  auto writer = SafetensorsWriter::create(path);
  ASSERT_TRUE(writer.ok()) << writer.status().message();
  writer->set_metadata("format", "pt");
  for (const std::string& name : names) ASSERT_TRUE(writer->declare(name, DType::kF32, {1, 2}).ok());
  ASSERT_TRUE(writer->write_header().ok());
  for (size_t i = 0; i < names.size(); ++i) {
    ASSERT_TRUE(writer->append(names[i], bytes_of({static_cast<float>(i), 0.5f})).ok());
  }
  ASSERT_TRUE(writer->finish().ok());
}

constexpr const char* kIndex =
    R"({"metadata":{"total_size":24},"weight_map":{"a":"s1.safetensors","b":"s1.safetensors","c":"s2.safetensors"}})";

void expect_error(const std::string& path, const std::vector<std::string>& words) {
  const auto result = Checkpoint::open(path);
  ASSERT_FALSE(result.ok());
  for (const std::string& word : words) {
    EXPECT_NE(result.status().message().find(word), std::string::npos)
        << word << " in " << result.status().message();
  }
}

TEST(SafetensorsReader, EveryPrefixOfAFileIsRefused) {
  for (const char* name : {"ok_minimal.safetensors", "ok_metadata.safetensors", "ok_unordered.safetensors"}) {
    const std::string whole = fixture(name);
    ASSERT_TRUE(parse_safetensors(exact_bytes(whole), name).ok()) << name;
    for (size_t length = 0; length < whole.size(); ++length) {
      EXPECT_FALSE(parse_safetensors(exact_bytes(std::string_view(whole).substr(0, length)), name).ok())
          << length;
    }
  }
}

TEST(SafetensorsReader, DTypeNamesGoBothWays) {
  for (const char* name : {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "BF16", "F32",
                           "F64", "F8_E4M3", "F8_E5M2", "F8_E8M0"}) {
    const auto dtype = dtype_from_safetensors_name(name);
    ASSERT_TRUE(dtype.has_value()) << name;
    EXPECT_STREQ(safetensors_dtype_name(*dtype), name);
  }
  EXPECT_EQ(dtype_from_safetensors_name("Q4_K"), std::nullopt);
  EXPECT_EQ(safetensors_dtype_name(DType::kQ4_K), nullptr);
}

TEST(ModelFolder, OpensOneFileWithItsConfigs) {
  const TempFolder folder;
  write_shard(folder.file("model.safetensors"), {"a", "b"});
  folder.write("config.json", R"({"model_type":"llama","hidden_size":64})");
  folder.write("generation_config.json", R"({"eos_token_id":[1,2]})");
  const auto checkpoint = Checkpoint::open(folder.path().string());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_EQ(checkpoint->format(), Checkpoint::Format::kSafetensors);
  EXPECT_EQ(checkpoint->folder(), folder.path().string());
  EXPECT_EQ(checkpoint->config()["hidden_size"], 64);
  EXPECT_EQ(checkpoint->generation_config()["eos_token_id"][1], 2);
  EXPECT_EQ(checkpoint->tensors().size(), 2u);
}

TEST(ModelFolder, AbsentConfigsAreNull) {
  const TempFolder folder;
  write_shard(folder.file("model.safetensors"), {"a"});
  const auto checkpoint = Checkpoint::open(folder.path().string());
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_TRUE(checkpoint->config().is_null());
  EXPECT_TRUE(checkpoint->generation_config().is_null());
}

TEST(ModelFolder, OpensShards) {
  const TempFolder folder;
  write_shard(folder.file("s1.safetensors"), {"a", "b"});
  write_shard(folder.file("s2.safetensors"), {"c", "not_in_the_index"});
  folder.write("model.safetensors.index.json", kIndex);
  const auto checkpoint = Checkpoint::open(folder.path().string());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_EQ(checkpoint->tensors().size(), 4u);
  ASSERT_NE(checkpoint->find("b"), nullptr);
  float value = 0;
  std::memcpy(&value, checkpoint->find("b")->data, sizeof(value));
  EXPECT_EQ(value, 1.0f);
  EXPECT_NE(checkpoint->find("not_in_the_index"), nullptr);
  EXPECT_EQ(checkpoint->meta_string("format"), "pt");
}

TEST(ModelFolder, NamesWhatIsWrongWithShards) {
  const TempFolder folder;
  write_shard(folder.file("s1.safetensors"), {"a"});
  folder.write("model.safetensors.index.json", kIndex);
  expect_error(folder.path().string(), {"s1.safetensors", "'b'", "missing"});
  write_shard(folder.file("s1.safetensors"), {"a", "b"});
  expect_error(folder.path().string(), {"s2.safetensors", "index.json"});
  write_shard(folder.file("s2.safetensors"), {"c", "a"});
  expect_error(folder.path().string(), {"s2.safetensors", "'a'", "already"});
}

TEST(ModelFolder, AnIndexCannotLeadOutOfTheFolder) {
  for (const char* name : {"../other.safetensors", "/etc/passwd", "..", "", "a/b", "x\\u0000y"}) {
    const TempFolder folder;
    folder.write("model.safetensors.index.json", std::string(R"({"weight_map":{"a":")") + name + "\"}}");
    expect_error(folder.path().string(), {"index.json", "'a'", "same folder"});
  }
}

TEST(ModelFolder, ExplainsBrokenJson) {
  const TempFolder folder;
  write_shard(folder.file("model.safetensors"), {"a"});
  folder.write("config.json", "{\"a\": ");
  expect_error(folder.path().string(), {"config.json", "JSON"});
  folder.write("config.json", "[1]");
  expect_error(folder.path().string(), {"config.json", "object"});
  folder.write("config.json", std::string(1000, '[') + std::string(1000, ']'));
  expect_error(folder.path().string(), {"config.json", "nested"});
}

TEST(ModelFolder, ExplainsAFolderWithoutAModel) {
  const TempFolder folder;
  folder.write("some.gguf", fixture("ok_minimal.gguf"));
  expect_error(folder.path().string(), {"model.safetensors", "'some.gguf'"});
  folder.write("model.safetensors.index.json", R"({"weight_map":{}})");
  expect_error(folder.path().string(), {"weight_map"});
  folder.write("model.safetensors.index.json", "[]");
  expect_error(folder.path().string(), {"weight_map"});
}

}  // namespace
}  // namespace dspark
