// Quantisers: quality against a reference quantiser, determinism, extreme inputs.

#include <cmath>

#include "tensor/quant_data.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

constexpr DType kWritable[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0,
                               DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                               DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

std::vector<uint8_t> encode(DType dtype, const std::vector<float>& values) {
  const auto n = static_cast<int64_t>(values.size());
  std::vector<uint8_t> bytes(dtype_row_bytes(dtype, n));
  encode_row(dtype, values.data(), bytes.data(), n);
  return bytes;
}

std::vector<float> round_trip(DType dtype, const std::vector<float>& values) {
  const std::vector<uint8_t> bytes = encode(dtype, values);
  std::vector<float> out(values.size());
  decode_row(dtype, bytes.data(), out.data(), static_cast<int64_t>(out.size()));
  return out;
}

double relative_rms_error(const std::vector<float>& expected, const std::vector<float>& actual) {
  double error = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += std::pow(static_cast<double>(actual[i]) - expected[i], 2);
    norm += std::pow(static_cast<double>(expected[i]), 2);
  }
  return norm > 0.0 ? std::sqrt(error / norm) : std::sqrt(error);
}

TEST(Encode, QualityOfAReferenceQuantiser) {
  for (const test::QuantFolder& folder : test::quant_folders()) {
    const std::vector<float> source = test::read_floats(folder.path / "source.f32");
    for (const DType dtype : kWritable) {
      ASSERT_TRUE(can_encode(dtype)) << dtype_name(dtype);
      const auto& limits = folder.index.at("types").at(dtype_name(dtype)).at("relative_rms_error_per_row");
      for (int64_t r = 0; r < folder.rows; ++r) {
        const std::vector<float> row(source.begin() + r * folder.cols,
                                     source.begin() + (r + 1) * folder.cols);
        const double error = relative_rms_error(row, round_trip(dtype, row));
        const double limit = limits.at(static_cast<size_t>(r)).get<double>();
        // The reference numbers are rounded to six decimals.
        EXPECT_LE(error, 1.02 * limit + 1e-6) << dtype_name(dtype) << " row " << r << " of " << folder.path;
      }
    }
  }
}

TEST(Encode, FloatTypesMatchTheReferenceBytes) {
  for (const test::QuantFolder& folder : test::quant_folders()) {
    const std::vector<float> source = test::read_floats(folder.path / "source.f32");
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      const auto expected = test::read_bytes(folder.path / (std::string(dtype_name(dtype)) + ".bin"));
      EXPECT_EQ(encode(dtype, source), expected) << dtype_name(dtype);
    }
  }
}

TEST(Encode, ZerosStayZeroAndBlocksAreIndependent) {
  const test::QuantFolder folder = test::quant_folders().front();
  const std::vector<float> source = test::read_floats(folder.path / "source.f32");
  for (const DType dtype : kWritable) {
    SCOPED_TRACE(dtype_name(dtype));
    for (float value : round_trip(dtype, std::vector<float>(256, 0.0f))) EXPECT_EQ(value, 0.0f);
    const std::vector<float> first(source.begin(), source.begin() + 256);
    const std::vector<float> second(source.begin() + 256, source.begin() + 512);
    std::vector<float> both(source.begin(), source.begin() + 512);
    std::vector<uint8_t> joined = encode(dtype, first);
    const std::vector<uint8_t> tail = encode(dtype, second);
    joined.insert(joined.end(), tail.begin(), tail.end());
    EXPECT_EQ(encode(dtype, both), joined);
  }
}

TEST(Encode, ExtremeInputsStayFinite) {
  for (const DType dtype : kWritable) {
    if (dtype == DType::kF16 || dtype == DType::kBF16) continue;  // overflow to infinity is their definition
    SCOPED_TRACE(dtype_name(dtype));
    for (float size : {3e38f, 1e20f, 1e6f, 1e-10f, 1e-38f, 1e-45f}) {
      for (int pattern = 0; pattern < 3; ++pattern) {
        std::vector<float> values(256);
        for (size_t i = 0; i < values.size(); ++i) {
          const float sign = pattern == 0 ? 1.0f : (pattern == 1 ? -1.0f : (i % 2 == 0 ? 1.0f : -1.0f));
          values[i] = sign * size * (i % 7 == 0 ? 0.25f : 1.0f);
        }
        for (float value : round_trip(dtype, values))
          ASSERT_TRUE(std::isfinite(value)) << size << " " << pattern;
      }
    }
  }
}

TEST(Encode, OnlyWhatIsListed) {
  int writable = 0;
  for (uint32_t id = 0; id < 1010; ++id) writable += can_encode(static_cast<DType>(id)) ? 1 : 0;
  EXPECT_EQ(writable, static_cast<int>(std::size(kWritable)));
}

}  // namespace
}  // namespace dspark
