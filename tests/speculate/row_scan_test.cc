// The scan that finds large logits in blocks gives what looking at every single one gives, bit by bit.

#include "speculate/row_scan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <random>
#include <vector>

#include "speculate/logits_processor.h"
#include "speculate/row_mass.h"
#include "speculate/row_max.h"

namespace dspark {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// Few distinct values, so that many equal the threshold; now and then one that is no number.
std::vector<float> odd_row(std::mt19937& rng, size_t n) {
  constexpr float kOdd[] = {kNaN, kInfinity, -kInfinity, 0.0f, -0.0f, 1e-45f, 3e38f, -3e38f};
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> row(n);
  const bool coarse = rng() % 2 == 0;
  for (float& value : row) {
    value = coarse ? std::round(normal(rng)) : normal(rng);
    if (rng() % 40 == 0) value = kOdd[rng() % std::size(kOdd)];
  }
  return row;
}

TEST(RowScan, CountsOnEveryInstructionSet) {
  std::mt19937 rng(1);
  for (int trial = 0; trial < 500; ++trial) {
    const std::vector<float> row = odd_row(rng, kScanBlock + 3);
    for (const size_t shift : {0u, 3u}) {  // no alignment is asked for
      const float* values = row.data() + shift;
      for (const float threshold : {row[7], 0.0f, 2.0f, kInfinity, -kInfinity, kNaN, 1e-45f}) {
        uint32_t n = 0;
        for (size_t i = 0; i < kScanBlock; ++i) n += values[i] >= threshold ? 1 : 0;
        ASSERT_EQ(count_reaching_fn()(values, threshold), n) << "threshold " << threshold;
        ASSERT_EQ(count_reaching_baseline(values, threshold), n) << "threshold " << threshold;
      }
    }
  }
}

/// The comparison that the threshold replaces.
bool reaches(float value, double lowest) {
  return static_cast<double>(value) >= lowest && value > -kInfinity;
}

TEST(RowScan, PeakIsTheFirstLargestValue) {
  const float lowest = -std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  std::mt19937 rng(4);
  for (int round = 0; round < 300; ++round) {
    std::vector<float> row(rng() % 9000);
    for (float& value : row) value = static_cast<float>(rng() % 50) - 60.0f;
    for (int i = 0; i < 3 && !row.empty(); ++i) row[rng() % row.size()] = i == 0 ? nan : lowest;
    size_t expected = row.size();
    for (size_t i = row.size(); i-- > 0;) {
      if (!std::isnan(row[i]) && (expected == row.size() || row[i] >= row[expected])) expected = i;
    }
    const RowPeak peak = row_peak(row);
    ASSERT_EQ(peak.index, expected) << row.size();
    if (expected < row.size()) {
      ASSERT_EQ(peak.value, row[expected]);
    }
  }
  EXPECT_EQ(row_peak(std::vector<float>(5000, nan)).index, 5000u);
  EXPECT_EQ(row_peak(std::vector<float>{nan, lowest, lowest}).index, 1u);
}

TEST(RowScan, ThresholdComparesAsInDouble) {
  const double around = 0.1;  // no float
  std::vector<double> lows = {around,  -around,    0.0,        -0.0,        1e-50, -1e-50, 1e300,
                              -1e300,  kInfinity,  -kInfinity, kNaN,        1.0,   -1.0,   3.4028236e38,
                              -3.5e38, 1.00000001, 16777217.0, -16777217.0, 1e-40, -1e-40};
  std::mt19937 rng(2);
  std::normal_distribution<double> normal(0.0, 10.0);
  for (int i = 0; i < 1000; ++i) lows.push_back(normal(rng));
  for (const double lowest : lows) {
    const float threshold = scan_threshold(lowest);
    std::vector<float> values = {kNaN,
                                 kInfinity,
                                 -kInfinity,
                                 0.0f,
                                 -0.0f,
                                 1e-45f,
                                 -1e-45f,
                                 std::numeric_limits<float>::max(),
                                 -std::numeric_limits<float>::max()};
    if (std::isfinite(threshold)) {  // the threshold and its neighbours
      values.push_back(threshold);
      values.push_back(std::nextafter(threshold, kInfinity));
      values.push_back(std::nextafter(threshold, -kInfinity));
    }
    for (const float value : values) {
      EXPECT_EQ(value >= threshold, reaches(value, lowest)) << value << " against " << lowest;
    }
  }
}

TEST(RowScan, VisitsInOrder) {
  std::mt19937 rng(3);
  for (const size_t n : {0u, 1u, 255u, 256u, 257u, 511u, 512u, 513u, 4099u}) {
    for (int trial = 0; trial < 50; ++trial) {
      const std::vector<float> row = odd_row(rng, n);
      const float threshold = n == 0 || trial % 5 == 0 ? -kInfinity : row[rng() % n];
      std::vector<size_t> want, got;
      for (size_t i = 0; i < n; ++i) {
        if (row[i] >= threshold) want.push_back(i);
      }
      for_each_reaching(row, threshold, [&](size_t i, float value) {
        got.push_back(i);
        EXPECT_EQ(std::memcmp(&value, &row[i], sizeof(value)), 0);
      });
      ASSERT_EQ(got, want) << "n " << n << " threshold " << threshold;
      ASSERT_EQ(first_reaching(row, threshold), want.empty() ? n : want.front());
      if (n == 0) continue;
      const auto first = std::find(row.begin(), row.end(), row_max(row));  // NaN only: nothing is found
      ASSERT_EQ(argmax(row), first == row.end() ? 0 : first - row.begin()) << "n " << n;
    }
  }
}

/// What filter_candidates is, looking at every logit.
class ScalarFilter {
 public:
  ScalarFilter(const std::vector<float>& logits, const SamplingParams& params)
      : logits_(logits), params_(params), max_logit_(row_max(logits)) {}

