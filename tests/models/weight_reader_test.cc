// Quantised matrices of Hugging Face checkpoints, and what TensorFinder says about broken ones.

#include "models/weight_reader.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "models/tiny_model.h"

namespace dspark {
namespace {

/// A safetensors file of raw bytes.
class RawFile {
 public:
  void add(const std::string& name, const char* dtype, std::vector<int64_t> shape, const std::string& bytes) {
    header_[name] = {
        {"dtype", dtype}, {"shape", shape}, {"data_offsets", {data_.size(), data_.size() + bytes.size()}}};
    data_ += bytes;
  }
  Checkpoint open(const test::TemporaryFolder& folder) const {
    std::string text = header_.dump();
    while (text.size() % 8 != 0) text += ' ';
    const uint64_t size = text.size();
    std::string file(reinterpret_cast<const char*>(&size), sizeof size);
    const auto path = folder.path() / "model.safetensors";
    std::ofstream(path, std::ios::binary) << file + text + data_;
    Result<Checkpoint> checkpoint = Checkpoint::open(path.string());
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().to_string();
    return *std::move(checkpoint);
  }

 private:
  nlohmann::json header_ = nlohmann::json::object();
  std::string data_;
};

std::string floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

// E4M3 without NaN, by its definition.
float e4m3(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                        : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return bits & 128 ? -magnitude : magnitude;
}

float e2m1(int nibble) {
  constexpr float kValues[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  return nibble & 8 ? -kValues[nibble & 7] : kValues[nibble & 7];
}

// Row i of a packed matrix by products with unit vectors.
std::vector<float> unpack(ThreadPool& pool, const PackedMatrix& w) {
  std::vector<float> unit(static_cast<size_t>(w.n_in * w.n_in), 0.0f);
  for (int64_t i = 0; i < w.n_in; ++i) unit[static_cast<size_t>(i * w.n_in + i)] = 1.0f;
  Activations activations;
  activations.assign(pool, unit.data(), w.n_in, w.n_in, w.n_in, uses_int8_activations(w.kind));
  std::vector<float> columns(static_cast<size_t>(w.n_in * w.n_out));
  const MatmulJob job{&w, columns.data(), w.n_out, nullptr};
  matmul(pool, {&job, 1}, activations);
  std::vector<float> rows(columns.size());
  for (int64_t o = 0; o < w.n_out; ++o) {
    for (int64_t i = 0; i < w.n_in; ++i) {
      rows[static_cast<size_t>(o * w.n_in + i)] = columns[static_cast<size_t>(i * w.n_out + o)];
    }
  }
  return rows;
}

struct Fp8 {
  int64_t n_out = 130, n_in = 200;  // neither is a multiple of the block
  std::string bytes;
  std::vector<float> scales;  // (2, 2)
  std::vector<float> values() const {
    std::vector<float> out(static_cast<size_t>(n_out * n_in));
    for (int64_t i = 0; i < n_out * n_in; ++i) {
      const int64_t block = i / n_in / 128 * 2 + i % n_in / 128;
      out[static_cast<size_t>(i)] =
          e4m3(static_cast<uint8_t>(bytes[static_cast<size_t>(i)])) * scales[static_cast<size_t>(block)];
    }
    return out;
  }
};

Fp8 random_fp8(std::vector<float> scales) {
  Fp8 m;
  m.scales = std::move(scales);
  std::mt19937 random(3);
  for (int64_t i = 0; i < m.n_out * m.n_in; ++i) {
    char byte = 0;
    do {
      byte = static_cast<char>(random());
    } while ((byte & 127) == 127);
    m.bytes += byte;
  }
  return m;
}

TEST(WeightReader, Fp8WithFloatScales) {
  const Fp8 m = random_fp8({0.3f, 0.017f, 1.1f, 0.0021f});
  RawFile file;
  file.add("a.weight", "F8_E4M3", {m.n_out, m.n_in}, m.bytes);
  file.add("a.weight_scale_inv", "F32", {2, 2}, floats(m.scales));
  test::TemporaryFolder folder;
  const Checkpoint checkpoint = file.open(folder);
  TensorFinder finder(checkpoint);
  finder.expect("a.weight", {m.n_out, m.n_in});
  ASSERT_TRUE(finder.finish("x", [](std::string_view) { return false; }).ok());
  ThreadPool pool(1);
  WeightReader reader(checkpoint, pool, false);
  EXPECT_EQ(reader.floats("a.weight"), m.values());
  Result<PackedMatrix> packed = reader.matrix("a.weight");
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ(packed->source, DType::kF32);
  EXPECT_EQ(unpack(pool, *packed), m.values());
}

TEST(WeightReader, Fp8WithPowersOfTwoBecomesBf16Exactly) {
  const Fp8 m = random_fp8({1.0f, 0.125f, 0.0078125f, 4.0f});
  RawFile file;
  file.add("a.weight", "F8_E4M3", {m.n_out, m.n_in}, m.bytes);
  file.add("a.scale", "F8_E8M0", {2, 2}, std::string("\x7f\x7c\x78\x81", 4));
  test::TemporaryFolder folder;
  const Checkpoint checkpoint = file.open(folder);
  ThreadPool pool(1);
  WeightReader reader(checkpoint, pool, false);
  Result<PackedMatrix> packed = reader.matrix_rows("a.weight", 100, 30);
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ(packed->source, DType::kBF16);
  const std::vector<float> all = m.values();
  EXPECT_EQ(unpack(pool, *packed), std::vector<float>(all.begin() + 100 * 200, all.end()));
}

TEST(WeightReader, Fp4BecomesMxfp4) {
  std::mt19937 random(4);
  std::string bytes, scales;
  for (int i = 0; i < 3 * 32; ++i) bytes += static_cast<char>(random());
  for (int i = 0; i < 3 * 2; ++i) scales += static_cast<char>(120 + random() % 12);
  std::vector<float> want;
  for (int i = 0; i < 3 * 64; ++i) {
    const int nibble = static_cast<uint8_t>(bytes[static_cast<size_t>(i / 2)]) >> (i % 2 * 4) & 15;
    const int exponent = static_cast<uint8_t>(scales[static_cast<size_t>(i / 32)]) - 127;
    want.push_back(std::ldexp(e2m1(nibble), exponent));
  }
  RawFile file;
  file.add("a.weight", "I8", {3, 32}, bytes);
  file.add("a.scale", "F8_E8M0", {3, 2}, scales);
  test::TemporaryFolder folder;
  const Checkpoint checkpoint = file.open(folder);
  TensorFinder finder(checkpoint);
  finder.expect("a.weight", {3, 64});
  ASSERT_TRUE(finder.finish("x", [](std::string_view) { return false; }).ok());
  ThreadPool pool(1);
  WeightReader exact(checkpoint, pool, true);
  EXPECT_EQ(exact.floats("a.weight"), want);
  Result<PackedMatrix> decoded = exact.matrix("a.weight");
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(unpack(pool, *decoded), want);
  Result<PackedMatrix> packed = WeightReader(checkpoint, pool, false).matrix_rows("a.weight", 1, 2);
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ(packed->kind, PackKind::kMXFP4);
  const std::vector<float> got = unpack(pool, *packed);
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[64 + i], 1e-5f * std::fabs(want[64 + i]));
}

TEST(TensorFinder, SaysWhatIsWrongWithQuantisedTensors) {
  RawFile file;
  file.add("no_scale.weight", "F8_E4M3", {2, 3}, "abcdef");
  file.add("bad_scale.weight", "F8_E4M3", {2, 3}, "abcdef");
  file.add("bad_scale.scale", "F8_E8M0", {1, 2}, "xx");
  file.add("bad_type.weight", "F8_E4M3", {2, 3}, "abcdef");
  file.add("bad_type.scale", "U8", {1, 1}, "x");
  test::TemporaryFolder folder;
  const Checkpoint checkpoint = file.open(folder);
  const auto message = [&](const std::string& name) {
    TensorFinder finder(checkpoint);
    finder.expect(name, {2, 3});
    return finder.finish("x", [](std::string_view) { return true; }).message();
  };
  EXPECT_NE(message("no_scale.weight").find("the block scales of no_scale.weight"), std::string::npos);
  EXPECT_NE(message("bad_scale.weight").find("bad_scale.scale is [1, 2], expected [1, 1]"),
            std::string::npos);
  EXPECT_NE(message("bad_type.weight").find("bad_type.scale (U8)"), std::string::npos);
}

}  // namespace
}  // namespace dspark
