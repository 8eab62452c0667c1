// Row operations on every instruction set against double-precision references, and their independence of
// batch and threads.
#include "kernels/rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "kernels/isa.h"
#include "kernels/reference/rows_reference.h"
#include "kernels/row_math.h"

namespace dspark {
namespace {

std::vector<float> random_floats(int64_t n, uint32_t seed, float spread) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> x;
  for (int64_t i = 0; i < n; ++i) x.push_back(normal(rng));
  return x;
}

template <typename F>
void for_each_isa(F&& fn) {
  const Isa before = active_isa();
  for (Isa isa : runnable_isas()) {
    set_active_isa(isa);
    SCOPED_TRACE(isa_name(isa));
    fn();
  }
  set_active_isa(before);
}

void expect_close(double want, float got, double relative, double absolute) {
  ASSERT_NEAR(static_cast<double>(got), want, relative * std::fabs(want) + absolute);
}

bool same_bits(const float* a, const float* b, size_t n) {
  return std::memcmp(a, b, n * sizeof(float)) == 0;
}

TEST(Rows, RmsNorm) {
  for_each_isa([] {
    for (int64_t dim : {1, 7, 16, 64, 576, 577, 640, 896, 4096}) {
      const auto x = random_floats(dim, 1, 3.0f), weight = random_floats(dim, 2, 1.0f);
      const size_t n = static_cast<size_t>(dim);
      std::vector<float> y(n + 1, 123.0f);
      rms_norm_row(y.data(), x.data(), weight.data(), 1e-5f, dim);
      const auto want = reference::rms_norm(x, weight, 1e-5);
      for (size_t i = 0; i < n; ++i) expect_close(want[i], y[i], 1e-6, 0.0);
      EXPECT_EQ(y[n], 123.0f);
      const auto plain = reference::rms_norm(x, {}, 1e-5);
      y.assign(x.begin(), x.end());
      rms_norm_row(y.data(), y.data(), nullptr, 1e-5f, dim);
      for (size_t i = 0; i < n; ++i) expect_close(plain[i], y[i], 1e-6, 0.0);
    }
  });
}

TEST(Rows, RmsNormOfBatchesAndHeads) {
  constexpr int64_t kRows = 61, kDim = 576, kStride = 600;
  const auto x = random_floats(kRows * kStride, 1, 1.0f), weight = random_floats(kDim, 2, 1.0f);
  for_each_isa([&] {
    for (int n_threads : {1, 2, 4}) {
      ThreadPool pool(n_threads);
      std::vector<float> y(kRows * kDim), one(kDim);
      rms_norm(pool, y.data(), kDim, x.data(), kStride, weight.data(), 1e-6f, kRows, kDim);
      for (int64_t r = 0; r < kRows; ++r) {
        rms_norm_row(one.data(), x.data() + r * kStride, weight.data(), 1e-6f, kDim);
        EXPECT_TRUE(same_bits(one.data(), y.data() + r * kDim, kDim)) << "row " << r;
      }
      auto heads = x;
      rms_norm_heads(pool, heads.data(), kStride, weight.data(), 1e-6f, kRows, 9, 64);
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t h = 0; h < 9; ++h) {
          rms_norm_row(one.data(), x.data() + r * kStride + h * 64, weight.data(), 1e-6f, 64);
          EXPECT_TRUE(same_bits(one.data(), heads.data() + r * kStride + h * 64, 64));
        }
        EXPECT_TRUE(
            same_bits(heads.data() + r * kStride + kDim, x.data() + r * kStride + kDim, kStride - kDim));
      }
    }
  });
}

TEST(Rows, Rope) {
  constexpr int32_t kHeads = 3;
  for_each_isa([] {
    for (int32_t head_dim : {8, 24, 64, 72, 128, 256}) {
      RopeTable table;
      table.attention_factor = 1.25f;
      for (int32_t j = 0; j < head_dim / 2; ++j) {
        // The last quarter does not rotate.
        const bool rotates = j < head_dim * 3 / 8;
        table.inv_freq.push_back(
            rotates ? std::pow(10000.0f, -2.0f * static_cast<float>(j) / static_cast<float>(head_dim))
                    : 0.0f);
      }
      const int64_t stride = kHeads * head_dim + 5;
      for (const std::vector<int32_t>& positions :
           {std::vector<int32_t>{0, 1, 77}, std::vector<int32_t>{31000}}) {
        const int64_t n_rows = static_cast<int64_t>(positions.size());
        const auto x = random_floats(n_rows * stride, 3, 1.0f);
        for (int n_threads : {1, 2}) {
          ThreadPool pool(n_threads);
          auto y = x;
          apply_rope(pool, y.data(), stride, table, positions, kHeads, head_dim);
          for (int64_t r = 0; r < n_rows; ++r) {
            for (int32_t h = 0; h < kHeads; ++h) {
              const size_t at = static_cast<size_t>(r * stride + h * head_dim);
              const auto want = reference::rope({x.data() + at, static_cast<size_t>(head_dim)}, table,
                                                positions[static_cast<size_t>(r)]);
              for (size_t d = 0; d < want.size(); ++d) expect_close(want[d], y[at + d], 1e-6, 2e-6);
            }
            EXPECT_TRUE(same_bits(y.data() + r * stride + kHeads * head_dim,
                                  x.data() + r * stride + kHeads * head_dim, 5));
          }
        }
      }
    }
  });
}

