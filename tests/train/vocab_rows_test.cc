// Rows of logits against the same formulas in double precision, and a step's rows by several threads.

#include "train/vocab_rows.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "train/vocab_loss.h"

namespace dspark {
namespace {

std::vector<float> random_row(int64_t width, float size, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, size);
  std::vector<float> row(static_cast<size_t>(width));
  for (float& x : row) x = normal(random);
  return row;
}

std::vector<double> softmax_of(const std::vector<float>& z) {
  double top = -1e300;
  for (float x : z) top = std::max(top, double{x});
  double sum = 0;
  std::vector<double> p;
  for (float x : z) p.push_back(std::exp(x - top));
  for (double x : p) sum += x;
  for (double& x : p) x /= sum;
  return p;
}

double log_sum_of(const std::vector<float>& z) {
  double sum = 0;
  for (float x : z) sum += std::exp(double{x});
  return std::log(sum);
}

struct Expected {
  double ce = 0, soft_ce = 0, l1 = 1;
  std::vector<double> grad;
};

Expected expected_row(const std::vector<float>& z, const std::vector<float>& q, int64_t label,
                      const RowFactors& f) {
  const std::vector<double> p = softmax_of(z);
  Expected out;
  double mass = 0, p_sign = 0;
  const auto sign = [&](size_t i) { return p[i] > q[i] ? 1.0 : p[i] < q[i] ? -1.0 : 0.0; };
  for (size_t i = 0; i < p.size(); ++i) {
    mass += q[i];
    p_sign += p[i] * sign(i);
    out.soft_ce -= q[i] * std::log(p[i]);
    out.l1 += std::abs(p[i] - q[i]);
  }
  out.l1 -= mass;
  if (label >= 0) out.ce = -std::log(p[static_cast<size_t>(label)]);
  for (size_t i = 0; i < p.size(); ++i) {
    double g = f.l1 * p[i] * (sign(i) - p_sign) + f.soft_ce * (mass * p[i] - q[i]);
    if (label >= 0) g += f.ce * (p[i] - (static_cast<int64_t>(i) == label ? 1 : 0));
    out.grad.push_back(f.weight * g);
  }
  return out;
}

TEST(VocabRows, LossAndGradientAreThoseOfTheFormulas) {
  // Widths with and without a remainder behind whole vectors; sizes from nearly flat to nearly one-hot.
  for (const int64_t width : {1, 7, 64, 1001}) {
    for (const float size : {0.1f, 3.0f, 40.0f}) {
      for (const int64_t label : {int64_t{-1}, int64_t{0}, width - 1}) {
        SCOPED_TRACE(testing::Message() << width << " " << size << " " << label);
        std::vector<float> z = random_row(width, size, 1);
        std::vector<float> q = random_row(width, 2.0f, 2);
        distribution_row(q.data(), width, static_cast<float>(log_sum_of(q)) + 0.2f);
        const RowFactors factors = {0.7f, 0.3f, 0.6f, 0.9f};
        const Expected want = expected_row(z, q, label, factors);
        const RowTerms terms = loss_row(z.data(), q.data(), width, label, factors);
        EXPECT_NEAR(terms.ce, want.ce, 1e-5 * (1 + want.ce));
        EXPECT_NEAR(terms.soft_ce, want.soft_ce, 1e-5 * (1 + want.soft_ce));
        EXPECT_NEAR(terms.l1, want.l1, 1e-5);
        for (size_t i = 0; i < z.size(); ++i) ASSERT_NEAR(z[i], want.grad[i], 2e-6) << i;
      }
    }
  }
}

TEST(VocabRows, EqualProbabilitiesHaveNoSign) {
  std::vector<float> z = {0, 0, 0, 0};
  const std::vector<float> q = {0.25f, 0.25f, 0.25f, 0.25f};
  EXPECT_EQ(loss_row(z.data(), q.data(), 4, -1, {1, 0, 0, 1}).l1, 0.0f);
  for (float g : z) EXPECT_EQ(g, 0.0f);
}

TEST(VocabRows, DistributionsAreSharesOfTheWhole) {
  for (const int64_t width : {1, 33, 1000}) {
    const std::vector<float> z = random_row(width, 4, 3);
    const std::vector<double> p = softmax_of(z);
    const auto log_sum = static_cast<float>(log_sum_of(z));
    std::vector<float> whole = z;
    whole_distribution_row(whole.data(), width);
    std::vector<float> share = z;
    distribution_row(share.data(), width, log_sum + std::log(2.0f));  // as much lies outside
    std::vector<float> rounded = z;
    distribution_row(rounded.data(), width, log_sum - 1e-3f);
    std::vector<float> wrong = z;
    distribution_row(wrong.data(), width, -200.0f);  // a sum that cannot be
    double sum = 0;
    for (size_t i = 0; i < z.size(); ++i) {
      EXPECT_NEAR(wrong[i], p[i], 1e-6);
      EXPECT_NEAR(whole[i], p[i], 1e-6);
      EXPECT_NEAR(share[i], p[i] / 2, 1e-6);
      EXPECT_NEAR(rounded[i], p[i], 1e-6);
      sum += rounded[i];
    }
    EXPECT_NEAR(sum, 1.0, 1e-6) << "never more than everything";
  }
}

TEST(VocabRows, LogitsFarApartStayFinite) {
  std::vector<float> z = {500.0f, -500.0f, 499.0f};
  std::vector<float> q = {-300.0f, 300.0f, 0.0f};
  whole_distribution_row(q.data(), 3);
  EXPECT_NEAR(q[1], 1.0f, 1e-6);
  const RowTerms terms = loss_row(z.data(), q.data(), 3, 1, {1, 1, 1, 1});
  EXPECT_NEAR(terms.soft_ce, 1000.313f, 0.01f);
  EXPECT_NEAR(terms.l1, 2.0f, 1e-5);
  for (float g : z) EXPECT_TRUE(std::isfinite(g));
}

/// A step's rows of every sort: shared target rows, slots without a label, a bias of small rank.
VocabInput random_step(const TargetHead& head, int64_t n, int64_t dim) {
  at::manual_seed(5);
  VocabInput input;
  input.hidden = at::randn({n, dim});
  input.latent = at::randn({n, 4});
  input.bias_weight = at::randn({head.draft.rows(), 4}) * 0.3;
  input.labels = at::randint(-1, head.draft.rows(), {n}, at::kLong);
  const at::Tensor target_hidden = at::randn({n / 2, dim});
  const at::Tensor log_sum = target_log_sum(head, target_hidden);
  input.target = target_distribution(head, target_hidden, log_sum);
  input.target_rows = at::randint(0, n / 2, {n}, at::kLong);
  input.weights = at::rand({n}) / static_cast<double>(n);
  return input;
}

TEST(VocabLoss, ThreadsChangeNothing) {
  const int before = at::get_num_threads();
  at::manual_seed(4);
  const at::Tensor weight = at::randn({96, 16}) * 0.4;
  TargetHead head;
  head.reduced = true;
  head.softcap = 20;
  head.draft = HeadProduct(weight.slice(0, 0, 64), Precision::kFloat32, true);
  head.full = HeadProduct(weight, Precision::kFloat32, false);
  const LossWeights weights = {0.2, 0.5, 0.4, 1.0, 4.0};
  const auto run = [&](int threads) {
    at::set_num_threads(threads);
    return vocab_loss(head, random_step(head, 1333, 16), weights, Precision::kFloat32);
  };
  const VocabOutput one = run(1);
  EXPECT_GT(one.soft_ce, 0);
  for (int threads : {2, 3, 5}) {
    const VocabOutput many = run(threads);
    EXPECT_NEAR(many.ce, one.ce, 1e-6 * one.ce);
    EXPECT_NEAR(many.soft_ce, one.soft_ce, 1e-6 * one.soft_ce);
    EXPECT_NEAR(many.l1, one.l1, 1e-6 * one.l1);
    EXPECT_TRUE(at::allclose(many.acceptance, one.acceptance, 1e-5, 1e-6));
    EXPECT_TRUE(at::allclose(many.hidden_grad, one.hidden_grad, 1e-4, 1e-7));
    EXPECT_TRUE(at::allclose(many.latent_grad, one.latent_grad, 1e-4, 1e-7));
    EXPECT_TRUE(at::allclose(many.bias_weight_grad, one.bias_weight_grad, 1e-4, 1e-7));
  }
  at::set_num_threads(before);
}

TEST(VocabLoss, NoRowsAreNoLoss) {
  TargetHead head;
  head.draft = HeadProduct(at::randn({8, 4}), Precision::kFloat32, true);
  EXPECT_EQ(target_distribution(head, at::empty({0, 4}), {}).size(0), 0);
  EXPECT_EQ(target_log_sum(head, at::empty({0, 4})).size(0), 0);
}

}  // namespace
}  // namespace dspark
