// What the writers write is what the readers read, and a failed write leaves nothing behind.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/gguf_writer.h"
#include "formats/safetensors_writer.h"
#include "support/test_paths.h"
#include "temp_folder.h"

namespace dspark {
namespace {

using test::read_file;
using test::TempFolder;

std::vector<uint8_t> noise(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> bytes(n);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

void expect_bytes(const TensorView& tensor, const std::vector<uint8_t>& bytes) {
  ASSERT_EQ(tensor.n_bytes, bytes.size()) << tensor.name;
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), tensor.data)) << tensor.name;
}

struct Item {
  const char* name;
  DType dtype;
  std::vector<int64_t> shape;
  size_t n_bytes;
};

TEST(GgufWriter, RoundTripsTensorsOfManyTypes) {
  const std::vector<Item> items = {
      {"f32", DType::kF32, {3, 5}, 60},  {"q4_k", DType::kQ4_K, {2, 512}, 576},
      {"scalar", DType::kF32, {}, 4},    {"odd", DType::kBF16, {7}, 14},
      {"empty", DType::kF16, {0, 4}, 0}, {"q8_0", DType::kQ8_0, {2, 3, 1, 32}, 204},
      {"ids", DType::kI32, {4}, 16},     {"mx", DType::kMXFP4, {3, 64}, 102}};
  const TempFolder folder;
  const std::string path = folder.file("m.gguf");
  auto writer = GgufWriter::create(path);
  ASSERT_TRUE(writer.ok()) << writer.status().message();
  writer->set_string("general.architecture", "llama");
  for (const Item& item : items)
    ASSERT_TRUE(writer->declare(item.name, item.dtype, item.shape).ok()) << item.name;
  EXPECT_EQ(writer->tensor_bytes(), 60u + 576 + 4 + 14 + 204 + 16 + 102);
  ASSERT_TRUE(writer->write_header().ok());
  uint32_t seed = 0;
  for (const Item& item : items) {
    const auto bytes = noise(item.n_bytes, seed++);
    // In pieces: the border between them has no meaning.
    const size_t half = bytes.size() / 2;
    ASSERT_TRUE(writer->append(item.name, std::span(bytes).first(half)).ok());
    ASSERT_TRUE(writer->append(item.name, std::span(bytes).subspan(half)).ok());
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  ASSERT_TRUE(writer->finish().ok());
  EXPECT_EQ(folder.n_files(), 1u);

  const auto checkpoint = Checkpoint::open(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  ASSERT_EQ(checkpoint->tensors().size(), items.size());
  seed = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    const TensorView& tensor = checkpoint->tensors()[i];
    EXPECT_EQ(tensor.name, items[i].name);
    EXPECT_EQ(tensor.dtype, items[i].dtype);
    EXPECT_EQ(tensor.shape, items[i].shape);
    expect_bytes(tensor, noise(items[i].n_bytes, seed++));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data) % 32, 0u);
  }
}

TEST(GgufWriter, RoundTripsMetadata) {
  const TempFolder folder;
  auto writer = GgufWriter::create(folder.file("m.gguf"));
  ASSERT_TRUE(writer.ok());
  const std::vector<std::string> strings = {"a", "", "\xe2\x96\x81x"};
  const std::vector<float> floats = {1.5f, -2.0f};
  const std::vector<int32_t> ints = {-1, 2};
  const std::vector<uint32_t> counts = {UINT32_MAX};
  writer->set_bool("bool", true);
  writer->set_i32("i32", -5);
  writer->set_u64("u64", UINT64_MAX);
  writer->set_strings("strings", strings);
  writer->set_f32s("f32s", floats);
  writer->set_i32s("i32s", ints);
  writer->set_u32s("u32s", counts);
  writer->set_bools("bools", {false, true});
  writer->set_u32("gone", 1);
  writer->remove("gone");
  ASSERT_TRUE(writer->write_header().ok());
  ASSERT_TRUE(writer->finish().ok());
  const auto c = Checkpoint::open(folder.file("m.gguf"));
  ASSERT_TRUE(c.ok()) << c.status().message();
  EXPECT_EQ(c->metadata().size(), 8u);
  EXPECT_EQ(c->meta_bool("bool"), true);
  EXPECT_EQ(c->meta_int("i32"), -5);
  EXPECT_EQ(*c->meta("u64"), MetaValue(UINT64_MAX));
  EXPECT_EQ(*c->meta("strings"), MetaValue(strings));
  EXPECT_EQ(*c->meta("f32s"), MetaValue(std::vector<double>{1.5, -2.0}));
  EXPECT_EQ(*c->meta("i32s"), MetaValue(std::vector<int64_t>{-1, 2}));
  EXPECT_EQ(*c->meta("u32s"), MetaValue(std::vector<int64_t>{UINT32_MAX}));
  EXPECT_EQ(*c->meta("bools"), MetaValue(std::vector<bool>{false, true}));
}

