// Noise vectors, coupled picks, and the row pick that skips most logarithms.

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "base/philox.h"
#include "speculate/accept.h"
#include "speculate/coupled.h"
#include "speculate/golden_json.h"
#include "speculate/logits_processor.h"
#include "speculate/noise_scan.h"

namespace dspark {
namespace {

using nlohmann::json;

std::vector<json> files() {
  return test::fixture_and_golden("coupled.json", "draft/rules/coupled.json");
}

uint64_t as_u64(const json& text) {
  return std::stoull(text.get<std::string>());
}

std::vector<Candidate> candidates_of(const std::vector<double>& p) {
  std::vector<Candidate> all;
  for (size_t v = 0; v < p.size(); ++v) all.push_back({static_cast<int32_t>(v), 0.0f, p[v]});
  return all;
}

TEST(Coupled, PhiloxKnownAnswers) {
  for (const json& file : files()) {
    ASSERT_EQ(file["philox4x32_10"].size(), 3u);
    for (const json& c : file["philox4x32_10"]) {
      const auto out =
          philox4x32_10(c["counter"].get<std::array<uint32_t, 4>>(), c["key"].get<std::array<uint32_t, 2>>());
      EXPECT_EQ(out, (c["output"].get<std::array<uint32_t, 4>>()));
    }
    for (const json& c : file["noise"]) {
      const uint64_t seed = as_u64(c["seed"]), position = as_u64(c["position"]);
      const auto token = c["token"].get<uint32_t>();
      EXPECT_EQ(uniform_of_word(noise_word(seed, position, token)), c["u"].get<double>());
      EXPECT_NEAR(noise_gumbel(seed, position, token), c["gumbel"].get<double>(), 1e-12);
    }
  }
}

TEST(Coupled, ReferencePicksAndRounds) {
  for (const json& file : files()) {
    ASSERT_GE(file["picks"].size(), 20u);
    for (const json& c : file["picks"]) {
      EXPECT_EQ(coupled_pick(candidates_of(c["p"]), as_u64(c["seed"]), as_u64(c["position"])), c["token"]);
    }
    ASSERT_GE(file["rounds"].size(), 10u);
    for (const json& c : file["rounds"]) {
      const uint64_t seed = as_u64(c["seed"]);
      const auto anchor = c["anchor_position"].get<uint64_t>();
      const auto drafts = c["drafted"].get<std::vector<int32_t>>();
      for (size_t i = 0; i < drafts.size(); ++i) {
        EXPECT_EQ(coupled_pick(candidates_of(c["p_d"][i]), seed, anchor + 1 + i), drafts[i]);
      }
      std::vector<int32_t> committed;
      const AcceptResult result = accept_run(drafts, [&](int32_t i) {
        const auto row = static_cast<size_t>(i);
        committed.push_back(coupled_pick(candidates_of(c["p_t"][row]), seed, anchor + 1 + row));
        return committed.back();
      });
      EXPECT_EQ(result.accepted, c["accepted"]);
      EXPECT_EQ(result.last_pick, c["next_token"]);
      EXPECT_EQ(result.is_bonus, static_cast<size_t>(result.accepted) == drafts.size());
      EXPECT_EQ(committed, c["committed"].get<std::vector<int32_t>>());
    }
  }
}

/// P(both picks equal) under shared noise: the sum over i of 1 / sum_j max(p_j / p_i, q_j / q_i).
double match_probability(const std::vector<double>& p, const std::vector<double>& q) {
  double sum = 0.0;
  for (size_t i = 0; i < p.size(); ++i) {
    if (!(p[i] > 0.0 && q[i] > 0.0)) continue;
    double worst = 0.0;
    for (size_t j = 0; j < p.size(); ++j) worst += std::max(p[j] / p[i], q[j] / q[i]);
    sum += 1.0 / worst;
  }
  return sum;
}

TEST(Coupled, MatchProbabilityFormulaAndItsBounds) {
  for (const json& file : files()) {
    ASSERT_GE(file["match"].size(), 20u);
    for (const json& c : file["match"]) {
      const auto p = c["p"].get<std::vector<double>>(), q = c["q"].get<std::vector<double>>();
      double tv = 0.0;
      for (size_t v = 0; v < p.size(); ++v) tv += 0.5 * std::abs(p[v] - q[v]);
      const double formula = match_probability(p, q);
      EXPECT_NEAR(tv, c["tv"].get<double>(), 1e-9);
      EXPECT_NEAR(formula, c["match_probability"].get<double>(), 1e-9);
      EXPECT_NEAR(formula, c["monte_carlo"].get<double>(), 0.006);
      EXPECT_GE(formula, (1.0 - tv) / (1.0 + tv) - 1e-12);
      EXPECT_LE(formula, 1.0 - tv + 1e-12);
    }
  }
}

/// How often target and draft pick the same under shared noise.
TEST(Coupled, MatchRateIsTheFormulas) {
  for (const json& file : files()) {
    for (const json& c : file["match"]) {
      const auto p = candidates_of(c["p"]), q = candidates_of(c["q"]);
      constexpr int kDraws = 4000;
      int equal = 0;
      for (int i = 0; i < kDraws; ++i) {
        const auto position = static_cast<uint64_t>(i);
        equal += coupled_pick(p, 99, position) == coupled_pick(q, 99, position) ? 1 : 0;
      }
      const double expected = c["match_probability"];
      const double sigma = std::sqrt(expected * (1 - expected) / kDraws) + 1e-3;
      EXPECT_NEAR(static_cast<double>(equal) / kDraws, expected, 5 * sigma);
    }
  }
}

/// log2 of the key of a token; infinity without a weight.
double log2_key(const NoiseRow& row, float logit, int32_t id) {
  const double weight = std::exp2((static_cast<double>(logit) - row.max_logit) * row.log2_scale);
  const double key = noise_exponential(row.seed, row.position, static_cast<uint32_t>(id)) / weight;
  return std::isnan(logit) ? std::numeric_limits<double>::infinity() : std::log2(key);
}

bool has_place(const NoiseMask& mask, int i) {
  return (mask[static_cast<size_t>(i) / 64] >> (i % 64) & 1) != 0;
}

/// Every place below the limit is in the mask, and nothing that lies far above it.
void expect_mask(const NoiseMask& mask, const NoiseRow& row, std::span<const int32_t> ids,
                 std::span<const float> logits, float limit) {
  for (int i = 0; i < kNoiseBlock; ++i) {
    const auto at = static_cast<size_t>(i);
    const double key = log2_key(row, logits[at], ids[at]);
    if (key <= static_cast<double>(limit)) {
      ASSERT_TRUE(has_place(mask, i)) << i << " key " << key << " limit " << limit;
    }
    // Below 1 / 2 the noise costs the bound at most log2(E / (1 - exp(-E))) = 0.346, the logarithm 0.087 and
    // the slack 0.001; the bound of larger noise may lie far below it.
    const double noise = noise_exponential(row.seed, row.position, static_cast<uint32_t>(ids[at]));
    if (noise < 0.5 && key > static_cast<double>(limit) + 0.45) {
      ASSERT_FALSE(has_place(mask, i)) << i << " key " << key;
    }
  }
}

TEST(Coupled, NoiseScansFindEveryPlaceBelowTheLimit) {
  std::mt19937 rng(14);
  const std::vector<NoiseScan> scans = runnable_noise_scans();
  std::vector<int64_t> n_found(scans.size());
  for (int round = 0; round < 400; ++round) {
    std::vector<int32_t> run(kNoiseBlock), listed(kNoiseBlock);
    std::vector<float> logits(kNoiseBlock);
    std::normal_distribution<float> normal(-5.0f, std::array{0.1f, 3.0f, 20.0f}[rng() % 3]);
    const int32_t far = rng() % 2 == 0 ? 0 : (1 << 30) - 10000;  // ids around 2^30 as well
    const int32_t begin = far + static_cast<int32_t>(rng() % 1000 * 4);
    for (int i = 0; i < kNoiseBlock; ++i) {
      const auto at = static_cast<size_t>(i);
      run[at] = begin + i;
      listed[at] = (i == 0 ? begin : listed[at - 1]) + static_cast<int32_t>(rng() % 9 + 1);
      logits[at] = normal(rng);
      if (rng() % 40 == 0) logits[at] = -std::numeric_limits<float>::infinity();
      if (rng() % 40 == 0) logits[at] = std::numeric_limits<float>::quiet_NaN();
    }
    float largest = -1e30f;
    for (float logit : logits) largest = logit > largest ? logit : largest;
    const float temperature = std::array{0.3f, 1.0f, 2.0f}[rng() % 3];
    const NoiseRow row{(uint64_t{rng()} << 32) | rng(), (uint64_t{rng() % 3} << 32) | rng(), largest,
                       1.44269504f / temperature};
    const float limit = std::array{-9.0f, -3.0f, 0.0f, 4.0f}[rng() % 4];
    for (size_t s = 0; s < scans.size(); ++s) {
      const NoiseMask block = scans[s].block(row, static_cast<uint32_t>(begin), logits.data(), limit);
      expect_mask(block, row, run, logits, limit);
      expect_mask(scans[s].listed(row, listed.data(), logits.data(), limit), row, listed, logits, limit);
      for (const uint64_t word : block) n_found[s] += std::popcount(word);
      if (HasFatalFailure()) return;
    }
  }
  for (const int64_t n : n_found) EXPECT_GT(n, 1000);
}

/// Noise as small as one token in sixteen million has, found by search.
struct RareNoise {
  uint64_t seed, position;
  int32_t id;
  uint32_t word;

