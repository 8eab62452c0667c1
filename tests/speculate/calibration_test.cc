// Calibration metrics and sequential temperature scaling on the reference cases.

#include "speculate/calibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "speculate/confidence.h"
#include "speculate/golden_json.h"

namespace dspark {
namespace {

using nlohmann::json;

std::vector<double> survival_of_logits(const std::vector<double>& logits) {
  std::vector<double> confidence, survived(logits.size());
  for (double z : logits) confidence.push_back(sigmoid(z));
  survival(std::span<const double>(confidence), survived);
  return survived;
}

int32_t accepted_of(const json& labels) {
  const auto y = labels.get<std::vector<int32_t>>();
  return std::accumulate(y.begin(), y.end(), 0);  // labels are 1 up to the first rejection, then 0
}

void expect_metrics(const json& want, const CalibrationMetrics& got) {
  EXPECT_EQ(got.count, want["count"].get<int64_t>());
  EXPECT_NEAR(got.ece, want["ece"].get<double>(), 1e-9);
  EXPECT_NEAR(got.brier, want["brier"].get<double>(), 1e-9);
  EXPECT_NEAR(got.predicted, want["pred_mean"].get<double>(), 1e-9);
  EXPECT_NEAR(got.observed, want["target_mean"].get<double>(), 1e-9);
  if (want["auroc"].is_null()) {
    EXPECT_LT(got.auroc, 0.0);
  } else {
    EXPECT_NEAR(got.auroc, want["auroc"].get<double>(), 1e-9);
  }
}

TEST(CalibrationStats, ReferenceCases) {
  for (const json& file :
       test::fixture_and_golden("calibration.json", "draft/rules/calibration.json", "rules")) {
    ASSERT_GE(file.size(), 3u);
    for (const json& c : file) {
      CalibrationStats all, halves[2];
      size_t n = 0;
      for (const json& row : c["rows"]) {
        const auto survived = survival_of_logits(row["z"]);
        all.add(survived, accepted_of(row["y"]));
        halves[n++ % 2].add(survived, accepted_of(row["y"]));
      }
      halves[0].add(halves[1]);
      for (const CalibrationStats& stats : {all, halves[0]}) {
        ASSERT_EQ(stats.n_positions(), c["block"].get<int32_t>());
        for (int32_t j = 0; j < stats.n_positions(); ++j) {
          SCOPED_TRACE(j);
          expect_metrics(c["per_position"][static_cast<size_t>(j)], stats.at(j));
        }
        const CalibrationMetrics summary = stats.summary();
        EXPECT_NEAR(summary.ece, c["summary"]["ece_mean"].get<double>(), 1e-9);
        EXPECT_NEAR(summary.brier, c["summary"]["brier_mean"].get<double>(), 1e-9);
        EXPECT_NEAR(summary.auroc, c["summary"]["auc_mean"].get<double>(), 1e-9);
      }
    }
  }
}

TEST(CalibrationStats, EmptyAndOddPredictions) {
  CalibrationStats stats;
  EXPECT_EQ(stats.n_positions(), 0);
  EXPECT_EQ(stats.summary().count, 0);
  EXPECT_LT(stats.summary().auroc, 0.0);
  const std::vector<double> odd = {0.0, 1.0, std::nan(""), 7.0, -3.0};
  stats.add(odd, 2);
  EXPECT_EQ(stats.summary().count, 5);
  EXPECT_NEAR(stats.at(0).brier, 1.0, 1e-6);
  EXPECT_NEAR(stats.at(1).brier, 0.0, 1e-6);
  EXPECT_LT(stats.at(1).auroc, 0.0);
}

TEST(FitCalibration, ReferenceCases) {
  for (const json& file : test::fixture_and_golden("sts.json", "draft/rules/sts.json", "rules")) {
    ASSERT_EQ(file["grid"].size(), static_cast<size_t>(kTemperatureGrid));
    for (int g = 0; g < kTemperatureGrid; ++g) {
      EXPECT_NEAR(grid_temperature(g), file["grid"][static_cast<size_t>(g)].get<double>(), 1e-15 * 10);
    }
    EXPECT_EQ(grid_temperature(20), 1.0);
    ASSERT_GE(file["cases"].size(), 5u);
    for (const json& c : file["cases"]) {
      SCOPED_TRACE(c["name"].get<std::string>());
      CalibrationData data;
      for (const json& row : c["rows"]) {
        const auto logits = row["z"].get<std::vector<double>>();
        data.add(std::span<const double>(logits), accepted_of(row["y"]));
      }
      const Calibration fit = fit_calibration(data);
      const json& want = c["expect"];
      EXPECT_EQ(fit.num_samples, static_cast<int64_t>(c["rows"].size()));
      ASSERT_EQ(fit.temperatures.size(), want["temperatures"].size());
      for (size_t k = 0; k < fit.temperatures.size(); ++k) {
        EXPECT_EQ(fit.temperatures[k], grid_temperature(want["grid_index"][k].get<int>())) << k;
        EXPECT_NEAR(fit.ece_before[k], want["ece_before"][k].get<double>(), 1e-9);
        EXPECT_NEAR(fit.ece_after[k], want["ece_after"][k].get<double>(), 1e-9);
      }
    }
  }
}

/// Logits tuned so that 0.1 and 10 have the same error, less than any other temperature.
TEST(FitCalibration, OfAPairTheLargerTemperature) {
  const std::vector<std::pair<std::vector<double>, std::vector<int32_t>>> cases = {
      {{-1.8861757014137246, -2.3988053395045936, 2.1734330847575554, -0.08538289341511818,
        0.1883354936500961},
       {1, 0, 1, 0, 1}},
      {{-1.9482291764869881, -1.7218350619064537, -0.13737782662375037, 1.3211144037650133,
        0.16139058476964113},
       {0, 1, 0, 1, 1}}};
  for (const auto& [logits, accepted] : cases) {
    CalibrationData data;
    for (size_t i = 0; i < logits.size(); ++i) data.add(std::span(logits).subspan(i, 1), accepted[i]);
    EXPECT_EQ(fit_calibration(data).temperatures, (std::vector<double>{grid_temperature(40)}));
  }
}

TEST(FitCalibration, NothingToFit) {
  EXPECT_TRUE(fit_calibration({}).temperatures.empty());
  CalibrationData data;
  data.add(std::span<const float>(), 0);  // a round without drafts
  const Calibration fit = fit_calibration(data);
  EXPECT_EQ(fit.num_samples, 1);
  EXPECT_TRUE(fit.temperatures.empty());
  const float nan[2] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()};
  data.add(std::span<const float>(nan), 1);
  EXPECT_EQ(fit_calibration(data).temperatures.size(), 2u);
}

TEST(CalibratedConfidence, DividesByItsTemperature) {
  const std::vector<float> logits = {2.0f, -1.0f, 3.0f, -800.0f};
  const std::vector<double> temperatures = {2.0, 0.5};
  std::vector<float> c(4);
  calibrated_confidence(logits, temperatures, c);
  EXPECT_FLOAT_EQ(c[0], 1.0f / (1.0f + std::exp(-1.0f)));
  EXPECT_FLOAT_EQ(c[1], 1.0f / (1.0f + std::exp(2.0f)));
  EXPECT_FLOAT_EQ(c[2], 1.0f / (1.0f + std::exp(-3.0f)));  // behind the last temperature: as it is
  EXPECT_EQ(c[3], 0.0f);
}

TEST(Survival, IsTheRunningProduct) {
  const std::vector<float> c = {0.5f, 1.0f, 0.25f, 0.0f, 1.0f};
  std::vector<double> a(5);
  survival(std::span<const float>(c), a);
  EXPECT_EQ(a, (std::vector<double>{0.5, 0.5, 0.125, 0.0, 0.0}));
}

}  // namespace
}  // namespace dspark