TEST(GgufWriter, ARewriteKeepsEveryKeyExactly) {
  const TempFolder folder;
  for (const char* name : {"ok_all_value_types.gguf", "ok_alignment_64.gguf", "ok_minimal.gguf"}) {
    const auto source = Checkpoint::open((test::data_dir() / "malformed" / name).string());
    ASSERT_TRUE(source.ok());
    auto writer = GgufWriter::create(folder.file(name));
    ASSERT_TRUE(writer.ok());
    writer->copy_all(*source);
    for (const TensorView& t : source->tensors()) ASSERT_TRUE(writer->declare(t.name, t.dtype, t.shape).ok());
    ASSERT_TRUE(writer->write_header().ok());
    for (const TensorView& t : source->tensors())
      ASSERT_TRUE(writer->append(t.name, {t.data, t.n_bytes}).ok());
    ASSERT_TRUE(writer->finish().ok());
    // The fixture may lack the padding behind its last tensor, nothing else.
    const std::string original = read_file(source->path());
    const std::string copy = read_file(folder.file(name));
    ASSERT_GE(copy.size(), original.size()) << name;
    EXPECT_EQ(copy.substr(0, original.size()), original) << name;
  }
}

TEST(GgufWriter, AKeySetAgainKeepsItsPlace) {
  const TempFolder folder;
  auto writer = GgufWriter::create(folder.file("m.gguf"));
  ASSERT_TRUE(writer.ok());
  writer->set_u32("first", 1);
  writer->set_u32("second", 2);
  writer->set_string("first", "one");
  ASSERT_TRUE(writer->write_header().ok());
  ASSERT_TRUE(writer->finish().ok());
  const auto c = Checkpoint::open(folder.file("m.gguf"));
  ASSERT_TRUE(c.ok());
  ASSERT_EQ(c->raw_metadata().size(), 2u);
  EXPECT_EQ(c->raw_metadata()[0].key, "first");
  EXPECT_EQ(c->meta_string("first"), "one");
}

TEST(GgufWriter, RefusesWhatReadersWouldRefuse) {
  const TempFolder folder;
  auto writer = GgufWriter::create(folder.file("m.gguf"));
  ASSERT_TRUE(writer.ok());
  EXPECT_FALSE(writer->declare("", DType::kF32, {1}).ok());
  EXPECT_FALSE(writer->declare(std::string(64, 'x'), DType::kF32, {1}).ok());
  EXPECT_FALSE(writer->declare("a", DType::kF32, {1, 1, 1, 1, 1}).ok());
  EXPECT_FALSE(writer->declare("a", DType::kF32, {-1}).ok());
  EXPECT_FALSE(writer->declare("a", DType::kF32, {int64_t{1} << 40, int64_t{1} << 40}).ok());
  EXPECT_FALSE(writer->declare("a", DType::kQ8_0, {2, 33}).ok());
  EXPECT_FALSE(writer->declare("a", DType::kF8_E4M3, {32}).ok());
  ASSERT_TRUE(writer->declare("a", DType::kF32, {2}).ok());
  EXPECT_FALSE(writer->declare("a", DType::kF32, {2}).ok());
  writer->set_u32("general.alignment", 24);
  EXPECT_FALSE(writer->write_header().ok());
}

