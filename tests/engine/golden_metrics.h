#pragma once
// The evaluator's counters and calibration metrics, compared with those of the reference.

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "speculate/calibration.h"
#include "speculate/stats.h"

namespace dspark::test {

/// want: summary_greedy_threshold0 of expected.json.
inline void expect_summary(const SpeculationStats& got, const nlohmann::json& want) {
  EXPECT_EQ(got.rounds, want.at("proposal_count").get<int64_t>());
  EXPECT_EQ(got.committed_tokens, want.at("acceptance_length_sum").get<int64_t>());
  EXPECT_EQ(got.proposal_tokens, want.at("proposal_length_sum").get<int64_t>());
  EXPECT_NEAR(got.accept_len(), want.at("accept_len").get<double>(), 1e-12);
  EXPECT_NEAR(got.propose_mean(), want.at("propose_mean").get<double>(), 1e-12);
  EXPECT_NEAR(got.verify_rate(), want.at("verify_rate").get<double>(), 1e-12);
  for (size_t j = 0; j < want.at("accepted_at_pos").size(); ++j) {
    EXPECT_EQ(got.proposed_at[j], want.at("proposals_at_pos")[j].get<int64_t>()) << j;
    EXPECT_EQ(got.accepted_at[j], want.at("accepted_at_pos")[j].get<int64_t>()) << j;
    EXPECT_NEAR(got.accept_rate_at(static_cast<int>(j)), want.at("accept_rate_at")[j].get<double>(), 1e-12);
  }
}

/// Confidences come from a forward pass in floats. Labels are exact, and so is the AUROC: noise of 5e-5 in
/// the logits of the golden set does not move it.
inline void expect_calibration(const CalibrationMetrics& got, const nlohmann::json& ece,
                               const nlohmann::json& brier, const nlohmann::json& auc,
                               const nlohmann::json& predicted, const nlohmann::json& observed) {
  constexpr double kNoise = 1e-4;
  EXPECT_NEAR(got.ece, ece.get<double>(), kNoise);
  EXPECT_NEAR(got.brier, brier.get<double>(), kNoise);
  EXPECT_NEAR(got.predicted, predicted.get<double>(), kNoise);
  EXPECT_NEAR(got.observed, observed.get<double>(), 1e-6);
  if (auc.is_null()) {  // all accepted or none
    EXPECT_LT(got.auroc, 0.0);
  } else {
    EXPECT_NEAR(got.auroc, auc.get<double>(), 1e-6);
  }
}

/// want: confidence_metrics_greedy_threshold0 of expected.json.
inline void expect_calibration(const CalibrationStats& got, const nlohmann::json& want) {
  const nlohmann::json& positions = want.at("per_position");
  ASSERT_EQ(got.n_positions(), static_cast<int32_t>(positions.size()));
  for (int32_t j = 0; j < got.n_positions(); ++j) {
    SCOPED_TRACE("position " + std::to_string(j));
    const nlohmann::json& position = positions[static_cast<size_t>(j)];
    EXPECT_EQ(got.at(j).count, std::lround(position.at("total_weight").get<double>()));
    expect_calibration(got.at(j), position.at("ece"), position.at("brier"), position.at("auc"),
                       position.at("pred_mean"), position.at("target_mean"));
  }
  SCOPED_TRACE("all positions");
  const nlohmann::json& summary = want.at("summary");
  expect_calibration(got.summary(), summary.at("ece_mean"), summary.at("brier_mean"), summary.at("auc_mean"),
                     summary.at("pred_mean"), summary.at("target_mean"));
}

}  // namespace dspark::test
