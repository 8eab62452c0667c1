// Wide products: what is rounded and what is not, on whatever CPU the test runs.

#include "train/head_product.h"

#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

namespace dspark {
namespace {

using at::Tensor;

/// Numbers that bf16 holds exactly, so that only the rounding of sums shows.
Tensor exact_numbers(std::vector<int64_t> shape, double scale, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return (at::randn(shape, generator) * scale).to(at::kBFloat16).to(at::kFloat);
}

class HeadProducts : public testing::TestWithParam<std::tuple<Precision, int64_t>> {};

// Logits of size 20 would move by up to 0.06 if the sums were rounded to bf16.
TEST_P(HeadProducts, SumsAreNotRounded) {
  const auto [precision, n_rows] = GetParam();
  const Tensor weight = exact_numbers({n_rows, 64}, 1.0, 1);
  const Tensor x = exact_numbers({9, 64}, 2.5, 2);
  const Tensor expected = at::mm(x.to(at::kDouble), weight.to(at::kDouble).t());
  ASSERT_GT(expected.abs().max().item<double>(), 20.0);
  const HeadProduct product(weight, precision, true);
  Tensor out = at::empty({9, n_rows});
  product.forward(x, out, false);
  EXPECT_LT((out - expected).abs().max().item<double>(), 1e-4);
  product.forward(x, out, true);
  EXPECT_LT((out - 2 * expected).abs().max().item<double>(), 1e-4) << "added to what was there";

  const Tensor g = exact_numbers({9, n_rows}, 1.0, 3);
  const Tensor back = product.backward(g);
  EXPECT_EQ(back.scalar_type(), at::kFloat);
  EXPECT_LT((back - at::mm(g.to(at::kDouble), weight.to(at::kDouble))).abs().max().item<double>(), 1e-4);
}

// bf16 mode is bf16 mode on every CPU: operands lose their last bits, packed or not.
TEST_P(HeadProducts, OperandsAreRoundedInBf16ModeOnly) {
  const auto [precision, n_rows] = GetParam();
  const Tensor weight = at::full({n_rows, 64}, 1.0 + 1.0 / 4096);  // 1 in bf16
  const HeadProduct product(weight, precision, false);
  Tensor out = at::empty({2, n_rows});
  product.forward(at::ones({2, 64}), out, false);
  const double expected = precision == Precision::kBFloat16 ? 64.0 : 64.0 + 64.0 / 4096;
  EXPECT_NEAR(out.min().item<double>(), expected, 1e-4);
  EXPECT_NEAR(out.max().item<double>(), expected, 1e-4);
}

// An odd number of rows cannot be packed in pairs.
INSTANTIATE_TEST_SUITE_P(Modes, HeadProducts,
                         testing::Combine(testing::Values(Precision::kFloat32, Precision::kBFloat16),
                                          testing::Values(80, 81)));

TEST(TrainPrecision, EmulatedBf16IsOnlyUsedWhenItIsAskedFor) {
  EXPECT_EQ(choose_precision(false, false, true, true), Precision::kBFloat16);
  EXPECT_EQ(choose_precision(false, false, true, false), Precision::kFloat32);
  EXPECT_EQ(choose_precision(false, true, true, false), Precision::kBFloat16);
  EXPECT_EQ(choose_precision(false, false, false, false), Precision::kBFloat16) << "a GPU";
  EXPECT_EQ(choose_precision(true, false, true, true), Precision::kFloat32);
}

}  // namespace
}  // namespace dspark
