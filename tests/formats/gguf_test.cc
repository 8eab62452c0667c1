#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/gguf_reader.h"
#include "formats/gguf_writer.h"
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

TEST(GgufReader, EveryPrefixOfAFileIsRefused) {
  for (const char* name : {"ok_minimal.gguf", "ok_alignment_64.gguf", "ok_version_2.gguf"}) {
    const std::string whole = fixture(name);
    ASSERT_TRUE(parse_gguf(exact_bytes(whole), name).ok()) << name;
    for (size_t length = 0; length < whole.size(); ++length) {
      const auto bytes = exact_bytes(std::string_view(whole).substr(0, length));
      EXPECT_FALSE(parse_gguf(bytes, name).ok()) << name << " cut to " << length;
    }
  }
}

TEST(GgufReader, NoSingleByteMakesItLeaveTheFile) {
  for (const char* name : {"ok_minimal.gguf", "ok_all_value_types.gguf"}) {
    const std::string whole = fixture(name);
    for (size_t i = 0; i < whole.size(); ++i) {
      for (const uint8_t value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
        std::vector<uint8_t> bytes = exact_bytes(whole);
        bytes[i] = value;
        const auto parsed = parse_gguf(bytes, name);
        if (!parsed.ok()) continue;
        for (const TensorView& tensor : parsed->tensors) {
          EXPECT_GE(tensor.data, bytes.data());
          EXPECT_LE(tensor.data + tensor.n_bytes, bytes.data() + bytes.size());
          EXPECT_EQ(tensor.n_bytes, static_cast<size_t>(tensor.n_rows()) * tensor.row_bytes());
        }
      }
    }
  }
}

TEST(GgufReader, KeepsTheRawValues) {
  const auto bytes = exact_bytes(fixture("ok_all_value_types.gguf"));
  const auto parsed = parse_gguf(bytes, "file");
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_EQ(parsed->version, 3u);
  EXPECT_EQ(parsed->alignment, 32u);
  ASSERT_EQ(parsed->raw.size(), 21u);
  EXPECT_EQ(parsed->raw[0].key, "general.architecture");
  EXPECT_EQ(parsed->raw[1].key, "t.u8");
  EXPECT_STREQ(gguf_type_name(parsed->raw[1].type), "u8");
  ASSERT_EQ(parsed->raw[1].value.size(), 1u);
  EXPECT_EQ(parsed->raw[1].value[0], 255);
  EXPECT_STREQ(gguf_type_name(parsed->raw[13].type), "u64");
}

TEST(GgufReader, KeepsAnArrayOfLargeUnsignedValues) {
  const TempFolder folder;
  auto writer = GgufWriter::create(folder.file("m.gguf"));
  ASSERT_TRUE(writer.ok());
  const uint64_t values[] = {1, UINT64_MAX};
  std::string encoded;
  const uint32_t element_type = static_cast<uint32_t>(GgufType::kUint64);
  const uint64_t count = 2;
  encoded.append(reinterpret_cast<const char*>(&element_type), 4);
  encoded.append(reinterpret_cast<const char*>(&count), 8);
  encoded.append(reinterpret_cast<const char*>(values), 16);
  const auto bytes = exact_bytes(encoded);
  writer->copy({"big", static_cast<uint32_t>(GgufType::kArray), bytes});
  ASSERT_TRUE(writer->write_header().ok());
  ASSERT_TRUE(writer->finish().ok());
  const auto checkpoint = Checkpoint::open(folder.file("m.gguf"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  const auto* array = std::get_if<std::vector<uint64_t>>(checkpoint->meta("big"));
  ASSERT_NE(array, nullptr);
  EXPECT_EQ(*array, (std::vector<uint64_t>{1, UINT64_MAX}));
}

TEST(GgufReader, RefusesOnePartOfASplitModel) {
  const TempFolder folder;
  auto writer = GgufWriter::create(folder.file("m-00001-of-00002.gguf"));
  ASSERT_TRUE(writer.ok());
  writer->set_u32("split.count", 2);
  ASSERT_TRUE(writer->write_header().ok());
  ASSERT_TRUE(writer->finish().ok());
  const auto checkpoint = Checkpoint::open(folder.file("m-00001-of-00002.gguf"));
  ASSERT_FALSE(checkpoint.ok());
  EXPECT_EQ(checkpoint.status().code(), StatusCode::kUnsupported);
  EXPECT_NE(checkpoint.status().message().find("split.count"), std::string::npos);
}

TEST(Checkpoint, LooksUpMetadataByKind) {
  const TempFolder folder;
  auto writer = GgufWriter::create(folder.file("m.gguf"));
  ASSERT_TRUE(writer.ok());
  writer->set_u32("int", 7);
  writer->set_f32("float", 0.25f);
  ASSERT_TRUE(writer->write_header().ok());
  ASSERT_TRUE(writer->finish().ok());
  const auto checkpoint = Checkpoint::open(folder.file("m.gguf"));
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_EQ(checkpoint->format(), Checkpoint::Format::kGguf);
  EXPECT_EQ(checkpoint->meta_int("int"), 7);
  EXPECT_EQ(checkpoint->meta_float("int"), 7.0);
  EXPECT_EQ(checkpoint->meta_float("float"), 0.25);
  EXPECT_EQ(checkpoint->meta_int("float"), std::nullopt);
  EXPECT_EQ(checkpoint->meta_string("int"), std::nullopt);
  EXPECT_EQ(checkpoint->meta_bool("int"), std::nullopt);
  EXPECT_EQ(checkpoint->meta("absent"), nullptr);
  EXPECT_EQ(checkpoint->find("absent"), nullptr);
}

TEST(Checkpoint, TellsWhatAFileIsByItsContent) {
  const TempFolder folder;
  const std::string disguised = folder.write("model.bin", fixture("ok_minimal.gguf"));
  ASSERT_TRUE(Checkpoint::open(disguised).ok());
  EXPECT_EQ(Checkpoint::open(disguised)->format(), Checkpoint::Format::kGguf);
  const std::string other = folder.write("model.gguf", fixture("ok_minimal.safetensors"));
  ASSERT_TRUE(Checkpoint::open(other).ok());
  EXPECT_EQ(Checkpoint::open(other)->format(), Checkpoint::Format::kSafetensors);
  const auto neither = Checkpoint::open(folder.write("notes.txt", "hello, this is a text"));
  ASSERT_FALSE(neither.ok());
  EXPECT_NE(neither.status().message().find("neither GGUF"), std::string::npos);
  EXPECT_EQ(Checkpoint::open(folder.file("absent.gguf")).status().code(), StatusCode::kNotFound);
}

TEST(Checkpoint, ViewsSurviveAMove) {
  const TempFolder folder;
  auto opened = Checkpoint::open(folder.write("m.gguf", fixture("ok_minimal.gguf")));
  ASSERT_TRUE(opened.ok());
  const TensorView before = *opened->find("a.weight");
  const Checkpoint moved = std::move(*opened);
  EXPECT_EQ(moved.find("a.weight")->data, before.data);
  moved.drop_resident(before);
  float second = 0;
  std::memcpy(&second, before.data + sizeof(float), sizeof(float));
  EXPECT_EQ(second, 1.0f);
  EXPECT_EQ(moved.tensor_bytes(), 64u);
}

}  // namespace
}  // namespace dspark