TEST(GgufWriter, CountsTheBytesOfEveryTensor) {
  const TempFolder folder;
  const std::string path = folder.file("m.gguf");
  const auto bytes = noise(12, 1);
  {
    auto writer = GgufWriter::create(path);
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE(writer->declare("a", DType::kF32, {2}).ok());
    ASSERT_TRUE(writer->declare("b", DType::kF32, {1}).ok());
    EXPECT_FALSE(writer->append("a", bytes).ok());  // no header yet
    ASSERT_TRUE(writer->write_header().ok());
    EXPECT_FALSE(writer->append("b", std::span(bytes).first(4)).ok());  // a comes first
    EXPECT_FALSE(writer->append("a", bytes).ok());                      // too many
    ASSERT_TRUE(writer->append("a", std::span(bytes).first(8)).ok());
    const Status unfinished = writer->finish();
    ASSERT_FALSE(unfinished.ok());
    EXPECT_NE(unfinished.message().find("'b'"), std::string::npos) << unfinished.message();
  }
  EXPECT_EQ(folder.n_files(), 0u);
}

TEST(GgufWriter, AnOlderFileStaysUntilTheNewOneIsWhole) {
  const TempFolder folder;
  const std::string path = folder.write("m.gguf", "old");
  {
    auto writer = GgufWriter::create(path);
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE(writer->write_header().ok());
    EXPECT_EQ(read_file(path), "old");
  }
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(folder.n_files(), 1u);
  auto writer = GgufWriter::create(path);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(writer->write_header().ok());
  ASSERT_TRUE(writer->finish().ok());
  EXPECT_TRUE(Checkpoint::open(path).ok());
  EXPECT_EQ(folder.n_files(), 1u);
}

TEST(Writers, ExplainAFolderThatDoesNotExist) {
  const TempFolder folder;
  const auto gguf = GgufWriter::create(folder.file("absent/m.gguf"));
  ASSERT_FALSE(gguf.ok());
  EXPECT_NE(gguf.status().message().find("absent/m.gguf: cannot create"), std::string::npos);
  EXPECT_FALSE(SafetensorsWriter::create(folder.file("absent/m.safetensors")).ok());
}

TEST(SafetensorsWriter, RoundTrips) {
  const std::vector<Item> items = {{"logits", DType::kF32, {2, 3}, 24},
                                   {"a\"\n\xc3\xa9", DType::kI64, {1}, 8},
                                   {"empty", DType::kF32, {0, 5}, 0},
                                   {"scalar", DType::kBF16, {}, 2},
                                   {"bytes", DType::kU8, {3}, 3}};
  const TempFolder folder;
  const std::string path = folder.file("out.safetensors");
  auto writer = SafetensorsWriter::create(path);
  ASSERT_TRUE(writer.ok());
  writer->set_metadata("format", "pt");
  writer->set_metadata("quote", "\"\\");
  for (const Item& item : items)
    ASSERT_TRUE(writer->declare(item.name, item.dtype, item.shape).ok()) << item.name;
  ASSERT_TRUE(writer->write_header().ok());
  for (const Item& item : items) ASSERT_TRUE(writer->append(item.name, noise(item.n_bytes, 7)).ok());
  ASSERT_TRUE(writer->finish().ok());

  const auto checkpoint = Checkpoint::open(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_EQ(checkpoint->format(), Checkpoint::Format::kSafetensors);
  EXPECT_EQ(checkpoint->meta_string("quote"), "\"\\");
  EXPECT_TRUE(checkpoint->raw_metadata().empty());
  for (const Item& item : items) {
    const TensorView* tensor = checkpoint->find(item.name);
    ASSERT_NE(tensor, nullptr) << item.name;
    EXPECT_EQ(tensor->dtype, item.dtype);
    EXPECT_EQ(tensor->shape, item.shape);
    expect_bytes(*tensor, noise(item.n_bytes, 7));
  }
  EXPECT_EQ(reinterpret_cast<uintptr_t>(checkpoint->find("logits")->data) % 8, 0u);
}

TEST(SafetensorsWriter, RefusesWhatReadersWouldRefuse) {
  const TempFolder folder;
  auto writer = SafetensorsWriter::create(folder.file("out.safetensors"));
  ASSERT_TRUE(writer.ok());
  EXPECT_FALSE(writer->declare("__metadata__", DType::kF32, {1}).ok());
  EXPECT_FALSE(writer->declare("a", DType::kQ4_0, {32}).ok());
  ASSERT_TRUE(writer->declare("\xff", DType::kF32, {1}).ok());
  const Status status = writer->write_header();
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.message().find("UTF-8"), std::string::npos);
}

}  // namespace
}  // namespace dspark
