// The parts that adaptive policies learn with: the account of drafting, estimated acceptance, drift of
// calibration, and how far plans stay behind an oracle.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "speculate/acceptance_estimator.h"
#include "speculate/adaptive_planner.h"
#include "speculate/calibration.h"
#include "speculate/calibration_drift.h"
#include "speculate/confidence.h"
#include "speculate/draft_gate.h"
#include "speculate/planner_regret.h"
#include "speculate/regret.h"

namespace dspark {
namespace {

// ---- DraftGate

// Steps of one load with a drafter that wins `gain` per drafting step and may lose `risk`; the time lost.
double run_gate(DraftGate& gate, int32_t load, int n_steps, double risk, double gain,
                int* n_drafting = nullptr) {
  double lost = 0.0;
  for (int i = 0; i < n_steps; ++i) {
    if (!gate.open(load, risk)) continue;
    if (n_drafting != nullptr) ++*n_drafting;
    gate.settle(load, gain);
    lost -= gain;
  }
  return lost;
}

TEST(DraftGate, AUselessDrafterCostsLessThanThreePercentOfAnyRun) {
  for (const double cost : {0.05, 0.12, 0.3, 0.7, 1.5, 4.0}) {
    for (const int n_steps : {64, 256, 4096}) {
      for (const double credit : {0.0, DraftGate::kStartCredit}) {
        DraftGate gate;
        gate.start(0, credit);
        EXPECT_LT(run_gate(gate, 0, n_steps, cost, -cost), 0.03 * n_steps) << cost << " " << n_steps;
      }
    }
  }
}

TEST(DraftGate, AGoodDrafterGoesOnAndAVerdictBelongsToItsLoad) {
  DraftGate gate;
  gate.start(0, DraftGate::kStartCredit);
  gate.start(4, DraftGate::kStartCredit);
  int n_at_16 = 0, n_at_1 = 0;
  run_gate(gate, 4, 1000, 0.3, -0.3, &n_at_16);
  EXPECT_LE(n_at_16, 30);
  run_gate(gate, 0, 1000, 0.3, 0.8, &n_at_1);
  EXPECT_EQ(n_at_1, 1000);
  EXPECT_EQ(DraftGate::load_of(1), 0);
  EXPECT_EQ(DraftGate::load_of(2), 1);
  EXPECT_EQ(DraftGate::load_of(3), 2);
  EXPECT_EQ(DraftGate::load_of(16), 4);
  EXPECT_EQ(DraftGate::load_of(17), 5);
  EXPECT_EQ(DraftGate::load_of(1 << 30), DraftGate::kLoads - 1);
}

TEST(DraftGate, ComesBackAfterABadStretch) {
  DraftGate gate;
  gate.start(0, DraftGate::kStartCredit);
  run_gate(gate, 0, 500, 0.3, 0.8);
  run_gate(gate, 0, 2000, 0.3, -0.3);
  int n_drafting = 0;
  run_gate(gate, 0, 400, 0.3, 0.8, &n_drafting);
  EXPECT_GT(n_drafting, 300);  // the first look finds out
}

// ---- AcceptanceEstimator

TEST(AcceptanceEstimator, LearnsWhatALogitIsWorth) {
  AcceptanceEstimator estimator;
  std::mt19937 rng(3);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  for (int i = 0; i < 3000; ++i) {
    const auto logit = static_cast<float>(8.0 * uniform(rng) - 4.0);
    const auto k = static_cast<int32_t>(rng() % 5);
    const bool accepted = uniform(rng) < sigmoid(0.5 * logit - 1.0 - 0.2 * k);
    estimator.observe(DraftEvidence::kPeakLogit, k, logit, accepted);
    if (i % 10 == 9) estimator.end_step();
  }
  for (const float logit : {-3.0f, 0.0f, 3.0f}) {
    for (const int32_t k : {0, 4}) {
      EXPECT_NEAR(estimator.confidence(DraftEvidence::kPeakLogit, k, logit),
                  sigmoid(0.5 * logit - 1.0 - 0.2 * k), 0.12);
    }
  }
}

TEST(AcceptanceEstimator, ForgetsAndCountsMatchesByLength) {
  AcceptanceEstimator estimator;
  for (int i = 0; i < 400; ++i) {
    estimator.observe(DraftEvidence::kMatchLength, 0, 1.0f, i % 10 == 0);
    estimator.observe(DraftEvidence::kMatchLength, 0, 20.0f, i % 10 != 0);
    estimator.end_step();
  }
  EXPECT_NEAR(estimator.confidence(DraftEvidence::kMatchLength, 0, 1.0f), 0.1, 0.05);
  EXPECT_NEAR(estimator.confidence(DraftEvidence::kMatchLength, 0, 20.0f), 0.9, 0.05);
  for (int i = 0; i < 400; ++i) estimator.observe(DraftEvidence::kMatchLength, 0, 1.0f, true);
  estimator.end_step();
  EXPECT_GT(estimator.confidence(DraftEvidence::kMatchLength, 0, 1.0f), 0.9);
  EXPECT_GT(estimator.confidence(DraftEvidence::kNone, 0, 0.0f), 0.5);
}

TEST(AcceptanceEstimator, SameObservationsSameBitsAndNoOddInputHarms) {
  AcceptanceEstimator a, b;
  const float odd[] = {NAN, INFINITY, -INFINITY, 1e30f, 0.0f};
  for (int i = 0; i < 1000; ++i) {
    for (AcceptanceEstimator* e : {&a, &b}) {
      e->observe(DraftEvidence::kPeakLogit, i % 70, odd[i % 5], i % 3 == 0);
      if (i % 7 == 0) e->end_step();
    }
  }
  for (const float x : odd) {
    const double p = a.confidence(DraftEvidence::kPeakLogit, 1000, x);
    EXPECT_EQ(p, b.confidence(DraftEvidence::kPeakLogit, 1000, x));
    EXPECT_TRUE(p > 0.0 && p < 1.0);
    EXPECT_TRUE(a.confidence(DraftEvidence::kMatchLength, -1, x) > 0.0);
  }
}

// A step of 256 sequences judges thousands of drafts; what is computed from them is computed once.
TEST(AcceptanceEstimator, FitsOnceAStepAtMost) {
  AcceptanceEstimator estimator;
  const auto observe = [&estimator](int n) {
    for (int i = 0; i < n; ++i) {
      const float logit = i % 2 == 0 ? 3.0f : -3.0f;
      estimator.observe(DraftEvidence::kPeakLogit, i % 16, logit, i % 2 == 0);
    }
  };
  const double before = estimator.confidence(DraftEvidence::kPeakLogit, 0, 3.0f);
  observe(4096);
  EXPECT_EQ(estimator.n_fits(), 0);
  EXPECT_EQ(estimator.confidence(DraftEvidence::kPeakLogit, 0, 3.0f), before);
  estimator.end_step();
  EXPECT_EQ(estimator.n_fits(), 1);
  EXPECT_GT(estimator.confidence(DraftEvidence::kPeakLogit, 0, 3.0f), 0.95);
  EXPECT_LT(estimator.confidence(DraftEvidence::kPeakLogit, 0, -3.0f), 0.05);
  estimator.end_step();
  EXPECT_EQ(estimator.n_fits(), 1) << "nothing is new";
  observe(AcceptanceEstimator::kRefit - 1);
  estimator.end_step();
  EXPECT_EQ(estimator.n_fits(), 1) << "too little is new";
  observe(1);
  estimator.end_step();
  EXPECT_EQ(estimator.n_fits(), 2);
}

// ---- CalibrationDrift

TEST(CalibrationDrift, TellsPredictedFromObservedInItsWindow) {
  CalibrationDrift drift;
  const float sure[] = {0.9f, 0.5f};
  for (int i = 0; i < CalibrationDrift::kWindow; ++i) drift.add(sure, i % 10 == 0 ? 0 : i % 2 == 0 ? 1 : 2);
  EXPECT_EQ(drift.n_positions(), 2);
  EXPECT_NEAR(drift.at(0).observed, 0.9, 0.01);
  EXPECT_NEAR(drift.at(0).ece, 0.0, 0.01);
  EXPECT_NEAR(drift.at(1).predicted, 0.45, 0.001);
  const auto bins = drift.bins();  // both positions: survivals of 0.9 and 0.45
  for (size_t b = 0; b < bins.size(); ++b) {
    EXPECT_EQ(bins[b].count, b == 9 || b == 17 ? CalibrationDrift::kWindow : 0) << b;
  }
  EXPECT_NEAR(bins[9].predicted, 0.45, 0.001);
  EXPECT_NEAR(bins[9].observed, drift.at(1).observed, 1e-9);
  for (int i = 0; i < CalibrationDrift::kWindow; ++i) drift.add(sure, 0);
  EXPECT_EQ(drift.at(0).count, CalibrationDrift::kWindow);
  EXPECT_EQ(drift.at(0).observed, 0.0);  // nothing is left of the first window
  EXPECT_NEAR(drift.at(0).ece, 0.9, 1e-4);
  const std::vector<float> many(64, 1.0f);
  drift.add(many, 64);
  EXPECT_EQ(drift.n_positions(), kDriftPositions);
  EXPECT_NEAR(drift.at(kDriftPositions - 1).ece, 0.0, 1e-4);
  const float nan[] = {NAN};
  drift.add(nan, 1);
  EXPECT_TRUE(std::isfinite(drift.at(0).predicted));
}

// ---- Affine calibration

TEST(FitAffineCalibration, RepairsWhatATemperatureCannot) {
  std::mt19937 rng(5);
  std::normal_distribution<double> normal(0.0, 1.5);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  CalibrationData data;
  for (int i = 0; i < 6000; ++i) {
    std::vector<double> z = {normal(rng), normal(rng)};
    int32_t accepted = 0;  // true confidences are sigmoid(0.7 z - 1.2): half as sure as the head says
    while (accepted < 2 && uniform(rng) < sigmoid(0.7 * z[static_cast<size_t>(accepted)] - 1.2)) ++accepted;
    data.add(std::span<const double>(z), accepted);
  }
  const Calibration affine = fit_affine_calibration(data), scaled = fit_calibration(data);
  EXPECT_NEAR(affine.biases[0], -1.2, 0.1);
  EXPECT_NEAR(1.0 / affine.temperatures[0], 0.7, 0.1);
  EXPECT_LT(affine.ece_after[0], 0.02);
  EXPECT_LT(affine.ece_after[1], 0.02);
  EXPECT_GT(scaled.ece_after[0], 0.1);
  EXPECT_EQ(affine.ece_before, scaled.ece_before);
  const float logit[] = {1.0f};
  float confidence[1];
  calibrated_confidence(logit, affine.temperatures, confidence, affine.biases);
  EXPECT_NEAR(confidence[0], sigmoid(0.7 - 1.2), 0.03);
}

TEST(CalibrationMismatch, NamesWhatDiffers) {
  Calibration made;
  made.temperature = 1.0;
  made.accept_rule = AcceptRule::kRejection;
  made.target = "a.gguf";
  EXPECT_EQ(calibration_mismatch(made, AcceptRule::kRejection, 0.8, "a.gguf"), "");
  EXPECT_NE(calibration_mismatch(made, AcceptRule::kCoupled, 1.0, "a.gguf").find("rule"), std::string::npos);
  EXPECT_NE(calibration_mismatch(made, AcceptRule::kRejection, 0.0, "a.gguf").find("temperature 1"),
            std::string::npos);
  EXPECT_NE(calibration_mismatch(made, AcceptRule::kRejection, 1.0, "b.gguf").find("a.gguf"),
            std::string::npos);
  made.temperature = 0.0;  // greedy: the rule says nothing
  EXPECT_EQ(calibration_mismatch(made, AcceptRule::kCoupled, 0.0, ""), "");
}

TEST(CalibrationTables, TheBestFitIsUsedAndItsOwnTableReplaced) {
  const auto table = [](AcceptRule rule, double temperature, const char* target) {
    Calibration made;
    made.temperatures = {1.0};
    made.accept_rule = rule;
    made.temperature = temperature;
    made.target = target;
    return made;
  };
  constexpr AcceptRule kCoupled = AcceptRule::kCoupled, kRejection = AcceptRule::kRejection;
  std::vector<Calibration> tables;
  put_calibration(tables, table(kCoupled, 0.0, "a"));
  put_calibration(tables, table(kCoupled, 1.0, "a"));
  put_calibration(tables, table(kCoupled, 0.5, "a"));
  put_calibration(tables, table(kRejection, 1.0, "a"));
  put_calibration(tables, table(kCoupled, 0.0, "b"));
  ASSERT_EQ(tables.size(), 5u);
  Calibration again = table(kRejection, 0.0, "a");  // greedy: the rule says nothing
  again.num_samples = 7;
  put_calibration(tables, again);
  ASSERT_EQ(tables.size(), 5u);
  EXPECT_EQ(tables[0].num_samples, 7);
  EXPECT_EQ(best_calibration(tables, kCoupled, 0.0, "a"), 0u);
  EXPECT_EQ(best_calibration(tables, kRejection, 0.0, "a"), 0u);
  EXPECT_EQ(best_calibration(tables, kCoupled, 0.9, "a"), 1u);
  EXPECT_EQ(best_calibration(tables, kCoupled, 0.1, "a"), 2u);    // sampled, though greedy is nearer
  EXPECT_EQ(best_calibration(tables, kRejection, 0.2, "a"), 3u);  // the rule counts more than the temperature
  EXPECT_EQ(best_calibration(tables, AcceptRule::kBlock, 0.6, "a"), 2u);
  EXPECT_EQ(best_calibration(tables, kCoupled, 1.0, "b"), 4u);  // the target counts most
  EXPECT_EQ(best_calibration(tables, kCoupled, {}, "a"), 0u);
  EXPECT_EQ(best_calibration(tables, kCoupled, {}, "b"), 4u);
  EXPECT_EQ(best_calibration(tables, kCoupled, 1.0, ""), 1u);
}

// ---- Plans against an oracle

TEST(Regret, LiveBudgetsAreOptimalAndNobodyIsBehindOffByPlan) {
  for (const bool staircase : {false, true}) {
    const auto found = test::regrets(staircase, 600, 7);
    EXPECT_LT(found[5].worst, 1e-12);         // adaptive, live
    EXPECT_LT(found[6].mean, 0.02);           // adaptive, from history
    EXPECT_LT(found[6].mean, found[3].mean);  // better than a threshold
    EXPECT_LT(found[6].mean, found[2].mean);  // and than fixed lengths
    if (!staircase) {
      EXPECT_LT(found[4].worst, 1e-12);  // Algorithm 1 on smooth costs
    }
  }
  std::mt19937 rng(9);
  for (int i = 0; i < 500; ++i) {
    const test::RegretCase c = test::random_case(rng, i % 2 == 0);
    const double off = test::throughput(c, test::lengths_of(c, 0));
    EXPECT_GE(test::throughput(c, test::lengths_of(c, 4)), off * (1 - 1e-12));
    EXPECT_GE(test::throughput(c, test::lengths_of(c, 5)), off * (1 - 1e-12));
  }
}

// The planner learns everything but the costs, pays for what it asks for, and is compared with somebody who
// knows all survivals before anything is drafted.
TEST(Regret, ThePlannerIsNearTheBestScheduleOfARun) {
  for (const bool staircase : {false, true}) {
    SCOPED_TRACE(staircase ? "tiles" : "smooth");
    double least_of_off = 1.0;
    const auto found = test::planner_regrets(staircase, 40, 400, 3, &least_of_off);
    for (const size_t planner : {3u, 4u}) {
      SCOPED_TRACE(test::planner_policies()[planner]);
      EXPECT_GE(found[planner].mean, 0.0);
      EXPECT_LT(found[planner].mean, 0.12);
      EXPECT_LT(found[planner].worst, 0.35);
      for (const size_t other : {0u, 1u, 2u}) EXPECT_LT(found[planner].mean, found[other].mean);
    }
    EXPECT_GT(least_of_off, 0.95);
  }
}

}  // namespace
}  // namespace dspark
