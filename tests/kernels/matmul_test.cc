// Every packed kernel, on every instruction set this machine runs, against the reference; and batch
// invariance.
#include "kernels/matmul.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "kernels/isa.h"
#include "kernels/reference/matmul_reference.h"
#include "tensor/half.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

constexpr DType kTypes[] = {DType::kF32,  DType::kBF16,   DType::kF16,    DType::kQ4_0,
                            DType::kQ4_1, DType::kQ5_0,   DType::kQ5_1,   DType::kQ8_0,
                            DType::kQ2_K, DType::kQ3_K,   DType::kQ4_K,   DType::kQ5_K,
                            DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};

// A stored matrix with random blocks: random bytes for the quants and scales (so that every bit of the layout
// matters, unlike what an encoder would produce), finite and moderate f16 scales.
struct Matrix {
  std::vector<uint8_t> bytes;
  TensorView view;
};

// Byte offsets of the f16 fields of one block.
std::vector<size_t> f16_offsets(DType type) {
  switch (type) {
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ2_K:
      return {80, 82};
    case DType::kQ3_K:
      return {108};
    case DType::kQ6_K:
      return {208};
    case DType::kMXFP4:
      return {};
    default:
      return {0};
  }
}

Matrix random_matrix(DType type, int64_t n_out, int64_t n_in, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, 0.5f);
  Matrix m;
  m.bytes.resize(dtype_row_bytes(type, n_in) * static_cast<size_t>(n_out));
  const DTypeInfo* info = dtype_info(type);
  if (info->block_elements == 1) {
    for (int64_t i = 0; i < n_out * n_in; ++i) {
      const float v = normal(rng);
      const uint16_t half = type == DType::kF16 ? f32_to_f16(v) : f32_to_bf16(v);
      uint8_t* out = m.bytes.data() + static_cast<size_t>(i) * static_cast<size_t>(info->block_bytes);
      if (type == DType::kF32) {
        std::memcpy(out, &v, 4);
      } else {
        std::memcpy(out, &half, 2);
      }
    }
  } else {
    for (uint8_t& b : m.bytes) b = static_cast<uint8_t>(rng());
    const size_t n_blocks = m.bytes.size() / static_cast<size_t>(info->block_bytes);
    for (size_t b = 0; b < n_blocks; ++b) {
      uint8_t* block = m.bytes.data() + b * static_cast<size_t>(info->block_bytes);
      // Every eighth block takes one of the extreme exponents, subnormal results included.
      if (type == DType::kMXFP4) block[0] = static_cast<uint8_t>(b % 8 == 0 ? rng() % 3 : 118 + rng() % 8);
      for (size_t at : f16_offsets(type)) {
        const uint16_t half = f32_to_f16(normal(rng) * 0.02f);
        std::memcpy(m.bytes.data() + b * static_cast<size_t>(info->block_bytes) + at, &half, 2);
      }
    }
  }
  m.view = TensorView{"w", type, {n_out, n_in}, m.bytes.data(), m.bytes.size()};
  return m;
}

std::vector<float> random_rows(int64_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = normal(rng);
  return x;
}

std::vector<float> run(ThreadPool& pool, const PackedMatrix& w, const std::vector<float>& x, int64_t n_rows,
                       const float* bias = nullptr) {
  Activations acts;
  acts.assign(pool, x.data(), n_rows, w.n_in, w.n_in, uses_int8_activations(w.kind));
  std::vector<float> y(static_cast<size_t>(n_rows * w.n_out), -77.0f);
  const MatmulJob job{&w, y.data(), w.n_out, bias};
  matmul(pool, {&job, 1}, acts);
  return y;
}

int64_t inputs_for(DType type, int units) {
  const int block = dtype_info(type)->block_elements;
  return block == 1 ? 37 * units : block * units;
}

class MatmulTest : public ::testing::TestWithParam<std::tuple<DType, Isa>> {
 protected:
  void SetUp() override { set_active_isa(std::get<1>(GetParam())); }
  void TearDown() override { set_active_isa(runnable_isas().back()); }
};

