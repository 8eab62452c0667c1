// Rotary frequencies against numbers worked out by hand from the published formulas.

#include "models/rope_scaling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace dspark {
namespace {

TEST(RopeScaling, PlainFrequenciesFallGeometrically) {
  RopeParams rope;
  rope.theta = 10000.0;
  const RopeTable table = make_rope_table(rope, 8);
  ASSERT_EQ(table.inv_freq.size(), 4u);
  EXPECT_FLOAT_EQ(table.inv_freq[0], 1.0f);
  EXPECT_FLOAT_EQ(table.inv_freq[1], 0.1f);
  EXPECT_FLOAT_EQ(table.inv_freq[2], 0.01f);
  EXPECT_FLOAT_EQ(table.inv_freq[3], 0.001f);
  EXPECT_EQ(table.attention_factor, 1.0f);
}

TEST(RopeScaling, LinearDividesAll) {
  RopeParams rope;
  rope.scaling = RopeScaling::kLinear;
  rope.factor = 4.0;
  const RopeTable table = make_rope_table(rope, 8);
  EXPECT_FLOAT_EQ(table.inv_freq[0], 0.25f);
  EXPECT_FLOAT_EQ(table.inv_freq[3], 0.00025f);
}

TEST(RopeScaling, Llama3KeepsShortWavesAndStretchesLongOnes) {
  RopeParams rope;
  rope.scaling = RopeScaling::kLlama3;
  rope.theta = 10000.0;
  rope.factor = 8.0;
  rope.low_freq_factor = 1.0;
  rope.high_freq_factor = 4.0;
  rope.original_context = 128.0;
  // Wavelengths 6.28, 62.8, 628, 6283: unchanged below 32, divided above 128, mixed between.
  const RopeTable table = make_rope_table(rope, 8);
  EXPECT_FLOAT_EQ(table.inv_freq[0], 1.0f);
  const double wavelength = 2.0 * M_PI / 0.1;
  const double mix = (128.0 / wavelength - 1.0) / 3.0;
  EXPECT_FLOAT_EQ(table.inv_freq[1], static_cast<float>(0.1 * ((1.0 - mix) / 8.0 + mix)));
  EXPECT_FLOAT_EQ(table.inv_freq[2], 0.01f / 8.0f);
  EXPECT_FLOAT_EQ(table.inv_freq[3], 0.001f / 8.0f);
}

RopeParams yarn() {
  RopeParams rope;
  rope.scaling = RopeScaling::kYarn;
  rope.theta = 10000.0;
  rope.factor = 8.0;
  rope.original_context = 32.0;
  return rope;
}

TEST(RopeScaling, YarnMixesBetweenTheRampEnds) {
  // head size 16: pair of 32 turns = 16 ln(32/64pi)/(2 ln 1e4) < 0 -> 0; of 1 turn = 1.41 -> 2.
  const RopeTable table = make_rope_table(yarn(), 16);
  EXPECT_FLOAT_EQ(table.inv_freq[0], 1.0f);
  const double second = std::pow(10000.0, -2.0 / 16.0);
  EXPECT_FLOAT_EQ(table.inv_freq[1], static_cast<float>(0.5 * second / 8.0 + 0.5 * second));
  EXPECT_FLOAT_EQ(table.inv_freq[2], static_cast<float>(std::pow(10000.0, -4.0 / 16.0) / 8.0));
  EXPECT_FLOAT_EQ(table.attention_factor, static_cast<float>(0.1 * std::log(8.0) + 1.0));
}

TEST(RopeScaling, YarnAttentionFactorIsExplicitOrAQuotient) {
  RopeParams rope = yarn();
  rope.mscale = 2.0;
  rope.mscale_all_dim = 1.0;
  const double log_factor = std::log(8.0);
  EXPECT_FLOAT_EQ(make_rope_table(rope, 16).attention_factor,
                  static_cast<float>((0.2 * log_factor + 1.0) / (0.1 * log_factor + 1.0)));
  rope.attention_factor = 1.25;
  EXPECT_EQ(make_rope_table(rope, 16).attention_factor, 1.25f);
}

TEST(RopeScaling, NamesThatFilesUse) {
  EXPECT_EQ(rope_scaling_from_name("default"), RopeScaling::kNone);
  EXPECT_EQ(rope_scaling_from_name("none"), RopeScaling::kNone);
  EXPECT_EQ(rope_scaling_from_name("yarn"), RopeScaling::kYarn);
  EXPECT_EQ(rope_scaling_from_name("longrope"), std::nullopt);
}

TEST(RopeScaling, SenselessNumbersAreRefusedByName) {
  const auto message = [](const RopeParams& rope) { return check_rope_params(rope, "here").message(); };
  EXPECT_EQ(message(yarn()), "");
  RopeParams rope = yarn();
  rope.theta = 0.0;
  EXPECT_NE(message(rope).find("here: rope base is 0"), std::string::npos);
  rope = yarn();
  rope.factor = -1.0;
  EXPECT_NE(message(rope).find("factor"), std::string::npos);
  rope = yarn();
  rope.original_context = 0.0;
  EXPECT_NE(message(rope).find("original_max_position_embeddings"), std::string::npos);
  rope = yarn();
  rope.beta_fast = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NE(message(rope).find("beta_fast"), std::string::npos);
  rope = yarn();
  rope.scaling = RopeScaling::kLlama3;
  rope.high_freq_factor = rope.low_freq_factor;
  EXPECT_NE(message(rope).find("high_freq_factor"), std::string::npos);
}

}  // namespace
}  // namespace dspark