  double value() const { return noise_exponential(seed, position, static_cast<uint32_t>(id)); }
};
constexpr RareNoise kRareNoise[] = {
    {0x9E3779B97F4A7C15u, 0x266, 323, 0xFFFFFF8Au},  {0x9E3779B97F4A7C15u, 0x322, 7108, 0xFFFFFF56u},
    {0xFFFFFFFF00000007u, 0x4F, 32883, 0xFFFFFFD1u}, {0xFFFFFFFF00000007u, 0x1B8, 39930, 0xFFFFFF22u},
    {0x1u, 0x10000012Au, 1073726173, 0xFFFFFF99u},
};
constexpr float kTemperatures[] = {1e-4f, 1.0f, 1000.0f};
constexpr float kLargest[] = {-100.0f, 100.0f, 1e30f};  // the last leaves room for ties alone
constexpr float kFarBehind = -std::numeric_limits<float>::max();

/// The smallest logit with which the token's key is at most `limit`. requires: its noise is.
float least_logit(const RareNoise& rare, float max_logit, float temperature, double limit) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const double behind = static_cast<double>(temperature) * std::log(rare.value() / limit);
  float logit = static_cast<float>(static_cast<double>(max_logit) + behind);
  for (int i = 0; i < 4; ++i) logit = std::nextafter(logit, -kInfinity);
  while (rare.value() > limit * coupled_weight(logit, max_logit, temperature)) {
    logit = std::nextafter(logit, kInfinity);
  }
  return logit;
}

std::vector<int> places_of(const NoiseMask& mask) {
  std::vector<int> places;
  for (int i = 0; i < kNoiseBlock; ++i) {
    if (has_place(mask, i)) places.push_back(i);
  }
  return places;
}

/// A token whose noise is tiny can win from far behind: whatever leaves logits out must not leave out its
/// one.
TEST(Coupled, NoiseScansFindTheTokenThatCanJustWin) {
  for (const RareNoise& rare : kRareNoise) {
    ASSERT_EQ(noise_word(rare.seed, rare.position, static_cast<uint32_t>(rare.id)), rare.word);
    ASSERT_GE(rare.word, 0xFFFFFF00u);
    const int place = rare.id % kNoiseBlock;
    std::vector<int32_t> ids(kNoiseBlock);
    std::iota(ids.begin(), ids.end(), 0);
    ids[static_cast<size_t>(place)] = rare.id;
    for (const float temperature : kTemperatures) {
      for (const float max_logit : kLargest) {
        for (const float limit : {-20.0f, -3.0f, 0.0f, 4.4f}) {
          SCOPED_TRACE(testing::Message() << "id " << rare.id << " T " << temperature << " max " << max_logit
                                          << " limit " << limit);
          std::vector<float> logits(kNoiseBlock, kFarBehind);
          logits[static_cast<size_t>(place)] =
              least_logit(rare, max_logit, temperature, std::exp2(static_cast<double>(limit)));
          const NoiseRow row{rare.seed, rare.position, max_logit, 1.44269504f / temperature};
          for (const NoiseScan& scan : runnable_noise_scans()) {
            const auto begin = static_cast<uint32_t>(rare.id - place);
            EXPECT_EQ(places_of(scan.block(row, begin, logits.data(), limit)), std::vector<int>{place});
            EXPECT_EQ(places_of(scan.listed(row, ids.data(), logits.data(), limit)), std::vector<int>{place});
          }
        }
      }
    }
  }
}

TEST(Coupled, TheTokenThatCanJustWinDoes) {
  for (const RareNoise& rare : kRareNoise) {
    if (rare.id > 100000) continue;  // no row is that long
    const double first_key = noise_exponential(rare.seed, rare.position, 0);
    ASSERT_GT(first_key, rare.value());
    std::vector<int32_t> ids(static_cast<size_t>(rare.id) + 5);
    std::iota(ids.begin(), ids.end(), 0);
    for (const float temperature : kTemperatures) {
      for (const float max_logit : kLargest) {
        SCOPED_TRACE(testing::Message() << "id " << rare.id << " T " << temperature << " max " << max_logit);
        std::vector<float> logits(ids.size(), kFarBehind);
        logits[0] = max_logit;
        logits[static_cast<size_t>(rare.id)] =
            least_logit(rare, max_logit, temperature, 0.999999 * first_key);
        std::vector<Candidate> all;
        for (const int32_t id : ids) {
          const float logit = logits[static_cast<size_t>(id)];
          all.push_back({id, logit, coupled_weight(logit, max_logit, temperature)});
        }
        EXPECT_EQ(coupled_pick(all, rare.seed, rare.position), rare.id);
        EXPECT_EQ(coupled_pick_row(logits, temperature, rare.seed, rare.position), rare.id);
        EXPECT_EQ(coupled_pick_listed(ids, logits, temperature, rare.seed, rare.position), rare.id);
      }
    }
  }
}

TEST(Coupled, RowPickEqualsBruteForce) {
  std::mt19937 rng(11);
  for (int round = 0; round < 300; ++round) {
    std::vector<float> logits(static_cast<size_t>(rng() % 3000 + 1));
    const float spread = std::array{0.0f, 0.1f, 1.0f, 4.0f, 12.0f, 60.0f}[rng() % 6];
    std::normal_distribution<float> normal(static_cast<float>(rng() % 200) - 100.0f, spread + 1e-6f);
    for (float& l : logits) l = rng() % 50 == 0 ? -std::numeric_limits<float>::infinity() : normal(rng);
    const float temperature = std::array{0.0001f, 0.05f, 0.7f, 1.0f, 1.7f, 50.0f}[rng() % 6];
    const uint64_t seed = (uint64_t{rng()} << 32) | rng(), position = rng();
    SamplerScratch scratch;
    SamplingParams params;
    params.temperature = temperature;
    filter_candidates(logits, params, scratch);
    if (scratch.candidates.empty()) continue;
    ASSERT_EQ(coupled_pick_row(logits, temperature, seed, position),
              coupled_pick(scratch.candidates, seed, position))
        << "n " << logits.size() << " T " << temperature << " spread " << spread;
  }
}

TEST(Coupled, RowPickEqualsBruteForceOnAVocabulary) {
  std::mt19937 rng(12);
  std::vector<float> logits(49152);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  for (float& l : logits) l = normal(rng);
  SamplerScratch scratch;
  filter_candidates(logits, {}, scratch);
  for (uint64_t position = 0; position < 40; ++position) {
    ASSERT_EQ(coupled_pick_row(logits, 1.0f, 5, position), coupled_pick(scratch.candidates, 5, position));
  }
}

/// Lists of several blocks, whole ones and parts.
TEST(Coupled, ListedPickEqualsBruteForce) {
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  std::mt19937 rng(13);
  for (int round = 0; round < 200; ++round) {
    std::vector<int32_t> ids;
    std::vector<float> logits;
    std::vector<Candidate> candidates;
    std::normal_distribution<float> normal(3.0f, round % 2 == 0 ? 0.3f : 5.0f);
    size_t n = rng() % 3500 + 1;
    if (round % 10 == 8) n = kNoiseBlock;
    if (round % 10 == 9) n = 2 * kNoiseBlock;
    const float temperature = round % 3 == 0 ? 0.6f : 1.0f;
    for (int32_t id = 0; ids.size() < n; id += static_cast<int32_t>(rng() % 9 + 1)) {
      ids.push_back(id);
      logits.push_back(rng() % 30 == 0 ? kLowest : rng() % 30 == 0 ? kNaN : normal(rng));
    }
    float largest = kLowest;
    for (const float logit : logits) largest = logit > largest ? logit : largest;
    for (size_t i = 0; i < n; ++i) {
      candidates.push_back({ids[i], logits[i], coupled_weight(logits[i], largest, temperature)});
    }
    const uint64_t seed = (uint64_t{rng()} << 32) | rng(), position = rng();
    ASSERT_EQ(coupled_pick_listed(ids, logits, temperature, seed, position),
              coupled_pick(candidates, seed, position))
        << "n " << n;
  }
  std::vector<int32_t> ids(2500);
  std::iota(ids.begin(), ids.end(), 0);
  for (const float nothing : {kLowest, kNaN}) {
    EXPECT_EQ(coupled_pick_listed(ids, std::vector<float>(ids.size(), nothing), 1.0f, 5, 6), -1);
  }
  EXPECT_EQ(coupled_pick_listed({}, {}, 1.0f, 5, 6), -1);
}

/// Pearson's statistic of picks against the softmax; each bound fails once in 10^6 for a correct sampler,
/// and the seeds are fixed.
TEST(Coupled, PicksFollowTheSoftmax) {
  const std::vector<float> logits = {0.0f, 1.0f, -1.0f, 2.0f, 0.5f, -3.0f};
  for (float temperature : {0.7f, 1.0f, 2.0f}) {
    constexpr int kDraws = 60000;
    std::array<int, 6> seen{};
    for (int i = 0; i < kDraws; ++i) {
      ++seen[static_cast<size_t>(coupled_pick_row(logits, temperature, 77, static_cast<uint64_t>(i)))];
    }
    double mass = 0.0, chi2 = 0.0;
    for (float l : logits) mass += coupled_weight(l, 2.0f, temperature);
    for (size_t v = 0; v < 6; ++v) {
      const double expected = kDraws * coupled_weight(logits[v], 2.0f, temperature) / mass;
      chi2 += (seen[v] - expected) * (seen[v] - expected) / expected;
    }
    EXPECT_LT(chi2, 35.9);  // 5 degrees of freedom
  }
}

TEST(Coupled, AcceptStopsAtTheFirstDifferenceAndAsksNoFurther) {
  const std::vector<int32_t> drafts = {4, 5, 6};
  int calls = 0;
  const auto picks = [&](std::vector<int32_t> target) {
    calls = 0;
    return accept_run(drafts, [&calls, target](int32_t i) {
      EXPECT_EQ(calls++, i);
      return target[static_cast<size_t>(i)];
    });
  };
  AcceptResult result = picks({4, 9, 6, 7});
  EXPECT_EQ(result.accepted, 1);
  EXPECT_EQ(result.last_pick, 9);
  EXPECT_FALSE(result.is_bonus);
  EXPECT_EQ(calls, 2);
  result = picks({4, 5, 6, 7});
  EXPECT_EQ(result.accepted, 3);
  EXPECT_EQ(result.last_pick, 7);
  EXPECT_TRUE(result.is_bonus);
  result = accept_run({}, [](int32_t) { return 3; });
  EXPECT_EQ(result.accepted, 0);
  EXPECT_TRUE(result.is_bonus);
}

}  // namespace
}  // namespace dspark