TEST(Rows, RopeOfARowDoesNotDependOnTheBatch) {
  constexpr int32_t kHeads = 9, kHeadDim = 64, kRows = 300, kStride = kHeads * kHeadDim;
  RopeTable table;
  for (int32_t j = 0; j < kHeadDim / 2; ++j)
    table.inv_freq.push_back(std::pow(100000.0f, static_cast<float>(-j) / 32.0f));
  const auto x = random_floats(kRows * kStride, 3, 1.0f);
  std::vector<int32_t> positions;
  for (int32_t r = 0; r < kRows; ++r) positions.push_back(r * 13 % 997);
  for_each_isa([&] {
    ThreadPool pool(4);
    auto all = x, single = x;
    apply_rope(pool, all.data(), kStride, table, positions, kHeads, kHeadDim);
    for (int32_t r = 0; r < kRows; ++r) {
      const int32_t position = positions[static_cast<size_t>(r)];
      apply_rope(pool, single.data() + r * kStride, kStride, table, {&position, 1}, kHeads, kHeadDim);
    }
    EXPECT_TRUE(same_bits(all.data(), single.data(), all.size()));
  });
}

TEST(Rows, GatedActivation) {
  constexpr int64_t kRows = 20, kDim = 1531;
  auto gate = random_floats(kRows * kDim, 1, 4.0f);
  const auto up = random_floats(kRows * kDim, 2, 1.0f);
  const float special[] = {0.0f, -0.0f, 100.0f, -100.0f, 88.5f, -88.5f, 1e30f, -1e30f, 1e-30f, 0.01f};
  std::copy(std::begin(special), std::end(special), gate.begin());
  for_each_isa([&] {
    for (GateActivation act : {GateActivation::kSilu, GateActivation::kGeluTanh}) {
      std::vector<float> row(gate.size());
      for (int64_t r = 0; r < kRows; ++r) {
        gated_activation_row(row.data() + r * kDim, gate.data() + r * kDim, up.data() + r * kDim, kDim, act);
      }
      for (size_t i = 0; i < row.size(); ++i) {
        const double want = reference::gated_activation(gate[i], up[i], act);
        expect_close(want, row[i], 2e-6 * (1.0 + std::fabs(static_cast<double>(gate[i]))), 1e-7);
      }
      for (int n_threads : {1, 2, 4}) {
        ThreadPool pool(n_threads);
        auto out = gate;
        gated_activation(pool, out.data(), out.data(), up.data(), kRows, kDim, act);
        EXPECT_TRUE(same_bits(out.data(), row.data(), out.size()));
      }
    }
  });
}

TEST(Rows, AddScaleSoftcap) {
  constexpr int64_t kRows = 37, kDim = 1001;
  const auto x = random_floats(kRows * kDim, 1, 20.0f), y = random_floats(kRows * kDim, 2, 1.0f);
  for_each_isa([&] {
    for (int n_threads : {1, 3}) {
      ThreadPool pool(n_threads);
      auto sum = x, capped = x, scaled = x;
      add_rows(pool, sum.data(), y.data(), kRows, kDim);
      softcap_rows(pool, capped.data(), kRows, kDim, 30.0f);
      scale_row(scaled.data(), kRows * kDim, 3.0f);
      for (size_t i = 0; i < x.size(); ++i) {
        ASSERT_EQ(sum[i], x[i] + y[i]);
        ASSERT_EQ(scaled[i], x[i] * 3.0f);
        expect_close(reference::softcap(x[i], 30.0), capped[i], 5e-7, 1e-30);
      }
      auto rows = x;
      for (int64_t r = 0; r < kRows; ++r) softcap_row(rows.data() + r * kDim, kDim, 30.0f);
      EXPECT_TRUE(same_bits(rows.data(), capped.data(), rows.size()));
    }
  });
}

TEST(RowMath, DotAndMax) {
  for_each_isa([] {
    for (int64_t n : {1, 3, 15, 16, 17, 63, 64, 65, 200, 1000}) {
      const auto a = random_floats(n, 1, 1.0f), b = random_floats(n, 2, 1.0f);
      double want = 0.0, magnitude = 0.0;
      float largest = a[0];
      for (size_t i = 0; i < a.size(); ++i) {
        want += static_cast<double>(a[i]) * static_cast<double>(b[i]);
        magnitude += std::fabs(static_cast<double>(a[i]) * static_cast<double>(b[i]));
        largest = std::max(largest, a[i]);
      }
      EXPECT_NEAR(static_cast<double>(dot_row(a.data(), b.data(), n)), want, 1e-6 * magnitude) << n;
      EXPECT_EQ(max_row(a.data(), n), largest) << n;
    }
  });
}

TEST(RowMath, Softmax) {
  for_each_isa([] {
    for (int64_t n : {1, 5, 16, 63, 64, 65, 1000, 49152, 262144}) {
      auto x = random_floats(n, 9, 3.0f);
      if (n > 4) x[3] = -std::numeric_limits<float>::infinity();
      if (n > 4) x[4] = -500.0f;
      const auto want = reference::softmax(x);
      softmax_row(x.data(), n);
      for (size_t i = 0; i < x.size(); ++i) {
        // The distance to the maximum is rounded to half a unit in its last place.
        const double distance = want[i] > 0.0 ? -std::log(want[i]) : 0.0;
        expect_close(want[i], x[i], 1e-6 + 1.2e-7 * distance, 1e-37);
      }
      if (n > 4) {
        EXPECT_EQ(x[3], 0.0f);
        EXPECT_EQ(x[4], 0.0f);
      }
    }
  });
}

}  // namespace
}  // namespace dspark