TEST_P(MatmulTest, MatchesReference) {
  const DType type = std::get<0>(GetParam());
  ThreadPool pool(2);
  uint32_t seed = 1;
  for (int64_t n_out : {1, 15, 16, 17, 70}) {
    for (int units : {1, 3, 4}) {
      for (int64_t n_rows : {1, 2, 3, 5, 8, 9, 17}) {
        const int64_t n_in = inputs_for(type, units);
        const Matrix m = random_matrix(type, n_out, n_in, ++seed);
        const std::vector<float> x = random_rows(n_rows * n_in, ++seed);
        const std::vector<float> bias = random_rows(n_out, ++seed);
        auto packed = pack_matrix(pool, m.view);
        ASSERT_TRUE(packed.ok()) << packed.status().to_string();
        const std::vector<float> y = run(pool, *packed, x, n_rows, bias.data());
        for (int64_t r = 0; r < n_rows; ++r) {
          std::vector<float> row(x.begin() + r * n_in, x.begin() + (r + 1) * n_in);
          if (uses_int8_activations(packed->kind)) row = reference::through_int8(row.data(), n_in);
          const auto want = reference::matvec(m.view, row.data());
          const auto size = reference::matvec_magnitude(m.view, row.data());
          for (int64_t o = 0; o < n_out; ++o) {
            const auto i = static_cast<size_t>(o);
            // Rounding of the block scales and of n_in / 32 float additions. K-quants with a minimum subtract
            // two large parts, each rounded by itself: the magnitudes bound that too, times a few.
            const double tolerance = 1e-5 * size[i] + 2e-5 * std::abs(bias[i]) + 2e-5;
            ASSERT_NEAR(y[static_cast<size_t>(r * n_out) + i], want[i] + bias[i], tolerance)
                << dtype_name(type) << " out " << n_out << " in " << n_in << " rows " << n_rows << " at " << r
                << "," << o;
          }
        }
      }
    }
  }
}

TEST_P(MatmulTest, BatchInvariantBits) {
  const DType type = std::get<0>(GetParam());
  const int64_t n_in = inputs_for(type, 5), n_out = 83, n_rows = 37;
  const Matrix m = random_matrix(type, n_out, n_in, 7);
  const std::vector<float> x = random_rows(n_rows * n_in, 8), bias = random_rows(n_out, 9);
  ThreadPool one(1);
  auto packed = pack_matrix(one, m.view);
  ASSERT_TRUE(packed.ok());
  std::vector<float> single;
  for (int64_t r = 0; r < n_rows; ++r) {
    const std::vector<float> row(x.begin() + r * n_in, x.begin() + (r + 1) * n_in);
    const std::vector<float> y = run(one, *packed, row, 1, bias.data());
    single.insert(single.end(), y.begin(), y.end());
  }
  for (int n_threads : {1, 2, 4}) {
    ThreadPool pool(n_threads);
    for (int64_t count : {2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 37}) {
      for (int64_t first = 0; first + count <= n_rows; first += 11) {
        const std::vector<float> rows(x.begin() + first * n_in, x.begin() + (first + count) * n_in);
        const std::vector<float> y = run(pool, *packed, rows, count, bias.data());
        ASSERT_EQ(0, std::memcmp(y.data(), single.data() + first * n_out, y.size() * sizeof(float)))
            << dtype_name(type) << " threads " << n_threads << " rows " << count << " from " << first;
      }
    }
  }
}

std::vector<Isa> all_isas() {
  return {runnable_isas().begin(), runnable_isas().end()};
}

INSTANTIATE_TEST_SUITE_P(AllTypes, MatmulTest,
                         ::testing::Combine(::testing::ValuesIn(kTypes), ::testing::ValuesIn(all_isas())),
                         [](const auto& instance) {
                           return std::string(dtype_name(std::get<0>(instance.param))) + "_" +
                                  isa_name(std::get<1>(instance.param));
                         });

TEST(Matmul, GroupOfJobsSharesOneInput) {
  ThreadPool pool(2);
  const Matrix a = random_matrix(DType::kQ4_K, 40, 512, 1), b = random_matrix(DType::kQ8_0, 24, 512, 2),
               c = random_matrix(DType::kF32, 16, 512, 3);
  const std::vector<float> x = random_rows(3 * 512, 4);
  auto pa = pack_matrix(pool, a.view), pb = pack_matrix(pool, b.view), pc = pack_matrix(pool, c.view);
  ASSERT_TRUE(pa.ok() && pb.ok() && pc.ok());
  Activations acts;
  acts.assign(pool, x.data(), 3, 512, 512, true);
  std::vector<float> ya(3 * 40), yb(3 * 24), yc(3 * 16);
  const MatmulJob jobs[] = {
      {&*pa, ya.data(), 40, nullptr}, {&*pb, yb.data(), 24, nullptr}, {&*pc, yc.data(), 16, nullptr}};
  matmul(pool, jobs, acts);
  EXPECT_EQ(ya, run(pool, *pa, x, 3));
  EXPECT_EQ(yb, run(pool, *pb, x, 3));
  EXPECT_EQ(yc, run(pool, *pc, x, 3));
}

