// 16-bit floats against arithmetic written from the definition.

#include "tensor/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace dspark {
namespace {

/// The value of a binary16 number by its definition.
double f16_by_definition(uint16_t h) {
  const int exponent = (h >> 10) & 31;
  const int mantissa = h & 1023;
  const double sign = (h & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return mantissa == 0 ? sign * HUGE_VAL : std::nan("");
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(Half, EveryF16ReadsExactly) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const double expected = f16_by_definition(static_cast<uint16_t>(h));
    const float actual = f16_to_f32(static_cast<uint16_t>(h));
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(actual)) << h;
    } else {
      ASSERT_EQ(static_cast<double>(actual), expected) << h;
      ASSERT_EQ(std::signbit(actual), std::signbit(expected)) << h;
    }
  }
}

TEST(Half, EveryF16SurvivesTheRoundTrip) {
  for (uint32_t h = 0; h < 65536; ++h) {
    const float value = f16_to_f32(static_cast<uint16_t>(h));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(value)))) << h;
    } else {
      ASSERT_EQ(f32_to_f16(value), h);
    }
  }
}

TEST(Half, F16RoundsToNearestEven) {
  // Between each two neighbours: below the middle, the middle itself, above the middle.
  for (uint32_t h = 0; h < 0x7bff; ++h) {
    const float low = f16_to_f32(static_cast<uint16_t>(h));
    const float high = f16_to_f32(static_cast<uint16_t>(h + 1));
    const float middle = low + (high - low) / 2;  // exact: one more bit than binary16
    const uint32_t even = h % 2 == 0 ? h : h + 1;
    ASSERT_EQ(f32_to_f16(middle), even) << h;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, low)), h);
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, high)), h + 1);
    ASSERT_EQ(f32_to_f16(-middle), 0x8000u | even);
  }
}

TEST(Half, F16Limits) {
  EXPECT_EQ(f32_to_f16(65504.0f), 0x7bff);
  EXPECT_EQ(f32_to_f16(std::nextafter(65520.0f, 0.0f)), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::max()), 0x7c00);
  EXPECT_EQ(f32_to_f16(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(f32_to_f16(0x1p-25f), 0);  // halfway between 0 and the smallest: to even
  EXPECT_EQ(f32_to_f16(std::nextafter(0x1p-25f, 1.0f)), 1);
  EXPECT_EQ(f32_to_f16(-1e-30f), 0x8000);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::quiet_NaN()) & 0x7e00, 0x7e00);
}

TEST(Half, Bf16RoundTripAndRounding) {
  for (uint32_t b = 0; b < 65536; ++b) {
    const float value = bf16_to_f32(static_cast<uint16_t>(b));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(value)))) << b;
      continue;
    }
    ASSERT_EQ(f32_to_bf16(value), b);
    if (std::isinf(value) || (b & 0x7fff) == 0x7f7f) continue;
    const float next = bf16_to_f32(static_cast<uint16_t>(b + 1));
    const float middle = value + (next - value) / 2;
    ASSERT_EQ(f32_to_bf16(middle), b % 2 == 0 ? b : b + 1);
    ASSERT_EQ(f32_to_bf16(std::nextafter(middle, value)), b);
    ASSERT_EQ(f32_to_bf16(std::nextafter(middle, next)), b + 1);
  }
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7f80);  // rounds up to infinity
}

}  // namespace
}  // namespace dspark