  std::vector<Candidate> run() {
    const auto k = static_cast<size_t>(std::max(params_.top_k, 0));
    const bool cuts_by_k = k > 0 && k < logits_.size();
    const double top_p = params_.top_p;
    double mass = 0.0;
    if (params_.min_p > 0.0f) {
      gather(logit_of(params_.min_p));
      drop([&](const Candidate& c) { return c.weight < static_cast<double>(params_.min_p); });
      if (cuts_by_k) keep_k(k);
    } else if (!cuts_by_k && top_p < 1.0 && std::isfinite(max_logit_)) {
      mass = row_mass(logits_, max_logit_, params_.temperature);
      const double floor = (1.0 - top_p - 1e-5) * mass / static_cast<double>(logits_.size());
      gather(floor > 0.0 ? logit_of(floor) : static_cast<double>(-kInfinity));
    } else {
      gather(static_cast<double>(-kInfinity));
      if (cuts_by_k) keep_k(k);
    }
    drop([](const Candidate& c) { return !(c.weight > 0.0); });
    if (top_p < 1.0 && !out_.empty()) keep_p(top_p, mass);
    return out_;
  }

 private:
  double logit_of(double weight) const {
    return static_cast<double>(max_logit_) +
           static_cast<double>(params_.temperature) * (std::log(weight) - 1e-6);
  }
  void gather(double lowest) {
    for (size_t v = 0; v < logits_.size(); ++v) {
      if (!reaches(logits_[v], lowest)) continue;
      out_.push_back(
          {static_cast<int32_t>(v), logits_[v], coupled_weight(logits_[v], max_logit_, params_.temperature)});
    }
  }
  template <typename Which>
  void drop(Which&& which) {
    std::erase_if(out_, which);
  }
  void keep_k(size_t k) {
    if (k >= out_.size()) return;
    std::vector<float> values;
    for (const Candidate& c : out_) values.push_back(c.logit);
    std::sort(values.begin(), values.end(), std::greater<>());
    drop([&](const Candidate& c) { return c.logit < values[k - 1]; });
  }
  void keep_p(double top_p, double mass) {
    if (mass == 0.0) {
      for (const Candidate& c : out_) mass += c.weight;
    }
    std::sort(out_.begin(), out_.end(), [](const Candidate& a, const Candidate& b) {
      return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
    });
    size_t n_kept = 0;
    double before = 0.0;
    while (n_kept < out_.size() && (n_kept == 0 || before < top_p * mass)) before += out_[n_kept++].weight;
    out_.resize(n_kept);
    std::sort(out_.begin(), out_.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  }

  const std::vector<float>& logits_;
  const SamplingParams& params_;
  float max_logit_;
  std::vector<Candidate> out_;
};

bool same_bits(const Candidate& a, const Candidate& b) {
  return a.id == b.id && std::memcmp(&a.logit, &b.logit, sizeof(a.logit)) == 0 &&
         std::memcmp(&a.weight, &b.weight, sizeof(a.weight)) == 0;
}

TEST(RowScan, FilteredRowsAreThoseOfAScalarWalk) {
  std::mt19937 rng(4);
  SamplerScratch scratch;
  constexpr size_t kLengths[] = {1, 255, 256, 257, 700, 3000, 50001};
  for (int trial = 0; trial < 400; ++trial) {
    const size_t n = kLengths[rng() % std::size(kLengths)];
    std::vector<float> logits = odd_row(rng, n);
    for (float& l : logits) {
      if (l == kInfinity) l = 3.0f;  // nothing can be normalised beside it
    }
    SamplingParams params;
    params.temperature = 0.2f + 0.1f * static_cast<float>(rng() % 15);
    if (rng() % 2 == 0) params.top_k = static_cast<int32_t>(rng() % 600 + 1);
    if (rng() % 3 == 0) params.min_p = 0.001f * static_cast<float>(rng() % 200 + 1);
    if (rng() % 2 == 0) params.top_p = 0.013f * static_cast<float>(rng() % 75 + 1);
    filter_candidates(logits, params, scratch);
    const std::vector<Candidate> want = ScalarFilter(logits, params).run();
    ASSERT_EQ(scratch.candidates.size(), want.size())
        << "n " << n << " k " << params.top_k << " p " << params.top_p << " min " << params.min_p;
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_TRUE(same_bits(scratch.candidates[i], want[i])) << "candidate " << i << " of " << n;
    }
  }
}

}  // namespace
}  // namespace dspark
