// Packed matrix products at the shape of one SmolLM2 layer stack: every kind, 1 to 512 rows. Reports the
// bytes of weights per second ("GB/s") and multiply-adds as operations per second ("Gop/s"), to be read
// against the machine's roofs (bench/roofs.cc). Weights are more than the caches hold, so one row is bound by
// memory.
#include <benchmark/benchmark.h>

#include <random>

#include "kernels/isa.h"
#include "kernels/matmul.h"
#include "tensor/quantize.h"

namespace dspark {
namespace {

constexpr DType kTypes[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ8_0, DType::kQ4_K,
                            DType::kQ5_K, DType::kQ6_K, DType::kBF16, DType::kF32};
constexpr int64_t kIn = 1024, kOut = 1024;
constexpr int kMatrices = 96;  // 57 MB at 4.5 bits

// Arguments: index of the type, rows, threads.
void bench_matmul(benchmark::State& state) {
  const DType type = kTypes[state.range(0)];
  const int64_t n_rows = state.range(1);
  ThreadPool pool(static_cast<int>(state.range(2)));
  std::mt19937 rng(1);
  std::normal_distribution<float> normal(0.0f, 0.1f);
  std::vector<float> row(kIn);
  std::vector<uint8_t> bytes(dtype_row_bytes(type, kIn) * kOut);
  for (float& v : row) v = normal(rng);
  for (int64_t o = 0; o < kOut; ++o) {
    encode_row(type, row.data(), bytes.data() + static_cast<size_t>(o) * dtype_row_bytes(type, kIn), kIn);
  }
  const TensorView view{"w", type, {kOut, kIn}, bytes.data(), bytes.size()};
  Arena arena;
  std::vector<PackedMatrix> weights;
  size_t packed_bytes = 0;
  for (int i = 0; i < kMatrices; ++i) {
    weights.push_back(pack_matrix(pool, view, false, {}, &arena).value());
    packed_bytes += weights.back().data.size();
  }
  std::vector<float> x(static_cast<size_t>(n_rows * kIn)), y(static_cast<size_t>(n_rows * kOut));
  for (float& v : x) v = normal(rng);
  Activations acts;
  for (auto _ : state) {
    for (const PackedMatrix& w : weights) {
      acts.assign(pool, x.data(), n_rows, kIn, kIn, uses_int8_activations(w.kind));
      const MatmulJob job{&w, y.data(), kOut, nullptr};
      matmul(pool, {&job, 1}, acts);
    }
  }
  const double passes = static_cast<double>(state.iterations());
  const double ops = 2.0 * kIn * kOut * kMatrices * static_cast<double>(n_rows);
  state.counters["GB/s"] =
      benchmark::Counter(passes * static_cast<double>(packed_bytes) * 1e-9, benchmark::Counter::kIsRate);
  state.counters["Gop/s"] = benchmark::Counter(passes * ops * 1e-9, benchmark::Counter::kIsRate);
  state.SetLabel(std::string(dtype_name(type)) + " " + isa_name(active_isa()));
}

BENCHMARK(bench_matmul)
    ->ArgsProduct({benchmark::CreateDenseRange(0, std::size(kTypes) - 1, 1), {1, 4, 8, 64, 512}, {1, 2}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// Arguments: index of the type, rows, inputs, outputs: one matrix that stays in the caches, as a drafter's
// do.
void bench_cached_matmul(benchmark::State& state) {
  const DType type = kTypes[state.range(0)];
  const int64_t n_rows = state.range(1), n_in = state.range(2), n_out = state.range(3);
  ThreadPool pool(1);
  std::mt19937 rng(1);
  std::normal_distribution<float> normal(0.0f, 0.1f);
  std::vector<float> row(static_cast<size_t>(n_in));
  std::vector<uint8_t> bytes(dtype_row_bytes(type, n_in) * static_cast<size_t>(n_out));
  for (float& v : row) v = normal(rng);
  for (int64_t o = 0; o < n_out; ++o) {
    encode_row(type, row.data(), bytes.data() + static_cast<size_t>(o) * dtype_row_bytes(type, n_in), n_in);
  }
  Arena arena;
  const PackedMatrix w =
      pack_matrix(pool, {"w", type, {n_out, n_in}, bytes.data(), bytes.size()}, false, {}, &arena).value();
  std::vector<float> x(static_cast<size_t>(n_rows * n_in)), y(static_cast<size_t>(n_rows * n_out));
  for (float& v : x) v = normal(rng);
  Activations acts;
  for (auto _ : state) {
    acts.assign(pool, x.data(), n_rows, n_in, n_in, uses_int8_activations(w.kind));
    const MatmulJob job{&w, y.data(), n_out, nullptr};
    matmul(pool, {&job, 1}, acts);
  }
  const double ops = 2.0 * static_cast<double>(n_in * n_out * n_rows);
  state.counters["Gop/s"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * ops * 1e-9, benchmark::Counter::kIsRate);
  state.SetLabel(std::string(dtype_name(type)) + " " + isa_name(active_isa()));
}

BENCHMARK(bench_cached_matmul)
    ->Args({3, 64, 2880, 576})  // Q8_0: fc over five taps of SmolLM2
    ->Args({3, 8, 2880, 576})
    ->Args({3, 64, 576, 1536})
    ->Args({1, 64, 576, 1536})  // Q4_1: an MLP matrix of the target
    ->Args({1, 64, 2880, 576})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

// Arguments: columns.
void bench_quantize_activations(benchmark::State& state) {
  ThreadPool pool(1);
  const int64_t n = state.range(0);
  std::vector<float> x(static_cast<size_t>(n));
  std::mt19937 rng(2);
  for (float& v : x) v = static_cast<float>(rng() % 1000) * 0.01f;
  Activations acts;
  for (auto _ : state) acts.assign(pool, x.data(), 1, n, n, true);
  state.SetItemsProcessed(state.iterations() * n);
}
BENCHMARK(bench_quantize_activations)->Arg(576)->Arg(1536)->Arg(4864);

}  // namespace
}  // namespace dspark