TEST(Matmul, FloatPathDecodesAnyType) {
  ThreadPool pool(2);
  const Matrix m = random_matrix(DType::kQ5_0, 20, 64, 5);
  const std::vector<float> x = random_rows(64, 6);
  auto packed = pack_matrix(pool, m.view, /*float_activations=*/true);
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ(packed->kind, PackKind::kF32);
  const std::vector<float> y = run(pool, *packed, x, 1);
  const auto want = reference::matvec(m.view, x.data());
  for (size_t o = 0; o < 20; ++o) EXPECT_NEAR(y[o], want[o], 1e-4);
}

TEST(Matmul, RowOrderPermutesRows) {
  ThreadPool pool(1);
  const Matrix m = random_matrix(DType::kQ4_1, 20, 64, 9);
  const std::vector<float> x = random_rows(64, 10);
  std::vector<int32_t> order(20);
  for (int i = 0; i < 20; ++i) order[static_cast<size_t>(i)] = (i * 7) % 20;
  auto plain = pack_matrix(pool, m.view);
  auto permuted = pack_matrix(pool, m.view, false, order);
  ASSERT_TRUE(plain.ok() && permuted.ok());
  const std::vector<float> y = run(pool, *plain, x, 1), z = run(pool, *permuted, x, 1);
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(z[i], y[static_cast<size_t>(order[i])]);
}

TEST(Matmul, RowOrderMayLeaveRowsOut) {
  ThreadPool pool(1);
  const Matrix m = random_matrix(DType::kQ8_0, 40, 64, 13);
  const std::vector<float> x = random_rows(64, 14);
  const std::vector<int32_t> order = {3, 4, 39, 0, 17, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 2};
  int n_reads = 0;
  auto whole = pack_matrix(pool, m.view);
  auto chosen = pack_matrix(pool, m.view, false, order, nullptr, [&](auto) { ++n_reads; });
  ASSERT_TRUE(whole.ok() && chosen.ok());
  ASSERT_EQ(chosen->n_out, 17);
  EXPECT_EQ(n_reads, 0);
  const std::vector<float> y = run(pool, *whole, x, 1), z = run(pool, *chosen, x, 1);
  for (size_t i = 0; i < order.size(); ++i) EXPECT_EQ(z[i], y[static_cast<size_t>(order[i])]);
}

TEST(Matmul, PanelsAloneGiveTheSameBits) {
  ThreadPool pool(1);
  for (DType type : {DType::kQ8_0, DType::kBF16}) {
    const Matrix m = random_matrix(type, 70, 64, 15);
    constexpr int64_t kRows = 11;
    const std::vector<float> x = random_rows(kRows * 64, 16);
    auto packed = pack_matrix(pool, m.view);
    ASSERT_TRUE(packed.ok());
    const std::vector<float> y = run(pool, *packed, x, kRows);
    Activations acts;
    acts.assign(pool, x.data(), kRows, 64, 64, uses_int8_activations(packed->kind));
    std::vector<float> part(kRows * 48);
    matmul_panels({&*packed, part.data(), 48, nullptr}, acts, 2, 5);  // columns 32 .. 69
    for (size_t r = 0; r < kRows; ++r) {
      EXPECT_EQ(std::memcmp(part.data() + r * 48, y.data() + r * 70 + 32, 38 * sizeof(float)), 0);
    }
  }
}

TEST(Matmul, RefusesWhatItCannotPack) {
  ThreadPool pool(1);
  const TensorView vector{"norm.weight", DType::kF32, {8}, nullptr, 32};
  const auto result = pack_matrix(pool, vector);
  ASSERT_FALSE(result.ok());
  EXPECT_NE(result.status().message().find("norm.weight"), std::string::npos);
}

TEST(Activations, HandlesZerosHugeAndTinyValues) {
  ThreadPool pool(1);
  const Matrix m = random_matrix(DType::kQ4_0, 16, 64, 11);
  auto packed = pack_matrix(pool, m.view);
  ASSERT_TRUE(packed.ok());
  for (Isa isa : runnable_isas()) {
    set_active_isa(isa);
    for (float magnitude : {0.0f, 1e-42f, 1e-36f, 1e30f}) {
      std::vector<float> x = random_rows(64, 12);
      for (float& v : x) v *= magnitude;
      for (float y : run(pool, *packed, x, 1)) EXPECT_TRUE(std::isfinite(y)) << magnitude;
    }
  }
  set_active_isa(runnable_isas().back());
}

}  // namespace
}  // namespace dspark
