// Every stored type decodes to the bits of the reference decoders.

#include <cmath>
#include <limits>

#include "tensor/quant_data.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

TEST(Decode, BitEqualToReferenceForEveryType) {
  for (const test::QuantFolder& folder : test::quant_folders()) {
    EXPECT_EQ(folder.index.at("types").size(), 27u) << folder.path;
    for (const auto& [name, entry] : folder.index.at("types").items()) {
      SCOPED_TRACE(folder.path.string() + " " + name);
      const std::optional<DType> dtype = dtype_from_name(name);
      ASSERT_TRUE(dtype.has_value());
      EXPECT_EQ(static_cast<uint32_t>(*dtype), entry.at("ggml_type_id").get<uint32_t>());
      EXPECT_EQ(dtype_info(*dtype)->block_elements, entry.at("block_elements").get<int>());
      EXPECT_EQ(dtype_info(*dtype)->block_bytes, entry.at("block_bytes").get<int>());
      ASSERT_TRUE(can_decode(*dtype));
      const size_t row_bytes = dtype_row_bytes(*dtype, folder.cols);
      EXPECT_EQ(row_bytes, entry.at("row_bytes").get<size_t>());

      const auto bytes = test::read_bytes(folder.path / entry.at("data").get<std::string>());
      const auto expected = test::read_floats(folder.path / entry.at("expected").get<std::string>());
      ASSERT_EQ(bytes.size(), row_bytes * static_cast<size_t>(folder.rows));
      ASSERT_EQ(expected.size(), static_cast<size_t>(folder.rows * folder.cols));
      std::vector<float> actual(expected.size());
      decode_row(*dtype, bytes.data(), actual.data(), folder.rows * folder.cols);
      for (size_t i = 0; i < actual.size(); ++i) {
        ASSERT_EQ(std::memcmp(&actual[i], &expected[i], sizeof(float)), 0)
            << "element " << i << ": " << actual[i] << " instead of " << expected[i];
      }
    }
  }
}

TEST(Decode, AnyAlignmentOfTheSource) {
  const test::QuantFolder folder = test::quant_folders().front();
  for (const auto& [name, entry] : folder.index.at("types").items()) {
    SCOPED_TRACE(name);
    const DType dtype = *dtype_from_name(name);
    const auto bytes = test::read_bytes(folder.path / entry.at("data").get<std::string>());
    const auto expected = test::read_floats(folder.path / entry.at("expected").get<std::string>());
    std::vector<uint8_t> shifted(bytes.size() + 1);
    std::memcpy(shifted.data() + 1, bytes.data(), bytes.size());
    std::vector<float> actual(expected.size());
    decode_row(dtype, shifted.data() + 1, actual.data(), static_cast<int64_t>(actual.size()));
    EXPECT_EQ(std::memcmp(actual.data(), expected.data(), actual.size() * sizeof(float)), 0);
  }
}

TEST(Decode, ArbitraryBytesNeverReadOutsideTheTables) {
  // Files may hold anything; every bit pattern of a block must decode to something (run under sanitizers).
  uint32_t state = 12345;
  for (uint32_t id = 0; id < 64; ++id) {
    const std::optional<DType> dtype = dtype_from_ggml_id(id);
    if (!dtype || !can_decode(*dtype)) continue;
    const int64_t n = 2 * dtype_info(*dtype)->block_elements;
    std::vector<uint8_t> bytes(dtype_row_bytes(*dtype, n));
    std::vector<float> out(static_cast<size_t>(n));
    for (int round = 0; round < 300; ++round) {
      for (uint8_t& byte : bytes) {
        state = state * 1664525u + 1013904223u;
        byte = static_cast<uint8_t>(state >> 24);
      }
      decode_row(*dtype, bytes.data(), out.data(), n);
    }
  }
}

TEST(Decode, PlainNumberTypes) {
  const int16_t shorts[3] = {-32768, 0, 32767};
  float out[4];
  decode_row(DType::kI16, reinterpret_cast<const uint8_t*>(shorts), out, 3);
  EXPECT_EQ(out[0], -32768.0f);
  EXPECT_EQ(out[2], 32767.0f);
  const double doubles[2] = {0.1, -1e300};
  decode_row(DType::kF64, reinterpret_cast<const uint8_t*>(doubles), out, 2);
  EXPECT_EQ(out[0], 0.1f);
  EXPECT_EQ(out[1], -std::numeric_limits<float>::infinity());
  const uint8_t bools[2] = {0, 1};
  decode_row(DType::kBool, bools, out, 2);
  EXPECT_EQ(out[0], 0.0f);
  EXPECT_EQ(out[1], 1.0f);
}

TEST(Decode, EightBitFloats) {
  // Values of the OCP 8-bit floating point specification, table of corner cases.
  const uint8_t e4m3[6] = {0x7e, 0x08, 0x01, 0x80, 0x38, 0xc1};
  float out[6];
  decode_row(DType::kF8_E4M3, e4m3, out, 6);
  EXPECT_EQ(out[0], 448.0f);
  EXPECT_EQ(out[1], 0x1p-6f);
  EXPECT_EQ(out[2], 0x1p-9f);
  EXPECT_TRUE(out[3] == 0.0f && std::signbit(out[3]));
  EXPECT_EQ(out[4], 1.0f);
  EXPECT_EQ(out[5], -2.25f);
  const uint8_t e5m2[5] = {0x7b, 0x04, 0x01, 0x7c, 0x3c};
  decode_row(DType::kF8_E5M2, e5m2, out, 5);
  EXPECT_EQ(out[0], 57344.0f);
  EXPECT_EQ(out[1], 0x1p-14f);
  EXPECT_EQ(out[2], 0x1p-16f);
  EXPECT_TRUE(std::isinf(out[3]));
  EXPECT_EQ(out[4], 1.0f);
  const uint8_t e8m0[3] = {127, 0, 254};
  decode_row(DType::kF8_E8M0, e8m0, out, 3);
  EXPECT_EQ(out[0], 1.0f);
  EXPECT_EQ(out[1], 0x1p-127f);
  EXPECT_EQ(out[2], 0x1p127f);
  const uint8_t nan[1] = {0x7f};
  decode_row(DType::kF8_E4M3, nan, out, 1);
  EXPECT_TRUE(std::isnan(out[0]));
}

TEST(Decode, RefusesTypesWithoutADecoder) {
  EXPECT_FALSE(can_decode(DType::kQ8_1));  // an activation format, never stored
  EXPECT_FALSE(can_decode(DType::kQ8_K));
  EXPECT_FALSE(can_decode(static_cast<DType>(4)));
  EXPECT_FALSE(can_decode(static_cast<DType>(99)));
}

}  // namespace
}  // namespace dspark
