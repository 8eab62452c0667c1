// Status/Result, mapped files, aligned buffers.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/aligned_buffer.h"
#include "base/arena.h"
#include "base/mapped_file.h"
#include "base/status.h"

namespace dspark {
namespace {

Result<int> half(int n) {
  if (n % 2 != 0) return invalid_argument("n: want an even number, found " + std::to_string(n));
  return n / 2;
}

Result<int> quarter(int n) {
  DSPARK_ASSIGN_OR_RETURN(const int h, half(n));
  DSPARK_ASSIGN_OR_RETURN(const int q, half(h));
  return q;
}

TEST(Status, CarriesCodeAndMessage) {
  EXPECT_TRUE(ok_status().ok());
  EXPECT_EQ(ok_status().to_string(), "ok");
  const Status s = corrupt_data("m.gguf: truncated");
  EXPECT_FALSE(s.ok());
  EXPECT_EQ(s.to_string(), "corrupt data: m.gguf: truncated");
}

TEST(Result, PropagatesTheFirstError) {
  EXPECT_EQ(*quarter(8), 2);
  EXPECT_EQ(quarter(6).status().message(), "n: want an even number, found 3");
  EXPECT_EQ(quarter(5).status().code(), StatusCode::kInvalidArgument);
}

class MappedFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::temp_directory_path() / ("dspark_base_test_" + std::to_string(::getpid()));
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::filesystem::path path_;
};

TEST_F(MappedFileTest, ReadsBackAndSurvivesDropAndMove) {
  const std::string text(10000, 'x');
  std::ofstream(path_) << text;
  auto file = MappedFile::open(path_.string());
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  MappedFile moved = std::move(*file);
  moved.drop_resident(moved.bytes().data(), moved.bytes().size());
  EXPECT_EQ(std::string(moved.bytes().begin(), moved.bytes().end()), text);
}

TEST_F(MappedFileTest, EmptyMissingAndFolder) {
  std::ofstream(path_).close();
  auto empty = MappedFile::open(path_.string());
  ASSERT_TRUE(empty.ok());
  EXPECT_TRUE(empty->bytes().empty());
  const Status missing = MappedFile::open(path_.string() + ".missing").status();
  EXPECT_EQ(missing.code(), StatusCode::kNotFound);
  EXPECT_NE(missing.message().find(".missing"), std::string::npos);
  EXPECT_FALSE(MappedFile::open("/").ok());
}

TEST(AlignedBuffer, IsAlignedZeroedAndMovable) {
  for (size_t size : {size_t{1}, size_t{100}, size_t{2} << 20, (size_t{5} << 20) + 7}) {
    AlignedBuffer buffer(size);
    ASSERT_NE(buffer.data(), nullptr);
    EXPECT_EQ(buffer.size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    EXPECT_EQ(buffer.data()[0], 0);
    EXPECT_EQ(buffer.data()[size - 1], 0);
    std::memset(buffer.data(), 1, size);
    AlignedBuffer other = std::move(buffer);
    EXPECT_EQ(other.data()[size - 1], 1);
    EXPECT_EQ(buffer.data(), nullptr);
  }
  EXPECT_EQ(AlignedBuffer(0).data(), nullptr);
}

TEST(Arena, BlocksAreNeighboursAndOutliveIt) {
  ArenaBlock first, second;
  {
    Arena arena;
    first = arena.allocate(100);
    second = arena.allocate(200);
  }
  ASSERT_NE(first.bytes.data(), nullptr);
  EXPECT_EQ(second.bytes.data(), first.bytes.data() + 128);
  EXPECT_EQ(second.bytes.size(), 200u);
  EXPECT_EQ(first.bytes[99], 0);
  second.bytes[199] = 1;
  Arena big;
  EXPECT_EQ(big.allocate(size_t{65} << 20).bytes.size(), size_t{65} << 20);
}

}  // namespace
}  // namespace dspark
